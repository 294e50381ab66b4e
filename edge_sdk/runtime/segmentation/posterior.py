"""The decoder by probabilities: outputs of the network → respiratory cycles, by a causal forward pass over all paths.

The paths and their scores are those of :mod:`edge_sdk.runtime.segmentation.decoder`; here their probabilities are
added up instead of following the best one. The states of the open cycle know their age, so the states of one age hold
the probability that the open cycle began so long ago. No cycle is shorter than a few tenths of a second, so for the
youngest ages this is the probability of an onset given the audio up to now: an onset is announced once the ages within
a window hold enough of it, whatever the tempo, and its moment is their mean.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.runtime.segmentation.decoder import (
    DecodedCycle,
    DecoderParams,
    Tempi,
    TempoDecoder,
    log_odds,
)
from edge_sdk.runtime.segmentation.evidence import CycleEvidence

Floats = npt.NDArray[np.float64]
Outputs = npt.NDArray[np.floating[Any]]

_DIRECTIONS = 256  # of the network's angle that are told apart
_RESCALE = 64  # frames after which the probabilities are made to sum to 1 again
_LEAST = 1e-200  # of a probability then: arithmetic with yet smaller ones becomes slow
_WITHDRAWN_FROM = 2  # frames; of a younger onset nothing is known yet


class PosteriorDecoder:
    """Turns the network's outputs into cycles; a pure function of the frames and of the steps they come in.

    Parameters
    ----------
    frame_s
        Seconds from frame to frame.
    params
        Settings.
    """

    def __init__(self, frame_s: float, params: DecoderParams) -> None:
        p = self._p = params
        self.frame_s = frame_s
        tempi = self._tempi = Tempi(frame_s, p)
        self._lengths = tempi.frames.astype(np.float64)
        self._change = np.ascontiguousarray(np.exp(tempi.change.T))  # from i to j
        self._prior, self._pause_share = np.exp(tempi.prior), math.exp(-p.pause_cost)
        self._longest = int(tempi.frames[-1])
        self._window = round(p.onset_window_s / frame_s)
        self._young = max(2 * self._window, round(p.young_s / frame_s))
        self._least_share = min(p.late_share, p.announce_share, p.forced_share)
        self._least = max(2, int(np.ceil(p.least_share * p.shortest_s / frame_s)))
        # The states of each age; where a length has none, the one behind the last, which is always 0.
        age = np.arange(self._longest)[:, None]
        states = len(tempi.age)
        self._of_age = np.where(age < tempi.frames, tempi.first + age, states)
        self._young_states = self._of_age[: self._young].ravel()
        self._taken = np.empty(len(self._young_states))
        angle = 2.0 * np.pi * (np.arange(_DIRECTIONS) + 0.5) / _DIRECTIONS
        self._directions = p.cycle_weight * np.stack((np.cos(angle), np.sin(angle)))
        self._direction = ((tempi.age + 0.5) / tempi.frames[tempi.length] * _DIRECTIONS).astype(np.int64)
        self._weights = np.empty(states)  # of the states in a frame
        self._ones = np.ones(states + 1)
        self._ages = np.arange(self._young, dtype=np.float64)
        self._buffers = np.zeros(states + 1), np.zeros(states + 1)
        self._evidence = CycleEvidence(2 * self._longest + 2 * self._young + 16)
        self.reset()

    @property
    def frames(self) -> int:
        """Frames received since the last reset."""
        return self._now

    def reset(self) -> None:
        """Start over; the next frame has number 0."""
        self._now = 0
        self._states, self._spare = self._buffers
        self._states.fill(0.0)
        self._pause = self._prior.copy()  # by the length of the last cycle
        self._pause_begin = np.zeros(len(self._pause))  # mean frame at which that cycle ended
        self._resting = 1.0  # probability of a pause
        self._scale = 1.0  # from the states to probabilities
        self._final_end = 0
        self._scaled = 0  # frame at which the states were last made to sum to 1
        self._onset: float | None = None  # frame at which the announced cycle began
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
        self._states.take(self._young_states, out=self._taken, mode="clip")
        young = self._taken.reshape(self._young, -1) @ self._ones[: len(self._lengths)]
        young *= self._scale  # [ages] probability that the open cycle began so many frames ago
        self._follow(young, found)
        self._seek(young, found)
        return found

    def finish(self, *, cut: bool = False) -> list[DecodedCycle]:
        """End of the audio: close the open cycle and return all cycles that are not final yet.

        ``cut``: a gap ended the audio, so that the open cycle may have any length.
        """
        found: list[DecodedCycle] = []
        if self._onset is not None:
            start = self._first_frame(self._onset)
            turn = self._turn(start)
            if cut or self._now - start >= self._p.least_share * turn:
                self._close(start, self._now, found, turn)
        self._onset = None
        return found

    # -- the paths -----------------------------------------------------------------------------------------------------

    def _advance(self, activity: Outputs, onset: Outputs, cycle: Outputs) -> None:
        p, tempi = self._p, self._tempi
        active = [(log_odds(a, p.onset_cap) - p.activity_bias) * p.activity_weight for a in activity.tolist()]
        favoured = np.asarray(cycle, dtype=np.float64).T @ self._directions  # [n, directions]
        favoured += np.array(active)[:, None]
        np.exp(favoured, out=favoured)
        pause, begin, weights = self._pause, self._pause_begin, self._weights
        for row, begins in zip(favoured, onset.tolist(), strict=True):
            states, following = self._states, self._spare
            row.take(self._direction, out=weights, mode="clip")
            ended = states.take(tempi.last)
            left = ended + pause  # a cycle begins right after another, or after a pause
            ended *= self._pause_share
            pause += ended
            # Mean of the ends: those of the pause so far, and this frame.
            ended /= pause
            ended *= self._now - begin
            begin += ended
            np.multiply(states[:-2], weights[1:], out=following[1:-1])
            first = left @ self._change
            first *= weights.take(tempi.first)
            first *= math.exp(log_odds(begins, p.onset_cap) * p.onset_weight + p.onset_bonus)
            following[tempi.first] = first
            self._states, self._spare = following, states
            self._now += 1
        self._sum()

    def _sum(self) -> None:
        """Find what makes the probabilities of all paths sum to 1."""
        states, pause = self._states, self._pause
        resting = float(pause.sum())
        scale = 1.0 / (float(states @ self._ones) + resting)
        self._resting = resting * scale
        if self._now - self._scaled >= _RESCALE:
            self._scaled = self._now
            states *= scale
            states[states < _LEAST] = 0.0
            pause *= scale
            np.maximum(pause, _LEAST, out=pause)
            scale = 1.0
        self._scale = scale

    def _turn(self, start: int) -> float:
        """Expected length in frames of a cycle that began at ``start`` and is still open."""
        age = min(max(self._now - 1 - start, 0), self._longest - 1)
        weights = self._states.take(self._of_age[age])
        total = float(weights.sum())
        return float(weights @ self._lengths) / total if total > 0.0 else float(age + 1)

    # -- the announced cycle -------------------------------------------------------------------------------------------

    def _first_frame(self, onset: float) -> int:
        return max(round(onset), self._final_end)

    def _follow(self, young: Floats, found: list[DecodedCycle]) -> None:
        """Move, withdraw or end the announced cycle."""
        if self._onset is None:
            return
        p, window = self._p, self._window
        age = self._now - 1 - round(self._onset)
        if age < min(p.settle_s / self.frame_s, self._young - window):
            near = slice(max(0, age - window), age + window + 1)
            held = float(young[near].sum())
            if held >= p.withdraw_share:
                self._onset = self._now - 1 - float(young[near] @ self._ages[near]) / held
            elif age >= _WITHDRAWN_FROM:
                self._onset = None
                return
        start = self._first_frame(self._onset)
        if self._resting > p.pause_share:
            end = round(float(self._pause @ self._pause_begin) / float(self._pause.sum()))
            if end - start >= self._least:
                self._close(start, end, found)
            self._onset = None  # it ended, or was a pause from the beginning
        elif self._now - start > self._longest + window:
            self._close(start, start + self._longest, found)
            self._onset = None

    def _seek(self, young: Floats, found: list[DecodedCycle]) -> None:
        """Announce the onset of a new cycle."""
        p, window = self._p, self._window
        known, latest = self._young, self._now - 1 - self._final_end
        if self._onset is not None:
            age = self._now - 1 - round(self._onset)
            known = min(known, max(age - window, 0))
            latest = min(latest, int(age - p.apart_s / self.frame_s))
        last = min(latest, self._young - 1)  # oldest centre of a window
        known = min(known, last + window + 1)
        if last < 1 or known < 2:
            return
        begun = float(young[:known].sum())  # probability of a new cycle
        if begun < self._least_share:
            return
        total = np.concatenate(([0.0], young[:known].cumsum()))
        centres = np.arange(1, last + 1)
        upper, lower = np.minimum(centres + window + 1, known), np.minimum(np.maximum(centres - window, 0), known)
        held = total[upper] - total[lower]
        best = int(held.argmax())
        share, near = float(held[best]), slice(int(lower[best]), int(upper[best]))
        if share <= 0.0:
            return
        age_s = float(young[near] @ self._ages[near]) / share * self.frame_s
        enough = p.announce_share - (p.announce_share - p.late_share) * min(1.0, age_s / p.late_s)
        surely = begun >= p.begun_share and share >= p.forced_share and age_s >= p.forced_s
        if share >= enough or surely:
            self._announce(self._now - 1 - age_s / self.frame_s, found)

    def _announce(self, onset: float, found: list[DecodedCycle]) -> None:
        start = self._first_frame(onset)
        if self._onset is not None:
            before = self._first_frame(self._onset)
            if start - before < self._least:
                return
            self._close(before, min(start, before + self._longest), found)
        self._onset = float(start)
        # Hysteresis: every path without the announced cycle loses.
        age = self._now - 1 - start
        kept = np.unique(self._of_age[max(0, age - self._window) : age + self._window + 1])
        states, weights = self._states, self._states[kept]
        lost = math.exp(-self._p.withdraw_margin)
        states *= lost
        states[kept] = weights
        self._pause *= lost
        turn = round(self._turn(start))
        found.append(DecodedCycle(start, self._now, False, self._evidence.confidence(start, self._now, turn)))

    def _close(self, start: int, end: int, found: list[DecodedCycle], turn: float | None = None) -> None:
        p, evidence = self._p, self._evidence
        confidence = evidence.confidence(start, end, round(turn or end - start))
        if confidence >= p.least_confidence:
            least = max(1, round(p.phase_shortest_s / self.frame_s))
            change = evidence.phase_change(start, end, least, p.phase_margin)
            found.append(DecodedCycle(start, end, True, confidence, change, evidence.audible(start, end, p.audible)))
        self._final_end = end


Decoder: TypeAlias = TempoDecoder | PosteriorDecoder


def new_decoder(frame_s: float, params: DecoderParams) -> Decoder:
    """The decoder that the settings ask for.

    Parameters
    ----------
    frame_s
        Seconds from frame to frame.
    params
        Settings.
    """
    return PosteriorDecoder(frame_s, params) if params.search == "posterior" else TempoDecoder(frame_s, params)
