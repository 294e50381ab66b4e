"""Se / Sp / Score: the numbers of the protocol, scikit-learn as oracle, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as sklearn_confusion

from edge_sdk.metrics import CLASSES, IcbhiScores, confusion_matrix, encode_labels, icbhi_scores
from edge_sdk.metrics.icbhi import rates

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


def scores_of(items: list[tuple[int, int]]) -> IcbhiScores:
    truth, prediction = zip(*items, strict=True)
    return icbhi_scores(confusion_matrix(truth, prediction))


def test_always_normal_scores_one_half() -> None:
    confusion = [[1579, 0, 0, 0], [649, 0, 0, 0], [385, 0, 0, 0], [143, 0, 0, 0]]  # the official test set
    assert icbhi_scores(confusion) == IcbhiScores(1.0, 0.0, 0.5, 0.0, 0.5)


def test_always_abnormal_scores_one_half_when_lenient() -> None:
    scores = icbhi_scores([[0, 1579, 0, 0], [0, 649, 0, 0], [0, 385, 0, 0], [0, 143, 0, 0]])
    assert (scores.specificity, scores.sensitivity_2class, scores.score_2class) == (0.0, 1.0, 0.5)
    assert scores.sensitivity == pytest.approx(649 / 1177)


@pytest.mark.requirement("EVA-1")
def test_published_two_class_figures_are_these_counts() -> None:
    scores = icbhi_scores([[1072, 507], [1177 - 804, 804]])  # native 2-way head: strict and lenient agree
    assert scores.specificity is not None
    assert scores.sensitivity is not None
    assert scores.score is not None
    assert round(100 * scores.specificity, 3) == 67.891
    assert round(100 * scores.sensitivity, 3) == 68.309
    assert round(100 * scores.score, 2) == 68.10
    assert scores.score == scores.score_2class


def test_sensitivity_is_pooled_over_cycles_not_averaged_over_classes() -> None:
    scores = icbhi_scores([[1, 0, 0, 0], [0, 90, 0, 0], [5, 0, 0, 5], [0, 0, 0, 0]])
    assert scores.sensitivity == pytest.approx(90 / 100)  # the mean of the recalls would be 1/2
    assert scores.sensitivity_2class == pytest.approx(95 / 100)


def test_absent_classes_keep_the_shape_and_undefined_rates_are_none() -> None:
    assert confusion_matrix([0, 0], [0, 2]).tolist() == [[1, 0, 1, 0]] + [[0, 0, 0, 0]] * 3
    only_normal = icbhi_scores(confusion_matrix([0, 0], [0, 2]))
    assert only_normal == IcbhiScores(0.5, None, None, None, None)
    only_abnormal = icbhi_scores(confusion_matrix([1, 2], [1, 1]))
    assert only_abnormal == IcbhiScores(None, 0.5, None, 1.0, None)
    assert icbhi_scores(np.zeros((4, 4))) == IcbhiScores(None, None, None, None, None)


@given(pairs)
@pytest.mark.requirement("EVA-1")
def test_confusion_matches_scikit_learn(items: list[tuple[int, int]]) -> None:
    truth, prediction = zip(*items, strict=True)
    expected = sklearn_confusion(truth, prediction, labels=[0, 1, 2, 3])
    assert np.array_equal(confusion_matrix(truth, prediction), expected)


@given(pairs, st.randoms())
def test_order_of_cycles_and_of_abnormal_classes_changes_nothing(items: list[tuple[int, int]], random: object) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert scores_of(shuffled) == scores_of(items)
    renamed = [0, 3, 1, 2]
    assert scores_of([(renamed[t], renamed[p]) for t, p in items]) == scores_of(items)


@given(pairs)
def test_two_class_sensitivity_is_never_below_the_strict_one(items: list[tuple[int, int]]) -> None:
    scores = scores_of(items)
    if scores.sensitivity is None:
        assert scores.sensitivity_2class is None
    else:
        assert scores.sensitivity_2class is not None
        assert scores.sensitivity_2class >= scores.sensitivity


@given(pairs)
def test_collapsing_to_two_classes_first_gives_the_two_class_score(items: list[tuple[int, int]]) -> None:
    scores = scores_of(items)
    native = icbhi_scores(confusion_matrix([min(t, 1) for t, _ in items], [min(p, 1) for _, p in items], 2))
    assert (native.specificity, native.sensitivity) == (scores.specificity, scores.sensitivity_2class)


def test_normal_class_may_stand_anywhere() -> None:
    confusion = np.arange(1, 17).reshape(4, 4)
    moved = np.roll(confusion, (2, 2), (0, 1))
    assert icbhi_scores(moved, normal=2) == icbhi_scores(confusion)
    assert np.array_equal(rates(np.stack([confusion, confusion]).astype(float))[1], rates(confusion.astype(float)))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        confusion_matrix([0, 4], [0, 0])
    with pytest.raises(ValueError, match="one length"):
        confusion_matrix([0, 1], [0])
    with pytest.raises(ValueError, match="unknown labels \\['rhonchi'\\]"):
        encode_labels(["normal", "rhonchi"])
    with pytest.raises(ValueError, match="square"):
        icbhi_scores([[1, 2, 3]])
    assert encode_labels(["both", "normal"], CLASSES).tolist() == [3, 0]
