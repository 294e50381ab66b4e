"""Tables of the report hold every figure, whole, below a heading in words, aligned at the decimal point."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from benchmarks.core.rows import cell
from benchmarks.report.page import write_report
from benchmarks.report.results import read_folder
from benchmarks.report.sections import SECTIONS
from benchmarks.report.tables import Table, grid, heading

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    html, markdown = write_report(RESULTS, tmp_path_factory.mktemp("page"))
    return html.read_text(), markdown.read_text()


def test_the_results_in_the_repository_make_a_report(pages: tuple[str, str]) -> None:
    html, _ = pages
    assert "Latency of the model" in html


def cells_of(html: str) -> list[str]:
    """Texts of cells as rows write them."""
    texts = [unescape(re.sub("<[^>]*>", "", text)) for text in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", html)]
    return [text.replace("−", "-").replace("\u202f", "").replace(" to ", " – ") for text in texts]


def test_every_figure_of_the_committed_results_is_on_both_pages(pages: tuple[str, str]) -> None:
    html, markdown = pages
    for section in (make(read_folder(RESULTS)) for make in SECTIONS):
        below = html.split(f"<h2>{section.title}</h2>")[1].split("</section>")[0]
        blocks = re.findall(r"<table.*?</table>", below, re.DOTALL)
        text = markdown.split(f"## {section.title}\n")[1].split("\n## ")[0]
        assert len(blocks) == len(section.tables)
        for table, block in zip(section.tables, blocks, strict=True):
            cells = cells_of(block)
            for name, row in table.rows:
                shown = [cell(row.get(column)) for column in table.columns]
                assert all(figure.replace(" to ", " – ") in cells for figure in shown), (section.title, name)
                assert f"| {name} | {' | '.join(shown)} |" in text


def test_nothing_on_the_page_cuts_a_text(pages: tuple[str, str]) -> None:
    html, _ = pages
    style = html.split("<style>")[1].split("</style>")[0]
    assert not re.search(r"text-overflow|overflow(-x)?: *hidden|line-clamp", style)


def test_figures_of_a_column_are_aligned_at_the_decimal_point() -> None:
    values = [0.511, 12.3, 1249.0, 127, -0.002, 0.00095, None]
    column = [
        row.figures[0] for row in grid(Table(["p50_ms"], [(f"r{k}", {"p50_ms": v}) for k, v in enumerate(values)])).rows
    ]
    assert [one.text for one in column] == ["0.511", "12.30", "1249", "127", "−0.002", "9.5e−04", "–"]
    after = {len((one.text + one.pad).partition(".")[2]) for one in column[:-1]}
    assert len(after) == 1 and all("." in one.text + one.pad for one in column[:-1])


def test_headings_are_words_with_units() -> None:
    assert heading("detection_delay_p50_s") == ("Detection delay P50", "s")
    assert heading("rss_slope_mb_per_hour") == ("Memory slope", "MB/h")
    assert heading("auroc_ci") == ("AUROC 95\u00a0%\u00a0CI", "")
    assert heading("recordings_per_s") == ("Recordings per second", "")
    assert heading("something_new") == ("Something new", "")


def test_what_all_names_share_moves_to_the_caption() -> None:
    rows = [(f"compact 1.0 · {part}", {"n": 1}) for part in ("a", "b")]
    shown = grid(Table(["n"], rows, "Group"))
    assert shown.caption == "Group · compact 1.0" and [row.name for row in shown.rows] == ["a", "b"]
    equal = grid(
        Table(["streams", "n"], [("compact 1.0 · streams", {"streams": k, "n": 9}) for k in (1, 2)], "Streams")
    )
    assert equal.caption == "Streams · compact 1.0" and equal.corner.text == "Streams"
    assert [(row.name, [one.text for one in row.figures]) for row in equal.rows] == [("1", ["9"]), ("2", ["9"])]


def test_only_a_judged_column_makes_no_a_finding() -> None:
    row = {"passed": False, "disturbed": False, "verified": True}
    (line,) = grid(Table(list(row), [("x", row)])).rows
    assert [one.kind for one in line.figures] == ["flag bad", "flag", "flag good"]
