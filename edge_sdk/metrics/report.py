"""All figures of ``stetho evaluate --json`` in one dictionary, from labels, probabilities and patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.metrics import bootstrap
from edge_sdk.metrics.calibration import expected_calibration_error, reliability_rows
from edge_sdk.metrics.icbhi import CLASSES, OTHER, confusion_matrix, encode_labels, icbhi_scores
from edge_sdk.metrics.ranking import auroc, average_precision, sensitivity_at_specificity

OPERATING_SPECIFICITIES = (0.8, 0.9)
"""Specificities at which the sensitivity to abnormal cycles is reported."""


def evaluate_predictions(
    truth: Sequence[str],
    probabilities: npt.ArrayLike,
    patients: Sequence[str],
    *,
    labels: Sequence[str] = CLASSES,
    normal_label: str = "normal",
    predictions: Sequence[str] | None = None,
    classified: npt.ArrayLike | None = None,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Score predictions against the truth, with 95 % patient-bootstrap intervals.

    Parameters
    ----------
    truth
        ``[n]`` true labels: names of ``labels``, or ``"other"`` for an abnormal item without a class. With two labels
        every abnormal name counts as the abnormal label.
    probabilities
        ``[n, C]`` in the order of ``labels``.
    patients
        ``[n]`` patient of each item; the unit of the bootstrap.
    labels, normal_label
        The classes, and which of them is normal.
    predictions
        ``[n]`` predicted labels; the most probable one where absent.
    classified
        ``[n]`` booleans, true where the model gave a label; other items count in the AUROC only, by their probability.
    resamples, seed
        Of the bootstrap; 0 resamples leave the intervals out (``None``).

    Returns
    -------
    dict
        ``n``, ``patients``, ``labels``, ``counts``, ``confusion`` (rows truth, columns prediction, in the order of
        ``labels``), ``sensitivity``, ``specificity``, ``score``, ``sensitivity_2class``, ``score_2class``, ``recall``
        of each label, ``auroc`` and ``average_precision`` (abnormal against normal), ``auroc_crackle`` and
        ``auroc_wheeze`` (four classes only: items with the sound against all others), ``ece``, ``reliability`` (rows
        ``confidence``, ``accuracy``, ``n`` of the filled bins), ``operating_points`` (a row for each of
        ``OPERATING_SPECIFICITIES``; their thresholds are chosen on these same items), and ``…_ci`` ``[low, high]``.
        Undefined figures are ``None``. ``confusion``, the rates, ``ece`` and ``reliability`` leave out "other" truths
        and unclassified items; all others count every item.

    Raises
    ------
    ValueError
        Lengths differ, a label is unknown, or a probability is not a finite number in [0, 1].
    """
    items = prepare(truth, probabilities, patients, list(labels), normal_label, predictions, classified)
    report = figures_of(items, len(set(patients)))
    return report | _intervals(items, report, patients, resamples, seed)


def figures_of(items: ScoredItems, patients: int) -> dict[str, Any]:
    """The figures of :func:`evaluate_predictions` without their intervals."""
    keep = items.keep
    confusion = confusion_matrix(items.true[keep], items.predicted[keep], len(items.labels))
    rows = confusion.sum(1)
    report: dict[str, Any] = {
        "n": len(items.true),
        "patients": patients,
        "labels": items.labels,
        "counts": {name: int((items.has_class & (items.true == i)).sum()) for i, name in enumerate(items.labels)},
        "confusion": confusion.tolist(),
        **asdict(icbhi_scores(confusion, items.normal)),
        "recall": {name: float(confusion[i, i] / rows[i]) if rows[i] else None for i, name in enumerate(items.labels)},
        "auroc": auroc(items.positive, items.abnormal),
        "average_precision": average_precision(items.positive, items.abnormal),
        **_sounds(items),
        "ece": expected_calibration_error(items.confidence[keep], items.correct[keep]),
        "reliability": reliability_rows(items.confidence[keep], items.correct[keep]),
        "operating_points": _operating_points(items),
    }
    if not items.has_class.all():
        report["counts"][OTHER] = int((~items.has_class).sum())
    if not items.classified.all():
        report["unclassified"] = int((~items.classified).sum())
    return report


def _sounds(items: ScoredItems) -> dict[str, Any]:
    """AUROC of each adventitious sound, alone or with the other, against all items without it; four classes only."""
    if set(items.labels) != set(CLASSES):
        return {}
    columns = {name: [items.labels.index(label) for label in (name, "both")] for name in ("crackle", "wheeze")}
    return {
        f"auroc_{name}": auroc(
            np.isin(items.true[items.has_class], both), items.probabilities[items.has_class][:, both].sum(1)
        )
        for name, both in columns.items()
    }


def _operating_points(items: ScoredItems) -> list[dict[str, Any]]:
    points = []
    for wanted in OPERATING_SPECIFICITIES:
        point = sensitivity_at_specificity(items.positive, items.abnormal, wanted)
        points.append(
            {
                "specificity_at_least": wanted,
                "sensitivity": None if point is None else point.sensitivity,
                "specificity": None if point is None else point.specificity,
                # infinite where nothing may be called abnormal, which JSON has no number for
                "threshold": point.threshold if point is not None and np.isfinite(point.threshold) else None,
                "sensitivity_ci": None,
            }
        )
    return points


