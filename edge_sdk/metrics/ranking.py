"""Metrics of a binary score: area under the ROC curve, average precision and operating points, ties handled exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Result of one threshold: a score is positive from ``threshold`` on."""

    threshold: float  # infinite where nothing may be called positive
    sensitivity: float
    specificity: float


def auroc(positive: npt.ArrayLike, score: npt.ArrayLike) -> float | None:
    """Probability that a positive outranks a negative, ties counting one half.

    Parameters
    ----------
    positive
        ``[n]`` booleans, true for the positive (abnormal) class.
    score
        ``[n]`` finite numbers, higher means more positive.

    Returns
    -------
    The area, or ``None`` when only one class is present.

    Raises
    ------
    ValueError
        Shapes differ or a score is not finite.
    """
    truth, values = _checked(positive, score)
    positives, negatives = _tie_groups(truth, values)
    n_positive, n_negative = positives.sum(), negatives.sum()
    if n_positive == 0 or n_negative == 0:
        return None
    below = np.cumsum(negatives) - negatives  # negatives under each tie group
    return float((positives * (below + negatives / 2)).sum() / (n_positive * n_negative))


def average_precision(positive: npt.ArrayLike, score: npt.ArrayLike) -> float | None:
    """Σ (recall step × precision) from the highest score down, tied scores as one step; arguments as :func:`auroc`.

    Returns
    -------
    The average precision, or ``None`` when there is no positive.

    Raises
    ------
    ValueError
        Shapes differ or a score is not finite.
    """
    truth, values = _checked(positive, score)
    if not truth.any():
        return None
    positives, negatives = (group[::-1] for group in _tie_groups(truth, values))
    hits = np.cumsum(positives)
    precision = hits / np.cumsum(positives + negatives)
    return float((precision * positives).sum() / hits[-1])


def sensitivity_at_specificity(
    positive: npt.ArrayLike, score: npt.ArrayLike, specificity: float
) -> OperatingPoint | None:
    """The most sensitive threshold whose specificity is at least ``specificity``; no interpolation between scores.

    Parameters
    ----------
    positive, score
        As for :func:`auroc`.
    specificity
        Least share of negatives below the threshold, in [0, 1]; usual points are 0.8 and 0.9.

    Returns
    -------
    The point, or ``None`` when only one class is present. It is optimistic on the data that chose the threshold: for a
    device, choose it on validation patients (``training.calibration.operating_point``).

    Raises
    ------
    ValueError
        Shapes differ, a score is not finite, or ``specificity`` is no share.
    """
    if not 0.0 <= specificity <= 1.0:
        raise ValueError(f"specificity must be a share between 0 and 1, not {specificity}")
    truth, values = _checked(positive, score)
    positives, negatives = _tie_groups(truth, values)
    n_positive, n_negative = positives.sum(), negatives.sum()
    if n_positive == 0 or n_negative == 0:
        return None
    thresholds = np.append(np.unique(values), np.inf)
    below = np.append(0.0, np.cumsum(negatives)) / n_negative  # specificity of each threshold
    caught = 1.0 - np.append(0.0, np.cumsum(positives)) / n_positive
    first = int(np.argmax(below >= specificity - 1e-12))  # both fall and rise with the threshold: the first is the best
    return OperatingPoint(float(thresholds[first]), float(caught[first]), float(below[first]))


def roc_curve(
    positive: npt.ArrayLike, score: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """False and true positive rate of every threshold, from (0, 0) to (1, 1); tied scores are one step.

    Parameters
    ----------
    positive, score
        As for :func:`auroc`.
    weight
        ``[n]`` how often each item counts; once where absent.

    Returns
    -------
    The two rates, or ``None`` when only one class is present.

    Raises
    ------
    ValueError
        Shapes differ or a score is not finite.
    """
    truth, values = _checked(positive, score)
    counted = np.ones(len(values)) if weight is None else np.asarray(weight, dtype=np.float64)
    _, group = np.unique(-values, return_inverse=True)
    hits = np.cumsum(np.bincount(group, weights=counted * truth))
    alarms = np.cumsum(np.bincount(group, weights=counted * ~truth))
    if len(hits) == 0 or hits[-1] == 0 or alarms[-1] == 0:
        return None
    return np.append(0.0, alarms / alarms[-1]), np.append(0.0, hits / hits[-1])


def _checked(positive: npt.ArrayLike, score: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    truth = np.asarray(positive, dtype=np.bool_)
    values = np.asarray(score, dtype=np.float64)
    if truth.shape != values.shape or truth.ndim != 1:
        raise ValueError(f"truth {truth.shape} and score {values.shape} must be vectors of one length")
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite numbers")
    return truth, values


def _tie_groups(
    truth: npt.NDArray[np.bool_], values: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Positives and negatives at each distinct score, ascending."""
    _, group = np.unique(values, return_inverse=True)
    positives = np.bincount(group, weights=truth.astype(np.float64)).astype(np.float64)
    return positives, np.bincount(group).astype(np.float64) - positives
