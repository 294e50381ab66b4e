"""All results of a folder on one page: self-contained HTML with plots, and Markdown."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report.results import read_folder
from benchmarks.report.sections import SECTIONS
from edge_sdk.errors import StethoError
from edge_sdk.extras import require_extra


def need_report() -> None:
    """Raise ``MissingDependencyError`` where the report extra is not installed."""
    require_extra("report", "the report", "jinja2", "matplotlib")


def write_report(folder: Path, out: Path) -> tuple[Path, Path]:
    """Write ``index.html`` and ``report.md`` into ``out``; returns their paths.

    Raises
    ------
    StethoError
        No such folder of results, or ``out`` cannot be written.
    MissingDependencyError
        jinja2 or matplotlib is not installed.
    """
    need_report()
    from benchmarks.report.rendering import report_html, report_markdown

    results = read_folder(folder)
    sections = [make(results) for make in SECTIONS]
    html, markdown = out / "index.html", out / "report.md"
    try:
        out.mkdir(parents=True, exist_ok=True)
        html.write_text(report_html(results, sections), encoding="utf-8")
        markdown.write_text(report_markdown(results, sections), encoding="utf-8")
    except OSError as error:
        raise StethoError(f"cannot write the report into {out}: {error}; name a folder that can be written") from error
    return html, markdown
