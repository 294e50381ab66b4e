"""Logits → calibrated probabilities, as the bundle's decoder says; the only implementation, device and export alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_sdk.runtime.schema import Decoder


def decode(logits: npt.NDArray[np.float32], decoder: Decoder) -> npt.NDArray[np.float64]:
    """``softmax(logits / temperature + bias)``.

    Parameters
    ----------
    logits
        ``[B, C]``.
    decoder
        Temperature and bias of the bundle.

    Returns
    -------
    ndarray
        ``[B, C]``, rows sum to 1.
    """
    bias = np.asarray(decoder.bias or 0.0, dtype=np.float64)
    scores = logits.astype(np.float64) / decoder.temperature + bias
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))
