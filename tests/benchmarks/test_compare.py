"""Two results differ only beyond their noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.compare import compare_results, ratio_interval, unmatched
from benchmarks.core.harness import machine_row
from benchmarks.core.rows import write_results
from edge_sdk.cli.bench.group import app


def timed(median_ms: float, spread: float = 0.03, n: int = 60, seed: int = 0, **more: Any) -> dict[str, Any]:
    samples = median_ms * np.exp(np.random.default_rng(seed).normal(0.0, spread, n))
    subject = {"model": "compact 1.0", "artefact": "onnx-fp32", "threads": 1, "batch": 1}
    p50, p90 = np.percentile(samples, (50, 90))
    row = {"p50_ms": float(p50), "p90_ms": float(p90), "n": n, "samples_ms": samples.tolist()}
    return {"benchmark": "latency", "subject": subject, **row, **more}


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(10.0, 8.0, "better"), (10.0, 12.0, "worse"), (10.0, 10.1, "no difference"), (10.0, 9.8, "no difference")],
)
@pytest.mark.parametrize("kept", [True, False])
def test_a_timing_is_judged_by_its_noise(before: float, after: float, verdict: str, kept: bool) -> None:
    rows = [timed(before, seed=1), timed(after, seed=2)]
    if not kept:
        rows = [{k: v for k, v in row.items() if k != "samples_ms"} for row in rows]
    (one,) = compare_results(rows[:1], rows[1:])
    assert one.verdict == verdict
    assert one.interval is not None and one.ratio is not None
    assert one.interval[0] <= one.ratio <= one.interval[1]


def test_the_same_measurement_twice_is_rarely_called_different() -> None:
    verdicts = [
        compare_results([timed(10.0, 0.1, seed=2 * k)], [timed(10.0, 0.1, seed=2 * k + 1)])[0].verdict
        for k in range(50)
    ]
    assert sum(v in ("better", "worse") for v in verdicts) <= 2


def test_a_noisy_machine_cannot_tell() -> None:
    assert compare_results([timed(10.0, 0.8, 12, 1)], [timed(10.5, 0.8, 12, 2)])[0].verdict == "cannot tell"


def test_the_median_of_paired_rounds_ignores_a_busy_moment() -> None:
    peer = np.full(40, 2.0)
    peer[10:16] = 50.0
    ratio, low, high = ratio_interval((peer * 0.5).tolist(), peer.tolist(), paired=True)
    assert (ratio, low, high) == pytest.approx((0.5, 0.5, 0.5))


def test_scores_are_judged_by_their_intervals() -> None:
    def scored(auroc: float, half: float | None) -> dict[str, Any]:
        ends = {} if half is None else {"auroc_ci": [auroc - half, auroc + half]}
        return {"benchmark": "accuracy", "subject": {"model": "m 1"}, "corpus": "c", "auroc": auroc, **ends}

    assert compare_results([scored(0.95, 0.01)], [scored(0.90, 0.01)])[0].verdict == "worse"
    assert compare_results([scored(0.95, 0.05)], [scored(0.93, 0.05)])[0].verdict == "no difference"
    assert compare_results([scored(0.95, None)], [scored(0.90, 0.01)])[0].verdict == "cannot tell"


def test_a_lone_figure_needs_three_margins_and_a_count_none() -> None:
    def row(cpu: float, lost: int) -> dict[str, Any]:
        return {"benchmark": "stream", "subject": {"part": "x"}, "cpu_s_per_hour": cpu, "lost_samples": lost}

    found = {d.figure: d.verdict for d in compare_results([row(5.0, 0)], [row(5.5, 3)])}
    assert found == {"cpu_s_per_hour": "no difference", "lost_samples": "worse"}
    assert compare_results([row(5.0, 3)], [row(4.0, 3)])[0].verdict == "better"


def test_two_versions_of_a_bundle_are_compared_and_unmatched_rows_are_named() -> None:
    old, new = timed(10.0), timed(10.0)
    new["subject"] = {**new["subject"], "model": "compact 2.0", "engine": "newer"}
    other = {**timed(1.0), "subject": {"model": "ast 1.0", "artefact": "onnx-fp32"}}
    assert len(compare_results([old], [new, other])) == 1
    assert unmatched([old], [new, other]) == ([], ["latency: ast 1.0 · onnx-fp32"])


def test_the_command_prints_verdicts_and_exits_well(tmp_path: Path) -> None:
    for name, median in (("a", 10.0), ("b", 14.0)):
        write_results(tmp_path / f"{name}.json", "stetho bench latency", [machine_row(), timed(median)])
    paths = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    result = CliRunner().invoke(app, ["compare", *paths], catch_exceptions=False)
    assert result.exit_code == 0 and "worse" in result.stdout
    lines = CliRunner().invoke(app, ["compare", *paths, "--json"], catch_exceptions=False).stdout.splitlines()
    assert len(lines) == 1 and '"verdict": "worse"' in lines[0]
