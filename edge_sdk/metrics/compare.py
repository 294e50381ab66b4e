"""Two models on the same items: difference of each metric, with its interval over the same drawn patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.metrics import bootstrap
from edge_sdk.metrics.report import ScoredItems, figures_of, prepare, resampled

_LENIENT: tuple[bootstrap.Metric, ...] = ("specificity", "sensitivity_2class", "score_2class", "auroc")
_ALL: tuple[bootstrap.Metric, ...] = (*bootstrap.RATE_NAMES, "auroc", "ece")


@dataclass(frozen=True)
class ModelPredictions:
    """Predictions of one model for each item."""

    probabilities: npt.ArrayLike  # [n, C]
    labels: Sequence[str]
    normal_label: str = "normal"
    predictions: Sequence[str] | None = None  # by the model's own decoder; None: the most probable label
    classified: npt.ArrayLike | None = None  # [n] the model gave a label; None: for all


def compare_predictions(
    truth: Sequence[str],
    patients: Sequence[str],
    a: ModelPredictions,
    b: ModelPredictions,
    *,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Paired patient bootstrap of ``b − a``, each model with its own decoder.

    Parameters
    ----------
    truth, patients
        ``[n]`` as for :func:`edge_sdk.metrics.evaluate_predictions`.
    a, b
        The models. With different labels only the metrics of normal against abnormal are compared.
    resamples, seed
        Number of resamples and random seed.

    Returns
    -------
    dict
        ``metrics``: for each metric ``a``, ``b``, ``difference``, ``low``, ``high`` (95 %) and ``p_value``;
        ``None`` for one that is undefined here. ``compared``: items that both models classified; the rates are
        of these. ``bootstrap``: its settings.

    Raises
    ------
    ValueError
        As :func:`edge_sdk.metrics.evaluate_predictions`, or fewer than two patients.
    """
    patient, n_patients = bootstrap.patient_indices(patients)
    if n_patients < 2:
        raise ValueError("a patient bootstrap needs at least two patients")
    classified = [
        np.ones(len(truth), np.bool_) if x.classified is None else np.asarray(x.classified, np.bool_) for x in (a, b)
    ]
    common = classified[0] & classified[1]
    pair = [
        prepare(truth, x.probabilities, patients, list(x.labels), x.normal_label, x.predictions, common) for x in (a, b)
    ]
    weights = bootstrap.patient_weights(n_patients, resamples, seed)
    values = [figures_of(items, n_patients) for items in pair]
    draws = [resampled(items, weights, patient) for items in pair]
    metrics: dict[str, Any] = {}
    for metric in _metrics(*pair):
        one, other = values[0][metric], values[1][metric]
        metrics[metric] = None
        if one is not None and other is not None:
            metrics[metric] = _difference(metric, one, other, draws[0][metric], draws[1][metric])
    settings = {"unit": "patient", "resamples": resamples, "seed": seed, "level": bootstrap.LEVEL}
    return {"metrics": metrics, "compared": int(common.sum()), "bootstrap": settings}


def _metrics(a: ScoredItems, b: ScoredItems) -> tuple[bootstrap.Metric, ...]:
    return _ALL if a.labels == b.labels else _LENIENT


def _difference(
    metric: bootstrap.Metric, a: float, b: float, drawn_a: bootstrap.Floats, drawn_b: bootstrap.Floats
) -> dict[str, Any] | None:
    try:
        found = asdict(bootstrap.paired_difference(metric, a, b, drawn_a, drawn_b))
    except ValueError:
        return None
    del found["metric"]
    return found
