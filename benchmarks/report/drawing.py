"""Charts as matplotlib figures: text stays text, colours are roles that the page gives a light and a dark value."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import NullLocator

from benchmarks.core.rows import cell
from benchmarks.report.charts import BarChart, Chart, LineChart, Series
from benchmarks.report.labels import Name, Obstacles, Place, place_names
from benchmarks.report.ticks import Scale, linear_scale, log_scale

Colours: TypeAlias = dict[str, str]

PALETTE: Colours = {
    "--ink": "#1b1f24", "--soft": "#57606a", "--rule": "#d0d7de",
    "--c0": "#0b66c3", "--c1": "#c4500a", "--c2": "#1a7f37", "--c3": "#8250df",
    "--c4": "#bf3989", "--c5": "#6e5f00", "--c6": "#0e7c86", "--c7": "#5c4a3d",
}  # fmt: skip
"""CSS variables of the page and the colours that stand for them in a figure; each colour has one role."""

MARKERS = "os^Dv<>h"
"""One a series; colour is not the only difference."""

_DPI = 72  # one point is one pixel, as in SVG
_FONT = 12.0
_CHARACTER = 0.62 * _FONT  # width of a wide one
_GAP = 4.0  # between a tick and its label
_BAR, _LINE_HEIGHT = 15.0, 15.0
_DOTS_UP_TO = 60  # points of a line that also get dots
_SETTINGS = {
    # DejaVu Sans is wider than the fonts of browsers: what is free here is free there.
    "font.family": ["DejaVu Sans"],
    "font.size": _FONT,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "path.simplify": False,
    "svg.fonttype": "none",
}


@dataclass(frozen=True, slots=True)
class Format:
    """Size of a plot in pixels."""

    name: str
    width: int
    height: int
    large_height: int  # of plots with many names
    spaces: int  # between ticks of the x axis, at most


WIDE = Format("wide", 580, 340, 340, 7)
LARGE = Format("large", 1000, 480, 480, 9)
NARROW = Format("narrow", 350, 320, 460, 4)
"""For telephones."""


@dataclass(frozen=True, slots=True)
class FigurePage:
    """A finished figure."""

    figure: Figure
    places: Sequence[Place] = field(default_factory=list)
    left_out: Sequence[str] = field(default_factory=list)  # names without room, to be listed below the plot

    @property
    def texts(self) -> list[Text]:
        """Every text that is seen."""
        found = self.figure.findobj(Text)
        return [text for text in found if text.get_visible() and text.get_text().strip()]


def formats_of(chart: Chart) -> tuple[Format, Format]:
    """The size for a screen and the size for a telephone."""
    return (LARGE if isinstance(chart, LineChart) and chart.large else WIDE), NARROW


def draw(chart: Chart, size: Format) -> FigurePage:
    """Draw a chart of one size."""
    with matplotlib.rc_context(_SETTINGS):
        return _draw_bars(chart, size) if isinstance(chart, BarChart) else _draw_lines(chart, size)


def colour_of(number: int, series: Series) -> str:
    """CSS variable of a series."""
    return "--soft" if series.dashed else f"--c{number % len(MARKERS)}"


def _draw_lines(chart: LineChart, size: Format) -> FigurePage:
    x, y = _scales(chart, size)
    height = size.large_height if chart.large else size.height
    figure, axes = _frame(size, height)
    _set_ticks(axes, x, y)
    axes.grid(axis="y", color=PALETTE["--rule"], linewidth=1, clip_on=False)
    renderer = FigureCanvasAgg(figure).get_renderer()
    title = _title(figure, chart.axes.y, size.width, height)
    axes.set_xlabel(_wrapped(chart.axes.x, size.width - 60), color=PALETTE["--ink"], labelpad=6)
    widest = max((t.get_window_extent(renderer).width for t in axes.get_yticklabels()), default=0.0)
    last = max((t.get_window_extent(renderer).width / 2 for t in axes.get_xticklabels()), default=0.0)
    lines_below = 1 + axes.get_xlabel().count("\n")
    left, right = widest + _GAP + 8, size.width - max(last + 2, 12.0)
    bottom, top = 2 * _LINE_HEIGHT + 6 + _LINE_HEIGHT * (lines_below - 1) + 8, title - 10
    axes.set_position((left / size.width, bottom / height, (right - left) / size.width, (top - bottom) / height))
    for number, one in enumerate(chart.series):
        _draw_series(axes, number, one, x, y)
    obstacles, names = _to_place(axes, chart.series, x, y, renderer)
    places, left_out = place_names(names, obstacles, reach=size.width / 3)
    for place in places:
        _draw_name(figure, place)
    return FigurePage(figure, places, list(dict.fromkeys(left_out)))


def _scales(chart: LineChart, size: Format) -> tuple[Scale, Scale]:
    axes = chart.axes
    xs = [x for s in chart.series for x, _ in s.points]
    ys = [y for s in chart.series for _, y in s.points]
    ys += [end for s in chart.series for _, low, high in s.bars() for end in (low, high)]
    return (
        log_scale(xs, spaces=size.spaces)
        if axes.log_x
        else linear_scale(xs, axes.x_from, axes.x_to, whole=axes.whole_x, spaces=size.spaces),
        log_scale(ys) if axes.log_y else linear_scale(ys, axes.y_from, axes.y_to),
    )


def _frame(size: Format, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(size.width / _DPI, height / _DPI), dpi=_DPI)
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=PALETTE["--soft"], linewidth=1)
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    axes.set_axisbelow(True)
    return figure, axes


def _set_ticks(axes: Any, x: Scale, y: Scale) -> None:
    for scale, axis, set_scale, set_limits in (
        (x, axes.xaxis, axes.set_xscale, axes.set_xlim),
        (y, axes.yaxis, axes.set_yscale, axes.set_ylim),
    ):
        set_scale("log" if scale.log else "linear")
        set_limits(scale.low, scale.high)
        axis.set_minor_locator(NullLocator())
        axis.set_ticks(scale.ticks, scale.labels)
    axes.tick_params(color=PALETTE["--soft"], labelcolor=PALETTE["--soft"], length=_GAP, pad=_GAP, labelsize=_FONT)
    axes.tick_params(axis="y", length=0)


def _title(figure: Figure, text: str, width: int, height: int) -> float:
    """The name of the y axis, written across the top; returns its lower end in pixels."""
    wrapped = _wrapped(text, width - 8)
    figure.text(2 / width, 1 - 3 / height, wrapped, color=PALETTE["--ink"], ha="left", va="top")
    return height - 3 - _LINE_HEIGHT * (1 + wrapped.count("\n"))


def _wrapped(text: str, width: float) -> str:
    return "\n".join(textwrap.wrap(text, max(8, int(width / _CHARACTER)))) or text


def _draw_series(axes: Any, number: int, one: Series, x: Scale, y: Scale) -> None:
    colour = PALETTE[colour_of(number, one)]
    if bars := one.bars():
        at, low, high = np.array([(x.clamp(a), y.clamp(b), y.clamp(c)) for a, b, c in bars]).T
        drawn = axes.vlines(at, low, high, color=colour, linewidth=1.5, alpha=0.45, clip_on=False)
        drawn.set_gid(f"bars-{number}")
    points = np.array([(x.clamp(a), y.clamp(b)) for a, b in one.points], float).reshape(-1, 2)
    style: dict[str, Any] = {"color": colour, "clip_on": False}
    if one.line and len(points) > 1:
        dashes = {"linestyle": (0, (5, 4)), "linewidth": 1.3} if one.dashed else {"linewidth": 1.8}
        axes.plot(*points.T, **style, **dashes, gid=f"line-{number}")
    if (one.dots and len(points) <= _DOTS_UP_TO) or len(points) == 1:
        marker = MARKERS[number % len(MARKERS)]
        axes.plot(
            *points.T, **style, linestyle="", marker=marker, markersize=7, markeredgewidth=0, gid=f"dots-{number}"
        )


def _to_place(axes: Any, series: Sequence[Series], x: Scale, y: Scale, renderer: Any) -> tuple[Obstacles, list[Name]]:
    def pixels(points: Sequence[tuple[float, float]]) -> np.ndarray:
        clamped = np.array([(x.clamp(a), y.clamp(b)) for a, b in points], float).reshape(-1, 2)
        return np.asarray(axes.transData.transform(clamped))

    dots, segments, names = [np.empty((0, 2))], [np.empty((0, 4))], []
    for one in series:
        placed = pixels(one.points)
        if one.dots:
            dots.append(placed)
        if one.line and len(placed) > 1:
            segments.append(np.hstack([placed[:-1], placed[1:]]))
        bars = one.bars()
        segments.append(
            np.hstack([pixels([(a, low) for a, low, _ in bars]), pixels([(a, high) for a, _, high in bars])])
        )
        for (at_x, at_y), text in zip(placed, one.names, strict=False):
            if text:
                names.append(Name(text, float(at_x), float(at_y), *_extent(axes, text, renderer)))
    box = axes.get_window_extent(renderer)
    frame = (box.x0 + 3, box.y0 + 3, box.x1 + 6, box.y1 + 4)
    heights = pixels([(x.high, tick) for tick in y.ticks])[:, 1]
    grid = np.array([(box.x0, at, box.x1, at) for at in heights]).reshape(-1, 4)
    return Obstacles(np.vstack(dots), np.vstack(segments), grid, frame), names


def _extent(axes: Any, text: str, renderer: Any) -> tuple[float, float]:
    probe = Text(0, 0, text, figure=axes.figure)
    box = probe.get_window_extent(renderer)
    return float(box.width), float(box.height)


def _draw_name(figure: Figure, place: Place) -> None:
    left, bottom, right, top = place.box
    width, height = figure.get_size_inches() * _DPI
    if place.leader:
        x0, y0, x1, y1 = place.leader
        line = Line2D([x0 / width, x1 / width], [y0 / height, y1 / height], color=PALETTE["--soft"], linewidth=0.8)
        line.set_gid("leader")
        figure.add_artist(line)
    at = {"left": left, "center": (left + right) / 2, "right": right}[place.side]
    figure.text(at / width, (bottom + top) / 2 / height, place.name.text, ha=place.side, va="center",
                color=PALETTE["--ink"], gid="name")  # fmt: skip


def _draw_bars(chart: BarChart, size: Format) -> FigurePage:
    names = [_wrapped(name, 0.38 * size.width) for name, _ in chart.shares]
    values = [f"{cell(value)} {chart.unit}" for _, value in chart.shares]
    row = max(_BAR, _LINE_HEIGHT * max((1 + n.count("\n") for n in names), default=1)) + 10
    height = row * len(names) + 8
    figure, axes = _frame(size, height)
    renderer = FigureCanvasAgg(figure).get_renderer()
    left = max((_extent(axes, name, renderer)[0] for name in names), default=0.0) + 10
    beside = max((_extent(axes, value, renderer)[0] for value in values), default=0.0) + 12
    axes.set_position((left / size.width, 4 / height, (size.width - left - beside) / size.width, (height - 8) / height))
    longest = max((v for _, v in chart.shares), default=0.0) or 1.0
    places = np.arange(len(names))
    lengths = [max(v, 0.004 * longest) for _, v in chart.shares]
    axes.barh(places, lengths, height=_BAR / row, color=PALETTE["--c0"], clip_on=False)
    axes.set_xlim(0, longest)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(places, names)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0, pad=6, labelcolor=PALETTE["--ink"], labelsize=_FONT)
    axes.spines["bottom"].set_visible(False)
    for at, length, value in zip(places, lengths, values, strict=True):
        axes.annotate(value, (length, at), (6, 0), textcoords="offset points", va="center", color=PALETTE["--soft"])
    return FigurePage(figure)
