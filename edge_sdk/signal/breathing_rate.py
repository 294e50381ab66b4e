"""Whether a respiratory rate can be relied on, from the cycles it was computed from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LEAST_INTERVALS = 3
MOST_SPREAD = 0.12
"""Of the intervals: median absolute deviation of their natural logarithms around the median interval's."""

LEAST_CONFIDENCE = 0.6
"""Mean confidence of the cycles."""


def rate_is_confident(intervals_s: Sequence[float], confidences: Sequence[float]) -> bool:
    """Whether the median of the intervals between onsets is a rate to rely on.

    It is not after little audio, where two tempi are alive (uneven intervals), nor where the segmenter was unsure of
    its cycles. The limits were chosen on out-of-fold recordings of the segmenter's cross-validation: ICBHI 77
    recordings, 44 % confident, of those all within 15 % of the annotated rate (79 % of all); SPRSound 203 recordings,
    69 % confident, of those 96 % within 15 % (87 % of all).

    Parameters
    ----------
    intervals_s
        ``[n]`` seconds from onset to onset, each positive.
    confidences
        Of the cycles.
    """
    if len(intervals_s) < LEAST_INTERVALS or not len(confidences):
        return False
    logs = np.log(np.asarray(intervals_s, dtype=np.float64))
    spread = _median(np.abs(logs - _median(logs)))
    return spread <= MOST_SPREAD and float(np.mean(confidences)) >= LEAST_CONFIDENCE


def _median(values: npt.NDArray[np.float64]) -> float:
    """As np.median of finite values, which loads numpy.ma: milliseconds and megabytes of every start."""
    ordered = np.sort(values)
    middle = len(ordered) // 2
    return float((ordered[middle] + ordered[~middle]) / 2)
