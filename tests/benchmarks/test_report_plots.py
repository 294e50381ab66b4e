"""In the plots of the report no text lies on another or outside, and no line, point or error bar lies on a name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from benchmarks.report.charts import Axes, BarChart, Chart, LineChart, Series
from benchmarks.report.drawing import LARGE, NARROW, PALETTE, WIDE, FigurePage, Format, draw, formats_of
from benchmarks.report.inline_svg import inline_svg
from benchmarks.report.results import ResultSet, read_folder
from benchmarks.report.section import Section
from benchmarks.report.sections import SECTIONS

Box = tuple[float, float, float, float]  # left, bottom, right, top
Points = npt.NDArray[np.float64]


def boxes_of(page: FigurePage) -> list[tuple[str, str, Box]]:
    """Role, text and box of everything that is written, as the renderer measures it."""
    page.figure.draw_without_rendering()  # moves the names of the axes to their places
    renderer = FigureCanvasAgg(page.figure).get_renderer()
    extents = [(text.get_gid() or "", text.get_text(), text.get_window_extent(renderer)) for text in page.texts]
    return [(role, text, (box.x0, box.y0, box.x1, box.y1)) for role, text, box in extents]


def lines_of(page: FigurePage, *roles: str) -> list[Points]:
    """Lines in pixels, [n, 2] each, densely sampled."""
    found: list[Points] = []
    for artist in page.figure.findobj(Line2D):
        if str(artist.get_gid()).partition("-")[0] in roles:
            found.append(_sampled(artist.get_transform().transform(artist.get_xydata())))
    for collection in page.figure.findobj(LineCollection):
        if str(collection.get_gid()).partition("-")[0] in roles:
            found += [_sampled(collection.get_transform().transform(path)) for path in collection.get_segments()]
    return found


def _sampled(corners: Points) -> Points:
    if len(corners) < 2:
        return corners
    parts = [
        a + np.linspace(0, 1, 2 + 2 * int(np.hypot(*(b - a))))[:, None] * (b - a)  # every half pixel
        for a, b in pairwise(corners)
    ]
    return np.vstack(parts)


def dots_of(page: FigurePage) -> Points:
    dots = [
        artist.get_transform().transform(artist.get_xydata())
        for artist in page.figure.findobj(Line2D)
        if str(artist.get_gid()).startswith("dots")
    ]
    return np.vstack([np.empty((0, 2)), *dots])


def inside(points: Points, box: Box, margin: float = 0.0) -> bool:
    left, bottom, right, top = box
    x, y = points.T
    hit = (x > left - margin) & (x < right + margin) & (y > bottom - margin) & (y < top + margin)
    return bool(hit.any())


def check(page: FigurePage, names: Sequence[str] = ()) -> None:
    """Everything that the title of this file promises, of one figure."""
    width, height = page.figure.get_size_inches() * page.figure.dpi
    boxes = boxes_of(page)
    for number, (_, text, (left, bottom, right, top)) in enumerate(boxes):
        assert left >= -0.5 and bottom >= -0.5 and right <= width + 0.5 and top <= height + 0.5, text
        for _, other, (a, b, c, d) in boxes[:number]:
            assert right <= a or c <= left or top <= b or d <= bottom, f"{text!r} lies on {other!r}"
    drawn = [(text, box) for role, text, box in boxes if role == "name"]
    lines, dots = np.vstack([np.empty((0, 2)), *lines_of(page, "line", "bars", "leader")]), dots_of(page)
    for text, box in drawn:
        assert not inside(lines, box), f"a line lies under {text!r}"
        assert not inside(dots, box, margin=3.0), f"a point lies under {text!r}"
    assert {text for text, _ in drawn} | set(page.left_out) == {name for name in names if name}


def names_of(chart: Chart) -> list[str]:
    return [] if isinstance(chart, BarChart) else [name for one in chart.series for name in one.names]


@pytest.fixture(scope="module")
def committed() -> ResultSet:
    return read_folder(Path(__file__).parents[2] / "benchmarks" / "results")


@pytest.mark.parametrize("make", SECTIONS, ids=lambda make: make.__name__)
def test_texts_of_the_committed_results_are_free(make: Callable[[ResultSet], Section], committed: ResultSet) -> None:
    for chart in make(committed).charts:
        for size in formats_of(chart):
            page = draw(chart, size)
            check(page, names_of(chart))
            if size is not NARROW:
                assert not page.left_out


def crowd(seed: int, names: int, spread: float, *, log: bool) -> LineChart:
    """Named points with error bars in a small part of the plot, a line through others."""
    random = np.random.default_rng(seed)
    points = [(5.0 + x, 0.9 + y / 10) for x, y in random.normal(0, spread, (names, 2))]
    intervals = [(y - 0.03, y + 0.02) if k % 3 else None for k, (_, y) in enumerate(points)]
    texts = [f"network {'long ' * (k % 4)}{k}" for k in range(names)]
    curve = [(float(x), 0.8 + 0.02 * float(x % 5)) for x in range(1, 10)]
    series = [
        Series("crowd", points, texts, line=False, intervals=intervals),
        Series("curve", curve, [f"{x:g} s" for x, _ in curve]),
        Series("front", [(1.0, 0.85), (9.0, 0.95)], dots=False, dashed=True),
    ]
    return LineChart(series, Axes("median of something, s", "a figure", log_x=log), large=True)


@pytest.mark.parametrize("size", [LARGE, NARROW], ids=lambda size: size.name)
@pytest.mark.parametrize(("names", "spread"), [(12, 0.5), (40, 0.5), (25, 0.01), (25, 0.0)])
def test_texts_of_crowded_points_are_free(size: Format, names: int, spread: float) -> None:
    for seed, log in ((0, False), (1, True)):
        chart = crowd(seed, names, spread, log=log)
        check(draw(chart, size), names_of(chart))


def test_names_that_have_room_are_all_drawn() -> None:
    points = [(1.0 + 0.01 * k, 0.9 + 0.001 * k) for k in range(8)]
    names = [f"network {k}" for k in range(8)]
    chart = LineChart([Series("", points, names, line=False)], Axes("x", "y", x_from=0, x_to=2))
    page = draw(chart, WIDE)
    check(page, names)
    assert not page.left_out


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=lambda size: size.name)
@pytest.mark.parametrize(
    "shares",
    [
        [("segmenter", 9.31), ("front end", 0.0), ("a stage whose name takes more than one line of the plot", 1e-4)],
        [("<b>&$x^2$ \\alpha", 3.0)],
        [("zero", 0.0)],
        [(f"stage {k}", float(k) ** 9) for k in range(20)],
    ],
)
def test_names_and_values_of_bars_are_free(shares: list[tuple[str, float]], size: Format) -> None:
    page = draw(BarChart(shares, "CPU s an hour"), size)
    check(page)
    written = " ".join(text.get_text().replace("\n", " ") for text in page.texts)
    assert all(name in written for name, _ in shares)


@pytest.mark.parametrize(
    "points",
    [[(1.0, 1.0)], [(0.0, 0.0), (0.0, 0.0)], [(0.001, 5.0), (1e4, -5.0)], [], [(1e-12, 1e9), (1e12, 1e-9)],
     [(k / 7, 103.0 + k * 1e-5) for k in range(9)], [(-1e5, -123456.0), (1e5, -123455.0)]],
)  # fmt: skip
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=lambda size: size.name)
def test_any_points_make_a_plot(points: list[tuple[float, float]], log: bool, size: Format) -> None:
    page = draw(LineChart([Series("a", points)], Axes("x", "y", log_x=log, log_y=log)), size)
    check(page)
    svg = inline_svg(page.figure, "p", "a plot")
    assert not re.search(r"\b(nan|inf)\b", svg)


def test_tick_labels_differ_and_are_exact() -> None:
    for points in ([(0.0, 103.00001), (1.0, 103.00009)], [(0.0, 0.0), (3000.0, 1.0)], [(0.0, -1e-7), (1e7, 2e-7)]):
        page = draw(LineChart([Series("a", points)], Axes("x", "y")), WIDE)
        (axes,) = page.figure.axes
        for axis in (axes.xaxis, axes.yaxis):
            labels = [label.get_text().replace("−", "-") for label in axis.get_ticklabels()]
            assert len(labels) >= 3 and len(set(labels)) == len(labels)
            assert [float(label) for label in labels] == pytest.approx(list(axis.get_ticklocs()), rel=1e-9)


@pytest.fixture(scope="module")
def svg() -> str:
    return inline_svg(draw(crowd(0, 12, 0.5, log=True), WIDE).figure, "plot-1", "A & B")


def test_text_stays_text_in_the_font_of_the_page(svg: str) -> None:
    assert re.search(r"<text [^>]*>median of something, s</text>", svg) and "A &amp; B" in svg
    assert "font-family" not in svg and "DejaVu" not in svg


def test_colours_are_roles_that_the_page_defines_for_light_and_dark(svg: str) -> None:
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b", re.sub(r'href="#[^"]*"', "", svg))
    used = set(re.findall(r"var\((--\w+)\)", svg))
    assert {"--c0", "--soft", "--ink", "--rule"} <= used <= set(PALETTE)
    css = (Path(__file__).parents[2] / "benchmarks" / "report" / "templates" / "page.css").read_text()
    light, dark = css.split("prefers-color-scheme: dark")
    assert "palette.items()" in light and all(f"{name}: #" in dark for name in PALETTE)


def test_ids_begin_with_the_prefix_and_nothing_of_matplotlib_remains(svg: str) -> None:
    ids: list[Any] = re.findall(r'\sid="([^"]*)"', svg)
    assert ids and len(set(ids)) == len(ids) and all(one.startswith("plot-1-") for one in ids)
    assert set(re.findall(r'href="#([^"]*)"', svg)) <= set(ids)
    for foreign in ("xmlns", "metadata", "<style", "url(", "http"):
        assert foreign not in svg
