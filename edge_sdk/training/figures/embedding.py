"""The embedding as a map (t-SNE), and linear probes of class, device and site.

The map is an illustration, distances between its groups mean little; the probes are the measurement.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.corpora.splits import grouped_folds
from edge_sdk.metrics.bootstrap import interval, patient_indices, patient_weights
from edge_sdk.training.figures.evaluated import EvaluatedModel
from edge_sdk.training.figures.page import COLOURS, DrawnFigure, NotApplicableError, new_page

MOST = 1500  # cycles on the map
PERPLEXITY = 30.0
FOLDS = 5
_LEAST = 10


def tsne(evaluated: EvaluatedModel) -> DrawnFigure:
    """Maps coloured by class, device and site, each with its probe."""
    if len(evaluated.cycles) < _LEAST:
        raise NotApplicableError(f"{len(evaluated.cycles)} breaths are too few for a map; it needs {_LEAST}")
    shown = evaluated.spread(MOST)
    scaled = _standardised(evaluated.embeddings, evaluated.embeddings)
    perplexity = min(PERPLEXITY, (len(shown) - 1) / 3)
    aspects = _aspects(evaluated)
    with _one_thread():
        where = _map(scaled[shown], perplexity, evaluated.seed)
        probes = {name: linear_probe(evaluated, values) for name, values in aspects.items()}
    drawn = [name for name, probe in probes.items() if "reason" not in probe]
    if "class" not in drawn:
        drawn.insert(0, "class")
    figure, axes = new_page(1, len(drawn), 4.4 * len(drawn), 5.0)
    for axis, name in zip(axes[0], drawn, strict=True):
        _scatter(axis, where, np.array(aspects[name])[shown], name, probes[name], evaluated)
    numbers: dict[str, Any] = {
        "perplexity": perplexity,
        "seed": evaluated.seed,
        "shown": shown,
        "x": np.round(where[:, 0], 4).tolist(),
        "y": np.round(where[:, 1], 4).tolist(),
        **{f"{name}_shown": np.array(values)[shown].tolist() for name, values in aspects.items()},
        "probes": probes,
    }
    missing = [f"{name}: {probe['reason']}" for name, probe in probes.items() if "reason" in probe]
    note = f"probe: logistic regression on the embedding, {FOLDS}-fold by patient; balanced accuracy against chance"
    return DrawnFigure(figure, numbers, "; ".join([note, *missing]))


def _one_thread() -> AbstractContextManager[Any]:
    """One thread gives the same map on every machine, and small problems are slower on many threads."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits


def _aspects(evaluated: EvaluatedModel) -> dict[str, list[str]]:
    return {
        "class": [cycle.label for cycle in evaluated.cycles],
        "device": [cycle.device or "unknown" for cycle in evaluated.cycles],
        "site": [cycle.site or "unknown" for cycle in evaluated.cycles],
    }


def _map(points: npt.NDArray[np.float64], perplexity: float, seed: int) -> npt.NDArray[np.float64]:
    from sklearn.manifold import TSNE

    start = "pca" if points.shape[1] > 1 else "random"
    return np.asarray(
        TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(points), dtype=np.float64
    )


def _scatter(
    axis: Any,
    where: npt.NDArray[np.float64],
    values: npt.NDArray[Any],
    name: str,
    probe: dict[str, Any],
    evaluated: EvaluatedModel,
) -> None:
    found = (
        [label for label in evaluated.labels if label in values] if name == "class" else sorted(set(values.tolist()))
    )
    for index, value in enumerate(found):
        chosen = values == value
        colour = COLOURS[(evaluated.labels.index(value) if name == "class" else index) % len(COLOURS)]
        axis.scatter(
            *where[chosen].T, s=9, color=colour, alpha=0.7, linewidths=0, label=f"{value} ({int(chosen.sum())})"
        )
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    heading = name
    if "balanced_accuracy" in probe:
        low, high = probe["balanced_accuracy_ci"] or (float("nan"),) * 2
        heading += f": probe {probe['balanced_accuracy']:.2f} ({low:.2f}–{high:.2f}), chance {probe['chance']:.2f}"
    axis.set_title(heading, fontsize=9)
    axis.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=2, markerscale=1.6)


