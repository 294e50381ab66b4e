"""Every benchmark runs in its short form, so that none can rot; no timing is asserted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from benchmarks import start
from benchmarks.core.audio import PreloadedRecording, phantom_recordings
from benchmarks.core.harness import machine_row
from benchmarks.core.rows import check_row, read_results
from benchmarks.latency import LatencyOptions, run_latency
from benchmarks.stream import run as stream
from benchmarks.stream.run import StreamOptions
from edge_sdk.cli.bench import rows_output
from edge_sdk.cli.bench.group import app
from edge_sdk.cli.main import run as stetho
from edge_sdk.errors import StethoError
from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE, load_bundle
from edge_sdk.sources.phantom import PhantomSource

LATENCY_KEYS = {"subject", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms", "n", "rss_mb", "cpu_s"}


def _rows(*arguments: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(app, [*arguments, "--quick", "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def latency_rows() -> list[dict[str, Any]]:
    return _rows("latency", "--batch", "1", "--batch", "2")


def _models(rows: list[dict[str, Any]], batch: int = 1) -> dict[str, dict[str, Any]]:
    return {
        row["subject"]["artefact"]: row
        for row in rows
        if row["benchmark"] == "latency" and not row["subject"].get("part") and row["subject"]["batch"] == batch
    }


def test_every_row_follows_the_schema(latency_rows: list[dict[str, Any]]) -> None:
    for row in latency_rows:
        check_row(row)


def test_latency_starts_with_the_machine_and_has_a_row_per_artefact_and_batch(
    latency_rows: list[dict[str, Any]],
) -> None:
    assert [row["benchmark"] for row in latency_rows[:2]] == ["machine", "roofline"]
    for batch in (1, 2):
        rows = _models(latency_rows, batch)
        assert list(rows) == ["onnx-fp32", "onnx-int8-cpu", "onnx-fp16", "torch-eager"]
        for row in rows.values():
            assert set(row) >= LATENCY_KEYS
            assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["max_ms"]
            assert row["n"] < 100 and row["p99_ms"] is None


def test_latency_compares_with_torch_in_the_same_rounds(latency_rows: list[dict[str, Any]]) -> None:
    rows = _models(latency_rows)
    assert rows["torch-eager"]["ratio_to_torch"] == 1.0
    assert rows["onnx-int8-cpu"]["ratio_to_torch"] > 0


def test_latency_reports_the_operations_and_the_share_of_the_ceiling(latency_rows: list[dict[str, Any]]) -> None:
    one, two = _models(latency_rows, 1)["onnx-fp32"], _models(latency_rows, 2)["onnx-fp32"]
    assert two["macs"] == 2 * one["macs"] > 1e6
    assert one["roofline_pct"] > 0
    assert one["bound"] in ("compute", "memory")


def test_the_stages_of_a_stream_share_all_of_its_time(latency_rows: list[dict[str, Any]]) -> None:
    parts = {row["subject"].get("part") or "": row for row in latency_rows[1:]}
    stages = {name: row["share"] for name, row in parts.items() if name.startswith("stage")}
    assert set(stages) == {
        f"stage {s}" for s in ("resample", "quality", "front end", "segmenter", "classifier", "emit")
    }
    assert sum(stages.values()) == pytest.approx(1.0)


def test_a_format_that_does_not_load_is_a_row_with_the_reason() -> None:
    rows = _rows("latency", "--artefact", "onnx-fp32", "--artefact", "onnx-fp99", "--stages", "0")
    failed = [row for row in rows if row.get("failed")]
    assert [row["subject"]["artefact"] for row in failed] == ["onnx-fp99"]
    assert "onnx-fp99" in failed[0]["failed"]
    assert "onnx-fp32" in _models(rows)


def test_several_bundles_run_in_the_same_rounds_even_with_one_name(tmp_path: Path) -> None:
    copy = tmp_path / "mine"
    shutil.copytree(DEFAULT_BUNDLE, copy)
    rows = _rows("latency", "default", str(copy), "--artefact", "onnx-int8-cpu", "--stages", "0")
    models = [r["subject"]["model"] for r in rows if r["benchmark"] == "latency" and not r.get("failed")]
    assert len(models) == 4  # and torch eager of each
    assert len(set(models)) == 2
    assert any("(mine)" in model for model in models)


@pytest.fixture(scope="module")
def stream_rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path, Path]:
    folder = tmp_path_factory.mktemp("results")
    out, markdown = folder / "deeper" / "stream.json", folder / "deeper" / "stream.md"
    return _rows("stream", "--out", str(out), "--markdown", str(markdown)), out, markdown


def _parts(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    parts: dict[str, list[dict[str, Any]]] = {}
    for row in rows[1:]:
        parts.setdefault(row["subject"]["part"], []).append(row)
    return parts


def test_stream_measures_all_its_parts(stream_rows: tuple[list[dict[str, Any]], Path, Path]) -> None:
    rows, out, markdown = stream_rows
    parts = _parts(rows)
    assert set(parts) == {
        "throughput", "replay onset", "replay breath", "replay label", "streams", "growth of streams", "sessions",
        "growth of sessions", "import edge_sdk", "import edge_sdk.screen", "import numpy, onnxruntime", "cold start",
        "live", "files",
    }  # fmt: skip
    for row in rows:
        check_row(row)
    assert parts["throughput"][0]["cpu_s_per_hour"] > 0
    assert parts["throughput"][0]["audio_s"] == pytest.approx(15.0)
    assert parts["replay label"][0]["lost_samples"] == 0
    assert parts["cold start"][0]["rss_mb"] > 10
    for name in ("cold start", "import edge_sdk", "files"):
        assert 0 < parts[name][0]["cpu_ratio_low"] <= parts[name][0]["cpu_ratio"]
    assert parts["cold start"][0]["cpu_ms"] > parts["import edge_sdk"][0]["cpu_ms"] > 0
    assert parts["live"][0]["audio_s"] == parts["files"][0]["audio_s"] == pytest.approx(15.0)
    assert parts["live"][0]["cycles"] == parts["files"][0]["cycles"] > 0
    assert list(read_results(out).rows) == rows
    assert "| compact" in markdown.read_text()


def test_a_start_that_fails_is_one_line_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_PROGRAMS", {"import edge_sdk": "import sys; sys.exit('no such module')"})
    with pytest.raises(StethoError, match="import edge_sdk failed in the benchmark of the start: no such module"):
        list(start.start_rows("default", None, starts=1))


def test_stream_reports_the_growth_of_cpu_and_memory_with_the_number(
    stream_rows: tuple[list[dict[str, Any]], Path, Path],
) -> None:
    for kind in ("streams", "sessions"):
        parts = _parts(stream_rows[0])
        assert parts[kind][0]["streams"] == 1
        assert all(row["n"] > 0 and "misses" in row for row in parts[kind])
        assert parts[f"growth of {kind}"][0]["most_without_miss"] >= 0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generic corpus of simulated patients with their true breaths."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = ["file,patient,start_s,end_s,label,site,device"]
    for index, scenario in enumerate(("healthy", "asthma", "pneumonia")):
        source = PhantomSource(scenario, seed=index, duration_s=20.0, sample_rate=4000)
        samples = np.concatenate([block.samples for block in source])
        soundfile.write(folder / f"{scenario}.wav", samples, 4000)
        for t in source.truth:
            place = ("trachea", "left anterior")[index % 2]
            lines.append(f"{scenario}.wav,{scenario},{t.start_s},{t.end_s},{t.label},{place},phantom")
    path = folder / "corpus.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_accuracy_gives_scores_groups_size_and_milliseconds(corpus: Path) -> None:
    (machine, row) = _rows("accuracy", "default", "csv", str(corpus), "--floor", "auroc=0", "--ceiling", "bytes=1e9")
    check_row(machine)
    check_row(row)
    assert row["passed"]
    assert 0 <= row["score"] <= 1
    assert row["bytes"] > 0
    assert row["p50_ms"] > 0
    assert {group["group"] for group in row["groups"]["site"]} == {"trachea", "left anterior"}
    assert sum(bin_["n"] for bin_ in row["reliability"]) == row["n"]


def test_a_missed_floor_is_exit_status_1_and_one_line_that_names_it(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        stetho(["bench", "accuracy", "default", "csv", str(corpus), "--quick", "--json", "--floor", "score=1.01"])
    assert ended.value.code == 1
    output = capsys.readouterr()
    assert len(output.err.strip().splitlines()) == 1
    assert "score" in output.err
    assert "below the floor 1.01" in output.err
    assert not json.loads(output.out.splitlines()[1])["passed"]


def test_a_floor_for_an_unknown_figure_is_a_usage_error(corpus: Path) -> None:
    result = CliRunner().invoke(app, ["accuracy", "default", "csv", str(corpus), "--floor", "beauty=1"])
    assert result.exit_code == 2


def test_replay_scores_the_cycles_of_a_corpus_in_real_time(corpus: Path) -> None:
    parts = _parts(_rows("stream", "--part", "replay", "--corpus", "csv", "--root", str(corpus)))
    assert set(parts) == {"replay onset", "replay breath", "replay label"}
    row = parts["replay breath"][0]
    assert row["audio_s"] == pytest.approx(4.0)  # two at once, two seconds each
    assert row["sessions"] == 2 and row["recordings"] == 2
    assert {"event_f1", "detection_delay_p50_s", "look_ahead_s", "lost_samples"} <= set(row)


_WITHOUT_TORCH = """
import sys
for name in ("torch", "torchaudio", "onnx", "sklearn", "scipy", "matplotlib"):
    sys.modules[name] = None
