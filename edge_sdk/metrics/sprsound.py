"""Scores of the SPRSound challenge (IEEE BioCAS 2022), by its four tasks (https://doi.org/10.1109/TBCAS.2022.3204910).

========  ===========  =====================================================================
task      items        classes
========  ===========  =====================================================================
``1-1``   cycles       Normal, Adventitious
``1-2``   cycles       Normal, Rhonchi, Wheeze, Stridor, Coarse Crackle, Fine Crackle, Wheeze+Crackle
``2-1``   recordings   Normal, Adventitious, Poor Quality
``2-2``   recordings   Normal, CAS, DAS, CAS & DAS, Poor Quality
========  ===========  =====================================================================

SP is the share of normal items called normal; SE pools all other items (poor quality among them) and needs the exact
class; AS is their mean, HS their harmonic mean, and the Score is the mean of AS and HS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_sdk.metrics.icbhi import confusion_matrix, encode_labels, rates

TASKS: dict[str, tuple[str, ...]] = {
    "1-1": ("Normal", "Adventitious"),
    "1-2": ("Normal", "Rhonchi", "Wheeze", "Stridor", "Coarse Crackle", "Fine Crackle", "Wheeze+Crackle"),
    "2-1": ("Normal", "Adventitious", "Poor Quality"),
    "2-2": ("Normal", "CAS", "DAS", "CAS & DAS", "Poor Quality"),
}
"""Classes of each task, the normal one first."""


@dataclass(frozen=True, slots=True)
class ChallengeScores:
    """Figures of one task as fractions; ``None`` where the truth lacks normal or other items."""

    sensitivity: float | None  # SE
    specificity: float | None  # SP
    average: float | None  # AS = (SE + SP) / 2
    harmonic: float | None  # HS = 2 SE SP / (SE + SP); 0 where both are 0
    score: float | None  # (AS + HS) / 2


def challenge_scores(confusion: npt.ArrayLike) -> ChallengeScores:
    """Scores of a confusion matrix ``[C, C]``, rows truth, the normal class first.

    Raises
    ------
    ValueError
        Not square, or fewer than two classes.

    Examples
    --------
    >>> challenge_scores([[8, 2], [4, 6]]).score
    0.6928571428571428
    """
    matrix = np.asarray(confusion, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] < 2:
        raise ValueError(f"a square confusion matrix is needed, not {matrix.shape}")
    specificity, sensitivity = (float(value) if np.isfinite(value) else None for value in rates(matrix)[:2])
    if sensitivity is None or specificity is None:
        return ChallengeScores(sensitivity, specificity, None, None, None)
    total = sensitivity + specificity
    harmonic = 2 * sensitivity * specificity / total if total else 0.0
    return ChallengeScores(sensitivity, specificity, total / 2, harmonic, (total / 2 + harmonic) / 2)


def score_task(task: str, truth: Sequence[str], prediction: Sequence[str]) -> ChallengeScores:
    """Scores of one task from class names, ``[n]`` each.

    Raises
    ------
    ValueError
        Unknown task, or names that are not of its classes.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; expected one of {', '.join(TASKS)}")
    labels = TASKS[task]
    return challenge_scores(
        confusion_matrix(encode_labels(truth, labels), encode_labels(prediction, labels), len(labels))
    )


def adventitious(labels: Sequence[str]) -> tuple[str, ...]:
    """Names of task 1-2 or 2-2 as those of task 1-1 or 2-1."""
    return tuple(label if label in ("Normal", "Poor Quality") else "Adventitious" for label in labels)
