"""Names of corpora → loaders; the one way in: load, split, measure, refuse what is broken."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from edge_sdk.corpora._files import audio_header
from edge_sdk.corpora.splits import apply_split_file
from edge_sdk.corpora.table import Corpus, Cycle, Fault, Recording
from edge_sdk.errors import AudioError, CorpusError

_log = logging.getLogger(__name__)

_OVERRUN_S = 0.001  # annotations are rounded to milliseconds


@dataclass(frozen=True, slots=True)
class Publication:
    """Counts that the publisher states; 0 where none is stated."""

    recordings: int = 0
    patients: int = 0
    events: int = 0
    splits: tuple[tuple[str, int, int], ...] = ()  # name, recordings, events
    rate_hz: int = 0


@dataclass(frozen=True, slots=True)
class CorpusEntry:
    """A row of the registry."""

    name: str
    title: str
    module: str  # with ``load(root) -> Corpus``
    published: Publication | None = None

    @property
    def load(self) -> Callable[[Path], Corpus]:
        loader: Callable[[Path], Corpus] = import_module(self.module).load
        return loader


REGISTRY: dict[str, CorpusEntry] = {
    entry.name: entry
    for entry in (
        CorpusEntry(
            "sprsound",
            "SPRSound 2022",
            "edge_sdk.corpora.sprsound",
            # The publisher states the total of events; 6656 and 1004 stand in train_json and intra_test_json, and
            # inter_test has the rest.
            Publication(
                2683,
                292,
                9089,
                (("train", 1949, 6656), ("intra_test", 379, 1004), ("inter_test", 355, 1429)),
                rate_hz=8000,
            ),
        ),
        CorpusEntry("kauh", "KAUH", "edge_sdk.corpora.kauh", Publication(336, 112, rate_hz=4000)),
        CorpusEntry("hls_cmds", "HLS-CMDS lung sounds", "edge_sdk.corpora.hls_cmds", Publication(50)),
        CorpusEntry("hf_lung_clips", "HF_Lung_V1 phase clips", "edge_sdk.corpora.hf_lung_clips"),
        CorpusEntry("csv", "generic CSV", "edge_sdk.corpora.generic_csv"),
    )
}
"""Every corpus by name."""


def entry_of(name: str) -> CorpusEntry:
    """The registry's row; names are taken in any case, with ``-`` for ``_``.

    Raises
    ------
    CorpusError
        No such corpus; the message lists those there are.
    """
    entry = REGISTRY.get(name.lower().replace("-", "_"))
    if entry is None:
        raise CorpusError(f"unknown corpus {name!r}; known are {', '.join(REGISTRY)}")
    return entry


def load_corpus(name: str, root: Path | str, *, split: str = "all", partial: bool = False) -> Corpus:
    """Load one split of a corpus, its audio headers read and its events inside the audio.

    Parameters
    ----------
    name
        A name of :data:`REGISTRY`.
    root
        The publisher's folder, or a part of it that holds the split; a ``split.csv`` there decides who is where.
    split
        A split's name, or ``all``.
    partial
        Leave out what cannot be used (the corpus lists it as faults) instead of refusing it.

    Raises
    ------
    CorpusError
        Unknown corpus or split, no such folder, or, unless ``partial``, anything in the split that cannot be used:
        missing audio, unreadable annotation, events outside their audio.
    """
    entry = entry_of(name)
    corpus = measure(apply_split_file(entry.load(Path(root))).split(split))
    fatal = [fault for fault in corpus.faults if fault.fatal]
    if fatal and not partial:
        more = f" (and {len(fatal) - 1} more)" if len(fatal) > 1 else ""
        raise CorpusError(
            f"{entry.title} at {root}: {fatal[0].message}{more}; fetch the files again, "
            f"see 'stetho data check {entry.name}', or pass --partial to go on without them"
        )
    if fatal:
        _log.warning("%s: %d faults passed over, the first: %s", entry.title, len(fatal), fatal[0].message)
    return usable(corpus)


def usable(corpus: Corpus) -> Corpus:
    """Without the recordings whose audio could not be opened, and their cycles."""
    ids = {recording.id for recording in corpus.recordings if recording.sample_rate is not None}
    return replace(
        corpus,
        recordings=tuple(r for r in corpus.recordings if r.id in ids),
        cycles=tuple(c for c in corpus.cycles if c.recording_id in ids),
    )


def measure(corpus: Corpus) -> Corpus:
    """Read every audio header; cut events at the end of their audio and note those that lie outside."""
    faults = list(corpus.faults)
    unusable = {fault.recording_id for fault in faults if fault.fatal}
    recordings = [_with_header(recording, unusable, faults) for recording in corpus.recordings]
    duration = {recording.id: recording.duration_s for recording in recordings}
    cycles = []
    for cycle in corpus.cycles:
        limit = duration[cycle.recording_id]
        kept = cycle if limit is None else _inside(cycle, limit, faults)
        if kept is not None:
            cycles.append(kept)
    return replace(corpus, recordings=tuple(recordings), cycles=tuple(cycles), faults=tuple(faults))


def _with_header(recording: Recording, unusable: set[str | None], faults: list[Fault]) -> Recording:
    try:
        rate, frames, _ = audio_header(recording.path)
    except AudioError as error:
        if recording.id not in unusable:
            faults.append(Fault(f"{recording.id}: {error}", recording.id, fatal=True))
        return recording
    if frames == 0:
        faults.append(Fault(f"{recording.id}: the audio file holds no samples", recording.id, fatal=True))
        return recording
    return replace(recording, sample_rate=rate, duration_s=frames / rate)


def _inside(cycle: Cycle, duration_s: float, faults: list[Fault]) -> Cycle | None:
    if cycle.end_s <= duration_s:
        return cycle
    if cycle.end_s > duration_s + _OVERRUN_S:
        message = (
            f"{cycle.recording_id}: event {cycle.index} ({cycle.start_s:g} to {cycle.end_s:g} s) "
            f"overruns the audio of {duration_s:g} s"
        )
        faults.append(Fault(message, cycle.recording_id, fatal=True))
    return replace(cycle, end_s=duration_s) if cycle.start_s < duration_s else None
