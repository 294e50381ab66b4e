"""Two models on the same items, each with its own decoder: differences that agree with the single reports."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_sdk.metrics import CLASSES, ModelPredictions, compare_predictions, evaluate_predictions, paired_bootstrap
from edge_sdk.runtime.bundle.schema import Decoder
from edge_sdk.runtime.decoding import decide

rng = np.random.default_rng(7)
N = 300
INDEX = rng.choice(4, N, p=[0.6, 0.2, 0.15, 0.05])
TRUTH = [CLASSES[i] for i in INDEX]
PATIENTS = [f"p{number}" for number in rng.integers(0, 20, N)]
GOOD = rng.dirichlet(np.ones(4), N) * 0.5 + 0.5 * np.eye(4)[INDEX]
POOR = rng.dirichlet(np.ones(4), N) * 0.8 + 0.2 * np.eye(4)[INDEX]
SHARP = Decoder(kind="softmax", threshold=0.9)  # abnormal only when almost sure


def named(probabilities: np.ndarray, decoder: Decoder) -> list[str]:
    return [CLASSES[i] for i in decide(probabilities, decoder).tolist()]


def test_differences_are_those_of_the_two_reports() -> None:
    a = ModelPredictions(POOR, CLASSES)
    b = ModelPredictions(GOOD, CLASSES, predictions=named(GOOD, SHARP))
    found = compare_predictions(TRUTH, PATIENTS, a, b, resamples=200)
    one = evaluate_predictions(TRUTH, POOR, PATIENTS, resamples=0)
    two = evaluate_predictions(TRUTH, GOOD, PATIENTS, predictions=b.predictions, resamples=0)
    for metric, row in found["metrics"].items():
        assert (row["a"], row["b"]) == (one[metric], two[metric])
        assert row["difference"] == two[metric] - one[metric]
        assert row["low"] <= row["difference"] <= row["high"]
    assert found["compared"] == N
    assert found["metrics"]["auroc"]["low"] > 0


def test_the_paired_bootstrap_follows_thresholds_too() -> None:
    rule = lambda p: decide(p, SHARP)  # noqa: E731
    found = compare_predictions(
        TRUTH,
        PATIENTS,
        ModelPredictions(POOR, CLASSES),
        ModelPredictions(GOOD, CLASSES, predictions=named(GOOD, SHARP)),
        resamples=200,
    )["metrics"]["score"]
    argmax = lambda p: p.argmax(1)  # noqa: E731
    paired = paired_bootstrap(INDEX, POOR, GOOD, PATIENTS, "score", decide=(argmax, rule), resamples=200)
    assert (paired.a, paired.b, paired.low, paired.high) == (found["a"], found["b"], found["low"], found["high"])
    plain = paired_bootstrap(INDEX, POOR, GOOD, PATIENTS, "score", resamples=200)
    assert plain.a == paired.a
    assert plain.b != paired.b
    both = paired_bootstrap(INDEX, GOOD, GOOD, PATIENTS, "ece", decide=rule, resamples=50)
    assert both.difference == 0.0


def test_other_label_sets_are_compared_where_they_mean_the_same() -> None:
    binary = ModelPredictions(np.stack([GOOD[:, 0], 1 - GOOD[:, 0]], axis=1), ("normal", "abnormal"))
    found = compare_predictions(TRUTH, PATIENTS, ModelPredictions(POOR, CLASSES), binary, resamples=50)
    assert set(found["metrics"]) == {"specificity", "sensitivity_2class", "score_2class", "auroc"}


def test_rates_are_of_items_that_both_classified() -> None:
    classified = np.arange(N) >= 50
    a = replace(ModelPredictions(POOR, CLASSES), classified=classified)
    found = compare_predictions(TRUTH, PATIENTS, a, ModelPredictions(GOOD, CLASSES), resamples=50)
    assert found["compared"] == N - 50
    two = evaluate_predictions(TRUTH, GOOD, PATIENTS, classified=classified, resamples=0)
    assert found["metrics"]["score"]["b"] == two["score"]


def test_what_is_undefined_is_null_and_one_patient_is_refused() -> None:
    normal = ["normal"] * N
    found = compare_predictions(
        normal, PATIENTS, ModelPredictions(POOR, CLASSES), ModelPredictions(GOOD, CLASSES), resamples=50
    )
    assert found["metrics"]["auroc"] is None and found["metrics"]["score"] is None
    assert found["metrics"]["specificity"] is not None
    with pytest.raises(ValueError, match="two patients"):
        compare_predictions(TRUTH, ["a"] * N, ModelPredictions(POOR, CLASSES), ModelPredictions(GOOD, CLASSES))
