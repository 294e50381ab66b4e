"""Rules that divide a corpus beside the publisher's split: validation patients, leave one device out, folds, a leak.

A rule maps each recording of a corpus to a split. A loader lists its rules in ``Corpus.split_rules``; ``Corpus.split``
takes the names. All are pure functions of the corpus: the same folder gives the same splits.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from edge_sdk.corpora.splits import check_disjoint, grouped_folds
from edge_sdk.corpora.table import Corpus, Recording, SplitRule
from edge_sdk.errors import CorpusError

_log = logging.getLogger(__name__)


def validation_inside_train(folds: int = 5) -> SplitRule:
    """``val``: one of ``folds`` patient-grouped parts of ``train``, balanced by class and device; ``fit``: the rest.

    Patients that the publisher has on both sides are never in ``val``: an epoch chosen on them would be chosen on test
    patients.
    """
    return SplitRule(("fit", "val"), partial(_validation, folds=folds))


def without_overlap() -> SplitRule:
    """``train_leakfree`` and ``test_leakfree``: the official sides without the patients that are on both."""
    return SplitRule(("train_leakfree", "test_leakfree"), _leak_free)


def leave_one_device_out(code: str, device: str) -> SplitRule:
    """``lodo:<code>:test``: all of one device; ``lodo:<code>:train``: the others, without patients of the test."""
    train, test = f"lodo:{code}:train", f"lodo:{code}:test"
    return SplitRule((train, test), partial(_one_device_out, device=device, train=train, test=test))


def leave_one_fold_out(split: str) -> SplitRule:
    """``cv:<split>:test``: one of the publisher's folds; ``cv:<split>:train``: all the others."""
    train, test = f"cv:{split}:train", f"cv:{split}:test"
    return SplitRule((train, test), partial(_one_fold_out, split=split, train=train, test=test))


def leaky_demonstration() -> SplitRule:
    """The shuffle of recordings behind some published figures, to demonstrate its leak.

    Sorted names, ``random.Random(1)``, the first 60 % train: patients are on both sides.
    """
    names = ("leaky_demo_train", "leaky_demo_test")
    leak = (
        "recordings are shuffled without regard to patients, so that most test patients were trained on; figures of "
        "this split demonstrate the leak and must not be compared with any other"
    )
    return SplitRule(names, partial(_shuffled, names=names), leak)


def training_sides(corpus: Corpus, train: str = "train", val: str = "val") -> Corpus:
    """The recordings of two splits, each with its ``split`` set to the name it was taken under.

    A recording of both is kept for validation only, since ``val`` lies inside the publisher's ``train``. A corpus
    without the validation split keeps the training side alone.

    Raises
    ------
    CorpusError
        There is no such training split, nothing is left to train on, or patients are on both sides (allowed with a
        warning for those that the publisher's own split shares and for the leaky demonstration).
    """
    learned = corpus.split(train)
    held_out = corpus.split(val) if val in corpus.splits else None
    side = {recording.id: train for recording in learned.recordings}
    side |= {recording.id: val for recording in held_out.recordings} if held_out is not None else {}
    taken = corpus.where(lambda recording: recording.id in side)
    divided = replace(
        taken,
        recordings=tuple(replace(r, split=side[r.id]) for r in taken.recordings),
        cycles=tuple(replace(c, split=side[c.recording_id]) for c in taken.cycles),
    )
    patients = {
        name: sorted({r.patient for r in divided.recordings if r.split == name}) for name in dict.fromkeys((train, val))
    }
    if not patients[train]:
        raise CorpusError(f"{corpus.name}: all of {train!r} is in {val!r} too, so nothing is left to train on")
    if train != val:
        _refuse_leak(corpus, train, patients)
    return divided


def _refuse_leak(corpus: Corpus, train: str, patients: Mapping[str, list[str]]) -> None:
    shared = set.intersection(*(set(names) for names in patients.values()))
    rule = corpus.split_rule(train)
    if shared and shared <= corpus.known_overlap:
        _log.warning(
            "%s: patients %s are on both sides of the official split; train_leakfree is without them",
            corpus.name,
            ", ".join(sorted(shared)),
        )
    elif rule is None or not rule.leak:
        check_disjoint(patients)


def _validation(corpus: Corpus, folds: int) -> dict[str, str]:
    train = {r.id: r for r in corpus.recordings if r.split == "train" and r.patient not in corpus.known_overlap}
    labels: list[tuple[str, str]] = []
    patients: list[str] = []
    for item in corpus.cycles or corpus.recordings:
        recording = train.get(item.id if isinstance(item, Recording) else item.recording_id)
        if recording is not None:
            labels.append((item.label or "", recording.device or ""))
            patients.append(recording.patient)
    folds = min(folds, len(set(patients)))
    if folds < 2:
        return {}
    fold = grouped_folds(labels, patients, folds)
    held_out = {patient for patient, number in zip(patients, fold, strict=True) if number == 0}
    return {r.id: "val" if r.patient in held_out else "fit" for r in corpus.recordings if r.split == "train"}


def _leak_free(corpus: Corpus) -> dict[str, str]:
    return {
        r.id: f"{r.split}_leakfree"
        for r in corpus.recordings
        if r.split in ("train", "test") and r.patient not in corpus.known_overlap
    }


def _one_device_out(corpus: Corpus, device: str, train: str, test: str) -> dict[str, str]:
    tested = {r.patient for r in corpus.recordings if r.device == device}
    sides = {r.id: test for r in corpus.recordings if r.device == device}
    return sides | {r.id: train for r in corpus.recordings if r.patient not in tested}


def _one_fold_out(corpus: Corpus, split: str, train: str, test: str) -> dict[str, str]:
    return {r.id: test if r.split == split else train for r in corpus.recordings if r.split is not None}


def _shuffled(corpus: Corpus, names: tuple[str, str]) -> dict[str, str]:
    ids = sorted(recording.id for recording in corpus.recordings)
    random.Random(1).shuffle(ids)
    first = int(0.6 * len(ids))
    return {name: names[position >= first] for position, name in enumerate(ids)}
