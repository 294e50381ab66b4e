"""The report shows every benchmark or the command that makes it, loads nothing, and escapes everything."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.core.rows import write_results
from benchmarks.report.page import RESEARCH_USE, write_report
from benchmarks.report.results import read_folder
from benchmarks.report.sections import COMMANDS
from benchmarks.report.svg import Axes, Series, plot
from edge_sdk.cli.bench import long_commands as bench_long
from edge_sdk.errors import StethoError

TITLES = (
    "Latency against accuracy", "Latency of the model", "Stages of the stream", "Event F1 against delay",
    "Event F1 against look-ahead", "Streams against CPU", "The whole pipeline", "Archives", "Reliability",
    "Networks side by side", "What the conversion costs", "Soak", "Faults", "Peers", "Other results", "Commands",
)  # fmt: skip
EVIL = "<script>alert('x')</script>|& \"q\""
MACHINE = {
    "benchmark": "machine", "cpu": "Test CPU", "cores": 2, "memory_mb": 1, "os": "Linux", "python": "3", "versions": {},
}  # fmt: skip


def subject(**more: Any) -> dict[str, Any]:
    return {"model": "compact 1.0", "artefact": "onnx-fp32", "threads": 1, "batch": 1, **more}


def everything() -> dict[str, list[dict[str, Any]]]:
    table = [{"confidence": 0.4, "accuracy": 0.3, "n": 3}, {"confidence": 0.9, "accuracy": 0.95, "n": 9}]
    replay = {"event_f1": 0.7, "detection_delay_p50_s": 0.4, "look_ahead_s": 0.2, "n": 120, "p99_ms": 30.0}
    curve = [
        {"look_ahead_s": s, "event_f1": 0.6 + s / 4, "event_f1_ci": [0.5, 0.8], "detection_delay_p50_s": s + 0.1,
         "detection_delay_p95_s": s + 0.4, "command": EVIL}
        for s in (0.48, 0.12, 0.24)
    ]  # fmt: skip
    network = {"recipe": "film", "size": "small", "corpus": EVIL, "protocol": "x train→val, strict", "auroc": 0.9}
    return {
        "latency": [
            {"benchmark": "latency", "subject": subject(), "p50_ms": 0.3, "n": 9},
            {"benchmark": "latency", "subject": subject(artefact="int8"), "p50_ms": 0.2, "n": 9},
            {"benchmark": "latency", "subject": subject(part="stage resample"), "share": 1.0, "cpu_s_per_hour": 0.4},
            {"benchmark": "latency", "subject": subject(artefact="trt"), "failed": EVIL},
        ],
        "accuracy": [
            {
                "benchmark": "accuracy",
                "subject": subject(),
                "corpus": EVIL,
                "auroc": 0.97,
                "auroc_ci": [0.9, 1.0],
                "reliability": table,
            },
            {"benchmark": "accuracy", "subject": subject(artefact="int8"), "corpus": EVIL, "auroc": 0.96},
        ],
        "look_ahead": curve,
        "segmentation": [{"name": "compact", "version": "1.0", "segmenter": "learned", "corpus": EVIL, **replay}],
        "training": [{**network, "ms": 2.0}, {**network, "ms": 3.0, "seed": 1}],
        "export": [{"model": "film", "format": "onnx-int8-cpu", "agreement": 0.99, "auroc_drop": 1e-5}],
        "screening": [
            {"benchmark": "screening", "subject": subject(engine="ray"), "workers": n, "recordings_per_s": 10.0 * n}
            for n in (1, 2)
        ],
        "curious": [{"benchmark": "curious", "subject": subject(part=EVIL), "figure": 3.0, "nested": {}}],
        "stream": [
            {"benchmark": "stream", "subject": subject(part="replay label"), **replay},
            {"benchmark": "stream", "subject": subject(part="growth of streams"), "most_without_miss": 64},
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
    assert html.count("<svg") >= 11


def section_of(html: str, title: str) -> str:
    return html.split(f"<h2>{title}</h2>")[1].split("</section>")[0]


def test_every_kind_of_row_is_drawn_as_its_benchmark_writes_it(full: Path, tmp_path: Path) -> None:
    html, markdown = (path.read_text() for path in write_report(full, tmp_path / "out"))
    assert section_of(html, "Reliability").count("<circle") == 2
    delay = section_of(html, "Event F1 against delay")
    assert delay.count("<circle") == 2  # the replay and the segmenter's own evaluation
    assert "learned, look-ahead 0.2 s" in delay
    look = section_of(html, "Event F1 against look-ahead")
    assert look.count("<svg") == 2 and look.count("<circle") == 3 + 2 * 3
    assert look.count('bar"') == 3 + 2 * 3
    assert look.index("look-ahead 0.12 s") < look.index("look-ahead 0.24 s") < look.index("look-ahead 0.48 s")
    assert "torch eager" in section_of(html, "Latency against accuracy")
    assert "| film small seed 1 |" in markdown
    assert "curious" in html and "64" in section_of(html, "The whole pipeline")
    assert section_of(html, "Archives").count("<circle") == 2


def _names(svg: str) -> list[tuple[float, float, float]]:
    """Left end, right end and height of every name beside a point."""
    found = []
    for x, anchor, y, name in re.findall(r'class="note" x="([\d.]+)"( text-anchor="end")? y="([\d.]+)">([^<]*)', svg):
        wide = 6.8 * len(name)
        found.append((float(x) - wide, float(x), float(y)) if anchor else (float(x), float(x) + wide, float(y)))
    return found


def test_names_of_points_do_not_lie_on_each_other() -> None:
    points = [(1.0 + 0.01 * k, 0.9 + 0.001 * k) for k in range(8)]
    svg = plot([Series("", points, [f"network {k}" for k in range(8)], line=False)], Axes("x", "y", x_from=0, x_to=2))
    names = _names(svg)
    assert len(names) == 8
    for k, (a, b, y) in enumerate(names):
        for c, d, z in names[:k]:
            assert b <= c or d <= a or abs(y - z) >= 12


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
