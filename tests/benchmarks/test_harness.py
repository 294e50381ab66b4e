"""The harness counts every call, hides no tail, and says what machine it ran on."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

from benchmarks.harness import interleave, machine_row, median_ratio, peak_rss_mb, percentiles


def test_every_subject_runs_in_every_round_and_the_order_turns() -> None:
    calls: list[tuple[str, int]] = []
    timings = interleave(
        {"a": lambda i: calls.append(("a", i)), "b": lambda i: calls.append(("b", i))}, rounds=4, warm_up=1
    )
    assert calls[:2] == [("a", 0), ("b", 0)]
    assert [c[0] for c in calls[2:]] == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert all(len(t["seconds"]) == 4 for t in timings.values())


def test_a_slower_subject_has_the_larger_ratio() -> None:
    timings = interleave({"slow": lambda _: time.sleep(0.004), "fast": lambda _: None}, rounds=5, warm_up=1)
    assert median_ratio(timings["slow"]["seconds"], timings["fast"]["seconds"]) > 10


def test_percentiles_keep_the_tail() -> None:
    row = percentiles([0.001] * 99 + [5.0])
    assert row["max_ms"] == 5000.0
    assert row["p50_ms"] == 1.0
    assert row["n"] == 100
    assert row["p99_ms"] == np.percentile([1.0] * 99 + [5000.0], 99)


def test_the_machine_row_names_cpu_and_versions() -> None:
    row = machine_row()
    assert row["benchmark"] == "machine"
    assert row["cores"] >= 1
    assert "numpy" in row["versions"]


def test_peak_memory_of_a_child_does_not_inherit_its_parents_size() -> None:
    ballast = np.ones(40_000_000, np.uint8)
    code = "from benchmarks.harness import peak_rss_mb; print(peak_rss_mb())"
    child = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert ballast.sum() == 40_000_000
    assert 5 < child < peak_rss_mb()
