"""The report shows every benchmark or the command that makes it, loads nothing, and escapes everything."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.report import RESEARCH_USE, write_report
from benchmarks.report_results import read_folder
from benchmarks.report_sections import COMMANDS
from benchmarks.rows import write_results
from benchmarks.svg import Axes, Series, plot
from edge_sdk.cli import bench_long
from edge_sdk.errors import StethoError

TITLES = (
    "Latency against accuracy", "Latency of the model", "Stages of the stream", "Event F1 against delay",
    "Streams against CPU", "Reliability", "Soak", "Faults", "Peers", "Commands",
)  # fmt: skip
EVIL = "<script>alert('x')</script>|& \"q\""
MACHINE = {
    "benchmark": "machine", "cpu": "Test CPU", "cores": 2, "memory_mb": 1, "os": "Linux", "python": "3", "versions": {},
}  # fmt: skip


def subject(**more: Any) -> dict[str, Any]:
    return {"model": "compact 1.0", "artefact": "onnx-fp32", "threads": 1, "batch": 1, **more}


def everything() -> dict[str, list[dict[str, Any]]]:
    table = {"confidence": [0.4, None, 0.9], "accuracy": [0.3, None, 0.95], "count": [3, 0, 9]}
    replay = {"event_f1": 0.7, "detection_delay_p50_s": 0.4, "look_ahead_s": 0.2}
    return {
        "latency": [
            {"benchmark": "latency", "subject": subject(), "p50_ms": 0.3, "n": 9},
            {"benchmark": "latency", "subject": subject(artefact="int8"), "p50_ms": 0.2, "n": 9},
            {"benchmark": "latency", "subject": subject(part="stage resample"), "share": 1.0, "cpu_s_per_hour": 0.4},
            {"benchmark": "latency", "subject": subject(artefact="trt"), "failed": EVIL},
        ],
        "accuracy": [
            {"benchmark": "accuracy", "subject": subject(), "corpus": EVIL, "auroc": 0.97, "reliability": table},
            {"benchmark": "accuracy", "subject": subject(artefact="int8"), "corpus": EVIL, "auroc": 0.96},
        ],
        "stream": [
            {"benchmark": "stream", "subject": subject(part="replay"), **replay},
            {"benchmark": "stream", "subject": subject(part="streams"), "streams": 1, "cpu_load": 0.01},
            {"benchmark": "stream", "subject": subject(part="streams"), "streams": 50, "cpu_load": 0.4},
        ],
        "soak": [
            {"benchmark": "soak", "subject": subject(part="interval"), "t_s": t, "rss_mb": 80.0, "p99_ms": 4.0}
            for t in (10.0, 20.0)
        ]
        + [{"benchmark": "soak", "subject": subject(part="verdict"), "passed": True, "why": EVIL}],
        "faults": [{"benchmark": "faults", "subject": subject(part="unplug"), "fault": EVIL, "passed": False}],
        "peers": [{"benchmark": "peers", "subject": subject(part="stream: ours"), "stages": {EVIL: 0.6, "rest": 0.4}}],
    }


@pytest.fixture
def full(tmp_path: Path) -> Path:
    for name, rows in everything().items():
        write_results(tmp_path / "in" / f"{name}.json", f"stetho bench {name} {EVIL}", [MACHINE, *rows])
    return tmp_path / "in"


class Checker(HTMLParser):
    """Every element is closed, nothing is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_all_sections_are_on_both_pages_with_plots_and_commands(full: Path, tmp_path: Path) -> None:
    html, markdown = (path.read_text() for path in write_report(full, tmp_path / "out"))
    for title in TITLES:
        assert f"<h2>{title}</h2>" in html and f"## {title}" in markdown
    for page in (html, markdown):
        assert RESEARCH_USE in page and "Test CPU" in page and "stetho bench soak" in page
        assert "No results yet" not in page
    assert html.count("<svg") >= 8


def test_the_page_is_self_contained_well_formed_and_escaped(full: Path, tmp_path: Path) -> None:
    html, markdown = (path.read_text() for path in write_report(full, tmp_path / "out"))
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert "script" not in checker.tags and "&lt;script&gt;" in html
    assert all(link.startswith("#") for link in checker.links)
    assert not re.search(r"https?://|@import|url\(", html)
    assert "<script" not in markdown
    for line in markdown.splitlines():
        if line.startswith("| compact"):
            assert "\\|" in line or EVIL.split("|")[0] not in line


def test_without_results_every_section_says_how_to_make_them(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    html, markdown = (path.read_text() for path in write_report(tmp_path / "in", tmp_path / "out"))
    for command in COMMANDS.values():
        assert command in html and command in markdown


def test_foreign_files_are_passed_over_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text('{"folds": []}')
    (tmp_path / "strange.json").write_text('{"rows": [{"variant": "x"}]}')
    kept = read_folder(tmp_path)
    assert set(kept.unread) == {"broken.json", "other.json", "strange.json"} and kept.rows == ()
    assert str(tmp_path) not in "".join(kept.unread.values())


def test_the_results_in_the_repository_make_a_report(repo_root: Path, tmp_path: Path) -> None:
    html, _ = write_report(repo_root / "benchmarks" / "results", tmp_path)
    assert "Latency of the model" in html.read_text()


def test_a_missing_folder_is_an_error_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(StethoError, match="--out"):
        write_report(tmp_path / "none", tmp_path)


def test_the_command_names_the_pages(full: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    bench_long.register(app)
    out = tmp_path / "page"
    result = CliRunner().invoke(app, ["report", str(full), "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0 and (out / "index.html").exists() and (out / "report.md").exists()


@pytest.mark.parametrize("points", [[(1.0, 1.0)], [(0.0, 0.0), (0.0, 0.0)], [(0.001, 5.0), (1e4, -5.0)], []])
@pytest.mark.parametrize("log_x", [False, True])
def test_any_points_make_a_plot(points: list[tuple[float, float]], log_x: bool) -> None:
    svg = plot([Series("a", points)], Axes("x", "y", log_x=log_x))
    assert "nan" not in svg and "inf" not in svg
