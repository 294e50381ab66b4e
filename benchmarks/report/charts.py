"""What a plot shows, as data: lines and points, or horizontal bars. :mod:`drawing` makes SVG of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one colour and one marker."""

    name: str
    points: Sequence[tuple[float, float]]
    names: Sequence[str] = ()  # one a point; empty text: no name
    line: bool = True
    dots: bool = True
    dashed: bool = False  # a reference line, in the colour of the axes
    intervals: Sequence[Any] = ()  # one a point: (lower end, upper end), or None

    def bars(self) -> list[tuple[float, float, float]]:
        """Error bars as (x, lower end, upper end)."""
        return [
            (x, float(ends[0]), float(ends[1]))
            for (x, _), ends in zip(self.points, self.intervals, strict=False)
            if ends and None not in ends
        ]


@dataclass(frozen=True, slots=True)
class Axes:
    """Names and limits of the axes; a limit that is ``None`` comes from the data."""

    x: str
    y: str
    log_x: bool = False
    log_y: bool = False
    x_from: float | None = None
    x_to: float | None = None
    y_from: float | None = None
    y_to: float | None = None
    whole_x: bool = False  # counts: no ticks between them


@dataclass(frozen=True, slots=True)
class LineChart:
    """Series in one pair of axes."""

    series: Sequence[Series]
    axes: Axes
    large: bool = False  # many names
    title: str = ""


@dataclass(frozen=True, slots=True)
class BarChart:
    """Horizontal bars from zero."""

    shares: Sequence[tuple[str, float]]
    unit: str
    title: str = ""


Chart: TypeAlias = LineChart | BarChart
