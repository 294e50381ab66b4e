"""Audacity label tracks: start, end, text, separated by tabs; frequencies in a line of their own after a backslash."""

from __future__ import annotations

from collections.abc import Sequence

from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.annotations.texts import (
    Annotated,
    Written,
    lost_confidence,
    lost_quality,
    span_of,
    text_of,
    times,
)
from edge_sdk.exchange.examination import ExaminedRecording


def write(recordings: Sequence[ExaminedRecording]) -> Written:
    """Write the label track of one recording; times to a microsecond."""
    (recording,) = recordings
    lines = [f"{span.start_s:.6f}\t{span.end_s:.6f}\t{text_of(span)}\n" for span in recording.spans]
    return Written("".join(lines), lost_confidence(recordings) + lost_quality(recordings))


def read(text: str) -> list[Annotated]:
    """Read a label track, also one edited by hand: any order, line ends and decimal sign, labels without a text.

    Raises
    ------
    ExchangeError
        A line has no two times.
    """
    spans = []
    frequencies = 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("\\"):
            frequencies += 1
        elif line.strip():
            fields = [*line.rstrip("\r\n").split("\t"), ""]
            if len(fields) < 3:
                raise ExchangeError(f"line {number} is no label of Audacity: start, end and text, separated by tabs")
            spans.append(span_of(fields[2], *times(fields[0], fields[1], f"line {number}")))
    notes = (f"{frequencies} frequency ranges were left out",) if frequencies else ()
    return [Annotated(tuple(spans), notes=notes)]
