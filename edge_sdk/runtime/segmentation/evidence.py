"""The network's outputs of the last seconds, and what they show about one decoded cycle."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Outputs = npt.NDArray[np.floating[Any]]

_ROWS = 6  # activity, three phases, cosine and sine of the cycle's angle
_TINY = 1e-6


class CycleEvidence:
    """Remembers the last ``frames`` frames.

    Parameters
    ----------
    frames
        How far back a cycle may begin.
    """

    def __init__(self, frames: int) -> None:
        self._kept = frames
        self._memory = np.zeros((_ROWS, 2 * frames + 16), dtype=np.float64)
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next frame has number 0."""
        self._now = 0
        self._written = 0

    def add(self, activity: Outputs, phase: Outputs, cycle: Outputs) -> None:
        """Append ``[n]``, ``[3, n]`` and ``[2, n]`` outputs."""
        begin, end = self._written, self._written + len(activity)
        if end > self._memory.shape[1]:
            held = min(begin, self._kept)
            self._memory[:, :held] = self._memory[:, begin - held : begin]
            begin, end = held, held + len(activity)
        self._memory[0, begin:end] = activity
        self._memory[1:4, begin:end] = phase
        self._memory[4:, begin:end] = cycle
        self._written = end
        self._now += len(activity)

    def _recalled(self, begin: int, end: int) -> Floats:
        last = self._written - self._now  # column of frame 0
        return self._memory[:, max(0, last + begin) : last + end]

    def confidence(self, begin: int, end: int, frames: int) -> float:
        """How sure the cycle ``[begin, end)`` is, 0 to 1: mean of its activity and of the agreement of its angle.

        ``frames`` is the length in which the angle turns once; an open cycle has had only a part of it.
        """
        held = self._recalled(begin, end)
        if not held.shape[1]:
            return 0.0
        angle = 2.0 * np.pi * (np.arange(held.shape[1]) + 0.5) / frames
        agreement = float((held[4] * np.cos(angle) + held[5] * np.sin(angle)).mean())
        return round(0.5 * float(held[0].mean()) + 0.5 * min(max(agreement, 0.0), 1.0), 4)

    def audible(self, begin: int, end: int, least: float) -> tuple[int, int] | None:
        """From the first to the last frame of ``[begin, end)`` with an activity of at least ``least``."""
        active = np.flatnonzero(self._recalled(begin, end)[0] >= least)
        return (begin + int(active[0]), begin + int(active[-1]) + 1) if active.size else None

    def phase_change(self, begin: int, end: int, least: int, margin: float) -> int | None:
        """Most likely frame of the change from inspiration to expiration; None without evidence for one.

        Each phase has at least ``least`` frames; ``margin`` is the lead over one phase from begin to end.
        """
        held = self._recalled(begin, end)[1:4]
        if held.shape[1] < 2 * least:
            return None
        favours = np.log(np.maximum(held[0], _TINY)) - np.log(np.maximum(held[1], _TINY))
        favours *= 1.0 - held[2]  # a frame of neither phase does not count
        score = 2.0 * np.cumsum(favours)  # of a change after frame k, up to a constant
        inside = score[least - 1 : -least]
        k = int(inside.argmax())
        if float(inside[k]) < max(0.0, float(score[-1])) + margin:
            return None
        return int(end - held.shape[1] + least + k)
