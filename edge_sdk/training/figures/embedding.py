"""The embedding as a map (t-SNE), and what a linear probe reads from it: class, device, site.

The map is for the eye only, distances between its groups mean little; the probes are the measurement.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.corpora.splits import grouped_folds
from edge_sdk.metrics.bootstrap import interval, patient_indices, patient_weights
from edge_sdk.training.figures.catalogue import Drawn, NotApplicableError
from edge_sdk.training.figures.evaluated import Subject
from edge_sdk.training.figures.page import COLOURS, sheet

MOST = 1500  # breaths on the map
PERPLEXITY = 30.0
FOLDS = 5
_LEAST = 10


def tsne(subject: Subject) -> Drawn:
    """Maps coloured by class, device and site, each with its probe."""
    if len(subject.cycles) < _LEAST:
        raise NotApplicableError(f"{len(subject.cycles)} breaths are too few for a map; it needs {_LEAST}")
    shown = subject.spread(MOST)
    scaled = _standardised(subject.embeddings, subject.embeddings)
    perplexity = min(PERPLEXITY, (len(shown) - 1) / 3)
    aspects = _aspects(subject)
    with _one_thread():
        where = _map(scaled[shown], perplexity, subject.seed)
        probes = {name: linear_probe(subject, values) for name, values in aspects.items()}
    drawn = [name for name, probe in probes.items() if "reason" not in probe]
    if "class" not in drawn:
        drawn.insert(0, "class")
    figure, axes = sheet(1, len(drawn), 4.4 * len(drawn), 5.0)
    for axis, name in zip(axes[0], drawn, strict=True):
        _scatter(axis, where, np.array(aspects[name])[shown], name, probes[name], subject)
    numbers: dict[str, Any] = {
        "perplexity": perplexity,
        "seed": subject.seed,
        "shown": shown,
        "x": np.round(where[:, 0], 4).tolist(),
        "y": np.round(where[:, 1], 4).tolist(),
        **{f"{name}_shown": np.array(values)[shown].tolist() for name, values in aspects.items()},
        "probes": probes,
    }
    missing = [f"{name}: {probe['reason']}" for name, probe in probes.items() if "reason" in probe]
    note = f"probe: logistic regression on the embedding, {FOLDS}-fold by patient; balanced accuracy against chance"
    return Drawn(figure, numbers, "; ".join([note, *missing]))


def _one_thread() -> AbstractContextManager[Any]:
    """The same map on every machine size; and small problems are slower on many threads than on one."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits


def _aspects(subject: Subject) -> dict[str, list[str]]:
    return {
        "class": [cycle.label for cycle in subject.cycles],
        "device": [cycle.device or "unknown" for cycle in subject.cycles],
        "site": [cycle.site or "unknown" for cycle in subject.cycles],
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
    subject: Subject,
) -> None:
    found = [label for label in subject.labels if label in values] if name == "class" else sorted(set(values.tolist()))
    for index, value in enumerate(found):
        chosen = values == value
        colour = COLOURS[(subject.labels.index(value) if name == "class" else index) % len(COLOURS)]
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


def linear_probe(subject: Subject, values: list[str]) -> dict[str, Any]:
    """How well a logistic regression reads ``values`` from the embedding of patients it has not seen.

    Returns
    -------
    dict
        ``accuracy``, ``balanced_accuracy`` (mean recall of the values) with their patient-bootstrap ``…_ci``,
        ``chance`` (1 / number of values), ``majority``, ``values``; or ``reason`` where there is nothing to read.
    """
    names = sorted(set(values))
    known = [name for name in names if name != "unknown"]
    folds = min(FOLDS, len(set(subject.patients)))
    if len(known) < 2:
        return {"reason": f"all are {names[0]}" if len(names) == 1 else "known of one value only"}
    if folds < 2:
        return {"reason": "one patient only"}
    truth = np.array([names.index(value) for value in values])
    fold = grouped_folds(values, subject.patients, folds, seed=subject.seed)
    answer = _cross_fitted(subject.embeddings, truth, fold)
    patient, n_patients = patient_indices(subject.patients)
    weights = patient_weights(n_patients, max(subject.resamples, 1), subject.seed)
    accuracy, balanced = _rates(np.ones((1, n_patients)), patient, truth, answer, len(names))
    drawn = _rates(weights, patient, truth, answer, len(names))
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

    answer = np.full(len(truth), -1, dtype=np.int64)  # -1: no answer, which is wrong
    for number in np.unique(fold):
        held_out, learned = fold == number, fold != number
        if len(np.unique(truth[learned])) < 2:
            answer[held_out] = truth[learned][0] if learned.any() else -1
            continue
        probe = LogisticRegression(C=0.1, max_iter=500, class_weight="balanced")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # an almost fitted probe is probe enough
            probe.fit(_standardised(embeddings[learned], embeddings[learned]), truth[learned])
        answer[held_out] = probe.predict(_standardised(embeddings[held_out], embeddings[learned]))
    return answer


def _rates(
    weights: npt.NDArray[np.float64],
    patient: npt.NDArray[np.int64],
    truth: npt.NDArray[np.int64],
    answer: npt.NDArray[np.int64],
    values: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Accuracy and mean recall of every resample; values that were not drawn are left out of the mean."""
    cells = patient * values + truth
    size = weights.shape[1] * values
    count = weights @ np.bincount(cells, minlength=size).reshape(-1, values)  # [R, values]
    hits = weights @ np.bincount(cells, weights=(answer == truth).astype(float), minlength=size).reshape(-1, values)
    with np.errstate(invalid="ignore"):
        return hits.sum(1) / count.sum(1), np.nanmean(hits / count, axis=1)


def _standardised(points: npt.NDArray[np.float64], fitted: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    spread = fitted.std(axis=0)
    return np.asarray((points - fitted.mean(axis=0)) / np.where(spread > 1e-12, spread, 1.0))
