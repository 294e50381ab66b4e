"""Train on one corpus and test on another: no patient or recording on both sides, and the same labels."""

from __future__ import annotations

from collections import defaultdict

from edge_sdk.corpora.corpus_files import samples_digest
from edge_sdk.corpora.table import OTHER, Corpus, Recording
from edge_sdk.errors import CorpusError

_SAME_PATIENTS = {"hf_lung_clips": "hf_lung_v1", "hf_lung_labels": "hf_lung_v1"}
"""Corpora cut from another corpus, with the same patient names."""


def check_transfer(train: Corpus, test: Corpus, *, compare_audio: bool = True) -> None:
    """Make sure that figures on ``test`` are valid for a model trained on ``train``.

    Patients are compared only inside the corpora of one publisher, since each publisher has its own numbers; recordings
    are compared by file and, where two are equally long, by their samples.

    Parameters
    ----------
    train, test
        The sides as loaded (and relabelled), each one split of a corpus.
    compare_audio
        Compare samples of equally long recordings too; without it only files are compared.

    Raises
    ------
    CorpusError
        A patient or a recording is on both sides, or ``test`` has labels that ``train`` has not.
    """
    shared = patients_on_both_sides(train, test)
    if shared:
        raise CorpusError(
            f"{len(shared)} patients of {test.name} are in the training side {train.name} too: "
            f"{', '.join(shared[:5])}; take splits that keep patients apart"
        )
    same = recordings_on_both_sides(train, test, compare_audio=compare_audio)
    if same:
        one, other = same[0]
        raise CorpusError(
            f"{len(same)} recordings of {test.name} are in the training side {train.name} too: {one} is {other}"
        )
    unknown = sorted(set(test.labels) - set(train.labels) - {OTHER})
    if unknown:
        raise CorpusError(
            f"{test.name} has the labels {', '.join(unknown)}, unknown to training on {train.name} "
            f"({', '.join(train.labels)}); give both one scheme with corpora.labels.relabel, for example 'binary'"
        )


def patients_on_both_sides(train: Corpus, test: Corpus) -> tuple[str, ...]:
    """Patients on both sides; none between publishers."""
    if _SAME_PATIENTS.get(train.name, train.name) != _SAME_PATIENTS.get(test.name, test.name):
        return ()
    return tuple(sorted(set(train.patients) & set(test.patients)))


def recordings_on_both_sides(train: Corpus, test: Corpus, *, compare_audio: bool = True) -> list[tuple[str, str]]:
    """Pairs (of the test, of the training side) that are one file or have the same samples."""
    files = {recording.path.resolve(): recording.id for recording in train.recordings}
    same = [(r.id, files[r.path.resolve()]) for r in test.recordings if r.path.resolve() in files]
    if not compare_audio:
        return same
    found = {one for one, _ in same}
    equally_long: dict[tuple[int | None, float | None], list[Recording]] = defaultdict(list)
    for recording in train.recordings:
        if recording.duration_s:
            equally_long[recording.sample_rate, recording.duration_s].append(recording)
    digests: dict[tuple[int | None, float | None], dict[str, str]] = {}
    for recording in test.recordings:
        key = (recording.sample_rate, recording.duration_s)
        if recording.id in found or key not in equally_long:
            continue
        if key not in digests:
            digests[key] = {samples_digest(r.path): r.id for r in equally_long[key]}
        twin = digests[key].get(samples_digest(recording.path))
        if twin is not None:
            same.append((recording.id, twin))
    return same
