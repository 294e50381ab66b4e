"""The decoder: outputs of the network → respiratory cycles, by a causal Viterbi search with a fixed lag.

A path is a sequence of cycles and pauses. The length of a cycle is a state of the path (the tempo): the next cycle has
nearly the same length, across a pause too, and no length is typical of everyone. While a cycle lasts, its angle turns
once; each of its frames scores how well the network's angle agrees, and its activity. Each begin of a cycle scores the
onset. The best path determines the open (provisional) cycle. A cycle is final once it lies ``final_lag_s`` behind, or
once the next one is announced; nothing final is ever revised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_sdk.runtime.segmentation.decoder_params import DecoderParams
from edge_sdk.runtime.segmentation.evidence import CycleEvidence, Scoring
from edge_sdk.runtime.segmentation.outputs import Outputs, StepOutputs, from_rows
from edge_sdk.runtime.segmentation.paths import IMPOSSIBLE, Paths, advance

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DecodedCycle:
    """A respiratory cycle in frames since the last reset."""

    start: int
    end: int  # one past the last frame; of a provisional cycle, frames so far
    final: bool
    confidence: float
    phase_change: int | None = None  # first frame of the expiration
    audible: tuple[int, int] | None = None  # first audible frame, and one past the last


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
        self._lag = round(p.final_lag_s / frame_s)
        self._same = round(p.same_s / frame_s)
        self._blend = round(p.blend_s / frame_s)
        self._settled = round(p.settle_s / frame_s)
        self._paths = Paths(frame_s, p, self._lag)
        self._tempi = self._paths.tempi
        self._evidence = CycleEvidence(2 * int(self._tempi.frames[-1]) + self._lag + 32)
        self._scoring = Scoring(p)
        self.reset()

    @property
    def frames(self) -> int:
        """Frames received since the last reset."""
        return self._paths.now

    def reset(self) -> None:
        """Start over; the next frame has number 0."""
        self._paths.reset()
        self._changed = False  # the scores, so that what was computed ahead is void
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
        return self.accept_steps(from_rows(activity, onset, phase, cycle), [len(activity)])[0] if len(activity) else []

    def accept_steps(self, outputs: StepOutputs, ends: Sequence[int]) -> list[list[DecodedCycle]]:
        """Take several steps, and return the cycles of each as :meth:`accept` would.

        Parameters
        ----------
        outputs
            Of ``n`` frames.
        ends
            Frames of the first step, of the first two and so on up to ``n``, in rising order.
        """
        paths, frames = self._paths, self._scoring.take([self._evidence], outputs)
        first, found = paths.now, []
        done = ahead = 0  # frames taken and computed
        for end in ends:
            if self._changed:
                self._changed, ahead = False, done
            while ahead < end:
                paths.go_to(first + ahead)
                n = min(len(frames) - ahead, paths.at_once)
                advance([paths], n, frames[ahead : ahead + n])
                ahead += n
            done = end
            paths.go_to(first + end)
            found.append(self._determined())
        self._changed = False
        return found

    def joins(self, other: TempoDecoder, frames: int) -> bool:
        """Whether both can take so many frames together."""
        return self._paths.tempi is other._paths.tempi and self._paths.at_once >= frames

    @staticmethod
    def accept_together(
        decoders: Sequence[TempoDecoder], frames: int, outputs: StepOutputs
    ) -> list[list[DecodedCycle]]:
        """Take one step of many streams, and return the cycles of each as :meth:`accept` would.

        Parameters
        ----------
        decoders
            That join each other; up to ``MOST_ROWS`` frames in all.
        frames
            Of each stream.
        outputs
            Of the first stream, then of the second one and so on.
        """
        paths = [one._paths for one in decoders]
        advance(paths, frames, decoders[0]._scoring.take([one._evidence for one in decoders], outputs))
        found = []
        for one in decoders:
            one._paths.go_to(one._paths.now + frames)
            found.append(one._determined())
            one._changed = False
        return found

    def _determined(self) -> list[DecodedCycle]:
        found: list[DecodedCycle] = []
        paths = self._paths
        best = paths.best()
        if self._onset is not None and best is not None:
            self._refine(best)
        if paths.last_end(best)[0] > self._final_end:
            self._finalise(best, paths.now - self._lag, found)
        self._follow_open(best, found)
        return found

    def finish(self, *, cut: bool = False) -> list[DecodedCycle]:
        """End of the audio: close the open cycle and return all cycles that are not final yet.

        ``cut``: a gap ended the audio, so that the open cycle may have any length.
        """
        found: list[DecodedCycle] = []
        if self._paths.now:
            best = self._paths.best()
            self._finalise(best, self._paths.now, found)
            if best is not None:
                length, age = self._tempi.lengths[best], self._tempi.ages[best]
                start = max(self._paths.now - age - 1, self._final_end)
                if cut or self._paths.now - start >= self._p.least_share * self._tempi.frames[length]:
                    self._close(start, self._paths.now, length, found)
        self._announced = None
        return found

    # -- the best path -------------------------------------------------------------------------------------------------

    def _chain(self, best: int | None) -> list[tuple[int, int, int]]:
        """Finished cycles ``(start, end, length)`` of the best path that are not final, the newest first."""
        tempi, paths = self._tempi, self._paths
        end, length = paths.last_end(best)
        chain = []
        while end > self._final_end:
            start = end - int(tempi.frames[length])
            chain.append((max(start, 0), end, length))
            if start <= self._final_end:
                break
            end, length = paths.previous(start, length)
        return chain

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
        inside = self._tempi.age >= self._paths.now - end
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
        self._paths.scores[inside] = IMPOSSIBLE
        self._changed = True

    # -- the open cycle ------------------------------------------------------------------------------------------------

    def _mean_begin(self, best: int) -> int:
        """Where the open cycle begins in the mean of the paths around the best one."""
        tempi, scores = self._tempi, self._paths.scores
        age = tempi.ages[best]
        if not self._blend:
            return self._paths.now - age - 1
        near = tempi.near(age, self._blend)
        weights = np.exp(scores[near] - scores[best])
        mean = round(float(weights @ tempi.age[near]) / float(weights.sum()))
        return max(self._paths.now - 1 - mean, self._reported_end)

    def _is_announced(self, start: int) -> bool:
        return self._announced is not None and abs(start - self._announced) <= self._same

    def _refine(self, best: int) -> None:
        """Let a young announced cycle begin where the paths now do."""
        age = self._tempi.ages[best]
        if age < self._settled and self._is_announced(self._paths.now - age - 1):
            self._onset = self._mean_begin(best)

    def _follow_open(self, best: int | None, found: list[DecodedCycle]) -> None:
        p, tempi = self._p, self._tempi
        start = None if best is None else self._paths.now - tempi.ages[best] - 1
        if self._announced is not None:
            same = start is not None and abs(start - self._announced) <= self._same
            if same or any(abs(begin - self._announced) <= self._same for begin, _, _ in self._chain(best)):
                if start is None or same:
                    return
            else:
                self._announced = self._onset = None
        if start is None or best is None or start < self._final_end:
            return
        age = (self._paths.now - start) * self.frame_s
        paths, near = self._paths, tempi.near(tempi.ages[best], self._same)
        if paths.lead(best, near) < p.announce_margin * (1.0 - age / p.announce_s):
            return
        begin = self._mean_begin(best)
        self._following = (start, begin)
        self._finalise(best, self._paths.now, found)
        self._following = None
        if start < self._final_end:
            return
        self._announced = start
        begin = max(begin, self._reported_end)
        self._onset = begin if self._blend else None
        # Hysteresis: every path without the announced cycle loses.
        paths.lower_others(near, p.withdraw_margin)
        self._changed = True
        frames = int(tempi.frames[tempi.lengths[best]])
        now = max(self._paths.now, begin + 1)
        found.append(DecodedCycle(begin, now, False, self._evidence.confidence(begin, self._paths.now, frames)))
