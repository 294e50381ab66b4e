"""Recording context: the logits of a cycle pulled towards the running mean of its recording, as the decoder says.

Cycles of one recording come from one chest and one device, and a single cycle is short evidence. Causal: a cycle is
decided by itself and those before it, so that a stream and an evaluation of annotated cycles agree.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.floating[Any]]


class RecordingContext:
    """``(1 - share) * own + share * mean`` of logits, ``mean`` over the cycles since the last reset, own included.

    The first cycle keeps its logits. Cycles that are not classified (quality, overload) are no part of the mean.

    Parameters
    ----------
    share
        Weight of the running mean, 0 (cycles are decided one by one) to below 1.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._count = 0
        self._mean: npt.NDArray[np.float64] | None = None

    def reset(self) -> None:
        """Forget all cycles: the start of a recording, or of a stream after a gap."""
        self._count, self._mean = 0, None

    def __call__(self, logits: Logits) -> Logits:
        """Logits ``[K]`` of the next cycle → the same in context; unchanged where the share is 0."""
        if not self._share:
            return logits
        own = logits.astype(np.float64)
        self._count += 1
        self._mean = own if self._mean is None else self._mean + (own - self._mean) / self._count
        return np.asarray((1.0 - self._share) * own + self._share * self._mean)


def in_context(
    logits: Logits, share: float, recordings: Sequence[Hashable], starts: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Logits of many cycles, each in the context of the cycles before it in its recording.

    Parameters
    ----------
    logits
        ``[n, K]``.
    share
        See :class:`RecordingContext`.
    recordings
        ``[n]`` recording of each cycle.
    starts
        ``[n]`` where each begins, in any unit; they may come in any order.

    Returns
    -------
    ndarray
        ``[n, K]`` in the order given.
    """
    if not share:
        return logits.astype(np.float64, copy=False)
    result = np.empty(logits.shape, dtype=np.float64)
    of_recording: dict[Hashable, list[int]] = {}
    for row, recording in enumerate(recordings):
        of_recording.setdefault(recording, []).append(row)
    for rows in of_recording.values():
        context = RecordingContext(share)
        for row in sorted(rows, key=lambda row: starts[row]):
            result[row] = context(logits[row])
    return result
