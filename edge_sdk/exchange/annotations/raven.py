"""Raven selection tables: tab-separated, a row a selection and view; Raven keeps columns that it does not know."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.annotations.texts import (
    Annotated,
    Written,
    chance_of,
    lost_alternatives,
    lost_quality,
    number_in,
    span_of,
    text_of,
    times,
    with_chance,
)
from edge_sdk.exchange.examination import ExaminedRecording
from edge_sdk.exchange.spans import Span

_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Annotation",
    "Confidence",
)
_LABEL_COLUMNS = ("annotation", "label", "species", "tags", "type", "call type")


def write(recordings: Sequence[ExaminedRecording]) -> Written:
    """Write the selection table of one recording; times to a microsecond, the whole band up to half the rate."""
    (recording,) = recordings
    high = recording.sample_rate / 2 or 4000.0
    rows = ["\t".join(_COLUMNS)]
    for number, span in enumerate(recording.spans, 1):
        chance = chance_of(span)
        cells = [
            str(number),
            "Spectrogram 1",
            "1",
            f"{span.start_s:.6f}",
            f"{span.end_s:.6f}",
            "0.0",
            f"{high:.1f}",
            text_of(span),
            "" if chance is None else f"{chance:.6f}",
        ]
        rows.append("\t".join(cells))
    return Written("\n".join(rows) + "\n", lost_alternatives(recordings) + lost_quality(recordings))


def read(text: str) -> list[Annotated]:
    """Read a selection table; a selection that stands in several views counts once.

    A table over several files (``Begin File``, ``File Offset (s)``) gives one annotation a file.

    Raises
    ------
    ExchangeError
        A column or a time is missing.
    """
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
    names = {name.strip().casefold(): name for name in (rows[0] if rows else {}) if name}
    for column in ("begin time (s)", "end time (s)"):
        if rows and column not in names:
            raise ExchangeError(f"no selection table of Raven: the column {column!r} is missing")
    label = next((names[name] for name in _LABEL_COLUMNS if name in names), None)
    by_file: dict[str | None, list[Span]] = {} if rows else {None: []}
    seen = set()
    for number, row in enumerate(rows, 2):
        selection = _cell(row, names, "selection") or f"row {number}"
        name = _cell(row, names, "begin file") or None
        if (name, selection) in seen:
            continue
        seen.add((name, selection))
        where = f"line {number}"
        start_s, end_s = times(row[names["begin time (s)"]] or "", row[names["end time (s)"]] or "", where)
        offset = _cell(row, names, "file offset (s)")
        if offset:  # times count from the first file of the table
            start_s, end_s = times(offset, str(float(offset.replace(",", ".")) + end_s - start_s), where)
        span = span_of((row.get(label) or "") if label else "", start_s, end_s)
        by_file.setdefault(name, []).append(with_chance(span, number_in(_cell(row, names, "confidence"))))
    return [Annotated(tuple(spans), name) for name, spans in by_file.items()]


def _cell(row: Mapping[str, str | None], names: Mapping[str, str], column: str) -> str:
    return ((row.get(names[column]) or "") if column in names else "").strip()
