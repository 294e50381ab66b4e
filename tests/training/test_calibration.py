"""Temperature and threshold come from other patients than those they are judged on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edge_sdk.metrics.calibration import expected_calibration_error
from edge_sdk.training import calibration
from edge_sdk.training.calibration import (
    Decision,
    checkpoint_decoder,
    cross_fitted_probabilities,
    fit_decision,
    operating_point,
    strict_score,
)


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

    def spy(part: np.ndarray, truth: np.ndarray) -> Decision:
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


def _bits(count: int = 6000, columns: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Honest logits, logits three times too confident and shifted, and truths drawn from the honest ones."""
    random = np.random.default_rng(1)
    honest = random.normal(-2.5, 1.8, (count, columns))
    present = random.random((count, columns)) < 1.0 / (1.0 + np.exp(-honest))
    truth = (present @ (1 << np.arange(columns))).astype(np.int64)
    return honest, 3.0 * (honest - 0.5), truth


@pytest.mark.parametrize(("kind", "columns"), [("multilabel", 2), ("binary", 1)])
def test_independent_logits_are_calibrated_and_get_thresholds(kind: str, columns: int) -> None:
    honest, logits, truth = _bits(columns=columns)
    decision = fit_decision(logits, truth, kind)  # type: ignore[arg-type]
    assert decision.temperature == pytest.approx(3.0, rel=0.1)
    assert decision.bias == pytest.approx([0.5] * columns, abs=0.15)
    probabilities = decision.probabilities(logits)
    np.testing.assert_allclose(
        probabilities, Decision(1.0, (0.0,) * columns, kind).probabilities(honest), atol=0.04  # type: ignore[arg-type]
    )  # fmt: skip
    classes = probabilities.shape[1]
    plain = strict_score(truth, probabilities.argmax(axis=1), classes)
    assert strict_score(truth, decision.classes(probabilities), classes) > plain + 0.02
    assert all(threshold < 0.5 for threshold in decision.threshold), "rare classes have lower thresholds"


def test_perfectly_separated_logits_still_give_finite_settings() -> None:
    truth = np.array([0, 1, 2, 3] * 5)
    logits = np.stack([np.where(truth & 1, 30.0, -30.0), np.where(truth & 2, 30.0, -30.0)], axis=1)
    decision = fit_decision(logits, truth, "multilabel")
    assert np.isfinite([decision.temperature, *decision.bias]).all()
    assert (decision.classes(decision.probabilities(logits)) == truth).all()


def test_cross_fitting_keeps_the_order_of_independent_logits() -> None:
    _, logits, truth = _bits(count=300)
    fold = np.arange(300) % 3
    probabilities, decisions = cross_fitted_probabilities(logits, truth, fold, "multilabel")
    assert probabilities.shape == (300, 4)
    for number, decision in enumerate(decisions):
        np.testing.assert_allclose(probabilities[fold == number], decision.probabilities(logits[fold == number]))


@pytest.mark.parametrize("specificity", [0.0, 0.8, 0.9, 1.0])
def test_an_operating_point_keeps_the_requested_specificity(specificity: float) -> None:
    random = np.random.default_rng(2)
    normal = random.beta(4, 2, 500)
    probabilities = np.stack([normal, 1.0 - normal], axis=1)
    truth = np.where(random.random(500) < normal, 0, 1)
    threshold = operating_point(probabilities, truth, specificity)
    called = Decision(bias=(0.0, 0.0), threshold=(threshold,)).classes(probabilities)
    kept = (called[truth == 0] == 0).mean()
    assert specificity <= kept <= specificity + 1.0 / (truth == 0).sum() + 1e-9
    with pytest.raises(ValueError, match="normal cycles"):
        operating_point(probabilities, np.ones(500, dtype=np.int64), 0.8)


def test_a_checkpoint_decodes_by_its_kind_and_the_threshold_of_its_recipe() -> None:
    checkpoint = SimpleNamespace(
        decoder="multilabel", temperature=2.0, bias=(0.1, 0.2), labels=("normal", "crackle", "wheeze", "both"),
        recipe={"decision": {"threshold": [0.3, 0.4]}},
    )  # fmt: skip
    decoder = checkpoint_decoder(checkpoint)  # type: ignore[arg-type]
    assert (decoder.kind, decoder.temperature, decoder.bias) == ("multilabel", 2.0, [0.1, 0.2])
    assert decoder.threshold == [0.3, 0.4]
    checkpoint.recipe = {}
    assert checkpoint_decoder(checkpoint).threshold is None  # type: ignore[arg-type]
