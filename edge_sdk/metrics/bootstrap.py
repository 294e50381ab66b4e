"""Patient bootstrap: whole patients are drawn with replacement, since cycles of one patient are not independent.

A resample is a vector of weights, one a patient; every metric is then a weighted sum of per-patient statistics, so
a thousand resamples of seven thousand cycles take a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.metrics.calibration import ECE_BINS, confidence_bins
from edge_sdk.metrics.icbhi import rates

RESAMPLES = 1000
LEVEL = 0.95

Metric: TypeAlias = Literal["specificity", "sensitivity", "score", "sensitivity_2class", "score_2class", "auroc", "ece"]
RATE_NAMES: tuple[Metric, ...] = ("specificity", "sensitivity", "score", "sensitivity_2class", "score_2class")
"""Columns of :func:`edge_sdk.metrics.icbhi.rates`."""

Floats: TypeAlias = npt.NDArray[np.float64]
Decide: TypeAlias = Callable[[Floats], npt.NDArray[np.int64]]
"""Probabilities ``[n, C]`` → class indices ``[n]``, by the thresholds of a decoder."""

_CHUNK_VALUES = 2_000_000  # weights of cycles held at once by the AUROC: 16 MB


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Difference ``b − a`` of two models on the same cycles and the same resamples of patients."""

    metric: Metric
    a: float
    b: float
    difference: float
    low: float  # 2.5 % of the resampled differences
    high: float  # 97.5 %
    p_value: float  # two-sided: how often the resampled difference is on the other side of 0
    resamples: int  # number of defined resamples


def patient_indices(patients: Sequence[str]) -> tuple[npt.NDArray[np.int64], int]:
    """Patient of each cycle ``[n]`` as ``0 … P − 1`` in sorted order, and P."""
    names, index = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
    return index.astype(np.int64).reshape(-1), len(names)


