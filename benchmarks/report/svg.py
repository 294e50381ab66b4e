"""Small plots as SVG text: lines, points with names, bars; colours come from the page, for light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, TypeAlias

Place: TypeAlias = Callable[[float], float]
"""Value → pixels."""

WIDTH, HEIGHT = 640, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 16, 52
_COLOURS = 8
_LABEL_EVERY = 13  # pixels between names that would lie on each other
_LEAST = 1e-9  # on a logarithmic axis
_MOST_TICKS = 9
_DOT = 7  # pixels around a point that a name keeps clear of
_CHARACTER = 6.8  # pixels, about


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one colour."""

    name: str
    points: Sequence[tuple[float, float]]
    names: Sequence[str] = ()  # of each point
    line: bool = True
    dots: bool = True
    intervals: Sequence[Any] = ()  # of each point: its lower and upper end, or None


@dataclass(frozen=True, slots=True)
class Axes:
    """What stands at the edges."""

    x: str
    y: str
    log_x: bool = False
    x_from: float | None = None  # None: from the data
    x_to: float | None = None
    y_from: float | None = None
    y_to: float | None = None
    marks: Sequence[tuple[float, str]] = field(default=())  # horizontal lines with a name
    diagonal: bool = False
    whole_x: bool = False  # counts: no ticks between them


def plot(series: Sequence[Series], axes: Axes) -> str:
    """An ``<svg>`` element with a title for screen readers."""
    points = [p for s in series for p in s.points]
    ends = [float(end) for s in series for _, _, low, high in _bars(s) for end in (low, high)]
    xs, ys = [p[0] for p in points], [p[1] for p in points] + [m for m, _ in axes.marks] + ends
    x_low, x_high, x_ticks = _scale(xs, axes.x_from, axes.x_to, log=axes.log_x, whole=axes.whole_x)
    y_low, y_high, y_ticks = _scale(ys, axes.y_from, axes.y_to)

    def at_x(value: float) -> float:
        low, high, v = (
            (math.log10(max(z, _LEAST)) for z in (x_low, x_high, value)) if axes.log_x else (x_low, x_high, value)
        )
        return _LEFT + (v - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def at_y(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(axes.y)} against {escape(axes.x)}</title>']
    for tick in y_ticks:
        y = at_y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in x_ticks:
        x = at_x(tick)
        parts.append(
            f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{HEIGHT - _BOTTOM}" y2="{HEIGHT - _BOTTOM + 5}"/>'
        )
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 19}" text-anchor="middle">{_number(tick)}</text>')
    parts.append(
        f'<path class="axis" d="M{_LEFT} {_TOP}V{HEIGHT - _BOTTOM}H{WIDTH - _RIGHT}"/>'
        f'<text class="label" x="{(WIDTH + _LEFT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(axes.x)}</text>'
        f'<text class="label" transform="translate(14 {(HEIGHT - _BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(axes.y)}</text>"
    )
    if axes.diagonal:
        low, high = max(x_low, y_low), min(x_high, y_high)
        parts.append(f'<path class="mark" d="M{at_x(low):.1f} {at_y(low):.1f}L{at_x(high):.1f} {at_y(high):.1f}"/>')
    for value, name in axes.marks:
        y = at_y(value)
        parts.append(f'<path class="mark" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="note" x="{_LEFT + 6}" y="{y - 5:.1f}">{escape(name)}</text>')
    for number, one in enumerate(series):
        parts += _drawn(one, number % _COLOURS, at_x, at_y)
    parts += _point_names(series, at_x, at_y)
    return "".join(parts) + "</svg>" + _legend(series)


def bars(shares: Sequence[tuple[str, float]], unit: str) -> str:
    """Horizontal bars with their names and values."""
    row, left = 24, 190
    longest = max((v for _, v in shares), default=0.0) or 1.0
    height = row * len(shares) + 8
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img"><title>{escape(unit)}</title>']
    for number, (name, value) in enumerate(shares):
        y, width = row * number + 6, value / longest * (WIDTH - left - 150)
        parts.append(
            f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="fill0" x="{left}" y="{y}" width="{max(1.0, width):.1f}" height="{row - 8}" rx="2"/>'
            f'<text x="{left + width + 6:.1f}" y="{y + 12}">{_number(value)} {escape(unit)}</text>'
        )
    return "".join(parts) + "</svg>"


