"""Annotations as two corpora publish them: ICBHI 2017 (text) and SPRSound (JSON). Neither holds a probability."""

from __future__ import annotations

import json
from collections.abc import Sequence

from edge_sdk.corpora.labels import SPRSOUND_5
from edge_sdk.corpora.loaders.sprsound import EVENT_LABELS
from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.annotations.texts import Annotated, Written, lost_confidence, lost_quality, times
from edge_sdk.exchange.examination import ExaminedRecording
from edge_sdk.exchange.spans import CycleSpan

_ICBHI = {"normal": (0, 0), "crackle": (1, 0), "wheeze": (0, 1), "both": (1, 1)}
_ICBHI_LABELS = {flags: label for label, flags in _ICBHI.items()}
_SPRSOUND = {"normal": "Normal", "crackle": "Fine Crackle", "wheeze": "Wheeze", "both": "Wheeze+Crackle"}
_OF_RECORD = {(0, 0): "Normal", (1, 0): "DAS", (0, 1): "CAS", (1, 1): "CAS & DAS"}


def write_icbhi(recordings: Sequence[ExaminedRecording]) -> Written:
    """Write start, end, crackles, wheezes, separated by tabs; one cycle a line.

    Raises
    ------
    ExchangeError
        A label is none of the four classes.
    """
    cycles, notes = _labelled(recordings, "icbhi")
    lines = []
    for cycle in cycles:
        crackles, wheezes = _ICBHI[cycle.label or ""]
        lines.append(f"{_seconds(cycle.start_s)}\t{_seconds(cycle.end_s)}\t{crackles}\t{wheezes}\n")
    return Written("".join(lines), notes)


def read_icbhi(text: str) -> list[Annotated]:
    """Read what :func:`write_icbhi` writes; blanks, commas and tabs all separate, as in copies of the corpus.

    Raises
    ------
    ExchangeError
        A line has not four fields of that kind.
    """
    spans = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.replace(",", " ").replace(";", " ").split()
        if not fields:
            continue
        if len(fields) != 4 or not set(fields[2:]) <= {"0", "1"}:
            raise ExchangeError(f"line {number} is no line of ICBHI: start, end, crackles (0 or 1), wheezes (0 or 1)")
        start_s, end_s = times(fields[0], fields[1], f"line {number}")
        spans.append(CycleSpan(start_s, end_s, _ICBHI_LABELS[int(fields[2]), int(fields[3])]))
    return [Annotated(tuple(spans))]


def write_sprsound(recordings: Sequence[ExaminedRecording]) -> Written:
    """Write the JSON of one recording: its label and its events, times in milliseconds as text.

    Raises
    ------
    ExchangeError
        A label is none of the four classes.
    """
    cycles, notes = _labelled(recordings, "sprsound")
    events = []
    coarse = 0
    for cycle in cycles:
        kind = cycle.publisher_label if cycle.publisher_label in EVENT_LABELS else _SPRSOUND[cycle.label or ""]
        coarse += kind == "Fine Crackle" and cycle.publisher_label is None
        events.append({"start": str(round(cycle.start_s * 1000)), "end": str(round(cycle.end_s * 1000)), "type": kind})
    if coarse:
        notes = (f"{coarse} crackles, neither fine nor coarse here, are written as Fine Crackle", *notes)
    label = recordings[0].summary.get("record_annotation")
    if label not in SPRSOUND_5:
        flags = [_ICBHI[cycle.label or ""] for cycle in cycles]
        label = _OF_RECORD[max((c for c, _ in flags), default=0), max((w for _, w in flags), default=0)]
        if not cycles:
            label = "Poor Quality"
    return Written(json.dumps({"record_annotation": label, "event_annotation": events}) + "\n", notes)


def read_sprsound(text: str) -> list[Annotated]:
    """Read the JSON of one recording of SPRSound.

    Raises
    ------
    ExchangeError
        It is none, or an event is of an unknown type.
    """
    try:
        content = json.loads(text)
        events = content["event_annotation"]
        rows = [(str(event["start"]), str(event["end"]), str(event["type"])) for event in events]
    except (ValueError, KeyError, TypeError) as error:
        raise ExchangeError(f"no annotation of SPRSound ({error})") from None
    spans = []
    for number, (start, end, kind) in enumerate(rows, 1):
        if kind not in EVENT_LABELS:
            raise ExchangeError(f"event {number} is of the unknown type {kind!r}; known are {', '.join(EVENT_LABELS)}")
        start_ms, end_ms = times(start, end, f"event {number}")
        spans.append(CycleSpan(start_ms / 1000, end_ms / 1000, EVENT_LABELS[kind], publisher_label=kind))
    label = content.get("record_annotation") or content.get("recording_annotation")
    return [Annotated(tuple(spans), record_label=label)]


def _labelled(recordings: Sequence[ExaminedRecording], name: str) -> tuple[list[CycleSpan], tuple[str, ...]]:
    """Cycles with a label, and notes on all that the format does not hold."""
    (recording,) = recordings
    cycles = [cycle for cycle in recording.cycles if cycle.label is not None]
    unknown = sorted({cycle.label for cycle in cycles if cycle.label is not None and cycle.label not in _ICBHI})
    if unknown:
        raise ExchangeError(
            f"{name} has no place for the label {', '.join(map(repr, unknown))}; it knows {', '.join(_ICBHI)}: use csv"
        )
    notes = [*lost_confidence(recordings), *lost_quality(recordings)]
    if left := len(recording.cycles) - len(cycles):
        notes.append(f"{left} cycles without a label are left out")
    if recording.sounds:
        notes.append(f"{len(recording.sounds)} adventitious sounds outside of cycles are left out")
    if recording.gaps:
        notes.append(f"{len(recording.gaps)} gaps are left out")
    named = [cycle for cycle in cycles if cycle.publisher_label is not None]
    finer = sum(_SPRSOUND[cycle.label or ""] != cycle.publisher_label for cycle in named) if name == "icbhi" else 0
    if finer:
        notes.append(f"{finer} labels are finer than the four classes; these are written")
    return sorted(cycles, key=lambda cycle: (cycle.start_s, cycle.end_s)), tuple(notes)


def _seconds(value: float) -> str:
    """Three decimals as the publisher has, a fourth where it is needed."""
    text = f"{value:.4f}"
    return text[:-1] if text.endswith("0") else text
