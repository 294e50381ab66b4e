"""Check of a corpus folder: its counts, the published counts, and every problem."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from edge_sdk.corpora.corpus_files import audio_header, samples_digest
from edge_sdk.corpora.counts import count, discrepancies, published, split_counts
from edge_sdk.corpora.loading import read_headers, usable
from edge_sdk.corpora.registry import Publication, entry_of
from edge_sdk.corpora.splits import SPLIT_FILE, apply_split_file, patients_by_split, shared_patients
from edge_sdk.corpora.table import Corpus, Cycle, Recording
from edge_sdk.errors import AudioError, CorpusError

SHORTEST_S = 1.0
"""Seconds; a shorter recording holds no respiratory cycle."""

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Content of a folder, the published counts, and the problems found."""

    corpus: str
    title: str
    root: Path
    counts: dict[str, Any]
    published: dict[str, Any]  # empty where the publisher states no counts
    licence: str  # of the audio and its annotations; empty where it is the user's own
    discrepancies: tuple[str, ...]  # counts that differ from the published ones
    problems: tuple[str, ...]  # faults of single files, annotations and splits

    @property
    def complete(self) -> bool:
        """Whether all published counts are met."""
        return not self.discrepancies

    def refuse_partial(self) -> None:
        """Raise an error for a copy that is not complete.

        Raises
        ------
        CorpusError
            Counts differ; the message has the first difference and the fix.
        """
        if self.discrepancies:
            more = f" (and {len(self.discrepancies) - 1} more differences)" if len(self.discrepancies) > 1 else ""
            raise CorpusError(
                f"{self.root} is not the whole of {self.title}: {self.discrepancies[0]}{more}; "
                "fetch the rest, or pass --partial to accept a partial copy"
            )

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of ``stetho data check``."""
        return {
            "corpus": self.corpus,
            "root": str(self.root),
            "complete": self.complete,
            "licence": self.licence,
            "counts": self.counts,
            "published": self.published,
            "discrepancies": list(self.discrepancies),
            "problems": list(self.problems),
        }


def check_corpus(name: str, root: Path | str, *, progress: Progress | None = None) -> CheckReport:
    """Count a corpus folder and look for faults in it; all audio is decoded, and compared with its own checksum.

    Raises
    ------
    CorpusError
        Unknown corpus, no such folder, or nothing of the corpus in it.
    """
    entry = entry_of(name)
    published_split = read_headers(entry.load(Path(root)), entry.overrun_s)
    used = apply_split_file(published_split)
    resplit = used is not published_split
    corpus = replace(published_split, faults=used.faults)  # the splits as published, for the counts
    problems = [
        *corpus.problems,
        *_audio_problems(corpus, entry.published),
        *_duplicate_audio(corpus.recordings, progress),
        *_event_problems(corpus),
        *_label_problems(corpus),
        *_patient_problems(corpus),
        *(_split_problems(used, SPLIT_FILE) if resplit else ()),
        *_split_problems(published_split, "the publisher's split"),
    ]
    readable = usable(corpus)  # an annotation without its audio is no recording
    counts = count(readable)
    if resplit:
        counts["splits_csv"] = split_counts(usable(used))
    return CheckReport(
        entry.name,
        entry.title,
        Path(root),
        counts,
        published(entry.published),
        entry.licence,
        tuple(discrepancies(entry.published, readable)),
        tuple(problems),
    )


def _audio_problems(corpus: Corpus, publication: Publication | None) -> Iterator[str]:
    stated = publication.rate_hz if publication is not None else 0
    for recording in corpus.recordings:
        if recording.sample_rate is None or recording.duration_s is None:
            continue
        if stated and recording.sample_rate != stated:
            yield f"{recording.id}: {recording.sample_rate} Hz instead of {stated} Hz"
        if recording.duration_s < SHORTEST_S:
            yield f"{recording.id}: lasts {recording.duration_s:.3g} s, too short for a breath"
        channels = audio_header(recording.path)[2]
        if channels != 1:
            yield f"{recording.id}: {channels} channels; the first is used"


def _duplicate_audio(recordings: tuple[Recording, ...], progress: Progress | None) -> Iterator[str]:
    same: dict[str, list[str]] = defaultdict(list)
    for done, recording in enumerate(recordings, 1):
        if recording.sample_rate is not None:
            try:
                same[samples_digest(recording.path, decode=True)].append(recording.id)
            except (AudioError, RuntimeError, OSError) as error:  # soundfile's errors are RuntimeErrors
                yield f"{recording.id}: the audio cannot be decoded ({error})"
        if progress is not None:
            progress("comparing audio", done, len(recordings))
    for ids in same.values():
        if len(ids) > 1:
            yield f"the same audio occurs {len(ids)} times: {', '.join(sorted(ids))}"


def _event_problems(corpus: Corpus) -> Iterator[str]:
    by_recording: dict[str, list[Cycle]] = defaultdict(list)
    for cycle in corpus.cycles:
        by_recording[cycle.recording_id].append(cycle)
    for recording, cycles in by_recording.items():
        ordered = sorted(cycles, key=lambda cycle: (cycle.start_s, cycle.end_s))
        for before, after in pairwise(ordered):
            if (before.start_s, before.end_s) == (after.start_s, after.end_s):
                yield f"{recording}: event {after.index} repeats event {before.index} at {after.start_s:g} s"
            elif after.start_s < before.end_s:
                overlap = min(before.end_s, after.end_s) - after.start_s
                yield f"{recording}: events {before.index} and {after.index} overlap by {overlap:.3g} s"


def _label_problems(corpus: Corpus) -> Iterator[str]:
    """Recordings whose own label contradicts their events."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for cycle in corpus.cycles:
        kinds[cycle.recording_id].add(cycle.label)
    for recording in corpus.recordings:
        labels = kinds.get(recording.id, set())
        if not corpus.cycles or recording.raw_label is None:
            continue
        if recording.quality_poor and labels:
            yield f"{recording.id}: called {recording.raw_label}, yet has events"
        elif not recording.quality_poor and not labels:
            yield f"{recording.id}: called {recording.raw_label}, yet has no events"
        elif recording.label is not None and _summary(labels) != recording.label:
            yield f"{recording.id}: called {recording.raw_label}, yet its events are {', '.join(sorted(labels))}"


def _summary(labels: set[str]) -> str:
    crackle, wheeze = bool(labels & {"crackle", "both"}), bool(labels & {"wheeze", "both"})
    return "both" if crackle and wheeze else "crackle" if crackle else "wheeze" if wheeze else "normal"


def _patient_problems(corpus: Corpus) -> Iterator[str]:
    sexes: dict[str, set[str]] = defaultdict(set)
    for recording in corpus.recordings:
        if recording.sex is not None:
            sexes[recording.patient].add(recording.sex)
    for patient, both in sorted(sexes.items()):
        if len(both) > 1:
            yield f"patient {patient} is both {' and '.join(sorted(both))}"


def _split_problems(corpus: Corpus, what: str) -> Iterator[str]:
    for (one, other), common in shared_patients(patients_by_split(corpus)).items():
        shown = ", ".join(common[:3]) + (", ..." if len(common) > 3 else "")
        design = " (by design: the intra-patient test)" if {one, other} == {"train", "intra_test"} else ""
        if corpus.known_overlap and set(common) <= corpus.known_overlap:
            design = " (known; train_leakfree is without them)"
        yield f"{what}: {len(common)} patients are in both {one} and {other}{design}: {shown}"
