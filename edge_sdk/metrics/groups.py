"""Figures per device, site, age or sex: a mean over all patients hides the groups on which a model is poor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.metrics import bootstrap
from edge_sdk.metrics.icbhi import CLASSES
from edge_sdk.metrics.ranking import auroc
from edge_sdk.metrics.report import evaluate_predictions

MIN_PATIENTS = 10
"""A smaller group gets no interval: resamples of a few patients do not represent others."""

AGE_BANDS = ((3.0, "0–2"), (12.0, "3–11"), (18.0, "12–17"), (65.0, "18–64"), (float("inf"), "65+"))
"""Upper bound in years (exclusive) and name of each age band."""

UNKNOWN = "unknown"

_KEPT = ("score", "sensitivity", "specificity", "score_2class", "auroc", "ece")


def age_band(age_years: float | None) -> str:
    """Name of the age band; ``unknown`` for an unknown age.

    >>> age_band(2.9), age_band(3), age_band(None)
    ('0–2', '3–11', 'unknown')
    """
    if age_years is None or not age_years >= 0:
        return UNKNOWN
    return next(name for bound, name in AGE_BANDS if age_years < bound)


def evaluate_groups(
    groups: Sequence[str | None],
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
) -> list[dict[str, Any]]:
    """Score each group by itself.

    Parameters
    ----------
    groups
        ``[n]`` group of each item; ``None`` is a group of its own, ``unknown``.
    truth, probabilities, patients, labels, normal_label, predictions, classified, resamples, seed
        As :func:`edge_sdk.metrics.evaluate_predictions`; intervals only from ``MIN_PATIENTS`` patients on.

    Returns
    -------
    list of dict
        Largest group first: ``group``, ``n``, ``patients``, ``abnormal`` (share of the truth), ``score``,
        ``sensitivity``, ``specificity``, ``score_2class``, ``auroc``, ``ece`` and their ``…_ci``; ``None`` where
        undefined.

    Raises
    ------
    ValueError
        Lengths differ, or as :func:`edge_sdk.metrics.evaluate_predictions`.
    """
    if len(groups) != len(truth):
        raise ValueError(f"{len(groups)} groups for {len(truth)} items")
    names = np.array([UNKNOWN if group is None else group for group in groups], dtype=np.str_)
    table = np.asarray(probabilities, dtype=np.float64)
    labelled = np.ones(len(truth), np.bool_) if classified is None else np.asarray(classified, dtype=np.bool_)
    rows = []
    for name in sorted(set(names.tolist())):
        inside = np.flatnonzero(names == name).tolist()
        owners = [patients[i] for i in inside]
        report = evaluate_predictions(
            [truth[i] for i in inside],
            table[inside],
            owners,
            labels=labels,
            normal_label=normal_label,
            predictions=None if predictions is None else [predictions[i] for i in inside],
            classified=labelled[inside],
            resamples=resamples if len(set(owners)) >= MIN_PATIENTS else 0,
            seed=seed,
        )
        row = {"group": name, "n": report["n"], "patients": report["patients"]}
        row["abnormal"] = 1.0 - sum(truth[i] == normal_label for i in inside) / len(inside)
        rows.append(row | {key: report[key] for key in _KEPT} | _bounds(report))
    return sorted(rows, key=lambda row: (-row["n"], row["group"]))


def auroc_within(
    devices: Sequence[str | None],
    positive: npt.ArrayLike,
    score: npt.ArrayLike,
    patients: Sequence[str],
    *,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """AUROC of each device by itself, and their mean weighted by the items of each.

    A model that only reads the device off the audio has a high AUROC over all devices and 0.5 within each.

    Parameters
    ----------
    devices
        ``[n]`` device of each item; ``None`` is a group of its own, ``unknown``.
    positive, score
        As :func:`edge_sdk.metrics.auroc`.
    patients
        ``[n]`` patient of each item.
    resamples, seed
        Of the patient bootstrap; 0 resamples leave the interval out (``None``).

    Returns
    -------
    dict
        ``auroc_within_device`` over the devices that have both classes (``None``: no such device), its ``…_ci``, and
        ``auroc_of_device``: largest first, ``device``, ``n``, ``patients``, ``abnormal`` (share) and ``auroc``.

    Raises
    ------
    ValueError
        Lengths differ, or a score is not finite.
    """
    truth, values = np.asarray(positive, dtype=np.bool_), np.asarray(score, dtype=np.float64)
    if not len(devices) == len(truth) == len(values) == len(patients):
        raise ValueError(f"{len(devices)} devices, {len(patients)} patients and {len(truth)} truths do not match")
    names = np.array([UNKNOWN if device is None else device for device in devices], dtype=np.str_)
    rows: list[dict[str, Any]] = []
    for name in sorted(set(names.tolist())):
        inside = names == name
        rows.append(
            {
                "device": name,
                "n": int(inside.sum()),
                "patients": len({patients[i] for i in np.flatnonzero(inside).tolist()}),
                "abnormal": float(truth[inside].mean()),
                "auroc": auroc(truth[inside], values[inside]),
            }
        )
    bounds = _interval_within(names, truth, values, patients, resamples, seed)
    return {
        "auroc_within_device": _weighted([(row["auroc"], row["n"]) for row in rows if row["auroc"] is not None]),
        "auroc_within_device_ci": list(bounds) if bounds else None,
        "auroc_of_device": sorted(rows, key=lambda row: (-row["n"], row["device"])),
    }


def _weighted(values: Sequence[tuple[float, int]]) -> float | None:
    total = sum(count for _, count in values)
    return sum(value * count for value, count in values) / total if total else None


def _interval_within(
    names: npt.NDArray[np.str_],
    truth: npt.NDArray[np.bool_],
    score: npt.NDArray[np.float64],
    patients: Sequence[str],
    resamples: int,
    seed: int,
) -> tuple[float, float] | None:
    """Interval over patients; in each resample the devices with both classes count, weighted by their drawn items."""
    patient, n_patients = bootstrap.patient_indices(patients)
    if n_patients < 2 or resamples < 1:
        return None
    weights = bootstrap.patient_weights(n_patients, resamples, seed)
    summed, counted = np.zeros(resamples), np.zeros(resamples)
    for name in sorted(set(names.tolist())):
        inside = names == name
        drawn = bootstrap.auroc_resamples(weights, patient[inside], truth[inside], score[inside])
        count = weights @ np.bincount(patient[inside], minlength=n_patients)
        defined = np.isfinite(drawn)
        summed[defined] += drawn[defined] * count[defined]
        counted[defined] += count[defined]
    with np.errstate(invalid="ignore"):
        return bootstrap.interval(summed / counted)


def _bounds(report: dict[str, Any]) -> dict[str, Any]:
    return {f"{name}_ci": report[f"{name}_ci"] for name in _KEPT}
