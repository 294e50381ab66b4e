"""The report shows every benchmark or the command that makes it, loads nothing, and escapes everything."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from benchmarks.report.charts import LineChart
from benchmarks.report.models import pareto_section
from benchmarks.report.page import write_report
from benchmarks.report.results import ResultSet, read_folder
from benchmarks.report.sections import COMMANDS, SECTIONS
from edge_sdk import extras
from edge_sdk.cli.bench.group import app
from edge_sdk.errors import MissingDependencyError, StethoError
from edge_sdk.notices import RESEARCH_USE_IN_REPORTS

TITLES = (
    "Latency against accuracy", "Latency of the model", "Stages of the stream", "Event F1 against delay",
    "Event F1 against look-ahead", "Streams against CPU", "The whole pipeline", "Archives", "Reliability",
    "Networks side by side", "What the conversion costs", "Soak", "Faults", "Peers", "Committed ratios",
    "Other results", "Commands",
)  # fmt: skip
EVIL = "<script>alert('x')</script>|& \"q\""
MACHINE = {
    "benchmark": "machine", "cpu": "Test CPU", "cores": 2, "architecture": "x86_64", "memory_mb": 1, "os": "Linux",
    "python": "3", "versions": {}, "when": "2026-01-02T03:04:05Z",
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
            {
                "benchmark": "latency",
                "subject": subject(part="stage resample"),
                "share": 1.0,
                "cpu_s_per_hour": 0.4,
                "p50_ms": 0.01,
            },
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
        "ratios": [
            {"benchmark": "ratio", "subject": {"part": EVIL}, "of": "peers", "machine": name, "cpu_ratio": 1.5}
            for name in ("One", "Two")
        ],
        "peers": [{"benchmark": "peers", "subject": subject(part="stream: ours"), "stages": {EVIL: 0.6, "rest": 0.4}}],
    }


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    for name, rows in everything().items():
        content = {"command": f"stetho bench {name} {EVIL}", "rows": [MACHINE, *rows]}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def pages(full: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """HTML and Markdown."""
    html, markdown = write_report(full, tmp_path_factory.mktemp("page"))
    return html.read_text(), markdown.read_text()


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


def test_all_sections_are_on_both_pages_with_plots_and_commands(full: Path, pages: tuple[str, str]) -> None:
    html, markdown = pages
    for title in TITLES:
        assert f"<h2>{title}</h2>" in html and f"## {title}" in markdown
        assert f">{title}</a>" in html.split("</nav>")[0]
    for page in pages:
        assert RESEARCH_USE_IN_REPORTS in page and "Test CPU" in page and "stetho bench soak" in page
        assert "No results yet" not in page
    charts = sum(len(make(read_folder(full)).charts) for make in SECTIONS)
    assert charts >= 11 and len(plots_of(html)) == 2 * charts  # for screens and for telephones


def section_of(html: str, title: str) -> str:
    return html.split(f"<h2>{title}</h2>")[1].split("</section>")[0]


def plots_of(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(text) for text in re.findall(r'<svg viewBox="[^"]*" role="img">.*?</svg>', html)]


def marks(section: str, kind: str) -> int:
    """Points or error bars of the plots for screens."""
    (element,) = {"dots": ("use",), "bars": ("path",)}[kind]
    screens = "".join(part.split("</svg>")[0] + "</svg>" for part in section.split('class="wide-plot"')[1:])
    groups = [g for plot in plots_of(screens) for g in plot.iter("g") if g.get("class") == kind]
    return sum(len([e for e in g.iter(element) if "id" not in e.attrib]) for g in groups)


def test_every_kind_of_row_is_drawn_as_its_benchmark_writes_it(pages: tuple[str, str]) -> None:
    html, markdown = pages
    assert marks(section_of(html, "Reliability"), "dots") == 2
    delay = section_of(html, "Event F1 against delay")
    assert marks(delay, "dots") == 2  # the replay and the segmenter's own evaluation
    assert "learned, look-ahead 0.2 s" in delay
    look = section_of(html, "Event F1 against look-ahead")
    assert len(plots_of(look)) == 2 * 2 and marks(look, "dots") == 3 + 2 * 3
    assert marks(look, "bars") == 3 + 2 * 3
    assert look.index("look-ahead 0.12 s") < look.index("look-ahead 0.24 s") < look.index("look-ahead 0.48 s")
    assert "torch eager" in section_of(html, "Latency against accuracy")
    assert "| film small seed 1 |" in markdown
    assert "curious" in html and "64" in section_of(html, "The whole pipeline")
    assert marks(section_of(html, "Archives"), "dots") == 2


def test_accuracy_stands_beside_the_latency_of_the_model_not_of_a_stage(full: Path) -> None:
    (table,) = pareto_section(read_folder(full)).tables
    assert [row["p50_ms"] for _, row in table.rows] == [0.3, 0.2]


def test_a_pareto_front_joins_models_of_one_corpus() -> None:
    rows: tuple[dict[str, Any], ...] = tuple(
        {
            "benchmark": "accuracy",
            "subject": subject(model=f"{corpus}{ms}"),
            "corpus": corpus,
            "auroc": auroc,
            "p50_ms": ms,
        }
        for corpus, ms, auroc in (("a", 1.0, 0.8), ("a", 2.0, 0.9), ("a", 3.0, 0.85), ("b", 1.5, 0.99))
    )
    (chart,) = pareto_section(ResultSet(rows, (), {})).charts
    fronts = [one for one in chart.series if one.dashed]  # type: ignore[union-attr]
    assert [(one.name, one.points) for one in fronts] == [("Pareto front, a", [(1.0, 0.8), (2.0, 0.9)])]


def test_the_page_is_self_contained_well_formed_and_escaped(pages: tuple[str, str]) -> None:
    html, markdown = pages
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert "script" not in checker.tags and "&lt;script&gt;" in html
    assert all(link.startswith("#") for link in checker.links)
    assert not re.search(r"https?://|@import|url\(", html)
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(set(ids)) == len(ids) and {link[1:] for link in checker.links} <= set(ids)
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


def test_a_missing_folder_is_an_error_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(StethoError, match="--out"):
        write_report(tmp_path / "none", tmp_path)


def test_the_command_names_the_pages(full: Path, tmp_path: Path) -> None:
    out = tmp_path / "page"
    result = CliRunner().invoke(app, ["report", str(full), "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0 and (out / "index.html").exists() and (out / "report.md").exists()


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_without_a_library_the_extra_is_named(full: Path, tmp_path: Path, missing: str, monkeypatch: Any) -> None:
    found: Callable[[str], object] = lambda name: None if name == missing else object()  # noqa: E731
    monkeypatch.setattr(extras, "find_spec", found)
    with pytest.raises(MissingDependencyError, match=rf"needs {missing}; .*stethoscope-edge-sdk\[report\]"):
        write_report(full, tmp_path / "out")


def test_results_of_two_machines_stand_side_by_side_under_their_names(tmp_path: Path) -> None:
    row = {"benchmark": "peers", "subject": subject(part="stream: silero-vad"), "cpu_ratio": 1.5}
    level = {"benchmark": "stream", "subject": subject(part="streams"), "streams": 2, "cpu_load": 0.1}
    for cpu, load in (("Intel(R) Xeon(R) Processor", 0.1), ("AMD EPYC", 0.3)):
        rows = [{**MACHINE, "cpu": cpu}, row, {**level, "cpu_load": load}]
        (tmp_path / f"{cpu[:3]}.json").write_text(json.dumps({"command": "c", "rows": rows}))
    results = read_folder(tmp_path)
    found = {section.title: section for section in (make(results) for make in SECTIONS)}
    assert [t.caption for t in found["Peers"].tables] == ["Stream · AMD EPYC, 2 cores", "Stream · Intel Xeon, 2 cores"]
    chart = found["Streams against CPU"].charts[0]
    assert isinstance(chart, LineChart)
    assert {one.name: one.points for one in chart.series} == {
        "streams · AMD EPYC, 2 cores": [(2.0, 0.3)],
        "streams · Intel Xeon, 2 cores": [(2.0, 0.1)],
    }
    _, markdown = write_report(tmp_path, tmp_path / "page")
    assert "### Stream · Intel Xeon, 2 cores" in markdown.read_text()
