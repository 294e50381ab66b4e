"""Spans of a recording in seconds: cycles, adventitious sounds, gaps, quality; and the JSON lines that hold them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from edge_sdk.errors import ExchangeError


@dataclass(frozen=True, slots=True)
class CycleSpan:
    """A respiratory cycle, by this SDK or as annotated."""

    start_s: float
    end_s: float
    label: str | None  # of the bundle's or the four classes; None where quality forbids one
    probabilities: Mapping[str, float] = field(default_factory=dict)  # calibrated; empty where unknown
    quality: str = "ok"
    publisher_label: str | None = None  # an annotation's finer label, as its publisher wrote it

    @property
    def probability(self) -> float | None:
        """Probability of the label; None where unknown."""
        return None if self.label is None else self.probabilities.get(self.label)


@dataclass(frozen=True, slots=True)
class SoundSpan:
    """An adventitious sound, independent of the respiratory cycles."""

    start_s: float
    end_s: float
    kind: str  # crackle or wheeze
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class GapSpan:
    """Dropped samples."""

    start_s: float
    end_s: float
    lost_samples: int | None = None


@dataclass(frozen=True, slots=True)
class QualitySpan:
    """A stretch of one quality."""

    start_s: float
    end_s: float
    state: str  # as in QualityEvent
    level_dbfs: float | None = None  # at its begin


Span: TypeAlias = CycleSpan | SoundSpan | GapSpan | QualitySpan


def spans_of(
    lines: Iterable[Mapping[str, Any]], duration_s: float
) -> tuple[tuple[CycleSpan, ...], tuple[SoundSpan, ...], tuple[GapSpan, ...], tuple[QualitySpan, ...]]:
    """Read the spans of the JSON lines of one recording; raises ``KeyError`` where a line lacks a field."""
    of_type: dict[str, list[Mapping[str, Any]]] = {"cycle": [], "adventitious": [], "gap": [], "quality": []}
    for line in lines:
        of_type.get(line["type"], []).append(line)
    changes = of_type["quality"]
    ends = [*(change["start_s"] for change in changes[1:]), duration_s]
    return (
        tuple(cycle_span(line) for line in of_type["cycle"]),
        tuple(
            SoundSpan(line["start_s"], line["end_s"], line["kind"], line.get("confidence"))
            for line in of_type["adventitious"]
        ),
        tuple(GapSpan(line["start_s"], line["end_s"], line.get("lost_samples")) for line in of_type["gap"]),
        tuple(
            QualitySpan(line["start_s"], end, line["quality"], line.get("level_dbfs"))
            for line, end in zip(changes, ends, strict=False)
            if end > line["start_s"]  # the first state may change within the first window
        ),
    )


def first_sample_s(session: Mapping[str, Any]) -> float:
    """Time of the first sample of a session on the clock of its lines; streams of ``stetho serve`` may begin later."""
    return float(session.get("first_sample", 0)) / max(1, int(session.get("sample_rate", 1)))


def from_first_sample(line: dict[str, Any], shift_s: float) -> dict[str, Any]:
    """A line whose times count from the first sample of the audio."""
    times = {key: line[key] for key in ("start_s", "end_s") if shift_s and isinstance(line.get(key), (int, float))}
    return {**line, **{key: round(time - shift_s, 4) for key, time in times.items()}}


def cycle_span(line: Mapping[str, Any]) -> CycleSpan:
    """Make the cycle of a ``cycle`` line; raises ``KeyError`` where it lacks a time."""
    return CycleSpan(
        line["start_s"],
        line["end_s"],
        line.get("label"),
        line.get("probabilities") or {},
        line.get("quality") or "ok",
        line.get("publisher_label"),
    )


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines.

    Raises
    ------
    ExchangeError
        It cannot be read, or a line is not an object.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ExchangeError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ExchangeError(f"{path} is not text in UTF-8") from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or "type" not in record:
            raise ExchangeError(f"{path}, line {number} is no JSON line of 'stetho screen' or 'stetho listen'")
        yield record
