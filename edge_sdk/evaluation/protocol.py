"""The development protocol: patient-grouped folds over several corpora, leave-one-device-out, figures over seeds.

Settings are chosen on pooled out-of-fold predictions, as means over at least three seeds; never on one look at one
split. The fold of a patient is a function of the corpus, the number of folds and the seed alone, so that a segmenter
and a classifier that are cross-validated apart hold out the same patients.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.corpora import Corpus, load_corpus
from edge_sdk.corpora.splits import check_disjoint
from edge_sdk.errors import CorpusError
from edge_sdk.evaluation.predict import Predictions

FOLDS = 5
SEEDS = (0, 1, 2)

DEVELOPMENT_SPLITS: Mapping[str, tuple[str, ...]] = {
    "sprsound": ("train", "val"),
    "icbhi": ("train", "val"),
    "kauh": (),  # not split by its publisher; a patient has up to three recordings, one per filter
    "hf_lung_labels": ("train", "val"),  # the date of a recording stands for its patient
    "hf_lung_clips": ("train", "val"),
}
"""Corpus → the splits whose patients are for development; none named: all of its patients."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Recordings that are held out together, and those that may train what is scored on them."""

    name: str  # number of a patient fold, or the device
    held_out: Mapping[str, Corpus]  # by corpus; a corpus without a held-out recording is absent
    train: Mapping[str, Corpus]  # by corpus; no patient of ``held_out``

    def __post_init__(self) -> None:
        for name in self.held_out.keys() & self.train.keys():
            check_disjoint({"held out": self.held_out[name].patients, "train": self.train[name].patients})


def development_corpus(name: str, root: str | Path, *, partial: bool = False) -> Corpus:
    """The patients of a corpus that are for development, all their splits together.

    Parameters
    ----------
    name, root, partial
        As :func:`edge_sdk.corpora.load_corpus`.

    Raises
    ------
    CorpusError
        Not a usable corpus, or the protocol names no splits of it.
    """
    if name not in DEVELOPMENT_SPLITS:
        raise CorpusError(f"the development protocol is for {', '.join(DEVELOPMENT_SPLITS)}, not for {name!r}")
    corpus = load_corpus(name, Path(root), split="all", partial=partial)
    splits = DEVELOPMENT_SPLITS[name]
    kept = corpus.where(lambda recording: not splits or recording.split in splits)
    if not kept.recordings:
        raise CorpusError(f"{name} at {root} has no split {' or '.join(splits)}; it has {', '.join(corpus.splits)}")
    return kept


# -- patient folds -----------------------------------------------------------------------------------------------------


def fold_of_patient(corpus: Corpus, folds: int = FOLDS, seed: int = 0) -> dict[str, int]:
    """Patient → fold ``0 … folds − 1``.

    Patients of one kind (the same devices, with or without an abnormal item) are dealt to the folds in turn, in an
    order that depends on nothing but corpus, seed and patient. Give the whole development corpus.

    Raises
    ------
    CorpusError
        There are fewer patients than folds, or fewer than two folds.
    """
    if folds < 2 or len(corpus.patients) < folds:
        raise CorpusError(f"{corpus.name}: {len(corpus.patients)} patients cannot make {folds} folds")
    devices: dict[str, set[str]] = defaultdict(set)
    for recording in corpus.recordings:
        devices[recording.patient].add(recording.device or "")
    abnormal = {cycle.patient for cycle in corpus.cycles if cycle.label != "normal"}
    abnormal |= {recording.patient for recording in corpus.recordings if recording.abnormal}

    def place(patient: str) -> tuple[tuple[str, ...], bool, str]:
        digest = hashlib.sha256(f"{seed}/{corpus.name}/{patient}".encode()).hexdigest()
        return tuple(sorted(devices[patient])), patient in abnormal, digest

    return {patient: number % folds for number, patient in enumerate(sorted(corpus.patients, key=place))}


def patient_folds(corpora: Iterable[Corpus], folds: int = FOLDS, seed: int = 0) -> list[Fold]:
    """Fold ``k`` holds out the ``k``-th part of the patients of every corpus.

    Parameters
    ----------
    corpora
        From :func:`development_corpus`, each name once.
    folds, seed
        As :func:`fold_of_patient`.

    Raises
    ------
    CorpusError
        A corpus has fewer patients than folds, or is given twice.
    """
    named = _by_name(corpora)
    fold_of = {name: fold_of_patient(corpus, folds, seed) for name, corpus in named.items()}
    result = []
    for number in range(folds):
        held_out = {n: _of_patients(c, {p for p, k in fold_of[n].items() if k == number}) for n, c in named.items()}
        train = {n: _of_patients(c, {p for p, k in fold_of[n].items() if k != number}) for n, c in named.items()}
        result.append(Fold(str(number), held_out, train))
    return result