@dataclass(frozen=True, slots=True)
class ScoredItems:
    """Truth and predictions of one model as arrays ``[n]``; made by :func:`prepare`."""

    labels: list[str]
    normal: int
    true: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    has_class: npt.NDArray[np.bool_]  # the truth is one of the labels
    classified: npt.NDArray[np.bool_]  # the model gave a label
    confidence: npt.NDArray[np.float64]  # of the predicted label
    abnormal: npt.NDArray[np.float64]  # probability
    probabilities: npt.NDArray[np.float64]  # [n, C]

    @property
    def keep(self) -> npt.NDArray[np.bool_]:
        """``[n]`` items that count in the confusion matrix."""
        return self.has_class & self.classified

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """``[n]`` whether the predicted label is the true one."""
        return np.asarray(self.predicted == self.true)

    @property
    def positive(self) -> npt.NDArray[np.bool_]:
        """``[n]`` whether the truth is abnormal."""
        return np.asarray(~self.has_class | (self.true != self.normal))


def prepare(
    truth: Sequence[str],
    probabilities: npt.ArrayLike,
    patients: Sequence[str],
    labels: list[str],
    normal_label: str,
    predictions: Sequence[str] | None,
    classified: npt.ArrayLike | None,
) -> ScoredItems:
    """Check the arguments of :func:`evaluate_predictions` and encode them as arrays ``[n]``.

    Raises
    ------
    ValueError
        As :func:`evaluate_predictions`.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if not len(truth) == len(patients) == len(p) or p.shape != (len(p), len(labels)):
        raise ValueError(f"{len(truth)} truths, {len(patients)} patients and probabilities {p.shape} do not match")
    if not ((p >= -1e-9) & (p <= 1 + 1e-6)).all():  # NaN fails too
        raise ValueError("probabilities must be finite numbers in [0, 1]")
    if normal_label not in labels:
        raise ValueError(f"the normal label {normal_label!r} is not among {labels}")
    p = np.clip(p, 0.0, 1.0)
    normal = labels.index(normal_label)
    names = _collapse(truth, labels, normal)
    predicted = p.argmax(1) if predictions is None else encode_labels(list(predictions), labels)
    labelled = np.ones(len(p), np.bool_) if classified is None else np.asarray(classified, dtype=np.bool_)
    if not len(predicted) == len(labelled) == len(p):
        raise ValueError(f"{len(predicted)} predictions and {len(labelled)} flags for {len(p)} items")
    return ScoredItems(
        labels,
        normal,
        true=encode_labels([normal_label if name == OTHER else name for name in names], labels),
        predicted=predicted.astype(np.int64),
        has_class=np.array([name != OTHER for name in names], dtype=np.bool_),
        classified=labelled,
        confidence=np.take_along_axis(p, predicted[:, None], 1)[:, 0],
        abnormal=1.0 - p[:, normal],
        probabilities=p,
    )


def _collapse(truth: Sequence[str], labels: list[str], normal: int) -> list[str]:
    """For a model with two labels, every abnormal truth becomes its abnormal label."""
    if len(labels) != 2:
        return list(truth)
    known = {*CLASSES, OTHER, *labels}
    unknown = sorted(set(truth) - known)
    if unknown:
        raise ValueError(f"unknown labels {unknown}; expected {sorted(known)}")
    return [name if name == labels[normal] else labels[1 - normal] for name in truth]


def _intervals(
    items: ScoredItems, report: dict[str, Any], patients: Sequence[str], resamples: int, seed: int
) -> dict[str, Any]:
    patient, n_patients = bootstrap.patient_indices(patients)
    names: list[bootstrap.Metric] = [*bootstrap.RATE_NAMES, "auroc", "ece"]
    intervals: dict[str, Any] = {f"{name}_ci": None for name in names}
    intervals["bootstrap"] = {"unit": "patient", "resamples": resamples, "seed": seed, "level": bootstrap.LEVEL}
    if n_patients < 2 or resamples < 1:
        return intervals
    weights = bootstrap.patient_weights(n_patients, resamples, seed)
    drawn = resampled(items, weights, patient)
    for name in names:
        bounds = bootstrap.interval(drawn[name]) if report[name] is not None else None
        intervals[f"{name}_ci"] = list(bounds) if bounds else None
    points = []
    for point in report["operating_points"]:
        bounds = None
        if point["sensitivity"] is not None:
            draws = bootstrap.sensitivity_resamples(
                weights, patient, items.positive, items.abnormal, point["specificity_at_least"]
            )
            bounds = bootstrap.interval(draws)
        points.append({**point, "sensitivity_ci": list(bounds) if bounds else None})
    return intervals | {"operating_points": points}


def resampled(
    items: ScoredItems, weights: bootstrap.Floats, patient: npt.NDArray[np.int64]
) -> dict[bootstrap.Metric, bootstrap.Floats]:
    """Every metric on every resample of patients, ``[resamples]`` by name."""
    keep = items.keep
    owner, true, predicted = patient[keep], items.true[keep], items.predicted[keep]
    rows = bootstrap.rate_resamples(weights, owner, true, predicted, len(items.labels), items.normal)
    return {
        **dict(zip(bootstrap.RATE_NAMES, rows.T, strict=True)),
        "auroc": bootstrap.auroc_resamples(weights, patient, items.positive, items.abnormal),
        "ece": bootstrap.ece_resamples(weights, owner, items.confidence[keep], items.correct[keep]),
    }
