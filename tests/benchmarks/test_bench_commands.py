"""Every benchmark runs in its short form, so that none can rot; no timing is asserted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edge_sdk.cli.bench import app

LATENCY_KEYS = {"subject", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms", "n", "rss_mb", "cpu_s"}


def _rows(*arguments: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(app, [*arguments, "--quick", "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def latency_rows() -> list[dict[str, Any]]:
    return _rows("latency")


def test_latency_starts_with_the_machine_and_has_a_row_per_artefact(latency_rows: list[dict[str, Any]]) -> None:
    assert latency_rows[0]["benchmark"] == "machine"
    artefacts = [row["subject"]["artefact"] for row in latency_rows[1:]]
    assert artefacts == ["onnx-fp32", "onnx-int8-cpu", "torch-eager"]
    for row in latency_rows[1:]:
        assert set(row) >= LATENCY_KEYS
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]


def test_latency_compares_with_torch_in_the_same_rounds(latency_rows: list[dict[str, Any]]) -> None:
    by_name = {row["subject"]["artefact"]: row for row in latency_rows[1:]}
    assert by_name["torch-eager"]["ratio_to_torch"] == 1.0
    assert by_name["onnx-int8-cpu"]["ratio_to_torch"] > 0


def test_stream_measures_throughput_paced_replay_and_cold_start(tmp_path: Path) -> None:
    out = tmp_path / "results" / "stream.json"
    rows = _rows("stream", "--out", str(out))
    parts = {row["subject"]["part"]: row for row in rows[1:]}
    assert set(parts) == {"throughput", "paced", "import edge_sdk", "cold start"}
    assert parts["throughput"]["cpu_s_per_hour"] > 0
    assert parts["throughput"]["audio_s"] == pytest.approx(15.0)
    assert parts["paced"]["lost_samples"] == 0
    assert parts["cold start"]["rss_mb"] > 10
    assert json.loads(out.read_text())["rows"] == rows
