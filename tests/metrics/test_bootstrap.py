"""The patient bootstrap equals resampling by hand, and is fast enough."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edge_sdk.metrics import (
    auroc,
    confusion_matrix,
    expected_calibration_error,
    icbhi_scores,
    paired_bootstrap,
    sensitivity_at_specificity,
)
from edge_sdk.metrics.bootstrap import (
    auroc_resamples,
    ece_resamples,
    interval,
    patient_indices,
    patient_weights,
    rate_resamples,
    sensitivity_resamples,
)

rng = np.random.default_rng(11)
N, P = 400, 12
PATIENT = rng.integers(0, P, N)
TRUTH = rng.choice(4, N, p=[0.6, 0.2, 0.15, 0.05])
PROBABILITIES = np.round(rng.dirichlet(np.ones(4), N) * 0.6 + 0.4 * np.eye(4)[TRUTH], 2)  # rounded: ties
PREDICTION = PROBABILITIES.argmax(1)


def drawn_cycles(weights: np.ndarray) -> np.ndarray:
    """Cycles of one resample written out, each as often as its patient was drawn."""
    return np.repeat(np.arange(N), weights[PATIENT].astype(int))


def test_each_resample_is_the_metric_on_the_drawn_patients_cycles() -> None:
    weights = patient_weights(P, 25, seed=4)
    assert (weights.sum(1) == P).all()
    rates = rate_resamples(weights, PATIENT, TRUTH, PREDICTION, 4)
    areas = auroc_resamples(weights, PATIENT, TRUTH != 0, 1 - PROBABILITIES[:, 0])
    errors = ece_resamples(weights, PATIENT, PROBABILITIES.max(1), PREDICTION == TRUTH)
    for row, weight in enumerate(weights):
        cycles = drawn_cycles(weight)
        expected = icbhi_scores(confusion_matrix(TRUTH[cycles], PREDICTION[cycles]))
        assert rates[row, 2] == pytest.approx(expected.score, abs=1e-12)
        assert rates[row, 3] == pytest.approx(expected.sensitivity_2class, abs=1e-12)
        positive, score = TRUTH[cycles] != 0, 1 - PROBABILITIES[cycles, 0]
        assert areas[row] == pytest.approx(roc_auc_score(positive, score), abs=1e-12)
        ece = expected_calibration_error(PROBABILITIES[cycles].max(1), (PREDICTION == TRUTH)[cycles])
        assert errors[row] == pytest.approx(ece, abs=1e-12)


def test_same_seed_same_interval_and_another_seed_another() -> None:
    def bounds(seed: int) -> tuple[float, float] | None:
        weights = patient_weights(P, 200, seed)
        return interval(auroc_resamples(weights, PATIENT, TRUTH != 0, 1 - PROBABILITIES[:, 0]))

    low, high = bounds(0) or (0.0, 0.0)
    assert bounds(0) == (low, high) != bounds(1)
    area = auroc(TRUTH != 0, 1 - PROBABILITIES[:, 0])
    assert area is not None
    assert low < area < high


def test_patients_that_agree_within_widen_the_interval() -> None:
    """Cycles of a patient all right or all wrong: the honest interval is much wider than one over cycles."""
    right = rng.random(20) < 0.7
    patient = np.repeat(np.arange(20), 50)
    truth = np.tile([0, 1], 500)
    prediction = np.where(right[patient], truth, 1 - truth)

    def width(groups: np.ndarray) -> float:
        rates = rate_resamples(patient_weights(int(groups.max()) + 1, 400, 0), groups, truth, prediction, 2)
        low, high = interval(rates[:, 2]) or (0.0, 0.0)
        return high - low

    assert width(patient) > 4 * width(np.arange(1000))


def test_resamples_without_a_class_are_left_out_and_too_few_give_no_interval() -> None:
    areas = auroc_resamples(np.array([[2.0, 0.0], [1.0, 1.0]]), np.array([0, 1]), np.array([True, False]), np.ones(2))
    assert np.isnan(areas[0])
    assert areas[1] == 0.5
    assert interval(np.array([np.nan, np.nan, 0.4])) is None
    assert interval(np.array([np.nan, 0.4, 0.4])) == (0.4, 0.4)


def test_patient_indices_are_sorted_and_dense() -> None:
    index, count = patient_indices(["b", "a", "b", "c"])
    assert (index.tolist(), count) == ([1, 0, 1, 2], 3)


@pytest.mark.parametrize("metric", ["auroc", "score", "ece"])
def test_paired_bootstrap_of_a_model_with_itself_is_zero(metric: str) -> None:
    names = [str(p) for p in PATIENT]
    same = paired_bootstrap(TRUTH, PROBABILITIES, PROBABILITIES, names, metric, resamples=100)  # type: ignore[arg-type]
    assert (same.difference, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_paired_bootstrap_sees_a_clear_gain_and_its_sign() -> None:
    names = [str(p) for p in PATIENT]
    noise = rng.dirichlet(np.ones(4), N)
    gain = paired_bootstrap(TRUTH, noise, PROBABILITIES, names, "auroc", resamples=300)
    assert gain.low > 0
    assert gain.p_value < 0.02
    assert gain.b == pytest.approx(roc_auc_score(TRUTH != 0, 1 - PROBABILITIES[:, 0]))
    loss = paired_bootstrap(TRUTH, PROBABILITIES, noise, names, "auroc", resamples=300)
    assert [loss.difference, loss.low, loss.high] == pytest.approx([-gain.difference, -gain.high, -gain.low])


def test_paired_bootstrap_refuses_undefined_comparisons() -> None:
    names = [str(p) for p in PATIENT]
    with pytest.raises(ValueError, match="two patients"):
        paired_bootstrap(TRUTH, PROBABILITIES, PROBABILITIES, ["a"] * N)
    with pytest.raises(ValueError, match="lack a class"):
        paired_bootstrap(np.zeros(N, int), PROBABILITIES, PROBABILITIES, names)
    with pytest.raises(ValueError, match="same cycles"):
        paired_bootstrap(TRUTH, PROBABILITIES, PROBABILITIES[:-1], names)


def test_a_thousand_resamples_of_seven_thousand_cycles_take_under_two_seconds() -> None:
    n = 7000
    truth = rng.choice(4, n)
    p = rng.dirichlet(np.ones(4), n)
    patient = rng.integers(0, 290, n)
    start = time.process_time()
    weights = patient_weights(290, 1000, 0)
    rate_resamples(weights, patient, truth, p.argmax(1), 4)
    auroc_resamples(weights, patient, truth != 0, 1 - p[:, 0])
    ece_resamples(weights, patient, p.max(1), p.argmax(1) == truth)
    assert time.process_time() - start < 2.0


def test_each_resample_chooses_its_own_operating_point() -> None:
    weights = patient_weights(P, 25, seed=4)
    score = 1 - PROBABILITIES[:, 0]
    for wanted in (0.8, 0.9):
        found = sensitivity_resamples(weights, PATIENT, TRUTH != 0, score, wanted)
        for row, weight in enumerate(weights):
            drawn = drawn_cycles(weight)
            point = sensitivity_at_specificity(TRUTH[drawn] != 0, score[drawn], wanted)
            assert point is not None
            assert found[row] == pytest.approx(point.sensitivity)
    nobody = sensitivity_resamples(weights, PATIENT, TRUTH > 9, score, 0.8)
    assert np.isnan(nobody).all()
