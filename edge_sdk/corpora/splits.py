"""Splits by patient: ``split.csv``, patient-grouped stratified folds, and the check that no patient leaks."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_sdk.corpora.corpus_files import csv_rows, without_audio_suffix
from edge_sdk.corpora.table import Corpus, Fault
from edge_sdk.errors import CorpusError

SPLIT_FILE = "split.csv"

_log = logging.getLogger(__name__)


def apply_split_file(corpus: Corpus) -> Corpus:
    """Split a corpus by the ``split.csv`` (file, split and perhaps patient) at its root, if there is one.

    A recording that the file does not list keeps the publisher's split, unless the file uses that name itself: then
    it belongs to no split.

    Raises
    ------
    CorpusError
        The file has no such columns, an empty split, or names a file twice with different splits.
    """
    path = corpus.root / SPLIT_FILE
    if not path.is_file():
        return corpus
    listed = _read_split_file(path)
    names = {split for split, _ in listed.values()}
    folded = {name.rsplit("/", 1)[-1]: name for name in listed}  # the file may be named with its folder
    unknown = set(listed)
    of_recording: dict[str, tuple[str | None, str]] = {}
    for recording in corpus.recordings:
        own = None if recording.split in names else recording.split
        base = recording.id.rsplit("/", 1)[-1]
        key = next((name for name in (recording.id, base, folded.get(base, "")) if name in listed), None)
        split, patient = listed[key] if key is not None else (own, "")
        of_recording[recording.id] = (split, patient or recording.patient)
        unknown.discard(key or "")
    faults = list(corpus.faults)
    if unknown:
        shown = ", ".join(sorted(unknown)[:3]) + (", ..." if len(unknown) > 3 else "")
        faults.append(Fault(f"{SPLIT_FILE} names {len(unknown)} recordings that are not in the folder: {shown}"))
    return replace(
        corpus,
        recordings=tuple(
            replace(r, split=of_recording[r.id][0], patient=of_recording[r.id][1]) for r in corpus.recordings
        ),
        cycles=tuple(
            replace(c, split=of_recording[c.recording_id][0], patient=of_recording[c.recording_id][1])
            for c in corpus.cycles
        ),
        faults=tuple(faults),
        groups={name: parts for name, parts in corpus.groups.items() if name not in names},
        split_rules=tuple(rule for rule in corpus.split_rules if not names & set(rule.splits)),
    )


def _read_split_file(path: Path) -> dict[str, tuple[str, str]]:
    """Recording → split and patient."""
    listed: dict[str, tuple[str, str]] = {}
    for line, row in csv_rows(path, ("file", "split")):
        name, split = without_audio_suffix(row["file"]), row["split"]
        if not name or not split:
            raise CorpusError(f"{path} line {line}: file and split must not be empty")
        if split == "all":
            raise CorpusError(f"{path} line {line}: 'all' is reserved; name the split otherwise")
        entry = (split, row.get("patient", ""))
        if listed.setdefault(name, entry) != entry:
            raise CorpusError(f"{path} line {line}: {name} is listed twice with different splits or patients")
    return listed


def shared_patients(patients_of: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Patients that two splits share, for each pair of splits that shares any."""
    sets = {split: set(patients) for split, patients in patients_of.items()}
    pairs = ((pair, tuple(sorted(sets[pair[0]] & sets[pair[1]]))) for pair in combinations(sorted(sets), 2))
    return {pair: common for pair, common in pairs if common}


def check_disjoint(patients_of: Mapping[str, Sequence[str]]) -> None:
    """Make sure that no patient is on two sides.

    Raises
    ------
    CorpusError
        Some are; the message names them.
    """
    for (one, other), common in shared_patients(patients_of).items():
        raise CorpusError(f"{len(common)} patients are in both {one} and {other}: {', '.join(common[:5])}")


def grouped_folds(
    labels: Sequence[Hashable], patients: Sequence[str], folds: int = 5, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Fold ``0 … folds − 1`` of each item: patients stay whole and the labels are spread evenly.

    Greedy: each patient, those with the most uneven labels first, goes to the fold in which the label counts stay most
    even. A pure function of its arguments; the order of items does not matter.

    Parameters
    ----------
    labels, patients
        ``[n]`` class and patient of each item.
    folds
        Number of folds.
    seed
        Breaks ties between patients with equal counts.

    Raises
    ------
    ValueError
        Lengths differ, or there are fewer patients than folds.
    """
    if len(labels) != len(patients):
        raise ValueError(f"{len(labels)} labels and {len(patients)} patients: one of each per item")
    names = sorted(set(patients))
    if folds < 2 or len(names) < folds:
        raise ValueError(f"{len(names)} patients cannot make {folds} folds")
    classes = sorted(set(labels), key=str)
    row_of = {name: row for row, name in enumerate(names)}
    counts = np.zeros((len(names), len(classes)))
    for (patient, label), count in Counter(zip(patients, labels, strict=True)).items():
        counts[row_of[patient], classes.index(label)] = count
    share = counts / counts.sum(0)  # of each class, so that a rare class weighs as much as a common one
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-share[order].max(1), kind="stable")]
    fold_of = np.zeros(len(names), dtype=np.int64)
    filled = np.zeros((folds, len(classes)))
    sizes = np.zeros(folds)
    for row in order:
        after = filled + share[row]  # [folds, classes] of the fold that would take the patient
        others = (filled**2).sum(1)
        cost = (after**2).sum(1) - others  # growth of the sum of squares: smallest in the emptiest fold
        best = np.lexsort((sizes, np.round(cost, 12)))[0]
        fold_of[row] = best
        filled[best] += share[row]
        sizes[best] += 1
    by_patient = dict(zip(names, fold_of.tolist(), strict=True))
    return np.array([by_patient[patient] for patient in patients], dtype=np.int64)


def patients_by_split(corpus: Corpus) -> dict[str, tuple[str, ...]]:
    """Patients of each split."""
    found: dict[str, set[str]] = defaultdict(set)
    for recording in corpus.recordings:
        if recording.split is not None:
            found[recording.split].add(recording.patient)
    return {split: tuple(sorted(patients)) for split, patients in sorted(found.items())}
