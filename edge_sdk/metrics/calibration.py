"""Calibration of the top label: reliability bins, expected calibration error, temperature (Guo et al., ICML 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ECE_BINS = 15
"""Equal-width bins over [0, 1]; bin k holds confidences in (k/15, (k+1)/15]."""

_TEMPERATURE_RANGE = (0.05, 20.0)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Data of a reliability diagram; every array is ``[bins]``."""

    count: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]  # mean top-label probability, NaN in an empty bin
    accuracy: npt.NDArray[np.float64]  # share of correct predictions, NaN in an empty bin


def confidence_bins(confidence: npt.NDArray[np.float64], bins: int = ECE_BINS) -> npt.NDArray[np.int64]:
    """Bin index of each confidence ``[n]``; intervals are open below and closed above, 0 falls into the first."""
    index = np.ceil(np.asarray(confidence, dtype=np.float64) * bins).astype(np.int64) - 1
    return np.clip(index, 0, bins - 1)


def reliability(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = ECE_BINS) -> Reliability:
    """Mean confidence and accuracy in equal-width confidence bins.

    Parameters
    ----------
    confidence
        ``[n]`` probability given to the predicted label, in [0, 1].
    correct
        ``[n]`` whether the predicted label is the true one.

    Raises
    ------
    ValueError
        Shapes differ, or a confidence is outside [0, 1].
    """
    p = np.asarray(confidence, dtype=np.float64)
    hit = np.asarray(correct, dtype=np.float64)
    if p.shape != hit.shape or p.ndim != 1:
        raise ValueError(f"confidence {p.shape} and correct {hit.shape} must be vectors of one length")
    if p.size and not ((p >= 0) & (p <= 1 + 1e-6)).all():  # NaN fails too
        raise ValueError("confidences must lie in [0, 1]")
    index = confidence_bins(p, bins)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, weights=p, minlength=bins) / count
        accuracy = np.bincount(index, weights=hit, minlength=bins) / count
    return Reliability(count.astype(np.int64), mean, accuracy)


def reliability_rows(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = ECE_BINS
) -> list[dict[str, float | int]]:
    """The bins of :func:`reliability` that are not empty, as rows ``confidence``, ``accuracy``, ``n`` for JSON.

    Arguments and errors of :func:`reliability`.
    """
    table = reliability(confidence, correct, bins)
    return [
        {"confidence": float(table.confidence[k]), "accuracy": float(table.accuracy[k]), "n": int(table.count[k])}
        for k in np.flatnonzero(table.count)
    ]


def expected_calibration_error(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = ECE_BINS) -> float | None:
    """Mean |confidence − accuracy| over equal-width bins, weighted by their counts; ``None`` without samples.

    Arguments and errors of :func:`reliability`.
    """
    table = reliability(confidence, correct, bins)
    total = int(table.count.sum())
    if total == 0:
        return None
    filled = table.count > 0
    gap = np.abs(table.confidence[filled] - table.accuracy[filled])
    return float((table.count[filled] * gap).sum() / total)


def softmax(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Softmax over the last axis of ``[..., C]`` in float64, safe for large logits."""
    z = np.asarray(logits, dtype=np.float64)
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(z / z.sum(axis=-1, keepdims=True))


def negative_log_likelihood(logits: npt.ArrayLike, truth: npt.ArrayLike, temperature: float = 1.0) -> float:
    """Mean −log softmax(logits / temperature) of the true class; logits ``[n, C]``, truth ``[n]`` indices."""
    z = np.asarray(logits, dtype=np.float64) / temperature
    index = np.asarray(truth, dtype=np.int64)
    top = z.max(axis=1, keepdims=True)
    log_sum = top[:, 0] + np.log(np.exp(z - top).sum(axis=1))
    return float((log_sum - z[np.arange(len(index)), index]).mean())


def fit_temperature(logits: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """The temperature that minimises the negative log-likelihood, within 0.05 … 20.

    The likelihood is convex in 1/T, so a bisection on its derivative finds the only minimum. Fit on cycles of
    patients that neither trained the model nor are scored with it.

    Parameters
    ----------
    logits
        ``[n, C]`` raw logits.
    truth
        ``[n]`` class indices.

    Raises
    ------
    ValueError
        No samples, shapes that do not match, or logits that are not finite.
    """
    z = np.asarray(logits, dtype=np.float64)
    index = np.asarray(truth, dtype=np.int64)
    if z.ndim != 2 or index.shape != z.shape[:1] or len(index) == 0:
        raise ValueError(f"logits {z.shape} and truth {index.shape} do not match or are empty")
    if not np.isfinite(z).all():
        raise ValueError("logits must be finite numbers")
    true_logit = z[np.arange(len(index)), index]

    def slope(inverse: float) -> float:  # d NLL / d (1/T)
        p = softmax(z * inverse)
        return float(((p * z).sum(axis=1) - true_logit).mean())

    low, high = 1 / _TEMPERATURE_RANGE[1], 1 / _TEMPERATURE_RANGE[0]
    if slope(low) >= 0:
        return _TEMPERATURE_RANGE[1]
    if slope(high) <= 0:
        return _TEMPERATURE_RANGE[0]
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return float(2 / (low + high))
