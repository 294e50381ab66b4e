"""The decoder: outputs of the network → respiratory cycles, by a causal Viterbi search with a fixed lag.

A path is a sequence of cycles and pauses. The length of a cycle is a state of the path (the tempo): the next cycle has
nearly the same length, across a pause too, and no length is typical of everyone. While a cycle lasts, its angle turns
once; each of its frames scores how well the network's angle agrees, and its activity. Each begin of a cycle scores the
onset. The best path determines the open (provisional) cycle. A cycle is final once it lies ``final_lag_s`` behind, or
once the next one is announced; nothing final is ever revised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from edge_sdk.runtime.segmentation.evidence import CycleEvidence
from edge_sdk.settings import NonNegative, Positive, Settings

Floats = npt.NDArray[np.float64]
Outputs = npt.NDArray[np.floating[Any]]

_IMPOSSIBLE = -1e9
_TINY = 1e-6  # probabilities are kept this far from 0 and 1
_RESCALE = 256  # frames after which the best score is called zero again
_LOG_STEP = 0.09  # between two lengths of a cycle


class DecoderParams(Settings, frozen=True):
    """Settings of the decoder; scores are natural logarithms."""

    title: ClassVar[str] = "segmenter decoder"

    onset_weight: float = 1.0  # of the log odds of the onset where a cycle begins,
    onset_bonus: float = 0.8  # added to them,
    onset_cap: Positive = 5.0  # which are cut here: one frame must not decide alone
    cycle_weight: float = 0.25  # of the agreement of the angles, per frame of a cycle
    activity_weight: float = 0.1  # of the log odds of activity, per frame of a cycle
    activity_bias: float = 0.0  # log odds at which a frame favours neither a cycle nor a pause
    pause_cost: NonNegative = 2.0  # of a pause
    tempo_spread: Positive = 0.2  # of the log ratio of the lengths of two cycles in succession
    shortest_s: Positive = 0.45
    longest_s: Annotated[float, Meta(le=30)] = 8.5
    typical_s: Positive = 2.2  # of the first cycle: median of its length,
    first_spread: Positive = 0.9  # and spread of the logarithm
    final_lag_s: NonNegative = 0.48  # a cycle is final when its end lies this far behind
    announce_margin: NonNegative = 1.0  # lead over every other path at which the open cycle is announced,
    announce_s: Positive = 0.3  # falls to nothing at this age of the cycle
    withdraw_margin: NonNegative = 3.0  # lead of another path at which the announced cycle is withdrawn
    least_confidence: float = 0.0  # cycles with a lower confidence are left out
    least_share: Annotated[float, Meta(ge=0, le=1)] = 0.5  # of its length that the last cycle of a recording must have
    same_s: float = 0.08  # an onset that moved by less belongs to the same cycle
    audible: Annotated[float, Meta(gt=0, lt=1)] = 0.5  # activity from which a frame of a cycle is audible
    phase_shortest_s: float = 0.15  # of an inspiration and of an expiration
    phase_margin: float = 3.0  # lead over "no phase change" at which one is reported
    blend_s: NonNegative = 0.0  # the onset is the mean of the paths within this distance; 0: that of the best path
    settle_s: Positive = 0.6  # age up to which the mean of an announced onset moves

    def _problem(self) -> str | None:
        return None if self.shortest_s < self.longest_s else "need shortest_s < longest_s"


@dataclass(frozen=True, slots=True)
class DecodedCycle:
    """A respiratory cycle in frames since the last reset."""

    start: int
    end: int  # one past the last frame; of a provisional cycle, frames so far
    final: bool
    confidence: float
    phase_change: int | None = None  # first frame of the expiration
    audible: tuple[int, int] | None = None  # first audible frame, and one past the last


class _Tempi:
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
        self.turns = p.cycle_weight * np.stack((np.cos(angle), np.sin(angle)))  # [2, states]
        log_length = np.log(self.frames * frame_s)
        change = -0.5 * np.square((log_length[None] - log_length[:, None]) / p.tempo_spread)
        change -= np.log(np.exp(change).sum(axis=1, keepdims=True))  # from i to j
        self.change = np.ascontiguousarray(change.T)  # to j from i: the best i is sought in a row
        first = -0.5 * np.square((log_length - np.log(p.typical_s)) / p.first_spread)
        self.prior = first - np.log(np.exp(first).sum())
        self.rows = np.arange(len(self.frames)) * len(self.frames)  # where the rows of ``change`` begin


class TempoDecoder:
    """Turns the network's outputs into cycles; a pure function of the frames and of the steps they come in.

    Parameters
    ----------
    frame_s
        Seconds from frame to frame.
    params
        Settings.
    """

    def __init__(self, frame_s: float, params: DecoderParams | None = None) -> None:
        p = self._p = params or DecoderParams()
        self.frame_s = frame_s
        self._tempi = _Tempi(frame_s, p)
        self._lag = round(p.final_lag_s / frame_s)
        self._same = round(p.same_s / frame_s)
        self._blend = round(p.blend_s / frame_s)
        self._settled = round(p.settle_s / frame_s)
        states, lengths = len(self._tempi.age), len(self._tempi.frames)
        self._buffers = np.empty(states), np.empty(states)
        # Written anew in every frame:
        self._ended, self._resting, self._left = np.empty(lengths), np.empty(lengths), np.empty(lengths)
        self._entered, self._paths = np.empty(lengths, dtype=bool), np.empty((lengths, lengths))
        longest = int(self._tempi.frames[-1])
        self._ring = 2 * longest + self._lag + 2  # frames whose begins are remembered
        # Of the cycles that begin at a frame: length of the cycle before each; and of each length, whether the cycle
        # before may have ended right there, and the end of the last one before a pause (-1: there is none).
        self._before = np.zeros((self._ring, lengths), dtype=np.int64)
        self._direct = np.zeros((self._ring, lengths), dtype=bool)
        self._rested = np.zeros((self._ring, lengths), dtype=np.int64)
        self._evidence = CycleEvidence(2 * longest + self._lag + 16)
        self.reset()

    @property
    def frames(self) -> int:
        """Frames received since the last reset."""
        return self._now

    def reset(self) -> None:
        """Start over; the next frame has number 0."""
        self._now = 0
        self._scores, self._spare = self._buffers
        self._scores.fill(_IMPOSSIBLE)
        self._pause = self._tempi.prior.copy()  # best score of each path in a pause, by the length of its last cycle
        self._since = np.full(len(self._pause), -1, dtype=np.int64)  # where that cycle ended
        self._final_end = 0
        self._announced: int | None = None
        self._onset: int | None = None  # where the announced cycle begins in the mean of the paths
        self._following: tuple[int, int] | None = None  # the cycle about to be announced: begin, and in the mean
        self._reported_end = 0
        self._evidence.reset()

    def accept(self, activity: Outputs, onset: Outputs, phase: Outputs, cycle: Outputs) -> list[DecodedCycle]:
        """Take one step and return the cycles that it determines, final and provisional, in order.

        Parameters
        ----------
        activity, onset
            ``[n]`` probabilities.
        phase
            ``[3, n]`` probabilities of inspiration, expiration and neither.
        cycle
            ``[2, n]`` cosine and sine of the cycle's angle.
        """
        if len(activity) == 0:
            return []
        self._evidence.add(activity, phase, cycle)
        self._advance(activity, onset, cycle)
        found: list[DecodedCycle] = []
        best = self._best()
        self._refine(best)
        self._finalise(best, self._now - self._lag, found)
        self._follow_open(best, found)
        return found

    def finish(self, *, cut: bool = False) -> list[DecodedCycle]:
        """End of the audio: close the open cycle and return all cycles that are not final yet.

        ``cut``: a gap ended the audio, so that the open cycle may have any length.
        """
        found: list[DecodedCycle] = []
        if self._now:
            best = self._best()
            self._finalise(best, self._now, found)
            if best is not None:
                length, age = int(self._tempi.length[best]), int(self._tempi.age[best])
                start = max(self._now - age - 1, self._final_end)
                if cut or self._now - start >= self._p.least_share * self._tempi.frames[length]:
                    self._close(start, self._now, length, found)
        self._announced = None
        return found

    # -- the paths -----------------------------------------------------------------------------------------------------

    def _advance(self, activity: Outputs, onset: Outputs, cycle: Outputs) -> None:
        p, tempi = self._p, self._tempi
        ended, resting, left, entered, paths = self._ended, self._resting, self._left, self._entered, self._paths
        emitted = np.asarray(cycle, dtype=np.float64).T @ tempi.turns  # [n, states]
        for row, begins, active in zip(emitted, onset.tolist(), activity.tolist(), strict=True):
            row += (_log_odds(active, p.onset_cap) - p.activity_bias) * p.activity_weight
            scores, following, pause, since = self._scores, self._spare, self._pause, self._since
            scores.take(tempi.last, out=ended)
            np.subtract(ended, p.pause_cost, out=resting)
            np.greater(resting, pause, out=entered)
            np.copyto(pause, resting, where=entered)
            np.copyto(since, self._now, where=entered)
            # A cycle begins right after another, or after a pause.
            memory = self._now % self._ring
            np.greater_equal(ended, pause, out=self._direct[memory])
            self._rested[memory] = since
            np.maximum(ended, pause, out=left)
            np.add(tempi.change, left, out=paths)
            before = paths.argmax(axis=1, out=self._before[memory])
            np.add(scores[:-1], row[1:], out=following[1:])
            first = paths.take(before + tempi.rows)
            first += row.take(tempi.first)
            first += _log_odds(begins, p.onset_cap) * p.onset_weight + p.onset_bonus
            following[tempi.first] = first
            self._scores, self._spare = following, scores
            self._now += 1
            if self._now % _RESCALE == 0:
                top = max(float(following.max()), float(pause.max()))
                pause -= top
                following -= top
                np.maximum(following, _IMPOSSIBLE, out=following)

    def _best(self) -> int | None:
        """State of the open cycle of the best path; None: it is in a pause."""
        best = int(self._scores.argmax())
        return best if float(self._scores[best]) > float(self._pause.max()) else None

    def _chain(self, best: int | None) -> list[tuple[int, int, int]]:
        """Finished cycles ``(start, end, length)`` of the best path that are not final, the newest first."""
        tempi = self._tempi
        if best is None:
            length = int(self._pause.argmax())
            end = int(self._since[length])
        else:
            end, length = self._previous(self._now - int(tempi.age[best]) - 1, int(tempi.length[best]))
        chain = []
        while end > self._final_end:
            start = end - int(tempi.frames[length])
            chain.append((max(start, 0), end, length))
            if start <= self._final_end:
                break
            end, length = self._previous(start, length)
        return chain

    def _previous(self, start: int, length: int) -> tuple[int, int]:
        """End and length of the cycle before the one that begins at ``start``; the end is -1 where there is none."""
        memory = start % self._ring
        before = int(self._before[memory, length])
        return start if self._direct[memory, before] else int(self._rested[memory, before]), before

    def _finalise(self, best: int | None, until: int, found: list[DecodedCycle]) -> None:
        """Make the cycles of the best path that end by ``until`` final, the oldest first."""
        for start, end, length in reversed(self._chain(best)):
            if end > until:
                break
            kept = max(start, self._final_end)
            if end - kept < self._p.least_share * self._tempi.frames[length]:
                self._final_end = end  # most of it is inside a final cycle of another path
                continue
            self._close(kept, end, length, found)

    def _close(self, start: int, end: int, length: int, found: list[DecodedCycle]) -> None:
        p, evidence = self._p, self._evidence
        self._final_end = end
        inside = self._tempi.age >= self._now - end
        if self._onset is not None and self._is_announced(start):
            start = self._onset
        if self._following is not None and self._following[0] == end:
            end = self._following[1]
        start = max(start, self._reported_end, end - int(self._tempi.frames[-1]))
        end = self._reported_end = max(end, start + 1)
        confidence = evidence.confidence(start, end, int(self._tempi.frames[length]))
        if confidence >= p.least_confidence:
            least = max(1, round(p.phase_shortest_s / self.frame_s))
            change = evidence.phase_change(start, end, least, p.phase_margin)
            found.append(DecodedCycle(start, end, True, confidence, change, evidence.audible(start, end, p.audible)))
        if self._announced is not None and self._announced < self._final_end:
            self._announced = self._onset = None
        # No path may begin a cycle inside a final one any more.
        self._scores[inside] = _IMPOSSIBLE

    # -- the open cycle ------------------------------------------------------------------------------------------------

    def _mean_begin(self, best: int) -> int:
        """Where the open cycle begins in the mean of the paths around the best one."""
        tempi, scores = self._tempi, self._scores
        age = int(tempi.age[best])
        if not self._blend:
            return self._now - age - 1
        near = np.abs(tempi.age - age) <= self._blend
        weights = np.exp(scores[near] - scores[best])
        return max(self._now - 1 - round(float(weights @ tempi.age[near]) / float(weights.sum())), self._reported_end)

    def _is_announced(self, start: int) -> bool:
        return self._announced is not None and abs(start - self._announced) <= self._same

    def _refine(self, best: int | None) -> None:
        """Let a young announced cycle begin where the paths now do."""
        if best is None or self._onset is None:
            return
        age = int(self._tempi.age[best])
        if age < self._settled and self._is_announced(self._now - age - 1):
            self._onset = self._mean_begin(best)

    def _follow_open(self, best: int | None, found: list[DecodedCycle]) -> None:
        p, tempi = self._p, self._tempi
        start = None if best is None else self._now - int(tempi.age[best]) - 1
        if self._announced is not None:
            same = start is not None and abs(start - self._announced) <= self._same
            if same or any(abs(begin - self._announced) <= self._same for begin, _, _ in self._chain(best)):
                if start is None or same:
                    return
            else:
                self._announced = self._onset = None
        if start is None or best is None or start < self._final_end:
            return
        age = (self._now - start) * self.frame_s
        elsewhere = np.abs(tempi.age - int(tempi.age[best])) > self._same
        rival = max(float(self._scores[elsewhere].max()), float(self._pause.max()))
        if float(self._scores[best]) - rival < p.announce_margin * (1.0 - age / p.announce_s):
            return
        begin = self._mean_begin(best)
        self._following = (start, begin)
        self._finalise(best, self._now, found)
        self._following = None
        if start < self._final_end:
            return
        self._announced = start
        begin = max(begin, self._reported_end)
        self._onset = begin if self._blend else None
        # Hysteresis: every path without the announced cycle loses.
        self._scores[elsewhere] -= p.withdraw_margin
        self._pause -= p.withdraw_margin
        frames = int(tempi.frames[tempi.length[best]])
        now = max(self._now, begin + 1)
        found.append(DecodedCycle(begin, now, False, self._evidence.confidence(begin, self._now, frames)))


def _log_odds(probability: float, cap: float) -> float:
    """Log odds of a probability within ``±cap``."""
    p = min(max(probability, _TINY), 1.0 - _TINY)
    return min(max(math.log(p / (1.0 - p)), -cap), cap)
