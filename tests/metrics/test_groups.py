"""Figures per group are those of the group's items alone; few patients get no interval."""

from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.metrics import CLASSES, age_band, evaluate_groups, evaluate_predictions
from edge_sdk.metrics.groups import MIN_PATIENTS

rng = np.random.default_rng(5)
N = 400
TRUTH = [str(name) for name in rng.choice(CLASSES, N, p=[0.6, 0.2, 0.15, 0.05])]
PATIENTS = [f"p{number}" for number in rng.integers(0, 30, N)]
PROBABILITIES = rng.dirichlet(np.ones(4), N) * 0.6 + 0.4 * np.eye(4)[[CLASSES.index(t) for t in TRUTH]]
DEVICE = [None if int(p[1:]) < 4 else "A" if int(p[1:]) < 20 else "B" for p in PATIENTS]


def test_each_group_is_scored_as_if_it_were_alone() -> None:
    rows = evaluate_groups(DEVICE, TRUTH, PROBABILITIES, PATIENTS, resamples=50)
    assert [row["group"] for row in rows] == ["A", "B", "unknown"]
    assert sum(row["n"] for row in rows) == N
    inside = [i for i, device in enumerate(DEVICE) if device == "B"]
    alone = evaluate_predictions(
        [TRUTH[i] for i in inside], PROBABILITIES[inside], [PATIENTS[i] for i in inside], resamples=50
    )
    for key in ("n", "patients", "score", "auroc", "score_ci", "auroc_ci", "sensitivity", "ece"):
        assert rows[1][key] == alone[key]
    assert rows[1]["abnormal"] == pytest.approx(np.mean([TRUTH[i] != "normal" for i in inside]))


def test_few_patients_have_figures_but_no_interval() -> None:
    row = evaluate_groups(DEVICE, TRUTH, PROBABILITIES, PATIENTS, resamples=50)[-1]
    assert (row["group"], row["patients"]) == ("unknown", 4)
    assert row["patients"] < MIN_PATIENTS
    assert row["auroc"] is not None
    assert row["auroc_ci"] is None and row["score_ci"] is None


def test_decisions_and_unclassified_items_follow_their_group() -> None:
    predictions = ["wheeze"] * N
    rows = evaluate_groups(DEVICE, TRUTH, PROBABILITIES, PATIENTS, predictions=predictions, resamples=0)
    assert all(row["specificity"] == 0.0 for row in rows)
    classified = np.array([device != "A" for device in DEVICE])
    rows = evaluate_groups(DEVICE, TRUTH, PROBABILITIES, PATIENTS, classified=classified, resamples=0)
    assert rows[0]["score"] is None and rows[0]["auroc"] is not None


def test_age_bands_meet_without_gap_or_overlap() -> None:
    assert [age_band(age) for age in (0, 2.99, 3, 12, 18, 64.9, 65, 110)] == [
        "0–2", "0–2", "3–11", "12–17", "18–64", "18–64", "65+", "65+",
    ]  # fmt: skip
    assert age_band(None) == age_band(float("nan")) == age_band(-1.0) == "unknown"


def test_lengths_must_match() -> None:
    with pytest.raises(ValueError, match="groups for"):
        evaluate_groups(["A"], TRUTH, PROBABILITIES, PATIENTS)
