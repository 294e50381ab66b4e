"""Load a corpus by name: split it, read its audio headers, refuse what is broken."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from edge_sdk.corpora.corpus_files import audio_header
from edge_sdk.corpora.counts import split_discrepancies
from edge_sdk.corpora.registry import CorpusEntry, entry_of
from edge_sdk.corpora.splits import apply_split_file
from edge_sdk.corpora.table import Corpus, Cycle, Fault, PhaseEvent, Recording, SoundEvent
from edge_sdk.errors import AudioError, CorpusError

_log = logging.getLogger(__name__)

Marked = TypeVar("Marked", PhaseEvent, SoundEvent)

_ROUNDING_S = 0.001  # annotations are rounded to milliseconds
_SHOWN = 5  # faults that have a line each
_LONGEST_LINE = 300  # characters of a fault in a message: a damaged table may hold values of any length
_STATED_LENGTH_S = 0.02  # by which a table may miss the length of a file; it is rounded to hundredths


def load_corpus(name: str, root: Path | str, *, split: str = "all", partial: bool = False) -> Corpus:
    """Load one split of a corpus, with its audio headers read and its events inside the audio.

    Parameters
    ----------
    name
        A name of :data:`~edge_sdk.corpora.registry.REGISTRY`.
    root
        The publisher's folder, or a part of it that holds the split; its ``split.csv`` replaces the published split.
    split
        A published split, a split of a rule (``val``, ``lodo:Meditron:test``), or ``all``.
    partial
        Leave out items that cannot be used (the corpus lists them as faults) instead of raising an error.

    Raises
    ------
    CorpusError
        Unknown corpus or split, no such folder, or, unless ``partial``, anything in the split that cannot be used:
        missing audio, unreadable annotation, events outside their audio, or as many recordings as published with
        other classes in them.
    """
    entry = entry_of(name)
    whole = entry.load(Path(root))
    used = apply_split_file(whole)
    corpus = read_headers(used.split(split), entry.overrun_s)
    fatal = [fault for fault in corpus.faults if fault.fatal]
    if fatal and not partial:
        more = f" (and {len(fatal) - 1} more)" if len(fatal) > 1 else ""
        raise CorpusError(
            f"{entry.title} at {root}: {_short(fatal[0].message)}{more}; fetch the files again, "
            f"see 'stetho data check {entry.name}', or pass --partial to go on without them"
        )
    for fault in fatal[:_SHOWN]:
        _log.warning("%s: passed over: %s", entry.title, _short(fault.message))
    if len(fatal) > _SHOWN:
        _log.warning(
            "%s: %d more faults passed over; see 'stetho data check %s'", entry.title, len(fatal) - _SHOWN, entry.name
        )
    corpus = usable(corpus)
    if not partial and used is whole:
        _accept(entry, corpus)
    return corpus


def _accept(entry: CorpusEntry, corpus: Corpus) -> None:
    """Refuse a published split that has all its recordings and yet other cycles: edited or mixed annotations."""
    for difference in split_discrepancies(entry.published, corpus):
        raise CorpusError(
            f"{entry.title} at {corpus.root} is not as published: {difference}; fetch the annotations again, "
            f"see 'stetho data check {entry.name}', or pass --partial to go on with them"
        )


def usable(corpus: Corpus) -> Corpus:
    """Without the recordings that cannot be used, and their events.

    Those are recordings whose audio could not be opened or that a fault excludes, and those of whose faulty annotation
    nothing is left: they must not count as recordings without events.
    """
    events: tuple[Cycle | PhaseEvent | SoundEvent, ...] = (*corpus.cycles, *corpus.phases, *corpus.sounds)
    annotated = {event.recording_id for event in events}
    fatal = {fault.recording_id for fault in corpus.faults if fault.fatal and corpus.unit == "cycle"} - annotated
    excluded = {fault.recording_id for fault in corpus.faults if fault.excludes} | fatal
    ids = {r.id for r in corpus.recordings if r.sample_rate is not None and r.id not in excluded}
    return replace(
        corpus,
        recordings=tuple(r for r in corpus.recordings if r.id in ids),
        cycles=tuple(c for c in corpus.cycles if c.recording_id in ids),
        phases=tuple(p for p in corpus.phases if p.recording_id in ids),
        sounds=tuple(e for e in corpus.sounds if e.recording_id in ids),
    )


def read_headers(corpus: Corpus, overrun_s: float = _ROUNDING_S) -> Corpus:
    """The corpus with rate and duration of every recording, and with no event that passes the end of its audio.

    Unreadable audio is a fatal fault, and so is an event that passes the end of its audio by more than ``overrun_s``
    seconds: it is left out. One that passes it by less is cut.
    """
    faults = list(corpus.faults)
    unusable = {fault.recording_id for fault in faults if fault.fatal}
    recordings = [_with_header(recording, unusable, faults) for recording in corpus.recordings]
    duration = {recording.id: recording.duration_s for recording in recordings}
    cycles = []
    for cycle in corpus.cycles:
        limit = duration[cycle.recording_id]
        kept = cycle if limit is None else _inside(cycle, limit, overrun_s, faults)
        if kept is not None:
            cycles.append(kept)
    return replace(
        corpus,
        recordings=tuple(recordings),
        cycles=tuple(cycles),
        phases=tuple(_clipped(corpus.phases, duration, faults)),
        sounds=tuple(_clipped(corpus.sounds, duration, faults)),
        faults=tuple(faults),
    )


def _kind(event: PhaseEvent | SoundEvent) -> str:
    return event.phase if isinstance(event, PhaseEvent) else event.sound


def _clipped(events: Iterable[Marked], duration: Mapping[str, float | None], faults: list[Fault]) -> Iterator[Marked]:
    for event in events:
        limit = duration[event.recording_id]
        if limit is None or event.end_s <= limit:
            yield event
            continue
        kind = _kind(event)
        inside = event.start_s < limit
        if event.end_s > limit + _ROUNDING_S:
            message = (
                f"{event.recording_id}: {kind} from {event.start_s:g} to {event.end_s:g} s overruns the audio of "
                f"{limit:g} s; it is {'cut there' if inside else 'left out'}"
            )
            faults.append(Fault(message, event.recording_id, fatal=not inside))
        if inside:
            yield replace(event, end_s=limit)


def _with_header(recording: Recording, unusable: set[str | None], faults: list[Fault]) -> Recording:
    try:
        rate, frames, _ = audio_header(recording.path)
    except AudioError as error:
        if recording.id not in unusable:
            faults.append(Fault(f"{recording.id}: {error}", recording.id, fatal=True))
        return replace(recording, duration_s=None)
    if frames == 0:
        faults.append(Fault(f"{recording.id}: the audio file holds no samples", recording.id, fatal=True))
        return replace(recording, duration_s=None)
    stated, found = recording.duration_s, frames / rate
    if stated is not None and abs(stated - found) > _STATED_LENGTH_S:
        faults.append(Fault(f"{recording.id}: lasts {found:g} s instead of the {stated:g} s listed", recording.id))
    return replace(recording, sample_rate=rate, duration_s=found)


def _inside(cycle: Cycle, duration_s: float, overrun_s: float, faults: list[Fault]) -> Cycle | None:
    if cycle.end_s <= duration_s:
        return cycle
    fatal = cycle.end_s > duration_s + max(overrun_s, _ROUNDING_S) or cycle.start_s >= duration_s
    if cycle.end_s > duration_s + _ROUNDING_S:
        message = (
            f"{cycle.recording_id}: event {cycle.index} ({cycle.start_s:g} to {cycle.end_s:g} s) "
            f"overruns the audio of {duration_s:g} s; it is {'left out' if fatal else 'cut there'}"
        )
        faults.append(Fault(message, cycle.recording_id, fatal=fatal))
    return None if fatal else replace(cycle, end_s=duration_s)


def _short(message: str) -> str:
    return message if len(message) <= _LONGEST_LINE else f"{message[: _LONGEST_LINE - 1]}…"
