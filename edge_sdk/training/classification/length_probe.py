"""How much of a cycle's length a network keeps: a linear probe on its embedding.

Annotated events of unlike classes have unlike lengths (SPRSound: AUROC 0.83 from the length alone), and a window that
repeats a short cycle shows its length. On windows of equal length a probe sees only what the audio itself tells; what
it predicts beyond that, on cycles as annotated, leaks from the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.corpora.splits import grouped_folds
from edge_sdk.metrics.ranking import auroc

Floats = npt.NDArray[np.float64]

_FOLDS = 5
_RIDGE = 10.0  # on standardised columns, in cycles


@dataclass(frozen=True)
class LengthProbe:
    """What a probe that was fitted on other patients predicts."""

    r2: float  # of the logarithm of the length
    auroc: float | None  # of abnormal cycles, by the predicted length alone

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins."""
        return asdict(self)


def probe_length(
    embeddings: npt.NDArray[np.floating[Any]],
    lengths_s: Floats,
    abnormal: npt.NDArray[np.bool_],
    patients: Sequence[str],
) -> LengthProbe:
    """Predict the annotated length of cycles from embeddings, by ridge regression on other patients.

    Parameters
    ----------
    embeddings
        ``[n, D]``, of cycles as annotated or of windows of equal length around them.
    lengths_s
        ``[n]`` annotated lengths, in seconds.
    abnormal
        ``[n]``.
    patients
        ``[n]``; at least five different ones.

    Returns
    -------
    LengthProbe
        Pooled over the left-out patients. The direction of the AUROC is that of the true lengths.

    Raises
    ------
    ValueError
        Lengths differ, or there are fewer than five patients.
    """
    target = np.log(lengths_s)
    fold = grouped_folds(abnormal.tolist(), list(patients), _FOLDS)
    predicted = np.empty(len(target))
    baseline = np.empty(len(target))
    for number in range(_FOLDS):
        held_out = fold == number
        predicted[held_out] = _ridge(np.asarray(embeddings, np.float64), target, held_out)
        baseline[held_out] = target[~held_out].mean()
    r2 = 1.0 - float(((target - predicted) ** 2).sum() / ((target - baseline) ** 2).sum())
    by_length = auroc(abnormal, target)
    sign = -1.0 if by_length is not None and by_length < 0.5 else 1.0
    return LengthProbe(r2, auroc(abnormal, sign * predicted))


def _ridge(columns: Floats, target: Floats, held_out: npt.NDArray[np.bool_]) -> Floats:
    fitted, values = columns[~held_out], target[~held_out]
    mean, spread = fitted.mean(0), fitted.std(0) + 1e-9
    scaled = (fitted - mean) / spread
    gram = scaled.T @ scaled + _RIDGE * np.eye(scaled.shape[1])
    weights = np.linalg.solve(gram, scaled.T @ (values - values.mean()))
    return np.asarray((columns[held_out] - mean) / spread @ weights + values.mean())