def linear_probe(evaluated: EvaluatedModel, values: list[str]) -> dict[str, Any]:
    """How well a logistic regression predicts ``values`` from the embedding of patients it was not fitted to.

    Returns
    -------
    dict
        ``accuracy``, ``balanced_accuracy`` (mean recall of the values) with their patient-bootstrap ``…_ci``,
        ``chance`` (1 / number of values), ``majority``, ``values``; or ``reason`` where there is nothing to predict.
    """
    names = sorted(set(values))
    given = [name for name in names if name != "unknown"]
    folds = min(FOLDS, len(set(evaluated.patients)))
    if len(given) < 2:
        return {"reason": f"all are {names[0]}" if len(names) == 1 else "known of one value only"}
    if folds < 2:
        return {"reason": "one patient only"}
    truth = np.array([names.index(value) for value in values])
    fold = grouped_folds(values, evaluated.patients, folds, seed=evaluated.seed)
    predicted = _cross_fitted(evaluated.embeddings, truth, fold)
    patient, n_patients = patient_indices(evaluated.patients)
    weights = patient_weights(n_patients, max(evaluated.resamples, 1), evaluated.seed)
    accuracy, balanced = _rates(np.ones((1, n_patients)), patient, truth, predicted, len(names))
    drawn = _rates(weights, patient, truth, predicted, len(names))
    bounds = [interval(values) if n_patients > 1 else None for values in drawn]
    return {
        "values": {name: int((truth == index).sum()) for index, name in enumerate(names)},
        "accuracy": float(accuracy[0]),
        "accuracy_ci": list(bounds[0]) if bounds[0] else None,
        "balanced_accuracy": float(balanced[0]),
        "balanced_accuracy_ci": list(bounds[1]) if bounds[1] else None,
        "chance": 1.0 / len(names),
        "majority": float(np.bincount(truth).max() / len(truth)),
        "folds": folds,
    }


def _cross_fitted(
    embeddings: npt.NDArray[np.float64], truth: npt.NDArray[np.int64], fold: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    predicted = np.full(len(truth), -1, dtype=np.int64)  # -1: no prediction, which counts as wrong
    for number in np.unique(fold):
        held_out, fitted = fold == number, fold != number
        if len(np.unique(truth[fitted])) < 2:
            predicted[held_out] = truth[fitted][0] if fitted.any() else -1
            continue
        probe = LogisticRegression(C=0.1, max_iter=500, class_weight="balanced")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # an almost converged probe is good enough
            probe.fit(_standardised(embeddings[fitted], embeddings[fitted]), truth[fitted])
        predicted[held_out] = probe.predict(_standardised(embeddings[held_out], embeddings[fitted]))
    return predicted


def _rates(
    weights: npt.NDArray[np.float64],
    patient: npt.NDArray[np.int64],
    truth: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    values: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Accuracy and mean recall of every resample; values that were not drawn are left out of the mean."""
    cells = patient * values + truth
    size = weights.shape[1] * values
    count = weights @ np.bincount(cells, minlength=size).reshape(-1, values)  # [R, values]
    hits = weights @ np.bincount(cells, weights=(predicted == truth).astype(float), minlength=size).reshape(-1, values)
    with np.errstate(invalid="ignore"):
        return hits.sum(1) / count.sum(1), np.nanmean(hits / count, axis=1)


def _standardised(points: npt.NDArray[np.float64], fitted: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    spread = fitted.std(axis=0)
    return np.asarray((points - fitted.mean(axis=0)) / np.where(spread > 1e-12, spread, 1.0))
