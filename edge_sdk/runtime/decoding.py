"""Logits → calibrated probabilities → a label, as the bundle's decoder says; the only implementation of either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.runtime.bundle.schema import Decoder

MULTILABEL = ("normal", "crackle", "wheeze", "both")
"""What the two logits of a multilabel head, crackle and wheeze, spell together."""

_HALF = 0.5  # threshold of a logit without one of its own

Probabilities = npt.NDArray[np.float64]


def logit_count(kind: str, labels: Sequence[str]) -> int:
    """How many logits a head of this decoder has.

    Parameters
    ----------
    kind
        ``softmax``: one per label. ``multilabel``: crackle and wheeze. ``binary``: abnormal.
    labels
        The classes.

    Raises
    ------
    ValueError
        No such kind, or labels that it cannot give.
    """
    if kind == "softmax":
        return len(labels)
    if kind == "multilabel":
        if tuple(labels) != MULTILABEL:
            raise ValueError(f"decoder multilabel needs the labels {', '.join(MULTILABEL)}, not {', '.join(labels)}")
        return 2
    if kind == "binary":
        if len(labels) != 2:
            raise ValueError(f"decoder binary needs two labels, normal first, not {', '.join(labels)}")
        return 1
    raise ValueError(f"decoder {kind!r} does not exist; choose softmax, multilabel or binary")


def decoder_problem(decoder: Decoder, labels: Sequence[str]) -> str | None:
    """What keeps a decoder from going with these labels; ``None`` where nothing does."""
    try:
        logits = logit_count(decoder.kind, labels)
    except ValueError as error:
        return str(error)
    thresholds = _thresholds(decoder)
    if decoder.normal_label not in labels:
        return f"the normal label {decoder.normal_label!r} is not among the labels"
    if decoder.kind != "softmax" and labels[0] != decoder.normal_label:
        return f"decoder {decoder.kind} needs the normal label first"
    if decoder.bias and len(decoder.bias) != logits:
        return f"{len(decoder.bias)} biases for {logits} {'labels' if decoder.kind == 'softmax' else 'logits'}"
    if not decoder.temperature > 0:
        return "the temperature must be positive"
    if len(thresholds) > 1 and (decoder.kind == "softmax" or len(thresholds) != logits):
        return f"{len(thresholds)} thresholds for decoder {decoder.kind}"
    if not all(0.0 < threshold < 1.0 for threshold in thresholds):
        return "thresholds must lie between 0 and 1"
    if not 0.0 <= decoder.context_share < 1.0:
        return "the context must lie from 0 to below 1"
    return None


def decode(logits: npt.NDArray[np.floating[Any]], decoder: Decoder) -> Probabilities:
    """Probabilities of the labels from ``scores = logits / temperature + bias``.

    Parameters
    ----------
    logits
        ``[B, L]``, L as ``logit_count`` says.
    decoder
        Kind, temperature and bias of the bundle.

    Returns
    -------
    ndarray
        ``[B, C]``, rows sum to 1. Softmax: of the scores. Multilabel: normal, crackle, wheeze and both as the products
        of two independent sigmoids. Binary: normal and abnormal.
    """
    bias = np.asarray(decoder.bias or 0.0, dtype=np.float64)
    scores = logits.astype(np.float64) / decoder.temperature + bias
    if decoder.kind == "softmax":
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(scores / scores.sum(axis=1, keepdims=True))
    present, absent = _sigmoid(scores), _sigmoid(-scores)  # [B, L]
    if decoder.kind == "binary":
        return np.concatenate([absent, present], axis=1)
    (crackle, wheeze), (no_crackle, no_wheeze) = present.T, absent.T
    return np.stack([no_crackle * no_wheeze, crackle * no_wheeze, no_crackle * wheeze, crackle * wheeze], axis=1)


def decide(probabilities: Probabilities, decoder: Decoder, normal: int = 0) -> npt.NDArray[np.int64]:
    """The label of each row, honouring the decoder's thresholds.

    Parameters
    ----------
    probabilities
        ``[B, C]`` from ``decode``, or means of such rows.
    decoder
        Its kind and thresholds. Softmax without threshold: the most probable label; with one: abnormal from that
        probability on, then the most probable abnormal label. Multilabel: each sound from its threshold on. Binary:
        abnormal from the threshold on.
    normal
        Index of the normal label.

    Returns
    -------
    ndarray
        ``[B]`` indices into the labels.
    """
    thresholds = _thresholds(decoder)
    if decoder.kind == "multilabel":
        crackle = probabilities[:, 1] + probabilities[:, 3] >= (thresholds[0] if thresholds else _HALF)
        wheeze = probabilities[:, 2] + probabilities[:, 3] >= (thresholds[-1] if thresholds else _HALF)
        return np.asarray(crackle + 2 * wheeze.astype(np.int64))
    if decoder.kind == "softmax" and not thresholds:
        return np.asarray(probabilities.argmax(axis=1))
    abnormal = probabilities.copy()
    abnormal[:, normal] = -1.0
    called = 1.0 - probabilities[:, normal] >= (thresholds[0] if thresholds else _HALF)
    return np.asarray(np.where(called, abnormal.argmax(axis=1), normal))


def _thresholds(decoder: Decoder) -> list[float]:
    if decoder.threshold is None:
        return []
    return [decoder.threshold] if isinstance(decoder.threshold, (int, float)) else list(decoder.threshold)


def _sigmoid(scores: Probabilities) -> Probabilities:
    """Without overflow for scores of either sign."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -scores)))
