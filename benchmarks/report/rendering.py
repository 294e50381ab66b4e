"""The templates of the report, and what they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from benchmarks.core.rows import cell
from benchmarks.report.charts import BarChart, Chart
from benchmarks.report.drawing import MARKERS, PALETTE, colour_of, draw, formats_of
from benchmarks.report.inline_svg import inline_svg
from benchmarks.report.machines import machine_texts
from benchmarks.report.results import ResultSet
from benchmarks.report.section import Section
from benchmarks.report.tables import grid, title
from edge_sdk.notices import RESEARCH_USE_IN_REPORTS


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend."""

    name: str
    colour: str  # CSS variable
    marker: str  # of matplotlib; empty: a line only
    line: bool
    dashed: bool


@dataclass(frozen=True, slots=True)
class Rendering:
    """A chart in one size."""

    format: str
    width: int
    svg: Markup
    left_out: Sequence[str]  # names without room


@dataclass(frozen=True, slots=True)
class PlotPage:
    """A chart as the page shows it: one rendering for screens, one for telephones."""

    title: str
    keys: Sequence[Key]
    renderings: Sequence[Rendering]


def report_html(results: ResultSet, sections: Sequence[Section]) -> str:
    """The page with plots; nothing is loaded from elsewhere."""
    plots = {s.anchor: [_plot(c, f"{s.anchor}-{k}") for k, c in enumerate(s.charts)] for s in sections}
    return _page("page.html.j2", results, sections, plots=plots, palette=PALETTE)


def report_markdown(results: ResultSet, sections: Sequence[Section]) -> str:
    """The page without plots."""
    return _page("report.md.j2", results, sections)


def _page(template: str, results: ResultSet, sections: Sequence[Section], **more: object) -> str:
    environment = Environment(
        loader=PackageLoader("benchmarks.report"),
        autoescape=select_autoescape(enabled_extensions=("html.j2",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(cell=cell, grid=grid, title=title, inline=_inline)
    return environment.get_template(template).render(
        notice=RESEARCH_USE_IN_REPORTS, machines=machine_texts(results), results=results, sections=sections, **more
    )


def _inline(text: str) -> str:
    """A text that stays within one cell or line of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _plot(chart: Chart, prefix: str) -> PlotPage:
    renderings = []
    caption = chart.title or (chart.unit if isinstance(chart, BarChart) else f"{chart.axes.y} against {chart.axes.x}")
    for size in formats_of(chart):
        page = draw(chart, size)
        svg = Markup(inline_svg(page.figure, f"{prefix}-{size.name}", caption))
        renderings.append(Rendering("narrow" if size.name == "narrow" else "wide", size.width, svg, page.left_out))
    return PlotPage(chart.title, [] if isinstance(chart, BarChart) else _keys(chart), renderings)


def _keys(chart: Chart) -> list[Key]:
    if isinstance(chart, BarChart) or not any(one.name for one in chart.series):
        return []
    return [
        Key(
            one.name,
            colour_of(number, one),
            MARKERS[number % len(MARKERS)] if one.dots else "",
            one.line,
            one.dashed,
        )
        for number, one in enumerate(chart.series)
    ]