def device_folds(corpora: Iterable[Corpus]) -> list[Fold]:
    """Leave one device out: its recordings in every corpus are held out, with all other recordings of those patients.

    Recordings of unknown device are never held out. Folds are in the order of the devices' names.

    Raises
    ------
    CorpusError
        There are fewer than two devices, or a corpus is given twice.
    """
    named = _by_name(corpora)
    devices = sorted({r.device for corpus in named.values() for r in corpus.recordings if r.device})
    if len(devices) < 2:
        raise CorpusError(f"leave-one-device-out needs at least two devices; there is {', '.join(devices) or 'none'}")
    result = []
    for device in devices:
        held_out: dict[str, Corpus] = {}
        train: dict[str, Corpus] = {}
        for name, corpus in named.items():
            out = _of_device(corpus, device)
            patients = set(out.patients)
            rest = _of_patients(corpus, set(corpus.patients) - patients)
            held_out |= {name: out} if out.recordings else {}
            train |= {name: rest} if rest.recordings else {}
        result.append(Fold(device, held_out, train))
    return result


def _by_name(corpora: Iterable[Corpus]) -> dict[str, Corpus]:
    named: dict[str, Corpus] = {}
    for corpus in corpora:
        if named.setdefault(corpus.name, corpus) is not corpus:
            raise CorpusError(f"{corpus.name} is given twice; give each corpus once, with all its development splits")
    return named


def _of_device(corpus: Corpus, device: str) -> Corpus:
    return corpus.where(lambda recording: recording.device == device)


def _of_patients(corpus: Corpus, patients: set[str]) -> Corpus:
    return corpus.where(lambda recording: recording.patient in patients)


# -- pooled predictions ------------------------------------------------------------------------------------------------


def out_of_fold(
    folds: Sequence[Fold], corpus: str, predictions_of: Callable[[int, Corpus], Predictions]
) -> Predictions:
    """Predictions of every held-out item of one corpus, pooled over the folds.

    Parameters
    ----------
    folds
        From :func:`patient_folds` or :func:`device_folds`.
    corpus
        Name of the corpus.
    predictions_of
        Called with the position of the fold and its held-out part: :func:`edge_sdk.evaluation.predict.predict` with
        the model that was trained on the fold's other patients.

    Raises
    ------
    CorpusError
        No fold holds anything of the corpus out, labels differ between folds, or an item is held out twice.
    """
    parts = [predictions_of(k, fold.held_out[corpus]) for k, fold in enumerate(folds) if corpus in fold.held_out]
    if not parts:
        raise CorpusError(f"no fold holds out recordings of {corpus}")
    return pooled(parts)


def pooled(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of disjoint parts as those of one whole.

    Raises
    ------
    CorpusError
        Labels or units differ, or an item is in two parts.
    """
    if len({(part.unit, part.labels) for part in parts}) != 1:
        raise CorpusError("predictions of different labels or units cannot be pooled; score the models one by one")
    items = tuple(item for part in parts for item in part.items)
    keys = [(item["recording"], item.get("start_s")) for item in items]
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise CorpusError(f"recording {twice[0]} is held out in more than one fold; its predictions cannot be pooled")
    return Predictions(
        parts[0].unit,
        parts[0].labels,
        items,
        tuple(patient for part in parts for patient in part.patients),
        tuple(label for part in parts for label in part.truth),
        tuple(row for part in parts for row in part.metadata),
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.decisions for part in parts]),
        np.concatenate([part.classified for part in parts]),
        sum(part.unlabelled for part in parts),
    )


def over_seeds(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of every figure over the seeds.

    Parameters
    ----------
    reports
        One mapping of figures per seed, nested ones included; only numbers that all of them have are summarised, and
        intervals (``…_ci``) are not.

    Returns
    -------
    dict
        Of the same nesting: ``{"mean", "sd", "n"}`` for each number; ``sd`` (n − 1) is ``None`` for a single seed. A
        figure that is undefined for a seed has its mean over the others, and ``n`` says how many those are.

    Raises
    ------
    ValueError
        There is no report.
    """
    if not reports:
        raise ValueError("no report to summarise")
    summary: dict[str, Any] = {}
    for name in reports[0]:
        values = [report.get(name) for report in reports]
        if all(isinstance(value, Mapping) for value in values):
            summary[name] = over_seeds([value for value in values if isinstance(value, Mapping)])
        elif all(value is None or _is_number(value) for value in values) and any(map(_is_number, values)):
            summary[name] = _mean_sd([float(value) for value in values if _is_number(value)])  # type: ignore[arg-type]
    return summary


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mean_sd(values: Sequence[float]) -> dict[str, float | int | None]:
    defined = [value for value in values if math.isfinite(value)]
    return {
        "mean": float(np.mean(defined)) if defined else None,
        "sd": float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
        "n": len(defined),
    }
