"""The network's outputs of the last seconds, and what they show about one decoded cycle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_sdk.runtime.segmentation.decoder_params import DecoderParams
from edge_sdk.runtime.segmentation.outputs import StepOutputs

Floats = npt.NDArray[np.float64]

_SCORES = 4  # columns that the paths take
_ACTIVITY, _PHASES, _COLUMNS = _SCORES, slice(_SCORES + 1, _SCORES + 4), _SCORES + 4
_TINY = 1e-6  # probabilities are kept this far from 0 and 1
_ONE = np.array(1.0)


class CycleEvidence:
    """Remembers the last frames, and what they add to the scores of paths.

    Parameters
    ----------
    frames
        How far back a cycle may begin.
    """

    def __init__(self, frames: int) -> None:
        self._kept = frames
        self._memory = np.zeros((2 * frames, _COLUMNS))
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next frame has number 0."""
        self._oldest = 0  # frame of the first row
        self._written = 0  # rows

    def append(self, rows: Floats) -> None:
        """Append ``[n, 8]``: what the paths take, the activity and the three phases."""
        begin = self._written
        end = begin + len(rows)
        if end > len(self._memory):
            begin, end = self._make_room(len(rows))
        self._written = end
        self._memory[begin:end] = rows

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
        count = len(held[0])
        if not count:
            return 0.0
        angle = 2.0 * np.pi * (np.arange(count) + 0.5) / frames
        agreement = float(np.add.reduce(held[0] * np.cos(angle) + held[1] * np.sin(angle))) / count
        return round(0.5 * float(np.add.reduce(held[_ACTIVITY])) / count + 0.5 * min(max(agreement, 0.0), 1.0), 4)

    def audible(self, begin: int, end: int, least: float) -> tuple[int, int] | None:
        """From the first to the last frame of ``[begin, end)`` with an activity of at least ``least``."""
        active = np.flatnonzero(self._recalled(begin, end)[_ACTIVITY] >= least)
        return (begin + int(active[0]), begin + int(active[-1]) + 1) if active.size else None

    def phase_change(self, begin: int, end: int, least: int, margin: float) -> int | None:
        """Most likely frame of the change from inspiration to expiration; None without evidence for one.

        Each phase has at least ``least`` frames; ``margin`` is the lead over one phase from begin to end.
        """
        held = self._recalled(begin, end)[_PHASES]
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


class Scoring:
    """What outputs of the network add to the scores of paths.

    Parameters
    ----------
    params
        Of the decoder.
    """

    def __init__(self, params: DecoderParams) -> None:
        self._p = params
        most = min(1.0 / (1.0 + np.exp(-params.onset_cap)), 1.0 - _TINY)
        self._least, self._most = np.array(1.0 - most), np.array(most)

    def take(self, evidence: Sequence[CycleEvidence], outputs: StepOutputs) -> Floats:
        """Append outputs of ``n`` frames of each stream to its evidence.

        Parameters
        ----------
        evidence
            Of the streams.
        outputs
            Those of the first stream, then those of the second one and so on.

        Returns
        -------
        ndarray
            In the same order, ``[streams * n, 4]``: see :func:`~edge_sdk.runtime.segmentation.paths.advance`.
        """
        p, odds = self._p, outputs.sounding.astype(np.float64)
        rows = np.empty((len(odds), _COLUMNS))
        rows[:, :2], rows[:, _PHASES], rows[:, _ACTIVITY] = outputs.cycle, outputs.phase, odds[:, 0]
        # fmax, since maximum has to clear the status of the floating-point unit, which takes longer than the rest.
        np.fmax(odds, self._least, odds)
        np.fmin(odds, self._most, odds)
        np.divide(odds, np.subtract(_ONE, odds), odds)
        np.log(odds, odds)
        if p.activity_bias:
            odds[:, 0] -= p.activity_bias
        if p.onset_weight != 1.0 or p.onset_bonus:
            odds[:, 1] *= p.onset_weight
            odds[:, 1] += p.onset_bonus
        rows[:, 2:_SCORES] = odds
        if len(evidence) == 1:
            evidence[0].append(rows)
        else:
            for one, own in zip(evidence, rows.reshape(len(evidence), -1, _COLUMNS), strict=True):
                one.append(own)
        return rows[:, :_SCORES]