from edge_sdk.cli.main import run
run(["bench", *sys.argv[1:], "--quick", "--json"])
"""


def test_benchmarks_run_in_the_core_install(corpus: Path) -> None:
    for arguments in (
        ["accuracy", "default", "csv", str(corpus)],
        ["latency", "--artefact", "onnx-int8-cpu", "--stages", "1"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", _WITHOUT_TORCH, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert all("torch" in row["failed"] for row in rows if row.get("failed"))
        assert rows[-1]["n"] > 0


def test_ctrl_c_in_the_middle_of_latency_keeps_the_rounds_before() -> None:
    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    options = LatencyOptions(artefacts=("onnx-int8-cpu",), stages_s=0, quick=True)
    rows: list[dict[str, Any]] = []
    with pytest.raises(KeyboardInterrupt):
        rows.extend(run_latency(options, stop))  # what came before the exception stays in the list
    assert [row["n"] for row in rows if row["benchmark"] == "latency" and not row.get("failed")] == [4, 4]


def test_ctrl_c_in_the_middle_of_the_throughput_keeps_the_recordings_before(monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = phantom_recordings(20.0, 4000, longest_s=10.0)

    def then_stopped(options: StreamOptions, seconds: float) -> Iterator[PreloadedRecording]:
        yield next(recordings)
        raise KeyboardInterrupt

    monkeypatch.setattr(stream, "_recordings", then_stopped)
    rows: list[dict[str, Any]] = []
    with pytest.raises(KeyboardInterrupt):
        rows.extend(stream.throughput(load_bundle("default"), StreamOptions()))
    assert [row["audio_s"] for row in rows] == [10.0]


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield machine_row()
        yield {"benchmark": "stream", "subject": {"part": "first"}, "p50_ms": 1.0}
        raise KeyboardInterrupt

    out = tmp_path / "kept.json"
    with pytest.raises(KeyboardInterrupt):
        rows_output.run_and_show(lambda report: rows(), "title", ("p50_ms",), out, json_=True)
    kept = read_results(out)
    assert [row["benchmark"] for row in kept.rows] == ["machine", "stream"]
    assert "interrupted" in kept.command


def test_the_file_grows_with_every_row_and_a_kill_keeps_it(tmp_path: Path) -> None:
    out = tmp_path / "kept.json"
    seen: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        yield machine_row()
        seen.append(len(read_results(out).rows))
        yield {"benchmark": "stream", "subject": {"part": "first"}, "p50_ms": 1.0}
        seen.append(len(read_results(out).rows))

    rows_output.run_and_show(lambda report: rows(), "title", ("p50_ms",), out, json_=True)
    assert seen == [1, 2]


def test_a_file_that_cannot_be_written_is_reported_before_anything_is_measured(tmp_path: Path) -> None:
    measured: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        yield machine_row()
        measured.append(1)

    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        rows_output.run_and_show(lambda report: rows(), "t", ("p50_ms",), tmp_path / "file" / "kept.json", json_=True)
    assert measured == []


@pytest.mark.parametrize("out", [None, "rows.json"])
def test_a_row_that_does_not_fit_the_schema_is_neither_printed_nor_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str | None
) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield machine_row()
        yield {"benchmark": "stream", "subject": {"part": "first"}, "p50_ms": "fast"}

    path = None if out is None else tmp_path / out
    with pytest.raises(StethoError, match=r"stream: first.*p50_ms"):
        rows_output.run_and_show(lambda report: rows(), "title", ("p50_ms",), path, json_=True)
    assert [json.loads(line)["benchmark"] for line in capsys.readouterr().out.splitlines()] == ["machine"]
    if path is not None:
        assert [row["benchmark"] for row in read_results(path).rows] == ["machine"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["latency", "--engine", "abacus"], 2, "abacus"),
        (["latency", "--artefact", "onnx-int3"], 1, "onnx-int3"),
        (["latency", "BROKEN"], 1, "sha256"),
        (["stream", "BROKEN"], 1, "sha256"),
        (["soak", "BROKEN"], 1, "sha256"),
        (["faults", "BROKEN"], 1, "sha256"),
        (["peers", "BROKEN"], 1, "sha256"),
        (["accuracy", "default", "sprsound", "nowhere"], 1, "does not exist"),
        (["stream", "--root", "nowhere"], 1, "nowhere"),
        (["stream", "--part", "replay", "--corpus", "sprsound"], 1, "--root"),
        (["soak", "--root", "nowhere"], 1, "nowhere"),
        (["stream", "--part", "dance"], 2, "dance"),
    ],
)
def test_bad_input_is_one_clear_error(
    broken: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], status: int, words: str
) -> None:
    given = [str(broken) if word == "BROKEN" else word for word in arguments]
    with pytest.raises(SystemExit) as ended:
        stetho(["bench", *given, "--quick", "--json"])
    assert ended.value.code == status
    error = capfd.readouterr().err
    assert words in error
    assert status == 2 or len(error.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default bundle with a byte too many in its int8 artefact."""
    folder = tmp_path_factory.mktemp("broken") / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, folder)
    with (folder / "classifier.int8.onnx").open("ab") as file:
        file.write(b"x")
    return folder
