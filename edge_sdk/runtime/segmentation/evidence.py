"""The network's outputs of the last seconds, and what they show about one decoded cycle."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.runtime.segmentation.decoder_params import DecoderParams

Floats = npt.NDArray[np.float64]
Outputs = npt.NDArray[np.floating[Any]]

_SCORES = 4  # columns that the paths take
_ACTIVITY, _COLUMNS = _SCORES, 8  # the activity, and the three phases up to the last column
_TINY = 1e-6  # probabilities are kept this far from 0 and 1
_LEAST, _MOST, _ONE = np.array(_TINY), np.array(1.0 - _TINY), np.array(1.0)


class CycleEvidence:
    """Remembers the last frames, and what they add to the scores of paths.

    Parameters
    ----------
    frames
        How far back a cycle may begin.
    params
        Of the decoder.
    """

    def __init__(self, frames: int, params: DecoderParams) -> None:
        self._p, self._cap = params, np.array(params.onset_cap)
        self._kept = frames
        self._memory = np.zeros((2 * frames, _COLUMNS))
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next frame has number 0."""
        self._oldest = 0  # frame of the first row
        self._written = 0  # rows

    def add(self, activity: Outputs, onset: Outputs, phase: Outputs, cycle: Outputs) -> Floats:
        """Append ``[n]``, ``[n]``, ``[3, n]`` and ``[2, n]`` outputs.

        Returns
        -------
        ndarray
            ``[n, 4]``, see :meth:`~edge_sdk.runtime.segmentation.paths.Paths.advance`.
        """
        p, begin = self._p, self._written
        end = begin + len(activity)
        if end > len(self._memory):
            begin, end = self._make_room(len(activity))
        self._written = end
        rows = self._memory[begin:end]
        scores, odds = rows[:, :_SCORES], rows[:, 2:_SCORES]
        rows[:, :2] = cycle.T
        rows[:, 2] = rows[:, _ACTIVITY] = activity
        rows[:, 3] = onset
        rows[:, _ACTIVITY + 1 :] = phase.T
        _to_log_odds(odds, self._cap)
        if p.activity_bias:
            rows[:, 2] -= p.activity_bias
        if p.onset_weight != 1.0 or p.onset_bonus:
            rows[:, 3] *= p.onset_weight
            rows[:, 3] += p.onset_bonus
        return scores

    def _make_room(self, frames: int) -> tuple[int, int]:
        """Keep the last rows only, and return where so many new ones begin and end."""
        held = min(self._written, self._kept)
        first = self._written - held
        memory = self._memory
        if held + frames > len(memory):
            self._memory = np.zeros((self._kept + held + frames, _COLUMNS))
        self._memory[:held] = memory[first : self._written]
        self._oldest += first
        return held, held + frames

    def _recalled(self, begin: int, end: int) -> Floats:
        return self._memory[max(0, begin - self._oldest) : end - self._oldest].T

    def confidence(self, begin: int, end: int, frames: int) -> float:
        """How sure the cycle ``[begin, end)`` is, 0 to 1: mean of its activity and of the agreement of its angle.

        ``frames`` is the length in which the angle turns once; an open cycle has had only a part of it.
        """
        held = self._recalled(begin, end)
        if not held.shape[1]:
            return 0.0
        angle = 2.0 * np.pi * (np.arange(held.shape[1]) + 0.5) / frames
        agreement = float((held[0] * np.cos(angle) + held[1] * np.sin(angle)).mean())
        return round(0.5 * float(held[_ACTIVITY].mean()) + 0.5 * min(max(agreement, 0.0), 1.0), 4)

    def audible(self, begin: int, end: int, least: float) -> tuple[int, int] | None:
        """From the first to the last frame of ``[begin, end)`` with an activity of at least ``least``."""
        active = np.flatnonzero(self._recalled(begin, end)[_ACTIVITY] >= least)
        return (begin + int(active[0]), begin + int(active[-1]) + 1) if active.size else None

    def phase_change(self, begin: int, end: int, least: int, margin: float) -> int | None:
        """Most likely frame of the change from inspiration to expiration; None without evidence for one.

        Each phase has at least ``least`` frames; ``margin`` is the lead over one phase from begin to end.
        """
        held = self._recalled(begin, end)[_ACTIVITY + 1 :]
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


def _to_log_odds(p: Floats, cap: Floats) -> None:
    """Turn probabilities into their log odds within ``±cap``, in place."""
    # fmax and fmin, since maximum and minimum clear the floating-point status, which takes longer than all the rest.
    np.fmax(p, _LEAST, p)
    np.fmin(p, _MOST, p)
    np.divide(p, np.subtract(_ONE, p), p)
    np.log(p, p)
    np.fmax(p, -cap, p)
    np.fmin(p, cap, p)
