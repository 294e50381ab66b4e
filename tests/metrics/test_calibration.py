"""Expected calibration error from its definition; temperature that recovers a known one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from edge_sdk.metrics import (
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    softmax,
)

samples = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def slow_ece(items: list[tuple[float, bool]], bins: int = 15) -> float:
    total = 0.0
    for k in range(bins):
        inside = [(c, h) for c, h in items if min(max(int(np.ceil(c * bins)) - 1, 0), bins - 1) == k]
        if inside:
            total += abs(sum(c for c, _ in inside) - sum(h for _, h in inside)) / len(items)
    return total


@given(samples)
def test_ece_is_its_definition_and_between_0_and_1(items: list[tuple[float, bool]]) -> None:
    confidence, hit = zip(*items, strict=True)
    value = expected_calibration_error(confidence, hit)
    assert value == pytest.approx(slow_ece(items), abs=1e-9)
    assert value is not None
    assert 0 <= value <= 1


def test_ece_of_a_known_case() -> None:
    assert expected_calibration_error([0.9] * 10, [True] * 7 + [False] * 3) == pytest.approx(0.2)
    assert expected_calibration_error([1.0, 1.0], [True, True]) == 0.0
    assert expected_calibration_error([1.0, 1.0], [False, False]) == 1.0
    assert expected_calibration_error([], []) is None


def test_reliability_bins_are_closed_above_and_hold_every_sample() -> None:
    table = reliability([0.0, 1 / 15, 1 / 15 + 1e-9, 1.0], [True, False, True, True])
    assert table.count.tolist() == [2, 1] + [0] * 12 + [1]
    assert table.accuracy[:2].tolist() == [0.5, 1.0]
    assert np.isnan(table.accuracy[5])


def test_confidences_outside_0_to_1_are_refused() -> None:
    for bad in (float("nan"), 1.2, -0.1):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            expected_calibration_error([bad], [True])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_is_recovered_from_labels_drawn_at_it(temperature: float) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (6000, 4))
    draws = rng.random(6000)[:, None]
    truth = np.minimum((softmax(logits / temperature).cumsum(1) < draws).sum(1), 3)
    fitted = fit_temperature(logits, truth)
    assert fitted == pytest.approx(temperature, rel=0.06)
    best = minimize_scalar(lambda t: negative_log_likelihood(logits, truth, t), bounds=(0.05, 20), method="bounded")
    assert fitted == pytest.approx(best.x, rel=1e-3)


def test_temperature_stays_within_its_range_when_the_model_is_always_right_or_wrong() -> None:
    logits = np.eye(4) * 5
    assert fit_temperature(logits, np.arange(4)) == 0.05
    assert fit_temperature(logits, (np.arange(4) + 1) % 4) == 20.0
    with pytest.raises(ValueError, match="empty"):
        fit_temperature(np.zeros((0, 4)), [])
    with pytest.raises(ValueError, match="finite"):
        fit_temperature([[np.inf, 0.0]], [0])


def test_softmax_survives_huge_logits() -> None:
    assert softmax([1e4, 1e4, -1e4]).tolist() == [0.5, 0.5, 0.0]
