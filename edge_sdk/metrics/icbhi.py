"""The ICBHI 2017 metric: confusion with a fixed label order, Se / Sp / Score, strict and 2-class ("lenient")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CLASSES: tuple[str, ...] = ("normal", "crackle", "wheeze", "both")
"""The four classes of a respiratory cycle, in the order of every confusion matrix."""

OTHER = "other"
"""Truth of an abnormal item of none of the four classes: pleural rub, bronchial breathing."""


@dataclass(frozen=True, slots=True)
class IcbhiScores:
    """Se, Sp and Score as fractions; ``None`` where a class they need is absent from the truth."""

    specificity: float | None  # normal cycles called normal
    sensitivity: float | None  # strict: abnormal cycles given their exact class, pooled over the abnormal classes
    score: float | None  # (specificity + sensitivity) / 2
    sensitivity_2class: float | None  # lenient: abnormal cycles given any abnormal class
    score_2class: float | None  # (specificity + sensitivity_2class) / 2


def encode_labels(names: Sequence[str], labels: Sequence[str] = CLASSES) -> npt.NDArray[np.int64]:
    """Class names as indices ``[n]`` into ``labels``.

    Raises
    ------
    ValueError
        A name that is not among ``labels``.
    """
    index = {label: i for i, label in enumerate(labels)}
    unknown = sorted(set(names) - set(index))
    if unknown:
        raise ValueError(f"unknown labels {unknown}; expected {list(labels)}")
    return np.fromiter((index[name] for name in names), dtype=np.int64, count=len(names))


def confusion_matrix(
    truth: npt.ArrayLike, prediction: npt.ArrayLike, n_classes: int = len(CLASSES)
) -> npt.NDArray[np.int64]:
    """Count matrix ``[truth, prediction]``; always ``n_classes`` × ``n_classes``, also when a class is absent.

    Parameters
    ----------
    truth, prediction
        Class indices, ``[n]``.

    Raises
    ------
    ValueError
        Shapes differ or an index is out of range.
    """
    true = np.asarray(truth, dtype=np.int64)
    predicted = np.asarray(prediction, dtype=np.int64)
    if true.shape != predicted.shape or true.ndim != 1:
        raise ValueError(f"truth {true.shape} and prediction {predicted.shape} must be vectors of one length")
    for name, values in (("truth", true), ("prediction", predicted)):
        if values.size and (values.min() < 0 or values.max() >= n_classes):
            raise ValueError(f"{name} holds indices outside 0..{n_classes - 1}")
    counts = np.bincount(true * n_classes + predicted, minlength=n_classes * n_classes)
    return counts.reshape(n_classes, n_classes).astype(np.int64)


def rates(confusions: npt.NDArray[np.float64], normal: int = 0) -> npt.NDArray[np.float64]:
    """Sp, Se, Score, Se (2-class), Score (2-class) of a stack of confusion matrices.

    Parameters
    ----------
    confusions
        ``[..., C, C]``, rows truth, columns prediction; weights are fine.
    normal
        Index of the normal class.

    Returns
    -------
    ``[..., 5]`` fractions; NaN where the truth lacks a class the rate needs.
    """
    c = confusions.shape[-1]
    abnormal = np.arange(c) != normal
    normals = confusions[..., normal, :].sum(-1)
    abnormals = confusions[..., abnormal, :].sum((-1, -2))
    exact = np.where(abnormal, np.diagonal(confusions, axis1=-2, axis2=-1), 0.0).sum(-1)
    caught = abnormals - confusions[..., abnormal, normal].sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        specificity = confusions[..., normal, normal] / normals
        strict = exact / abnormals
        lenient = caught / abnormals
    return np.stack([specificity, strict, (specificity + strict) / 2, lenient, (specificity + lenient) / 2], axis=-1)


def icbhi_scores(confusion: npt.ArrayLike, normal: int = 0) -> IcbhiScores:
    """Strict and 2-class scores of one confusion matrix ``[C, C]`` (rows truth).

    Sensitivity pools all abnormal cycles; it is not the mean of the per-class recalls.

    Raises
    ------
    ValueError
        Not square, or ``normal`` is no index of it.

    Examples
    --------
    A model that calls everything normal:

    >>> scores = icbhi_scores([[10, 0, 0, 0], [5, 0, 0, 0], [3, 0, 0, 0], [2, 0, 0, 0]])
    >>> scores.specificity, scores.sensitivity, scores.score
    (1.0, 0.0, 0.5)
    """
    matrix = np.asarray(confusion, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not 0 <= normal < matrix.shape[0]:
        raise ValueError(f"a square confusion matrix with a normal class is needed, not {matrix.shape}")
    specificity, strict, score, lenient, score_2class = (
        float(value) if np.isfinite(value) else None for value in rates(matrix, normal)
    )
    return IcbhiScores(specificity, strict, score, lenient, score_2class)
