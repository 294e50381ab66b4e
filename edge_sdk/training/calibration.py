"""From cross-validated logits to decisions: a bias per class and a temperature, each fitted on other patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import msgspec
import numpy as np
import numpy.typing as npt

from edge_sdk.metrics.calibration import fit_temperature
from edge_sdk.metrics.icbhi import confusion_matrix, icbhi_scores
from edge_sdk.runtime.bundle.schema import Decoder, DecoderKind
from edge_sdk.runtime.decoding import decide, decode

if TYPE_CHECKING:
    from edge_sdk.training.checkpoint import Checkpoint

Logits = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

_SHIFTS = np.round(np.arange(-2.5, 2.5001, 0.05), 2)  # of one class's logit
_SMOOTHING = 9  # neighbouring shifts averaged, so that one lucky cycle does not choose the threshold
_ROUNDS = 2  # of coordinate ascent
_THRESHOLDS = np.round(np.arange(0.02, 0.9801, 0.02), 2)  # of one logit's probability
_THRESHOLD_PREFERENCE = 0.02  # Score that a distance of 1 from one half must earn
_NEWTON_STEPS = 100  # of logistic regression, each at most 1 long
_TEMPERATURES = (0.05, 20.0)
_PREFERENCE = 0.002  # Score that one unit of shift must earn: on a plateau the smallest shift wins


@dataclass(frozen=True)
class Decision:
    """From logits to a label, in the terms of the bundle's decoder; the normal label comes first."""

    temperature: float = 1.0
    bias: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)  # one per logit
    kind: DecoderKind = "softmax"
    threshold: tuple[float, ...] = ()  # see ``Decoder.threshold``

    @property
    def decoder(self) -> Decoder:
        """The same in the structure of a bundle; of logits that are in context already, if any."""
        return _decoder(self.kind, self.temperature, self.bias, self.threshold)

    def probabilities(self, logits: Logits) -> Logits:
        """``[n, L]`` logits → ``[n, C]`` probabilities of the labels."""
        return decode(np.asarray(logits, dtype=np.float64), self.decoder)

    def classes(self, probabilities: Logits) -> Classes:
        """``[n, C]`` probabilities → ``[n]`` class indices, by the thresholds."""
        return decide(probabilities, self.decoder)


def checkpoint_decoder(checkpoint: Checkpoint) -> Decoder:
    """The decoder of a checkpoint, thresholds from the decision of its recipe."""
    found = checkpoint.recipe.get("decision", {}).get("threshold") or ()
    threshold = (found,) if isinstance(found, (int, float)) else tuple(found)
    normal = "normal" if "normal" in checkpoint.labels else checkpoint.labels[0]
    context = float(checkpoint.recipe.get("decision", {}).get("context") or 0.0)
    return _decoder(checkpoint.decoder, checkpoint.temperature, checkpoint.bias, threshold, normal, context)


def _decoder(
    kind: str,
    temperature: float,
    bias: Sequence[float],
    threshold: Sequence[float],
    normal: str = "normal",
    context: float = 0.0,
) -> Decoder:
    thresholds = [float(value) for value in threshold]
    return Decoder(
        kind=cast(DecoderKind, kind),
        temperature=float(temperature),
        bias=[float(value) for value in bias],
        normal_label=normal,
        threshold=None if not thresholds else thresholds[0] if len(thresholds) == 1 else thresholds,
        context=context or msgspec.UNSET,
    )


def strict_score(truth: Classes, predicted: Classes, classes: int) -> float:
    """ICBHI strict Score of class indices, normal = 0; 0 where normal or abnormal cycles are missing."""
    return icbhi_scores(confusion_matrix(truth, predicted, classes)).score or 0.0


def fit_decision(logits: Logits, truth: Classes, kind: DecoderKind = "softmax") -> Decision:
    """The decision that turns held-out logits into calibrated probabilities and labels of a high Score.

    Training draws rare classes more often than they occur, and the Score weighs normal and abnormal cycles alike.
    Softmax: shifts of the classes that maximise the strict Score, then the temperature of the shifted logits by
    likelihood, which leaves the labels as they are. Multilabel and binary: temperature and one bias per logit by
    likelihood, then the thresholds that maximise the strict Score; probabilities stay honest.

    Parameters
    ----------
    logits
        ``[n, L]`` of cycles whose patients did not train the model that gave them.
    truth
        ``[n]`` class indices, 0 = normal.
    kind
        Of the decoder.
    """
    if kind != "softmax":
        return _fit_thresholds(logits, truth, kind)
    classes = logits.shape[1]
    shift = np.zeros(classes)
    order = [0, *range(classes - 1, 1, -1)]  # class 1 stays: only differences count
    for _ in range(_ROUNDS):
        for index in order:
            shift[index] = _best_shift(logits + shift * (np.arange(classes) != index), truth, index)
    temperature = fit_temperature(logits + shift, truth)
    return Decision(round(temperature, 4), tuple((np.round(shift / temperature, 4) + 0.0).tolist()))


def _fit_thresholds(logits: Logits, truth: Classes, kind: DecoderKind) -> Decision:
    temperature, bias = fit_platt(logits, logit_truth(truth, kind))
    fitted = Decision(temperature, bias, kind)
    probabilities = fitted.probabilities(logits)
    threshold = np.full(logits.shape[1], 0.5)
    for _ in range(_ROUNDS):
        for index in range(len(threshold)):
            threshold[index] = _best_threshold(fitted, probabilities, truth, threshold, index)
    return replace(fitted, threshold=tuple(np.round(threshold, 4).tolist()))


