"""Figures per device, site, age or sex: a mean over all patients hides the groups on which a model is poor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.metrics import bootstrap
from edge_sdk.metrics.icbhi import CLASSES
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


def _bounds(report: dict[str, Any]) -> dict[str, Any]:
    return {f"{name}_ci": report[f"{name}_ci"] for name in _KEPT}
