"""The dictionary behind ``stetho evaluate --json``: keys, null where undefined, consistent numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge_sdk.metrics import CLASSES, evaluate_predictions

rng = np.random.default_rng(2)
TRUTH = [str(name) for name in rng.choice(CLASSES, 300, p=[0.6, 0.2, 0.15, 0.05])]
PATIENTS = [str(p) for p in rng.integers(0, 25, 300)]
PROBABILITIES = rng.dirichlet(np.ones(4), 300) * 0.7 + 0.3 * np.eye(4)[[CLASSES.index(t) for t in TRUTH]]


def strict_json(report: dict[str, object]) -> dict[str, object]:
    return json.loads(json.dumps(report, allow_nan=False))  # type: ignore[no-any-return]


def test_report_has_the_promised_keys_and_agrees_with_itself() -> None:
    report = evaluate_predictions(TRUTH, PROBABILITIES, PATIENTS, resamples=200)
    promised = "n counts confusion sensitivity specificity score sensitivity_2class score_2class auroc ece"
    assert set(promised.split()) | {"score_ci", "auroc_ci"} <= set(report)
    confusion = np.array(report["confusion"])
    assert report["n"] == 300 == confusion.sum() == sum(report["counts"].values())
    assert confusion.sum(1).tolist() == [TRUTH.count(name) for name in CLASSES]
    assert report["specificity"] == confusion[0, 0] / confusion[0].sum()
    assert report["sensitivity"] == confusion[[1, 2, 3], [1, 2, 3]].sum() / confusion[1:].sum()
    assert report["score"] == (report["specificity"] + report["sensitivity"]) / 2
    for name in ("score", "auroc", "ece", "score_2class"):
        low, high = report[f"{name}_ci"]
        assert 0 <= low <= high <= 1
    assert report["score_ci"][0] < report["score"] < report["score_ci"][1]
    strict_json(report)


def test_a_single_class_gives_null_never_nan() -> None:
    report = evaluate_predictions(["normal"] * 4, np.full((4, 4), 0.25), list("aabb"), resamples=50)
    assert report["specificity"] == 1.0
    for name in ("sensitivity", "score", "score_2class", "auroc", "score_ci", "auroc_ci"):
        assert report[name] is None
    strict_json(report)


def test_no_items_at_all_give_null() -> None:
    report = strict_json(evaluate_predictions([], np.zeros((0, 4)), []))
    assert report["n"] == 0
    assert report["auroc"] is None
    assert report["ece"] is None
    assert report["confusion"] == [[0] * 4] * 4


def test_one_patient_has_no_interval() -> None:
    report = evaluate_predictions(TRUTH, PROBABILITIES, ["a"] * 300)
    assert report["score"] is not None
    assert report["score_ci"] is None
    assert report["auroc_ci"] is None


def test_other_sounds_are_abnormal_for_the_auroc_and_stay_out_of_the_confusion() -> None:
    truth = ["normal", "normal", "other", "wheeze"]
    p = np.array([[0.9, 0.1, 0, 0], [0.6, 0.4, 0, 0], [0.2, 0.8, 0, 0], [0.1, 0, 0.9, 0]])
    report = evaluate_predictions(truth, p, list("abcd"), resamples=20)
    assert report["n"] == 4
    assert report["counts"]["other"] == 1
    assert sum(report["counts"].values()) == 4
    assert np.sum(report["confusion"]) == 3
    assert report["auroc"] == 1.0
    assert evaluate_predictions(truth, 1 - p, list("abcd"), resamples=0)["auroc"] == 0.0


def test_unclassified_items_count_in_the_auroc_only() -> None:
    p = np.array([[0.9, 0.1, 0, 0], [0.5, 0.5, 0, 0], [0.1, 0.9, 0, 0]])
    truth = ["normal", "crackle", "crackle"]
    report = evaluate_predictions(truth, p, list("abc"), classified=[True, False, True], resamples=0)
    assert report["unclassified"] == 1
    assert report["n"] == 3
    assert np.sum(report["confusion"]) == 2
    assert report["auroc"] == 1.0
    assert report["score_ci"] is None
    assert report["auroc_ci"] is None


def test_a_two_label_model_is_scored_on_normal_against_the_rest() -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
    report = evaluate_predictions(
        ["normal", "both", "other", "wheeze"], p, list("abcd"), labels=("normal", "abnormal"), resamples=0
    )
    assert report["confusion"] == [[1, 0], [1, 2]]
    assert report["sensitivity"] == report["sensitivity_2class"] == pytest.approx(2 / 3)


def test_predictions_of_the_decoder_win_over_the_argmax() -> None:
    p = np.array([[0.6, 0.4, 0, 0], [0.6, 0.4, 0, 0]])
    report = evaluate_predictions(["normal", "crackle"], p, list("ab"), predictions=["normal", "crackle"], resamples=0)
    assert report["score"] == 1.0
    assert report["ece"] == pytest.approx(0.5)  # confidences 0.6 and 0.4, both right


def test_input_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="do not match"):
        evaluate_predictions(["normal"], np.zeros((1, 3)), ["a"])
    with pytest.raises(ValueError, match="finite"):
        evaluate_predictions(["normal"], [[np.nan, 0, 0, 0]], ["a"])
    with pytest.raises(ValueError, match="unknown labels"):
        evaluate_predictions(["rub"], [[1, 0, 0, 0]], ["a"])
    with pytest.raises(ValueError, match="normal label"):
        evaluate_predictions(["a"], [[1, 0]], ["p"], labels=("a", "b"))


def test_operating_points_and_recalls_go_with_the_report() -> None:
    report = evaluate_predictions(TRUTH, PROBABILITIES, PATIENTS, resamples=200)
    assert [point["specificity_at_least"] for point in report["operating_points"]] == [0.8, 0.9]
    for point in report["operating_points"]:
        assert point["specificity"] >= point["specificity_at_least"]
        low, high = point["sensitivity_ci"]
        assert low <= point["sensitivity"] <= high
    confusion = np.array(report["confusion"])
    assert report["recall"]["wheeze"] == confusion[2, 2] / confusion[2].sum()
    alone = evaluate_predictions(["normal"] * 4, np.full((4, 4), 0.25), list("aabb"), resamples=50)
    assert alone["recall"]["wheeze"] is None
    assert all(point["sensitivity"] is None for point in alone["operating_points"])
    strict_json(alone)


def test_each_sound_is_ranked_against_all_items_without_it() -> None:
    truth = ["crackle", "both", "wheeze", "normal", "other"]
    table = [[0.1, 0.6, 0.1, 0.2], [0.2, 0.1, 0.4, 0.3], [0.1, 0.5, 0.4, 0.0], [0.7, 0.1, 0.1, 0.1], [0.0, 1.0, 0, 0]]
    report = evaluate_predictions(truth, table, list("abcde"), resamples=0)
    # crackle or both 0.8, 0.4 against 0.5, 0.2; wheeze or both 0.7, 0.4 against 0.3, 0.2; "other" has no class
    assert report["auroc_crackle"] == 0.75 and report["auroc_wheeze"] == 1.0
    two = evaluate_predictions(
        ["normal", "wheeze"], [[0.9, 0.1], [0.2, 0.8]], list("ab"), labels=("normal", "abnormal")
    )
    assert "auroc_crackle" not in two


def test_the_reliability_table_is_that_of_the_calibration_error() -> None:
    report = evaluate_predictions(TRUTH, PROBABILITIES, PATIENTS, resamples=0)
    rows = report["reliability"]
    assert sum(row["n"] for row in rows) == report["n"] and all(row["n"] > 0 for row in rows)
    error = sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / report["n"]
    assert error == pytest.approx(report["ece"])
