"""Scores of the SPRSound challenge on hand-counted predictions."""

from __future__ import annotations

import pytest

from edge_sdk.metrics.sprsound import TASKS, ChallengeScores, adventitious, challenge_scores, score_task


def test_task_1_1_by_hand() -> None:
    scores = challenge_scores([[8, 2], [4, 6]])  # SP .8, SE .6
    assert scores.specificity == pytest.approx(0.8)
    assert scores.sensitivity == pytest.approx(0.6)
    assert scores.average == pytest.approx(0.7)
    assert scores.harmonic == pytest.approx(0.96 / 1.4)
    assert scores.score == pytest.approx((0.7 + 0.96 / 1.4) / 2)


def test_other_classes_are_pooled_and_must_be_exact() -> None:
    truth = ["Normal"] * 2 + ["Rhonchi", "Wheeze", "Wheeze", "Fine Crackle"]
    prediction = ["Normal", "Wheeze", "Wheeze", "Wheeze", "Normal", "Fine Crackle"]
    scores = score_task("1-2", truth, prediction)
    assert (scores.specificity, scores.sensitivity) == (0.5, 0.5)
    assert scores.score == 0.5
    collapsed = score_task("1-1", adventitious(truth), adventitious(prediction))
    assert (collapsed.specificity, collapsed.sensitivity) == (0.5, 0.75)


def test_poor_quality_counts_among_the_others() -> None:
    truth = ["Normal", "CAS", "DAS", "CAS & DAS", "Poor Quality"]
    prediction = ["Normal", "CAS", "CAS", "CAS & DAS", "Normal"]
    assert score_task("2-2", truth, prediction).sensitivity == 0.5
    scores = score_task("2-1", adventitious(truth), adventitious(prediction))
    assert (scores.specificity, scores.sensitivity) == (1.0, 0.75)
    assert scores.score == pytest.approx((0.875 + 1.5 / 1.75) / 2)


def test_edges() -> None:
    assert challenge_scores([[3, 0], [2, 0]]) == ChallengeScores(0.0, 1.0, 0.5, 0.0, 0.25)
    assert challenge_scores([[0, 3], [2, 0]]) == ChallengeScores(0.0, 0.0, 0.0, 0.0, 0.0)
    assert challenge_scores([[3, 1], [0, 0]]) == ChallengeScores(None, 0.75, None, None, None)
    with pytest.raises(ValueError, match="square confusion matrix"):
        challenge_scores([[1, 2, 3]])
    with pytest.raises(ValueError, match="unknown task '3'"):
        score_task("3", [], [])
    with pytest.raises(ValueError, match="unknown labels"):
        score_task("2-1", ["CAS"], ["Normal"])
    assert [len(labels) for labels in TASKS.values()] == [2, 7, 3, 5]