def _bars(one: Series) -> list[tuple[float, float, float, float]]:
    """Place, value and both ends of every interval that is known."""
    return [
        (x, y, float(ends[0]), float(ends[1]))
        for (x, y), ends in zip(one.points, one.intervals, strict=False)
        if ends and None not in ends
    ]


def _drawn(one: Series, colour: int, at_x: Place, at_y: Place) -> list[str]:
    placed = [(at_x(x), at_y(y)) for x, y in one.points]
    parts = [
        f'<path class="line{colour} bar" d="M{at_x(x):.1f} {at_y(low):.1f}V{at_y(high):.1f}"/>'
        for x, _, low, high in _bars(one)
    ]
    if one.line and len(placed) > 1:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
        parts.append(f'<path class="line{colour}" d="M{path}"/>')
    if one.dots or len(placed) == 1:
        parts += [f'<circle class="fill{colour}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in placed]
    return parts


def _point_names(series: Sequence[Series], at_x: Place, at_y: Place) -> list[str]:
    """Names beside the points: to the right or left, else a little above or below, where nothing else lies."""
    dots = [(at_x(x), at_y(y)) for s in series if s.dots for x, y in s.points]
    wanted = sorted(
        (at_y(y), at_x(x), name) for s in series for (x, y), name in zip(s.points, s.names, strict=False) if name
    )
    parts, taken = [], list[tuple[float, float, float]]()
    for y, x, name in wanted:
        begin, at = _free_place(x, y, _CHARACTER * len(name), taken, dots)
        taken.append((at, begin, begin + _CHARACTER * len(name)))
        anchor = f'x="{begin:.1f}"' if begin > x else f'x="{x - 8:.1f}" text-anchor="end"'
        parts.append(f'<text class="note" {anchor} y="{at + 4:.1f}">{escape(name)}</text>')
    return parts


def _free_place(
    x: float, y: float, wide: float, taken: Sequence[tuple[float, float, float]], dots: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """Left end and height of a name of a point; the nearest place that is free."""
    places = [
        (begin, y + shift * _LABEL_EVERY)
        for shift in (0, -1, 1, -2, 2, -3, 3, -4, 4)
        for begin in (x + 8, x - 8 - wide)
        if begin > _LEFT and begin + wide < WIDTH - 4 and _TOP / 2 < y + shift * _LABEL_EVERY < HEIGHT - _BOTTOM
    ]
    for begin, at in places:
        on_name = any(abs(at - t) < _LABEL_EVERY and begin < e and b < begin + wide for t, b, e in taken)
        on_dot = any(abs(at - dy) < _DOT and begin - _DOT < dx < begin + wide + _DOT for dx, dy in dots)
        if not on_name and not on_dot:
            return begin, at
    return places[0] if places else (x + 8, y)


def _legend(series: Sequence[Series]) -> str:
    if len(series) < 2 and not any(s.name for s in series):
        return ""
    items = "".join(
        f'<li><span class="swatch fill{number % _COLOURS}"></span>{escape(one.name)}</li>'
        for number, one in enumerate(series)
    )
    return f'<ul class="legend">{items}</ul>'


def _scale(
    values: Sequence[float], begin: float | None, end: float | None, *, log: bool = False, whole: bool = False
) -> tuple[float, float, list[float]]:
    """Ends of an axis and its ticks."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if log:
        low, high = max(low, _LEAST), max(high, _LEAST)
        return _log_scale(low, high)
    low, high = (low if begin is None else begin), (high if end is None else end)
    if high - low < 1e-12:
        spread = abs(high) * 0.1 or 1.0
        low, high = (low - spread if begin is None else low), (high + spread if end is None else high)
    raw = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * 0.999)
    step = math.ceil(step) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return first * step, last * step, [k * step for k in range(first, last + 1)]


def _log_scale(low: float, high: float) -> tuple[float, float, list[float]]:
    """From 1, 2 or 5 times a power of ten below all values to one above; ticks at all of them, or at the powers."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    steps = [m * 10.0**k for k in powers for m in (1, 2, 5)]
    first = max(k for k, step in enumerate(steps) if step <= low * (1 + 1e-9) or k == 0)
    last = min(k for k, step in enumerate(steps) if step >= high * (1 - 1e-9) and k > first)
    ticks = steps[first : last + 1]
    if len(ticks) > _MOST_TICKS:
        ticks = [tick for tick in ticks if round(math.log10(tick), 9).is_integer()]
    return steps[first], steps[last], ticks


def _number(value: float) -> str:
    return f"{value:.4g}"
