"""Fitting a respiratory cycle into the classifier's window: one implementation for training and device."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_sdk.signal.spec import FrontEndSpec


def fit_window(samples: npt.NDArray[np.floating], spec: FrontEndSpec) -> npt.NDArray[np.float32]:
    """Crop, fade and pad ``samples`` to exactly ``spec.window_samples``.

    Parameters
    ----------
    samples
        ``[n]`` PCM in ±1 at ``spec.rate_hz``, n >= 1.
    spec
        ``crop`` decides which part of a long cycle stays, ``fade_s`` the raised-cosine fade at both ends of what
        stays (never more than half of it), ``pad_mode`` whether a short cycle is repeated or followed by zeros.

    Returns
    -------
    ``[spec.window_samples]`` float32, always a new array.

    Raises
    ------
    ValueError
        If ``samples`` is empty or not one-dimensional.
    """
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"fit_window needs a non-empty [n] array, got shape {samples.shape}")
    window = spec.window_samples
    start = (samples.size - window) // 2 if spec.crop == "centre" and samples.size > window else 0
    clip = np.array(samples[start : start + window], dtype=np.float32)
    _fade_ends(clip, round(spec.fade_s * spec.rate_hz))
    padded = np.zeros(window, dtype=np.float32)
    turns = -(-window // clip.size) if spec.pad_mode == "cyclic" else 1
    for begin in range(0, turns * clip.size, clip.size):  # numpy.resize takes ten times as long
        padded[begin : begin + clip.size] = clip[: window - begin]
    return padded


def _fade_ends(clip: npt.NDArray[np.float32], fade_samples: int) -> None:
    length = min(fade_samples, clip.size // 2)
    if length < 1:
        return
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32)
    clip[:length] *= ramp
    clip[-length:] *= ramp[::-1]