def _best_threshold(
    decision: Decision, probabilities: Logits, truth: Classes, threshold: npt.NDArray[np.float64], index: int
) -> float:
    scores = []
    for candidate in _THRESHOLDS:
        tried = threshold.copy()
        tried[index] = candidate
        labels = replace(decision, threshold=tuple(tried.tolist())).classes(probabilities)
        scores.append(strict_score(truth, labels, probabilities.shape[1]))
    smooth = _smoothed(scores) - _THRESHOLD_PREFERENCE * np.abs(_THRESHOLDS - 0.5)
    return float(_THRESHOLDS[int(smooth.argmax())])


def logit_truth(truth: Classes, kind: DecoderKind) -> npt.NDArray[np.bool_]:
    """``[n]`` class indices → ``[n, L]`` whether the class of each logit is present."""
    if kind == "multilabel":
        return np.stack([truth & 1 > 0, truth & 2 > 0], axis=1)
    return np.asarray(truth > 0)[:, None]


def fit_platt(logits: Logits, present: npt.NDArray[np.bool_]) -> tuple[float, tuple[float, ...]]:
    """One temperature and a bias per logit that maximise the likelihood of ``sigmoid(logits / temperature + bias)``.

    Parameters
    ----------
    logits, present
        ``[n, L]``.
    """
    z = np.asarray(logits, dtype=np.float64)
    y = present.astype(np.float64)
    count = z.shape[1]
    ridge = 1e-3 * np.eye(count + 1)  # keeps perfectly separated logits finite
    parameters = np.concatenate([[1.0], np.zeros(count)])  # inverse temperature, biases
    for _ in range(_NEWTON_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(z * parameters[0] + parameters[1:], -50.0, 50.0)))
        residual, weight = p - y, p * (1.0 - p)
        gradient = np.concatenate([[(residual * z).sum()], residual.sum(axis=0)]) + ridge @ parameters
        hessian = np.diag(np.concatenate([[(weight * z * z).sum()], weight.sum(axis=0)])) + ridge
        hessian[0, 1:] = hessian[1:, 0] = (weight * z).sum(axis=0)
        step = np.linalg.solve(hessian, gradient)
        parameters = parameters - step / max(1.0, float(np.abs(step).max()))
    temperature = float(np.clip(1.0 / max(parameters[0], 1e-6), *_TEMPERATURES))
    return round(temperature, 4), tuple(np.round(parameters[1:], 4).tolist())


def operating_point(probabilities: Logits, truth: Classes, specificity: float, normal: int = 0) -> float:
    """Threshold on P(abnormal) that keeps ``specificity`` of the normal cycles, on validation patients.

    Parameters
    ----------
    probabilities
        ``[n, C]`` of cycles that were not trained on.
    truth
        ``[n]`` class indices.
    specificity
        Share of normal cycles that must stay normal.
    normal
        Index of the normal label.

    Returns
    -------
    float
        The lowest threshold that does; for ``Decoder.threshold`` of a softmax or binary decoder.

    Raises
    ------
    ValueError
        No normal cycle.
    """
    score = 1.0 - probabilities[:, normal]
    normals = np.sort(score[truth == normal])
    if not len(normals):
        raise ValueError("an operating point needs normal cycles; give a split that has some")
    kept = int(np.ceil(specificity * len(normals) - 1e-9))
    if kept >= len(normals):
        above = float(normals[-1])
        return min(1.0 - 1e-6, above + 1e-6)
    below, above = float(normals[kept - 1]) if kept else 0.0, float(normals[kept])
    return float(np.clip(above if below == above else (below + above) / 2, 1e-6, 1.0 - 1e-6))


def _best_shift(logits: Logits, truth: Classes, index: int) -> float:
    scores = []
    for shift in _SHIFTS:
        shifted = logits.copy()
        shifted[:, index] += shift
        scores.append(strict_score(truth, shifted.argmax(axis=1).astype(np.int64), logits.shape[1]))
    return float(_SHIFTS[int((_smoothed(scores) - _PREFERENCE * np.abs(_SHIFTS)).argmax())])


def _smoothed(scores: list[float]) -> npt.NDArray[np.float64]:
    padded = np.pad(scores, _SMOOTHING // 2, mode="edge")
    return np.convolve(padded, np.ones(_SMOOTHING) / _SMOOTHING, mode="valid")


def cross_fitted_probabilities(
    logits: Logits, truth: Classes, fold: Classes, kind: DecoderKind = "softmax"
) -> tuple[Logits, list[Decision]]:
    """Probabilities of each fold's cycles under the decision fitted on all other folds.

    Parameters
    ----------
    logits, truth
        Out-of-fold ``[n, L]`` logits and ``[n]`` class indices.
    fold
        ``[n]`` fold of each cycle, by patient.
    kind
        Of the decoder.

    Returns
    -------
    probabilities, decisions
        ``[n, C]``, and one decision per fold in order.
    """
    rows = []
    decisions = []
    order = []
    extra = () if kind == "softmax" else (kind,)
    for number in np.unique(fold):
        held_out = fold == number
        decision = fit_decision(logits[~held_out], truth[~held_out], *extra)
        rows.append(decision.probabilities(logits[held_out]))
        order.append(np.flatnonzero(held_out))
        decisions.append(decision)
    return np.concatenate(rows)[np.argsort(np.concatenate(order))], decisions