def patient_weights(n_patients: int, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """How often each patient is drawn: ``[resamples, n_patients]``, each row sums to ``n_patients``."""
    rng = np.random.default_rng(seed)
    share = np.full(n_patients, 1.0 / n_patients)
    return rng.multinomial(n_patients, share, size=resamples).astype(np.float64)


def rate_resamples(
    weights: Floats,
    patient: npt.NDArray[np.int64],
    truth: npt.NDArray[np.int64],
    prediction: npt.NDArray[np.int64],
    n_classes: int,
    normal: int = 0,
) -> Floats:
    """The five ICBHI rates of every resample, ``[resamples, 5]`` in the order of :data:`RATE_NAMES`."""
    cells = n_classes * n_classes
    flat = np.bincount(patient * cells + truth * n_classes + prediction, minlength=weights.shape[1] * cells)
    confusions = weights @ flat.reshape(-1, cells).astype(np.float64)
    return rates(confusions.reshape(-1, n_classes, n_classes), normal)


def auroc_resamples(
    weights: Floats, patient: npt.NDArray[np.int64], positive: npt.NDArray[np.bool_], score: Floats
) -> Floats:
    """Area under the ROC curve of every resample ``[resamples]``, ties count one half; NaN where a class is absent."""
    if len(score) == 0:
        return np.full(len(weights), np.nan)
    order = np.argsort(score, kind="stable")
    ranked, owner, truth = score[order], patient[order], positive[order].astype(np.float64)
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    out = np.empty(len(weights))
    step = max(1, _CHUNK_VALUES // len(score))
    for begin in range(0, len(weights), step):
        weight = weights[begin : begin + step][:, owner]  # [chunk, n]
        all_groups = np.add.reduceat(weight, starts, axis=1)
        positives = np.add.reduceat(weight * truth, starts, axis=1)
        negatives = all_groups - positives
        below = np.cumsum(negatives, axis=1) - negatives
        pairs = positives.sum(1) * negatives.sum(1)
        with np.errstate(invalid="ignore"):
            out[begin : begin + step] = (positives * (below + negatives / 2)).sum(1) / pairs
    return out


def sensitivity_resamples(
    weights: Floats,
    patient: npt.NDArray[np.int64],
    positive: npt.NDArray[np.bool_],
    score: Floats,
    specificity: float,
) -> Floats:
    """Sensitivity of every resample ``[resamples]`` at its threshold for a specificity; NaN where a class is absent.

    The threshold is chosen anew in every resample, as :func:`edge_sdk.metrics.ranking.sensitivity_at_specificity`
    chooses it on the cycles themselves, so the interval holds the uncertainty of the choice too.
    """
    if len(score) == 0:
        return np.full(len(weights), np.nan)
    order = np.argsort(score, kind="stable")
    ranked, owner, truth = score[order], patient[order], positive[order].astype(np.float64)
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    out = np.empty(len(weights))
    step = max(1, _CHUNK_VALUES // len(score))
    for begin in range(0, len(weights), step):
        weight = weights[begin : begin + step][:, owner]  # [chunk, n]
        positives = np.add.reduceat(weight * truth, starts, axis=1)
        negatives = np.add.reduceat(weight, starts, axis=1) - positives
        blank = np.zeros((len(weight), 1))
        with np.errstate(invalid="ignore"):
            below = np.hstack([blank, negatives.cumsum(axis=1)]) / negatives.sum(axis=1, keepdims=True)
            caught = 1.0 - np.hstack([blank, positives.cumsum(axis=1)]) / positives.sum(axis=1, keepdims=True)
        first = (below >= specificity - 1e-12).argmax(axis=1)
        found = caught[np.arange(len(weight)), first]
        out[begin : begin + step] = np.where(np.isnan(below[:, -1]), np.nan, found)
    return out


def ece_resamples(
    weights: Floats,
    patient: npt.NDArray[np.int64],
    confidence: Floats,
    correct: npt.NDArray[np.bool_],
    bins: int = ECE_BINS,
) -> Floats:
    """Expected calibration error of every resample ``[resamples]``; NaN where no cycle was drawn."""
    cell = patient * bins + confidence_bins(confidence, bins)
    size = weights.shape[1] * bins
    gap = np.bincount(cell, weights=confidence - correct, minlength=size).reshape(-1, bins)
    count = np.bincount(patient, minlength=weights.shape[1])
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(weights @ gap).sum(1) / (weights @ count))


def interval(resampled: Floats, level: float = LEVEL) -> tuple[float, float] | None:
    """Percentile interval of ``[resamples]`` values; ``None`` when fewer than half of them are defined."""
    defined = resampled[np.isfinite(resampled)]
    if len(defined) == 0 or len(defined) * 2 < len(resampled):
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def paired_bootstrap(
    truth: npt.ArrayLike,
    probabilities_a: npt.ArrayLike,
    probabilities_b: npt.ArrayLike,
    patients: Sequence[str],
    metric: Metric = "auroc",
    *,
    normal: int = 0,
    decide: Decide | tuple[Decide, Decide] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """Compare two models on the same cycles: interval and p-value of ``b − a`` over the same drawn patients.

    Parameters
    ----------
    truth
        ``[n]`` class indices.
    probabilities_a, probabilities_b
        ``[n, C]`` probabilities of the two models.
    patients
        ``[n]`` patient of each cycle.
    metric
        Which metric to compare.
    decide
        How probabilities become labels, for both models or for each (``runtime.decoding.decide`` with their
        decoders); the most probable label where absent.

    Raises
    ------
    ValueError
        Shapes differ, or the metric is undefined on these cycles (only one class, one patient).
    """
    true = np.asarray(truth, dtype=np.int64)
    patient, n_patients = patient_indices(patients)
    pair = [np.asarray(p, dtype=np.float64) for p in (probabilities_a, probabilities_b)]
    if pair[0].shape != pair[1].shape or pair[0].ndim != 2 or not len(pair[0]) == len(true) == len(patient):
        raise ValueError("truth, patients and both probabilities must describe the same cycles")
    if n_patients < 2:
        raise ValueError("a patient bootstrap needs at least two patients")
    both = decide if isinstance(decide, tuple) else (decide or _most_probable,) * 2
    outcomes = [(p, np.asarray(rule(p), dtype=np.int64)) for p, rule in zip(pair, both, strict=True)]
    metric_of = _metric_function(metric, true, patient, normal)
    one = np.ones((1, n_patients))
    weights = patient_weights(n_patients, resamples, seed)
    a, b = (float(metric_of(one, *outcome)[0]) for outcome in outcomes)
    return paired_difference(metric, a, b, metric_of(weights, *outcomes[0]), metric_of(weights, *outcomes[1]))


def paired_difference(metric: Metric, a: float, b: float, resampled_a: Floats, resampled_b: Floats) -> PairedDifference:
    """Interval and p-value of ``b − a`` from the two models' values on the same resamples, ``[resamples]`` each.

    Raises
    ------
    ValueError
        The metric is undefined on these cycles (only one class) or on most resamples.
    """
    if not np.isfinite(a - b):
        raise ValueError(f"{metric} is undefined here: the cycles lack a class")
    differences = resampled_b - resampled_a
    differences = differences[np.isfinite(differences)]
    bounds = interval(differences)
    if bounds is None or 2 * len(differences) < len(resampled_a):
        raise ValueError(f"{metric} is undefined on most resamples: too few patients")
    n = len(differences)
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    p_value = min(1.0, 2 * (tail + 1) / (n + 1))
    return PairedDifference(metric, a, b, b - a, bounds[0], bounds[1], p_value, n)


def _most_probable(probabilities: Floats) -> npt.NDArray[np.int64]:
    return np.asarray(probabilities.argmax(1), dtype=np.int64)


def _metric_function(
    metric: Metric, truth: npt.NDArray[np.int64], patient: npt.NDArray[np.int64], normal: int
) -> Callable[[Floats, Floats, npt.NDArray[np.int64]], Floats]:
    def value(weights: Floats, probabilities: Floats, prediction: npt.NDArray[np.int64]) -> Floats:
        if metric == "auroc":
            return auroc_resamples(weights, patient, truth != normal, 1 - probabilities[:, normal])
        if metric == "ece":
            confidence = np.take_along_axis(probabilities, prediction[:, None], 1)[:, 0]
            return ece_resamples(weights, patient, confidence, prediction == truth)
        rows = rate_resamples(weights, patient, truth, prediction, probabilities.shape[1], normal)
        return rows[:, RATE_NAMES.index(metric)]

    return value


def f1_intervals(
    patients: Sequence[str],
    n_true: Sequence[int],
    n_found: Sequence[int],
    matched: Mapping[str, Sequence[int]],
    resamples: int,
    seed: int,
) -> dict[str, tuple[float, float] | None]:
    """95 % patient-bootstrap intervals ``NAME_ci`` of F1s of events.

    Parameters
    ----------
    patients, n_true, n_found
        ``[R]`` of each recording: its patient, the events annotated and found in it.
    matched
        Name of an F1 → ``[R]`` matched events.
    resamples, seed
        Of the bootstrap.
    """
    patient, n_patients = patient_indices(patients)
    weights = patient_weights(n_patients, resamples, seed)

    def total(counts: Sequence[int]) -> Floats:
        return np.asarray(weights @ np.bincount(patient, weights=np.asarray(counts, float), minlength=n_patients))

    events = total([true + found for true, found in zip(n_true, n_found, strict=True)])
    with np.errstate(invalid="ignore", divide="ignore"):
        return {f"{name}_ci": interval(2 * total(hits) / events) for name, hits in matched.items()}
