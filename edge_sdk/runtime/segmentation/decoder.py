"""The decoder: frame probabilities → respiratory cycles, by a causal segmental Viterbi search with a fixed lag.

A path is a sequence of cycles, whose lengths have a log-normal prior, and of pauses of any length. Each frame of a
cycle scores its activity, each begin of a cycle its onset pulse. The best path determines the open (provisional)
cycle. A cycle is final once it lies ``final_lag_s`` behind, or once the next one is announced; all paths that
contradict it are dropped, so that nothing final is ever revised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from edge_sdk.settings import NonNegative, Positive, Settings

Floats = npt.NDArray[np.float64]
Probabilities = npt.NDArray[np.floating[Any]]

_IMPOSSIBLE = -1e12
_TINY = 1e-6  # probabilities are kept this far from 0 and 1
_RESCALE = 256  # frames after which the best score is called zero again


class DecoderParams(Settings, frozen=True):
    """Settings of the decoder; scores are natural logarithms."""

    title: ClassVar[str] = "segmenter decoder"

    activity_weight: float = 0.35  # of the log odds of each frame
    activity_bias: float = 0.4  # log odds at which a frame favours neither a cycle nor a pause
    onset_weight: float = 1.0  # of the log odds of the onset pulse where a cycle begins
    onset_bias: float = -1.5
    onset_cost: float = 1.5  # of beginning a cycle at all
    early_cost: NonNegative = 0.0  # of beginning one right after a start, when no pause was received before it;
    early_s: Annotated[float, Meta(ge=0, le=10)] = 0.5  # falls to nothing by then
    odds_cap: float = 4.0  # log odds are cut here: one frame must not decide alone
    shortest_s: Positive = 0.4
    longest_s: Annotated[float, Meta(le=30)] = 8.0
    typical_s: Positive = 1.6  # median of the length prior,
    spread: Positive = 0.5  # its standard deviation in log seconds,
    duration_weight: float = 1.0  # and its weight
    final_lag_s: NonNegative = 0.4  # a cycle is final when its end lies this far behind
    announce_margin: NonNegative = 1.0  # lead over every other path at which the open cycle is announced,
    announce_s: Positive = 0.3  # falls to nothing at this age of the cycle
    withdraw_margin: NonNegative = 6.0  # lead of another path at which the announced cycle is withdrawn
    least_confidence: float = 0.0  # cycles with a lower mean activity are left out
    same_s: float = 0.3  # an onset that moved by less belongs to the same cycle
    phase_shortest_s: float = 0.15  # of an inspiration and of an expiration
    phase_margin: float = 3.0  # lead over "no phase change" at which one is reported

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


class _Cycle:
    """A finished cycle on a path; ``before`` is the path up to it."""

    __slots__ = ("before", "end", "start")

    def __init__(self, start: int, end: int, before: _Cycle | None) -> None:
        self.start, self.end, self.before = start, end, before


class PhaseDecoder:
    """Turns frame probabilities into cycles; a pure function of the frames and of the steps they come in.

    Parameters
    ----------
    frame_s
        Seconds from frame to frame.
    params
        Settings.
    most_frames
        Upper limit of frames in one step; not more than the shortest cycle.
    """

    def __init__(self, frame_s: float, params: DecoderParams | None = None, most_frames: int = 8) -> None:
        p = self._p = params or DecoderParams()
        self.frame_s = frame_s
        self._most = most_frames
        self._shortest = max(most_frames, round(p.shortest_s / frame_s), 1)
        self._longest = max(self._shortest + 1, round(p.longest_s / frame_s))
        self._lag = round(p.final_lag_s / frame_s)
        self._same = round(p.same_s / frame_s)
        lengths = np.arange(1, self._longest + 1) * frame_s
        prior = np.square(np.log(lengths / p.typical_s) / p.spread) * (-0.5 * p.duration_weight)
        self._prior = prior[self._shortest - 1 :][::-1].copy()  # [span], the oldest start first
        # An open cycle may still grow: a length below the typical one has no cost yet.
        self._survival = np.where(lengths < p.typical_s, 0.0, prior)[::-1].copy()  # [longest]
        self._weight = np.array([[p.activity_weight], [p.onset_weight]])
        self._bias = np.array([[p.activity_bias], [p.onset_bias]])
        early = round(p.early_s / frame_s) if p.early_cost else 0
        self._early = p.early_cost * (1.0 - np.arange(early) / max(1, early))  # of the first frames
        # Scores of open cycles by their start, the oldest first; then room for those that begin in the current step.
        self._scores = np.empty(self._longest + most_frames)
        span, item = len(self._prior), self._scores.itemsize
        # Row t: cycles that may end at boundary now + t; all began before this step.
        self._endable = np.ndarray((most_frames, span), np.float64, self._scores, strides=(item, item))
        self._ending = np.empty((most_frames, span))  # scratch
        self._held = self._longest + self._lag + 2 * most_frames  # frames that may be needed again
        self._memory = np.empty((4, 2 * self._held))  # activity and three phases; written from left to right
        self.reset()

    def reset(self) -> None:
        """Start over: the next frame is frame 0, and nothing is open."""
        self._now = 0
        self._final_end = 0  # nothing before this can change
        self._scores.fill(_IMPOSSIBLE)
        self._open = self._scores[: self._longest]
        self._expected = self._open.copy()  # the same with the cost of their lengths so far
        self._paths: list[_Cycle | None] = [None] * self._longest  # the path before each of these
        self._pause = 0.0  # score of being in a pause
        self._pause_path: _Cycle | None = None
        self._announced: int | None = None  # start of the provisional cycle
        self._memory[:, : self._held] = 0.5
        self._written = self._held  # columns of the memory, up to the newest frame

    @property
    def frames(self) -> int:
        """Frames decoded since the last reset."""
        return self._now

    def accept(self, activity: Probabilities, onset: Probabilities, phase: Probabilities) -> list[DecodedCycle]:
        """Decode ``[n]`` activity and onset probabilities and ``[3, n]`` phases; return the cycles they determine.

        Raises
        ------
        ValueError
            More frames than ``most_frames``.
        """
        count = len(activity)
        if count > self._most:
            raise ValueError(f"a step holds at most {self._most} frames, got {count}")
        if count == 0:
            return []
        self._remember(activity, phase)
        self._advance(activity, onset)
        found: list[DecodedCycle] = []
        start, path = self._best()
        self._finalise(path, self._now - self._lag, found)
        self._follow_open(start, path, found)
        return found

    def finish(self, *, cut: bool = False) -> list[DecodedCycle]:
        """End of the audio: close the open cycle and return all cycles that are not final yet.

        ``cut``: a gap ended the audio, so that the open cycle may have any length.
        """
        found: list[DecodedCycle] = []
        if self._now:
            start, path = self._best()
            if start is not None and (cut or self._now - start >= self._shortest):
                path = _Cycle(start, self._now, path)
            self._finalise(path, self._now, found)
        self._announced = None
        return found

    # -- the paths -----------------------------------------------------------------------------------------------------

    def _advance(self, activity: Probabilities, onset: Probabilities) -> None:
        count, scores, longest = len(activity), self._scores, self._longest
        gain, begin = self._evidence(activity, onset)
        total = np.cumsum(gain)  # score gained by a cycle from the step's first frame on
        ending = self._ending[:count]
        np.add(self._endable[:count], self._prior, out=ending)
        where = ending.argmax(axis=1).tolist()
        gains, starts = total.tolist(), begin.tolist()
        before = 0.0
        for t in range(count):
            score = float(ending[t, where[t]]) + before
            if score > self._pause:
                oldest = where[t] + t
                self._pause = score
                self._pause_path = _Cycle(self._now - longest + oldest, self._now + t, self._paths[oldest])
            scores[longest + t] = self._pause + starts[t] - before
            self._paths.append(self._pause_path)
            before = gains[t]
        del self._paths[:count]
        np.add(scores[count : longest + count], before, out=self._open)
        scores[longest:] = _IMPOSSIBLE
        if self._now // _RESCALE != (self._now + count) // _RESCALE:
            top = max(self._pause, float(self._open.max()))
            self._pause -= top
            self._open -= top
            np.maximum(self._open, _IMPOSSIBLE, out=self._open)
        self._now += count

    def _evidence(self, activity: Probabilities, onset: Probabilities) -> Floats:
        """Scores of each frame for being in a cycle, and for beginning one: ``[2, n]``."""
        odds = np.array((activity, onset), dtype=np.float64)
        np.maximum(odds, _TINY, out=odds)
        np.minimum(odds, 1.0 - _TINY, out=odds)
        odds = np.log(odds / (1.0 - odds))
        odds -= self._bias
        np.maximum(odds, -self._p.odds_cap, out=odds)
        np.minimum(odds, self._p.odds_cap, out=odds)
        odds *= self._weight
        odds[1] -= self._p.onset_cost
        if self._now < self._early.size:
            early = self._early[self._now : self._now + odds.shape[1]]
            odds[1, : early.size] -= early
        return np.asarray(odds)

    def _best(self) -> tuple[int | None, _Cycle | None]:
        """Start of the open cycle of the best path (None: it is in a pause), and the path before it."""
        np.add(self._open, self._survival, out=self._expected)
        k = int(self._expected.argmax())
        if float(self._expected[k]) > self._pause:
            return self._now - self._longest + k, self._paths[k]
        return None, self._pause_path

    def _lead_of(self, start: int) -> float:
        """Lead of the open cycle over pauses and over open cycles that begin elsewhere, as ``_best`` compared them."""
        k = start - self._now + self._longest
        elsewhere = (self._expected[: max(0, k - self._same)], self._expected[k + self._same + 1 :])
        return float(self._expected[k]) - max(self._pause, *(float(part.max()) for part in elsewhere if part.size))

    def _finalise(self, path: _Cycle | None, until: int, found: list[DecodedCycle]) -> None:
        """Make the cycles of the path that end by ``until`` final, the oldest first."""
        chain: list[_Cycle] = []
        node = path
        while node is not None and node.end > self._final_end:
            if node.end <= until:
                chain.append(node)
            node = node.before
        for cycle in reversed(chain):
            decoded = self._decoded(cycle)
            if decoded.confidence >= self._p.least_confidence:
                found.append(decoded)
            self._final_end = cycle.end
            if self._announced is not None and self._announced < cycle.end:
                self._announced = None
        if chain:
            self._keep(chain[0])

    def _keep(self, last: _Cycle) -> None:
        """Drop every path that does not contain the final cycle ``last``."""
        last.before = None
        oldest = self._now - self._longest
        first = max(0, last.end - oldest)
        self._open[:first] = _IMPOSSIBLE
        self._paths[:first] = [None] * first
        for k in range(first, self._longest):
            if not _contains(self._paths[k], last):
                self._open[k] = _IMPOSSIBLE
                self._paths[k] = last
        if not _contains(self._pause_path, last):
            self._pause, self._pause_path = min(self._pause, float(self._open.max()) - 1.0), last

    # -- events --------------------------------------------------------------------------------------------------------

    def _follow_open(self, start: int | None, path: _Cycle | None, found: list[DecodedCycle]) -> None:
        p = self._p
        if self._announced is not None:
            same = start is not None and abs(start - self._announced) <= self._same
            if not same and not _begins(path, self._announced, self._same, self._final_end):
                self._announced = None
            elif start is None or same:
                return
        if start is None:
            return
        age = (self._now - start) * self.frame_s
        if self._lead_of(start) < p.announce_margin * (1.0 - age / p.announce_s):
            return
        self._finalise(path, self._now, found)
        self._announced = start
        self._favour(start)
        found.append(DecodedCycle(start, self._now, False, self._confidence(start, self._now)))

    def _favour(self, start: int) -> None:
        """Hysteresis: lower the score of every path without the announced cycle."""
        k = start - self._now + self._longest
        near = slice(max(0, k - self._same), k + self._same + 1)
        kept = self._open[near].copy()
        self._open -= self._p.withdraw_margin
        self._open[near] = kept
        np.maximum(self._open, _IMPOSSIBLE, out=self._open)
        self._pause -= self._p.withdraw_margin

    def _decoded(self, cycle: _Cycle) -> DecodedCycle:
        change = self._phase_change(cycle.start, cycle.end)
        return DecodedCycle(cycle.start, cycle.end, True, self._confidence(cycle.start, cycle.end), change)

    def _remember(self, activity: Probabilities, phase: Probabilities) -> None:
        begin, end = self._written, self._written + len(activity)
        if end > self._memory.shape[1]:
            self._memory[:, : self._held] = self._memory[:, begin - self._held : begin]
            begin, end = self._held, self._held + len(activity)
        self._memory[0, begin:end] = activity
        self._memory[1:, begin:end] = phase
        self._written = end

    def _recalled(self, begin: int, end: int) -> Floats:
        last = self._written - self._now  # column of frame 0
        return self._memory[:, max(self._written - self._held, last + begin) : last + end]

    def _confidence(self, begin: int, end: int) -> float:
        held = self._recalled(begin, end)[0]
        return round(float(held.mean()), 4) if held.size else 0.0

    def _phase_change(self, begin: int, end: int) -> int | None:
        """Most likely frame of the change from inspiration to expiration; ``None`` without evidence for one."""
        held = self._recalled(begin, end)[1:]
        least = max(1, round(self._p.phase_shortest_s / self.frame_s))
        if held.shape[1] < 2 * least:
            return None
        favours = np.log(np.maximum(held[0], _TINY)) - np.log(np.maximum(held[1], _TINY))
        favours *= 1.0 - held[2]  # a frame of neither phase does not count
        score = 2.0 * np.cumsum(favours)  # of a change after frame k, up to a constant
        inside = score[least - 1 : -least]
        k = int(inside.argmax())
        none = max(0.0, float(score[-1]))  # one phase from end to end
        if float(inside[k]) < none + self._p.phase_margin:
            return None
        return int(end - held.shape[1] + least + k)


def _contains(path: _Cycle | None, wanted: _Cycle) -> bool:
    while path is not None and path.end > wanted.end:
        path = path.before
    return path is wanted


def _begins(path: _Cycle | None, start: int, tolerance: int, final_end: int) -> bool:
    while path is not None and path.end > final_end:
        if abs(path.start - start) <= tolerance:
            return True
        path = path.before
    return False
