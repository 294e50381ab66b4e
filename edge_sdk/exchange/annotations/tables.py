"""Our own formats as annotations: a CSV that R and spreadsheets read, and the JSON lines of ``stetho screen``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.annotations.texts import Annotated, Written, number_in, span_of, times
from edge_sdk.exchange.examination import ExaminedRecording
from edge_sdk.exchange.spans import CycleSpan, GapSpan, QualitySpan, SoundSpan, Span, cycle_span
from edge_sdk.json_lines import json_line

_FIXED = (
    "file",
    "start_s",
    "end_s",
    "label",
    "type",
    "quality",
    "publisher_label",
    "confidence",
    "lost_samples",
    "level_dbfs",
)


def write_csv(recordings: Sequence[ExaminedRecording]) -> Written:
    """Write a row a span of all recordings; ``p_LABEL`` columns hold the probabilities."""
    names = dict.fromkeys(name for r in recordings for cycle in r.cycles for name in cycle.probabilities)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*_FIXED, *(f"p_{name}" for name in names)], lineterminator="\n")
    writer.writeheader()
    for recording in recordings:
        for line in _lines(recording):
            kind = line.pop("type")
            line["label"] = line.get("label") or line.pop("kind", None)
            row = {key: line[key] for key in _FIXED if line.get(key) is not None}
            row |= {f"p_{name}": p for name, p in (line.get("probabilities") or {}).items()}
            writer.writerow({**row, "file": recording.source, "type": kind})
    empty = sum(not recording.spans and not recording.quality for recording in recordings)
    return Written(buffer.getvalue(), (f"{empty} recordings without a span have no row",) if empty else ())


def read_csv(text: str) -> list[Annotated]:
    """Read such a CSV, also one that a spreadsheet saved with semicolons and decimal commas.

    Raises
    ------
    ExchangeError
        A column or a time is missing.
    """
    head = text.split("\n", 1)[0]
    rows = csv.DictReader(io.StringIO(text), delimiter=";" if head.count(";") > head.count(",") else ",")
    columns = [name.strip().casefold() for name in rows.fieldnames or []]
    for needed in ("start_s", "end_s", "label"):
        if needed not in columns:
            raise ExchangeError(f"the CSV has no column {needed!r}; it has {', '.join(columns) or 'none'}")
    rows.fieldnames = columns
    by_file: dict[str | None, list[Span]] = {}
    for number, row in enumerate(rows, 2):
        values = {key: (value or "").strip() for key, value in row.items() if isinstance(value, str) or value is None}
        start_s, end_s = times(values["start_s"], values["end_s"], f"row {number}")
        span = _span_of_row(values, start_s, end_s)
        if span is not None:
            by_file.setdefault(values.get("file") or None, []).append(span)
    return [Annotated(tuple(spans), name) for name, spans in by_file.items()]


def _span_of_row(values: Mapping[str, str], start_s: float, end_s: float) -> Span | None:
    kind = values.get("type") or "cycle"
    if kind == "adventitious":
        return SoundSpan(start_s, end_s, values["label"], number_in(values.get("confidence")))
    if kind == "gap":
        lost = number_in(values.get("lost_samples"))
        return GapSpan(start_s, end_s, None if lost is None else int(lost))
    if kind == "quality":
        return None  # is not part of an annotation
    span = span_of(values["label"], start_s, end_s)
    if not isinstance(span, CycleSpan):
        return span
    chances = {key[2:]: p for key in values if key.startswith("p_") and (p := number_in(values[key])) is not None}
    publisher = values.get("publisher_label") or span.publisher_label
    return CycleSpan(start_s, end_s, span.label, chances, values.get("quality") or span.quality, publisher)


def write_jsonl(recordings: Sequence[ExaminedRecording]) -> Written:
    """Write the JSON lines that ``screen`` writes, with a summary last of each recording."""
    lines = []
    for recording in recordings:
        for line in _lines(recording):
            kind = line.pop("type")
            lines.append(json_line({"type": kind, "source": recording.source, **line}))
        lines.append(json_line(_summary(recording)))
    return Written("".join(lines))


def _summary(recording: ExaminedRecording) -> dict[str, Any]:
    counts: dict[str, int] = {}
    unclassified: dict[str, int] = {}
    for cycle in recording.cycles:
        into, name = (unclassified, cycle.quality) if cycle.label is None else (counts, cycle.label)
        into[name] = into.get(name, 0) + 1
    found = {
        "duration_s": recording.duration_s,
        "sample_rate": recording.sample_rate,
        "cycles": len(recording.cycles),
        "classified": sum(counts.values()),
        "counts": counts,
        "unclassified": unclassified,
    }
    return {"type": "summary", "source": recording.source, **found, **recording.summary}


def read_jsonl(text: str) -> list[Annotated]:
    """Read the cycles, adventitious sounds and gaps of JSON lines; summaries are not needed.

    Raises
    ------
    ExchangeError
        A line is no JSON line, or lacks a field.
    """
    by_source: dict[str, list[Span]] = {}
    for number, text_line in enumerate(text.splitlines(), 1):
        if not text_line.strip():
            continue
        try:
            line = json.loads(text_line)
            spans = by_source.setdefault(line["source"], []) if "source" in line else []
            times(str(line.get("start_s", 0)), str(line.get("end_s", "1e9")), f"line {number}")
            if line["type"] == "cycle":
                spans.append(cycle_span(line))
            elif line["type"] == "adventitious":
                spans.append(SoundSpan(line["start_s"], line["end_s"], line["kind"], line.get("confidence")))
            elif line["type"] == "gap":
                spans.append(GapSpan(line["start_s"], line["end_s"], line.get("lost_samples")))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ExchangeError(f"line {number} is no JSON line of 'stetho screen' or 'stetho listen'") from None
    return [Annotated(tuple(spans), source) for source, spans in by_source.items()]


def _lines(recording: ExaminedRecording) -> list[dict[str, Any]]:
    """JSON lines of the spans in order of time, without their source."""
    lines: list[dict[str, Any]] = []
    spans: list[Span] = [*recording.spans, *recording.quality]
    for span in sorted(spans, key=lambda span: span.start_s):
        line: dict[str, Any] = {"start_s": span.start_s, "end_s": span.end_s}
        if isinstance(span, CycleSpan):
            line |= {"type": "cycle", "label": span.label, "probabilities": dict(span.probabilities)}
            line |= {"quality": span.quality, "latency_ms": None}
            if span.publisher_label is not None:
                line["publisher_label"] = span.publisher_label
        elif isinstance(span, SoundSpan):
            line |= {"type": "adventitious", "kind": span.kind, "confidence": span.confidence}
        elif isinstance(span, GapSpan):
            line |= {"type": "gap", "lost_samples": span.lost_samples}
        elif isinstance(span, QualitySpan):
            line |= {"type": "quality", "quality": span.state, "level_dbfs": span.level_dbfs}
        lines.append(line)
    return lines
