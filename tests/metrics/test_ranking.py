"""AUROC and average precision agree with scikit-learn, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as reference_curve

from edge_sdk.metrics import auroc, average_precision, roc_curve, sensitivity_at_specificity

scored = st.lists(st.tuples(st.booleans(), st.integers(-5, 5).map(lambda k: k / 4)), min_size=1, max_size=50)


def split(items: list[tuple[bool, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([t for t, _ in items]), np.array([s for _, s in items])


@given(scored)
def test_auroc_and_average_precision_match_scikit_learn_with_ties(items: list[tuple[bool, float]]) -> None:
    truth, score = split(items)
    assume(truth.any() and not truth.all())
    assert auroc(truth, score) == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    assert average_precision(truth, score) == pytest.approx(average_precision_score(truth, score), abs=1e-12)


@given(scored)
def test_auroc_depends_on_the_order_of_scores_only_and_mirrors_with_them(items: list[tuple[bool, float]]) -> None:
    truth, score = split(items)
    assume(truth.any() and not truth.all())
    area = auroc(truth, score)
    assert area is not None
    assert 0 <= area <= 1
    assert auroc(truth, np.exp(3 * score) - 7) == pytest.approx(area, abs=1e-12)
    assert auroc(truth, -score) == pytest.approx(1 - area, abs=1e-12)
    assert auroc(~truth, score) == pytest.approx(1 - area, abs=1e-12)


def test_a_constant_score_is_chance() -> None:
    assert auroc([True, False, False], [0.3, 0.3, 0.3]) == 0.5
    assert average_precision([True, False, False], [0.3, 0.3, 0.3]) == pytest.approx(1 / 3)


def test_one_class_alone_leaves_the_area_undefined() -> None:
    assert auroc([True, True], [0.1, 0.2]) is None
    assert auroc([False, False], [0.1, 0.2]) is None
    assert auroc([], []) is None
    assert average_precision([False], [0.5]) is None


def test_bad_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        auroc([True, False], [0.1, float("nan")])
    with pytest.raises(ValueError, match="one length"):
        average_precision([True], [0.1, 0.2])


@given(scored, st.sampled_from([0.0, 0.5, 0.8, 0.9, 1.0]))
def test_sensitivity_at_a_specificity_is_the_best_point_of_scikit_learns_curve(
    items: list[tuple[bool, float]], specificity: float
) -> None:
    truth, score = split(items)
    assume(truth.any() and not truth.all())
    false_rate, true_rate, _ = reference_curve(truth, score, drop_intermediate=False)
    point = sensitivity_at_specificity(truth, score, specificity)
    assert point is not None
    assert point.sensitivity == pytest.approx(true_rate[1 - false_rate >= specificity - 1e-12].max(), abs=1e-12)
    called = score >= point.threshold
    assert point.specificity == pytest.approx((~called[~truth]).mean(), abs=1e-12)
    assert point.sensitivity == pytest.approx(called[truth].mean(), abs=1e-12)


def test_an_operating_point_needs_both_classes_and_a_share() -> None:
    assert sensitivity_at_specificity([True, True], [0.1, 0.2], 0.8) is None
    with pytest.raises(ValueError, match="share"):
        sensitivity_at_specificity([True, False], [0.1, 0.2], 80)


@given(scored, st.data())
def test_roc_curve_matches_scikit_learn_with_ties_and_weights(
    items: list[tuple[bool, float]], data: st.DataObject
) -> None:
    truth, score = split(items)
    assume(truth.any() and not truth.all())
    weight = np.array(data.draw(st.lists(st.integers(1, 3), min_size=len(items), max_size=len(items))))
    curve = roc_curve(truth, score, weight)
    assert curve is not None
    alarms, hits, _ = reference_curve(truth, score, sample_weight=weight, drop_intermediate=False)
    np.testing.assert_allclose(curve[0], alarms, atol=1e-12)
    np.testing.assert_allclose(curve[1], hits, atol=1e-12)


def test_roc_curve_of_one_class_is_undefined() -> None:
    assert roc_curve([True, True], [0.1, 0.2]) is None
    assert roc_curve([], []) is None
    assert roc_curve([True, False], [0.1, 0.2], [0, 1]) is None  # the positive was not drawn
