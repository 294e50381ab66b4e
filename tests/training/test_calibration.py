"""Temperature and threshold come from other patients than those they are judged on."""

from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.metrics.calibration import expected_calibration_error
from edge_sdk.training import calibration
from edge_sdk.training.calibration import Decision, cross_fitted_probabilities, fit_decision, strict_score


def _problem(count: int = 4000, sharpness: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are ``sharpness`` times too confident, and truths drawn from the honest ones."""
    random = np.random.default_rng(0)
    honest = random.normal(0.0, 1.5, (count, 4)) + np.array([3.5, 0.0, 0.0, -1.0])
    probabilities = Decision().probabilities(honest)
    truth = np.array([random.choice(4, p=row) for row in probabilities])
    return honest * sharpness, truth


def test_temperature_undoes_overconfidence() -> None:
    logits, truth = _problem(sharpness=3.0)
    before = Decision().probabilities(logits)
    assert expected_calibration_error(before.max(axis=1), before.argmax(axis=1) == truth) > 0.1  # type: ignore[operator]
    decision = fit_decision(logits, truth)
    assert decision.temperature > 2.0
    honest = decision.probabilities(logits)
    error = expected_calibration_error(honest.max(axis=1), honest.argmax(axis=1) == truth)
    assert error is not None and error < 0.07


def test_bias_raises_the_score_where_normal_breaths_prevail() -> None:
    logits, truth = _problem()
    decision = fit_decision(logits, truth)
    plain = strict_score(truth, logits.argmax(axis=1), 4)
    fitted = strict_score(truth, decision.probabilities(logits).argmax(axis=1), 4)
    assert decision.bias[0] < decision.bias[1] == 0.0
    assert fitted > plain + 0.02


def test_rare_class_drawn_too_often_in_training_is_called_less_often() -> None:
    logits, truth = _problem()
    logits[:, 3] += 9.0  # as if "both" had been common
    decision = fit_decision(logits, truth)
    called = (decision.probabilities(logits).argmax(axis=1) == 3).mean()
    assert called < 0.75 * (logits.argmax(axis=1) == 3).mean()


def test_a_fold_never_takes_part_in_its_own_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, truth = _problem(count=300)
    logits = logits + np.arange(300)[:, None] * 1e-9
    fold = np.arange(300) % 3
    fitted_on: list[np.ndarray] = []

    def spy(part: np.ndarray, answers: np.ndarray) -> Decision:
        fitted_on.append(part)
        return Decision(2.0, (float(len(fitted_on)), 0.0, 0.0, 0.0))

    monkeypatch.setattr(calibration, "fit_decision", spy)
    probabilities, decisions = cross_fitted_probabilities(logits, truth, fold)
    for number, seen in enumerate(fitted_on):
        assert {row.tobytes() for row in seen} == {row.tobytes() for row in logits[fold != number]}
        expected = decisions[number].probabilities(logits[fold == number])
        np.testing.assert_allclose(probabilities[fold == number], expected)


def test_decision_is_what_the_bundle_decodes() -> None:
    logits = np.array([[1.0, 2.0, 0.0, 0.0]])
    decision = Decision(temperature=2.0, bias=(0.7, 0.0, 0.0, 0.0))
    scaled = logits / 2.0 + np.array([0.7, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(decision.probabilities(logits), np.exp(scaled) / np.exp(scaled).sum())
