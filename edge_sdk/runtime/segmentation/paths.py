"""The paths of the decoder: sequences of cycles and pauses with their scores, some frames ahead at a time.

No cycle is shorter than ``shortest_s``, so that which cycles end within the next frames does not depend on those that
begin within them. All that concerns ends and begins is therefore computed for up to so many frames in one go, and a
frame by itself costs little more than adding what it emits to the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.runtime.segmentation.decoder_params import DecoderParams

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
Outputs = npt.NDArray[np.floating[Any]]

IMPOSSIBLE = -1e9
"""Score of a path that cannot be."""

_TINY = 1e-6  # probabilities are kept this far from 0 and 1
_RESCALE = 256  # frames after which the best score is called zero again
_LOG_STEP = 0.09  # between two lengths of a cycle
_KEPT_AGES = 24  # frames: of younger cycles the neighbours are remembered
_SPAN = 12  # frames computed in one go: more save little


class Tempi:
    """Constants of all states; state ``(i, k)`` is frame ``k`` of a cycle of length ``i``, at ``first[i] + k``."""

    def __init__(self, frame_s: float, p: DecoderParams) -> None:
        count = max(2, round(np.log(p.longest_s / p.shortest_s) / _LOG_STEP) + 1)
        seconds = np.exp(np.linspace(np.log(p.shortest_s), np.log(p.longest_s), count))
        self.frames = np.array(sorted({max(2, round(s / frame_s)) for s in seconds.tolist()}), dtype=np.int64)
        self.first = np.concatenate(([0], np.cumsum(self.frames)[:-1]))
        self.last = self.first + self.frames - 1
        self.length = np.repeat(np.arange(len(self.frames)), self.frames)  # i of each state
        self.age = np.concatenate([np.arange(n) for n in self.frames])  # k of each state
        angle = 2.0 * np.pi * (self.age + 0.5) / self.frames[self.length]
        # [3, states]: times cosine and sine of the network's angle, and the activity
        self.emission = np.stack(
            (p.cycle_weight * np.cos(angle), p.cycle_weight * np.sin(angle), np.full(len(angle), p.activity_weight))
        )
        log_length = np.log(self.frames * frame_s)
        change = -0.5 * np.square((log_length[None] - log_length[:, None]) / p.tempo_spread)
        change -= np.log(np.exp(change).sum(axis=1, keepdims=True))  # from i to j
        self.change = np.ascontiguousarray(change.T)  # to j from i: the best i is sought in a row
        first = -0.5 * np.square((log_length - np.log(p.typical_s)) / p.first_spread)
        self.prior = first - np.log(np.exp(first).sum())
        self.ages: list[int] = self.age.tolist()
        self.lengths: list[int] = self.length.tolist()
        self.span = min(_SPAN, int(self.frames[0]))  # frames that can be computed in one go
        self._ends: dict[int, Numbers] = {}
        self._near: dict[tuple[int, int], Numbers] = {}

    def ends(self, frames: int) -> Numbers:
        """Where the parts of the scores with which cycles end within so many frames are found: ``[part, frame, i]``.

        In the cells of :class:`Paths`: part 0 is the score before the first of the frames, part ``k`` what frame
        ``k - 1`` emits.
        """
        if frames not in self._ends:
            states, steps = len(self.age), np.arange(frames)
            part, frame = steps[:, None, None], steps[None, :, None]
            self._ends[frames] = np.where(part <= frame, 1 + part * (states + 1) + self.last - frame, 0)
        return self._ends[frames]

    def near(self, age: int, frames: int) -> Numbers:
        """States whose age differs from ``age`` by up to so many frames."""
        if (age, frames) not in self._near:
            found = np.flatnonzero(np.abs(self.age - age) <= frames)
            if age > _KEPT_AGES:
                return found
            self._near[age, frames] = found
        return self._near[age, frames]


@lru_cache(maxsize=4)
def tempi(frame_s: float, params: DecoderParams) -> Tempi:
    """The constants, shared by all streams."""
    return Tempi(frame_s, params)


class Paths:
    """Scores and memory of the best path to every state; a pure function of the frames, and of what is done to them.

    Parameters
    ----------
    frame_s, params
        Of the decoder.
    lag
        Frames after which a cycle is final.

    Attributes
    ----------
    now
        Frames taken.
    scores
        ``[states]``, of the open cycles.
    pause, since
        ``[lengths]``: score of the best path that is in a pause, by the length of its last cycle; and where that ended.
    """

    def __init__(self, frame_s: float, params: DecoderParams, lag: int) -> None:
        self._p, self.tempi = params, tempi(frame_s, params)
        lengths = len(self.tempi.frames)
        self._make_room(0)
        # Where the rows of ``change`` begin, for each frame:
        self._change_rows = np.arange(self.tempi.span * lengths).reshape(-1, lengths) * lengths
        self._ring = 2 * int(self.tempi.frames[-1]) + lag + 2 + self.tempi.span  # frames whose begins are remembered
        # Of the cycles that begin at a frame: length of the cycle before each; and of each length, whether the cycle
        # before may have ended right there, and the end of the last one before a pause (-1: there is none).
        self._before = np.zeros((self._ring, lengths), dtype=np.int16)
        self._direct = np.zeros((self._ring, lengths), dtype=bool)
        self._rested = np.zeros((self._ring, lengths), dtype=np.int64)
        self.reset()

    def reset(self) -> None:
        """Start over; the next frame has number 0."""
        self.now = self._base = 0
        self._bests: list[int | None] = []  # after each frame that was computed
        self._rows[0] = IMPOSSIBLE
        self._pauses[0], self._sinces[0] = self.tempi.prior, -1
        self._show(0)

    def _make_room(self, frames: int) -> None:
        """Make the arrays of so many frames: a stream that goes on in small steps needs few."""
        states, lengths = len(self.tempi.age), len(self.tempi.frames)
        self._cells = np.zeros(1 + (frames + 1) * states)  # zero; the scores; those of each frame
        self._rows = self._cells[1:].reshape(frames + 1, states)
        self._moves = [(self._rows[k, :-1], self._rows[k + 1, 1:], self._rows[k + 1]) for k in range(frames)]
        self._row_cells = 1 + np.arange(1, frames + 1) * states
        self._pauses, self._sinces = np.empty((frames + 1, lengths)), np.empty((frames + 1, lengths), dtype=np.int64)

    def _show(self, row: int) -> None:
        self.scores, self.pause, self.since = self._rows[row], self._pauses[row], self._sinces[row]

    def advance(self, evidence: Floats, begins: Floats) -> int:
        """Compute frames that follow; :meth:`go_to` goes there.

        Parameters
        ----------
        evidence
            ``[3, n]``: cosine and sine of the cycle's angle, and what the activity adds to the scores of all cycles
            over its weight.
        begins
            ``[n]``: what is added to the score of a cycle that begins at the frame.

        Returns
        -------
        int
            Frames computed: as many of the first as can be computed in one go.
        """
        tempi = self.tempi
        n = min(len(begins), tempi.span, _RESCALE - self.now % _RESCALE)
        if n >= len(self._rows):
            self._make_room(n)
        rows = self._rows
        self._bests = []
        rows[0], self._pauses[0], self._sinces[0] = self.scores, self.pause, self.since
        self._base = self.now
        self._show(0)
        np.matmul(evidence[:, :n].T, tempi.emission, out=rows[1 : n + 1])
        firsts = self._begin(n, begins)
        for (scores, following, row), first in zip(self._moves, firsts, strict=False):
            np.add(scores, following, out=following)
            row[tempi.first] = first
        if (self.now + n) % _RESCALE == 0:
            row, pause = rows[n], self._pauses[n]
            top = max(float(row.max()), float(pause.max()))
            pause -= top
            row -= top
            np.maximum(row, IMPOSSIBLE, out=row)
        states, tops = rows[1 : n + 1].argmax(axis=1), np.maximum.reduce(self._pauses[1 : n + 1], axis=1).tolist()
        scores = self._cells.take(states + self._row_cells[:n]).tolist()
        self._bests = [
            state if score > top else None for state, score, top in zip(states.tolist(), scores, tops, strict=True)
        ]
        return n

    def _begin(self, n: int, begins: Floats) -> Floats:
        """Score of the cycles that begin at each of ``n`` frames; remember how they do."""
        tempi, pauses, sinces = self.tempi, self._pauses[: n + 1], self._sinces[: n + 1]
        ended = np.add.reduce(self._cells.take(tempi.ends(n)))  # [n, lengths]
        np.subtract(ended, self._p.pause_cost, out=pauses[1:])
        np.maximum.accumulate(pauses, out=pauses)
        sinces[1:] = np.where(pauses[1:] > pauses[:-1], np.arange(self.now, self.now + n)[:, None], -1)
        np.maximum.accumulate(sinces, out=sinces)
        # A cycle begins right after another, or after a pause.
        begin = self.now % self._ring
        memory: slice | Numbers = slice(begin, begin + n)
        if begin + n > self._ring:
            memory = np.arange(begin, begin + n) % self._ring
        self._direct[memory] = ended >= pauses[1:]
        self._rested[memory] = sinces[1:]
        np.maximum(ended, pauses[1:], out=ended)
        paths = ended[:, None] + tempi.change
        before = paths.argmax(axis=2)
        self._before[memory] = before
        before += self._change_rows[:n]
        first = paths.take(before)
        first += self._rows[1 : n + 1, tempi.first]
        first += begins[:n, None]
        return np.asarray(first)

    def go_to(self, now: int) -> None:
        """Take the frames before ``now``; those computed beyond it count until something is done to the scores."""
        self.now = now
        self._show(now - self._base)

    # -- what the decoder reads and does -------------------------------------------------------------------------------

    def computed_best(self) -> int | None:
        """As :meth:`best`, where nothing was done to the scores since they were computed."""
        return self._bests[self.now - self._base - 1]

    def best(self) -> int | None:
        """State of the open cycle of the best path; None: it is in a pause."""
        best = int(self.scores.argmax())
        return best if self.scores[best] > self.pause.max() else None

    def last_end(self, best: int | None) -> tuple[int, int]:
        """End and length of the last finished cycle of the best path; the end is -1 where there is none."""
        if best is None:
            length = int(self.pause.argmax())
            return int(self.since[length]), length
        return self.previous(self.now - self.tempi.ages[best] - 1, self.tempi.lengths[best])

    def previous(self, start: int, length: int) -> tuple[int, int]:
        """End and length of the cycle before the one that begins at ``start``; the end is -1 where there is none."""
        memory = start % self._ring
        before = int(self._before[memory, length])
        return start if self._direct[memory, before] else int(self._rested[memory, before]), before


def log_odds(probabilities: Sequence[Outputs], cap: float) -> Floats:
    """Log odds of rows of probabilities within ``±cap``."""
    p = np.array(probabilities, dtype=np.float64)
    np.maximum(p, _TINY, out=p)
    np.minimum(p, 1.0 - _TINY, out=p)
    odds = np.log(p / (1.0 - p))
    np.maximum(odds, -cap, out=odds)
    return np.minimum(odds, cap, out=odds)
