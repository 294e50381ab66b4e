"""From cross-validated logits to decisions: a bias per class and a temperature, each fitted on other patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_sdk.metrics.calibration import fit_temperature, softmax
from edge_sdk.metrics.icbhi import confusion_matrix, icbhi_scores

Logits = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

_SHIFTS = np.round(np.arange(-2.5, 2.5001, 0.05), 2)  # of one class's logit
_SMOOTHING = 9  # neighbouring shifts averaged, so that one lucky breath does not choose the threshold
_ROUNDS = 2  # of coordinate ascent
_PREFERENCE = 0.002  # Score that one unit of shift must earn: on a plateau the smallest shift wins


@dataclass(frozen=True)
class Decision:
    """``p = softmax(logits / temperature + bias)``, label = the most probable class."""

    temperature: float = 1.0
    bias: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)

    def probabilities(self, logits: Logits) -> Logits:
        """``[n, C]`` logits → ``[n, C]`` probabilities."""
        return softmax(logits / self.temperature + np.array(self.bias))


def strict_score(truth: Classes, predicted: Classes, classes: int) -> float:
    """ICBHI strict Score of class indices, normal = 0; 0 where normal or abnormal cycles are missing."""
    return icbhi_scores(confusion_matrix(truth, predicted, classes)).score or 0.0


def fit_decision(logits: Logits, truth: Classes) -> Decision:
    """Shifts of the classes that maximise the strict Score, then the temperature of the shifted logits by likelihood.

    Training draws rare classes more often than they occur, and the Score weighs normal and abnormal breaths alike;
    the shifts settle both. The temperature comes last and leaves the labels as they are.

    Parameters
    ----------
    logits
        ``[n, C]`` of cycles whose patients did not train the model that gave them.
    truth
        ``[n]`` class indices, 0 = normal.
    """
    classes = logits.shape[1]
    shift = np.zeros(classes)
    order = [0, *range(classes - 1, 1, -1)]  # class 1 stays: only differences count
    for _ in range(_ROUNDS):
        for index in order:
            shift[index] = _best_shift(logits + shift * (np.arange(classes) != index), truth, index)
    temperature = fit_temperature(logits + shift, truth)
    return Decision(round(temperature, 4), tuple((np.round(shift / temperature, 4) + 0.0).tolist()))


def _best_shift(logits: Logits, truth: Classes, index: int) -> float:
    scores = []
    for shift in _SHIFTS:
        shifted = logits.copy()
        shifted[:, index] += shift
        scores.append(strict_score(truth, shifted.argmax(axis=1).astype(np.int64), logits.shape[1]))
    padded = np.pad(scores, _SMOOTHING // 2, mode="edge")
    smooth = np.convolve(padded, np.ones(_SMOOTHING) / _SMOOTHING, mode="valid")
    return float(_SHIFTS[int((smooth - _PREFERENCE * np.abs(_SHIFTS)).argmax())])


def cross_fitted_probabilities(logits: Logits, truth: Classes, fold: Classes) -> tuple[Logits, list[Decision]]:
    """Probabilities of each fold's cycles under the decision fitted on all other folds.

    Parameters
    ----------
    logits, truth
        Out-of-fold ``[n, C]`` logits and ``[n]`` class indices.
    fold
        ``[n]`` fold of each cycle, by patient.

    Returns
    -------
    probabilities, decisions
        ``[n, C]``, and one decision per fold in order.
    """
    probabilities = np.zeros_like(logits, dtype=np.float64)
    decisions = []
    for number in np.unique(fold):
        held_out = fold == number
        decision = fit_decision(logits[~held_out], truth[~held_out])
        probabilities[held_out] = decision.probabilities(logits[held_out])
        decisions.append(decision)
    return probabilities, decisions
