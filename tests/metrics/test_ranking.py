"""AUROC and average precision agree with scikit-learn, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from edge_sdk.metrics import auroc, average_precision

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
