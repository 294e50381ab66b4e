"""Verdicts of recordings: the running probability is causal, nothing undecided is dropped, uncertainty is counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_sdk.metrics import auroc, auroc_within
from edge_sdk.metrics.verdict import VerdictTrace, verdict_report


def trace(abnormal: bool, *steps: tuple[float, float], verdict: str = "normal", **more: Any) -> VerdictTrace:
    fields = {"recording": "r", "patient": "p", "device": None, "duration_s": 20.0} | more
    times = [at for at, _ in steps]
    return VerdictTrace(
        abnormal=abnormal, times_s=times, p_abnormal=[p for _, p in steps], verdict=verdict, **fields  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_probability_after_some_seconds_is_the_last_one_determined_by_then() -> None:
    one = trace(True, (2.0, 0.1), (6.4, 0.4), (9.5, 0.8))
    assert one.probability(1.49) is None  # a step of resampler or network later is in time
    assert [one.probability(s) for s in (1.5, 5.8, 5.9, 6.0, 8.9, 9.0, 100.0)] == [0.1, 0.1, 0.4, 0.4, 0.4, 0.8, 0.8]
    assert one.probability() == 0.8 and trace(True).probability() is None


def test_times_must_fit_and_not_decrease() -> None:
    with pytest.raises(ValueError, match="2 times for 1"):
        VerdictTrace("r", "p", None, 9.0, True, [1.0, 2.0], [0.5], "normal")
    with pytest.raises(ValueError, match="not decrease"):
        trace(True, (2.0, 0.5), (1.0, 0.5))


def test_auroc_grows_with_the_seconds_of_audio() -> None:
    rows = [
        trace(True, (2.0, 0.2), (5.0, 0.9)),
        trace(True, (7.0, 0.7), duration_s=8.0),
        trace(False, (2.0, 0.6), (8.0, 0.1)),
        trace(False, (2.0, 0.3)),
    ]
    horizons = verdict_report(rows, seconds=(3.0, 6.0, 9.0), resamples=0)["auroc_by_seconds"]
    assert [row["seconds"] for row in horizons] == [3.0, 6.0, 9.0, None]
    # 3 s: positives 0.2 and undecided 0.5 against 0.6 and 0.3; 6 s: 0.9 and 0.5; 9 s: 0.9 and 0.7 against 0.1 and 0.3
    assert [row["auroc"] for row in horizons] == [0.25, 0.75, 1.0, 1.0]
    assert [row["with_probability"] for row in horizons] == [0.75, 0.75, 1.0, 1.0]
    assert [row["long_enough"] for row in horizons] == [1.0, 1.0, 0.75, 1.0]


def test_uncertain_verdicts_are_no_errors_but_are_counted() -> None:
    verdicts = ["normal", "normal", "abnormal", "uncertain"]
    rows = [trace(False, (1.0, 0.2), verdict=v) for v in verdicts]
    rows += [trace(True, (1.0, 0.8), verdict=v) for v in ("abnormal", "normal", "uncertain", "uncertain")]
    report = verdict_report(rows, resamples=0)
    assert report["confusion"] == [[2, 1, 1], [1, 1, 2]]
    assert report["specificity"] == pytest.approx(2 / 3) and report["sensitivity"] == 0.5
    assert report["error_answered"] == pytest.approx(2 / 5)
    assert report["uncertain_fraction"] == 3 / 8 and report["coverage"] == 6 / 8
    silent = verdict_report([trace(True, verdict="uncertain")], resamples=0)
    assert silent["error_answered"] is None and silent["sensitivity"] is None and silent["coverage"] == 1.0


def test_a_recording_without_probability_is_undecided_not_dropped() -> None:
    rows = [
        trace(True, verdict="uncertain"),
        trace(True, (1.0, 0.9)),
        trace(False, (1.0, 0.6)),
        trace(False, (1.0, 0.1)),
    ]
    report = verdict_report(rows, resamples=0)
    assert report["n"] == 4 and report["without_probability"] == 1
    assert report["auroc"] == 0.75  # 0.5 lies below 0.6
    assert report["ece"] == pytest.approx((0.1 + 0.6 + 0.1) / 3)  # of the three with a probability
    assert sum(row["n"] for row in report["reliability"]) == 3


def test_reliability_is_of_the_probability_of_abnormal() -> None:
    rows = [trace(k < 3, (1.0, 0.3)) for k in range(4)]
    assert verdict_report(rows, resamples=0)["reliability"] == [
        {"confidence": pytest.approx(0.3), "accuracy": 0.75, "n": 4}
    ]


def test_intervals_are_over_patients() -> None:
    rng = np.random.default_rng(0)
    rows = [
        trace(bool(k % 2), (1.0, float(np.clip(0.3 + 0.3 * (k % 2) + rng.normal(0, 0.2), 0, 1))), patient=f"p{k}")
        for k in range(40)
    ]
    report = verdict_report(rows, resamples=200)
    low, high = report["auroc_ci"]
    assert low < report["auroc"] < high
    assert report["auroc_by_seconds"][-1]["auroc_ci"] == report["auroc_ci"]
    assert verdict_report([trace(True, (1.0, 0.5)), trace(False, (1.0, 0.4))], resamples=50)["auroc_ci"] is None


def test_no_recording_is_refused() -> None:
    with pytest.raises(ValueError, match="no recording"):
        verdict_report([])


def test_a_model_that_reads_the_device_is_chance_within_devices() -> None:
    devices = ["A"] * 10 + ["B"] * 10 + ["C"] * 5
    positive = [True] * 8 + [False] * 2 + [True] * 2 + [False] * 8 + [True] * 5
    score = [0.8] * 10 + [0.2] * 10 + [0.9] * 5
    patients = [f"p{k}" for k in range(25)]
    found = auroc_within(devices, positive, score, patients, resamples=100)
    overall = auroc(positive, score)
    assert overall is not None and overall > 0.8
    assert found["auroc_within_device"] == 0.5
    assert found["auroc_within_device_ci"] == [0.5, 0.5]
    assert [row["auroc"] for row in found["auroc_of_device"]] == [0.5, 0.5, None]  # C has one class
    assert [row["abnormal"] for row in found["auroc_of_device"]] == [0.8, 0.2, 1.0]


def test_the_mean_within_devices_is_weighted_by_items() -> None:
    devices = ["A", "A", None, None, None, None]
    positive = [True, False, True, False, False, False]
    score = [0.9, 0.1, 0.3, 0.2, 0.8, 0.1]
    found = auroc_within(devices, positive, score, ["p", "p", "q", "r", "r", "r"], resamples=0)
    assert [(row["device"], row["n"], row["patients"]) for row in found["auroc_of_device"]] == [
        ("unknown", 4, 2),
        ("A", 2, 1),
    ]
    assert found["auroc_within_device"] == pytest.approx((4 * 2 / 3 + 2 * 1.0) / 6)
    assert found["auroc_within_device_ci"] is None


def test_no_device_with_both_classes_has_no_mean() -> None:
    found = auroc_within(["A", "B"], [True, False], [0.9, 0.1], ["p", "q"])
    assert found["auroc_within_device"] is None and found["auroc_within_device_ci"] is None
    with pytest.raises(ValueError, match="do not match"):
        auroc_within(["A"], [True, False], [0.9, 0.1], ["p", "q"])
