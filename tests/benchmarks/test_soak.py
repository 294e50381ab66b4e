"""A soak keeps what it measured however it ends, and judges memory only where it can."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.core.rows import check_row, read_results
from benchmarks.stream.soak import SoakOptions, heat, run_soak, slope_per_hour, soak_verdict
from edge_sdk.cli.bench.group import app

ROOT = Path(__file__).resolve().parents[2]


def interval(t_s: float, rss_mb: float, **more: Any) -> dict[str, Any]:
    row = {"rss_mb": rss_mb, "lost_samples": 0, "misses": 0, "drift_ms": -50.0, "n": 20, "cpu_s": 0.1, "skipped": 0}
    heat_row = {"temperature_c": None, "throttled": None}
    return {"t_s": t_s, "audio_s": t_s, **row, **heat_row, **more}


def test_the_quick_soak_measures_and_judges_nothing(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    result = CliRunner().invoke(app, ["soak", "--quick", "--json", "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    for row in rows:
        check_row(row)
    last = rows[-1]
    assert last["subject"]["part"] == "verdict" and last["n"] > 20 and last["speed"] == 1.0
    assert last["passed"] is not True  # three seconds prove nothing
    assert [r["subject"]["part"] for r in rows[1:-1]] == ["interval"] * 4
    assert rows[-2]["rss_mb"] > 20
    assert read_results(out).rows == tuple(rows)


def test_ctrl_c_gives_the_verdict_on_what_was_measured() -> None:
    rows: list[dict[str, Any]] = []

    def stop(_: str) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        rows.extend(_collected(run_soak(SoakOptions(seconds=30.0, interval_s=0.5), stop), rows))
    assert [r.get("subject", {}).get("part") for r in rows] == [None, "interval", "verdict"]
    assert not [t for t in threading.enumerate() if t.name == "soak"]


def _collected(iterator: Any, rows: list[Any]) -> list[Any]:
    for row in iterator:
        rows.append(row)
    return []


def test_a_killed_soak_leaves_its_rows(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    code = "from edge_sdk.cli.bench.group import app; app()"
    command = [sys.executable, "-c", code, "soak", "--minutes", "0.5", "--interval", "0.5", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (out.exists() and len(read_results(out).rows) >= 3):
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        child.kill()
        child.wait()
    assert [r["subject"]["part"] for r in read_results(out).rows[1:3]] == ["interval", "interval"]


def test_the_slope_is_that_of_the_memory_after_the_warm_up() -> None:
    rows = [interval(60.0 * m, 80.0 + (m if m <= 10 else 10 + 3.0 * (m - 10) / 60)) for m in range(1, 61)]
    judged = soak_verdict(rows, SoakOptions())
    assert judged["rss_slope_mb_per_hour"] == pytest.approx(3.0)
    assert judged["warm_up_s"] == 600.0 and judged["passed"] is False and "3.00 MB" in judged["why"]
    flat = soak_verdict([interval(60.0 * m, 80.0) for m in range(1, 61)], SoakOptions())
    assert flat["passed"] is True and flat["drift_ppm"] == pytest.approx(0.0)


def test_any_lost_sample_or_failure_is_reported_even_in_a_short_run() -> None:
    rows = [interval(1.0, 80.0), interval(2.0, 80.0, lost_samples=7)]
    assert soak_verdict(rows, SoakOptions())["passed"] is False
    failed = soak_verdict([interval(1.0, 80.0)], SoakOptions(), OSError("gone"))
    assert failed["passed"] is False and failed["failure"] == "OSError: gone"
    assert soak_verdict([interval(1.0, 80.0)], SoakOptions())["passed"] is None
    assert soak_verdict([], SoakOptions())["passed"] is None


def test_a_slope_needs_four_values() -> None:
    assert slope_per_hour([interval(float(t), 80.0) for t in range(3)], "rss_mb") == (None, None)
    assert slope_per_hour([interval(float(t), 80.0) | {"rss_mb": None} for t in range(9)], "rss_mb") == (None, None)


def test_heat_is_read_where_the_system_reports_it(tmp_path: Path) -> None:
    assert heat(tmp_path) == {"temperature_c": None, "slowest_core_mhz": None, "throttled": None}
    for name, text in {
        "class/thermal/thermal_zone0/temp": "41000",
        "class/thermal/thermal_zone1/temp": "52500",
        "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000",
        "devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "600000",
        "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert heat(tmp_path) == {"temperature_c": 52.5, "slowest_core_mhz": 600.0, "throttled": True}


def test_two_lengths_at_once_are_refused() -> None:
    result = CliRunner().invoke(app, ["soak", "--minutes", "1", "--hours", "1"])
    assert result.exit_code == 2


@pytest.mark.long
def test_an_hour_neither_grows_nor_loses() -> None:
    last = list(run_soak(SoakOptions(seconds=3600.0)))[-1]
    assert last["lost_samples"] == 0
    assert last["rss_slope_mb_per_hour"] <= 1.0, last
