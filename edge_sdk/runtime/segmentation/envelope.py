"""Breaths from the level of the sound alone: a causal, adaptive envelope segmenter.

A breath is a hump of the smoothed band level; an inspiration and the weaker expiration that follows it at once are one
breath. Sound without any hump for seconds still gives a breath, of low confidence: audible breathing is never dropped
silently. Everything is relative to floor and peak of the recent sound, so that loud and quiet recordings are one.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_sdk.events import BreathCycle
from edge_sdk.runtime.segmentation.level import BandLevel, EnvelopeParams, RunningMean
from edge_sdk.runtime.segmentation.peaks import Hump, HumpFinder

WEAK_CONFIDENCE = 0.1
"""Of a breath that no rise of the level told."""

_CONTRAST_SCALE_DB = 10.0  # confidence is 1 - exp(-contrast / this)


@dataclass(frozen=True, slots=True)
class _Pending:
    """A breath that ended, but whose expiration may follow."""

    hump: Hump
    announced: bool


class EnvelopeSegmenter:
    """Finds breaths in a stream of samples at its own rate; a pure function of the samples.

    Parameters
    ----------
    sample_rate
        Hz, of the samples it is given.
    params
        Settings.

    Notes
    -----
    A final cycle comes about half of ``smooth_s`` after its end, or, where the next breath follows without a pause,
    when that one has risen; never later than ``pair_longest_s`` after the onset of the breath that follows.
    """

    def __init__(self, sample_rate: int, params: EnvelopeParams | None = None) -> None:
        self._p = params or EnvelopeParams()
        self._rate = sample_rate
        self._level = BandLevel(sample_rate, self._p)
        self._mean = RunningMean(self._p.frames(self._p.smooth_s))
        self._finder = HumpFinder(self._p)
        lag_s = self._p.smooth_s / 2 - self._p.hop_s * 1.5 - self._p.shift_s  # centre of a smoothed frame, then shift
        self._lag = round(lag_s * sample_rate)
        self.reset()

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self._rate

    @property
    def hop_samples(self) -> int:
        """Samples of one step; blocks of any other size are accepted too."""
        return self._level.hop_samples

    def reset(self) -> None:
        """Start over: the next sample has index 0, the next cycle too."""
        self._level.reset()
        self._mean.reset()
        self._finder.reset()
        self._samples = 0
        self._index = 0
        self._pending: _Pending | None = None
        self._announced = False  # the open hump has been given out as provisional
        self._last_end = 0  # frame up to which the sound is accounted for
        self._last_sample = 0  # end of the last final cycle
        self._hump_end = -(1 << 30)  # of the last hump with contrast, for the pause before the next
        self._loudest = (-1e9, 0)  # level and frame, since the last breath
        self._typical_db: float | None = None  # peak level of recent breaths
        self._lengths: deque[int] = deque(maxlen=7)  # frames of recent breaths
        self._shortest = self._p.frames(self._p.shortest_cap_s)

    def accept(self, hop: npt.NDArray[np.float32]) -> list[BreathCycle]:
        """Take ``[n]`` samples; return what they determine, provisional and final cycles, in order."""
        self._samples += hop.size
        cycles: list[BreathCycle] = []
        for level in self._level.accept(hop):
            self.push_level(level, cycles)
        return cycles

    def push_level(self, level_db: float, cycles: list[BreathCycle]) -> None:
        """One frame's band level; what it determines is appended to ``cycles``."""
        smooth = self._mean.push(level_db)
        hump = self._finder.push(smooth)
        if smooth > self._loudest[0]:
            self._loudest = (smooth, self._finder.now - 1)
        if hump is not None:
            self._ended(hump, cycles)
        if self._pending is not None and not self._can_still_pair(self._pending):
            self._emit_pending(cycles)
        if self._finder.active:
            self._announce(cycles)
        elif self._pending is None:
            self._check_idle(cycles)

    def finish(self, *, cut: bool = False) -> list[BreathCycle]:
        """End the open breath with the sound; if there was none at all, give the loudest stretch as one.

        ``cut``: the sound was cut off by a loss, so that the open breath may be of any length.
        """
        cycles: list[BreathCycle] = []
        if cut:
            self._shortest = 1
        hump = self._finder.finish()
        if hump is not None:
            self._ended(hump, cycles, to_the_end=hump.end == self._finder.now)
        if self._pending is not None:
            self._emit_pending(cycles)
        if self._index == 0:
            self._emit_weak(cycles, self._finder.now)
        return cycles

    # -- what a hump becomes -------------------------------------------------------------------------------------------

    def _ended(self, hump: Hump, cycles: list[BreathCycle], *, to_the_end: bool = False) -> None:
        announced, self._announced = self._announced, False
        if not announced and hump.contrast_db < self._p.contrast_db:
            return
        pause = hump.start - self._hump_end
        self._hump_end = hump.end
        first = self._pending
        if first is not None:
            if self._is_expiration(first.hump, hump):
                self._pending = None
                both = Hump(first.hump.start, hump.end, first.hump.peak_db, first.hump.floor_db, hump.split)
                self._emit(both, cycles, announced=first.announced, phase=hump.start, to_the_end=to_the_end)
                return
            self._emit_pending(cycles)
        may_pair = hump.split and hump.frames >= self._p.frames(self._p.pair_first_s)
        may_pair = may_pair and pause >= self._p.frames(self._p.pair_pause_s)
        if may_pair and not to_the_end:
            self._pending = _Pending(hump, announced)
        else:
            self._emit(hump, cycles, announced=announced, to_the_end=to_the_end)

    def _is_expiration(self, first: Hump, second: Hump) -> bool:
        p = self._p
        return (
            second.start == first.end
            and self._looks_paired(first, second.peak_db)
            and second.frames >= p.frames(p.pair_second_s)
            and second.frames <= p.pair_ratio * first.frames
            and second.end - first.start <= p.frames(p.pair_longest_s)
        )

    def _looks_paired(self, first: Hump, second_peak_db: float) -> bool:
        """What follows is weaker, or the valley is shallow: between two breaths there is more of a pause."""
        return first.peak_db - second_peak_db >= self._p.pair_drop_db or first.valley >= self._p.pair_shallow

    def _can_still_pair(self, first: _Pending) -> bool:
        p, finder = self._p, self._finder
        return (
            finder.active
            and finder.start == first.hump.end
            and self._looks_paired(first.hump, finder.peak_db)
            and finder.now - finder.start <= p.pair_ratio * first.hump.frames + p.frames(p.hold_s) + 1
            and finder.now - first.hump.start <= p.frames(p.pair_longest_s) + p.frames(p.hold_s) + 1
        )

    def _emit_pending(self, cycles: list[BreathCycle]) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            self._emit(pending.hump, cycles, announced=pending.announced)

    def _emit(
        self,
        hump: Hump,
        cycles: list[BreathCycle],
        *,
        announced: bool,
        phase: int | None = None,
        to_the_end: bool = False,
    ) -> None:
        if not announced and hump.frames < self._shortest:
            return
        self._learn(hump)
        end = self._samples_heard if to_the_end else self._sample(hump.end)
        self._final(
            cycles, self._sample(hump.start), end, _confidence(hump.contrast_db),
            None if phase is None else self._sample(phase),
        )  # fmt: skip
        self._account(hump.end)

    def _learn(self, hump: Hump) -> None:
        p = self._p
        self._lengths.append(hump.frames)
        wanted = p.typical_share * statistics.median(self._lengths)
        self._shortest = round(min(max(wanted, p.shortest_s / p.hop_s), p.shortest_cap_s / p.hop_s))
        old = self._typical_db
        self._typical_db = hump.peak_db if old is None else old + 0.3 * (hump.peak_db - old)

    def _announce(self, cycles: list[BreathCycle]) -> None:
        """Give the open hump out as provisional as soon as nothing can take it back."""
        finder = self._finder
        long_enough = finder.now - finder.start >= self._shortest
        high_enough = finder.peak_db - finder.floor_db >= self._p.contrast_db
        if self._announced or self._pending is not None or not (long_enough and high_enough):
            return
        self._announced = True
        onset = max(self._sample(finder.start), self._last_sample)
        end = max(onset + 1, min(self._sample(finder.now), self._samples_heard))
        confidence = _confidence(finder.peak_db - finder.floor_db)
        cycles.append(BreathCycle(self._index, onset, end, self._rate, False, self._samples_heard, confidence))

    # -- sound without breaths -----------------------------------------------------------------------------------------

    def _check_idle(self, cycles: list[BreathCycle]) -> None:
        now = self._finder.now
        if now - self._last_end >= self._p.frames(self._p.weak_after_s):
            self._emit_weak(cycles, now)

    def _emit_weak(self, cycles: list[BreathCycle], now: int) -> None:
        """The loudest stretch since the last breath, unless it is a pause or silence."""
        level, at = self._loudest
        begin = self._last_end
        is_pause = self._typical_db is not None and level < self._typical_db - self._p.pause_db
        if level < self._p.silence_db or is_pause or now - begin < self._p.frames(self._p.shortest_s):
            self._account(now)
            return
        length = min(self._p.frames(self._p.weak_length_s), now - begin)
        start = min(max(begin, at - length // 2), now - length)
        onset, end = self._sample(start), self._sample(start + length)
        if start + length == now:
            end = self._samples_heard
        self._final(cycles, onset, end, WEAK_CONFIDENCE, None)
        self._account(now)

    def _account(self, frame: int) -> None:
        self._last_end = frame
        self._loudest = (-1e9, frame)

    # -- frames and samples --------------------------------------------------------------------------------------------

    @property
    def _samples_heard(self) -> int:
        """Samples up to the end of the newest frame; the same whatever the block sizes."""
        return (self._finder.now + 1) * self._level.hop_samples

    def _sample(self, frame: int) -> int:
        return max(0, frame * self._level.hop_samples - self._lag)

    def _final(self, cycles: list[BreathCycle], onset: int, end: int, confidence: float, phase: int | None) -> None:
        onset = max(onset, self._last_sample)
        end = max(onset + 1, min(end, self._samples_heard))
        if phase is not None and not onset < phase < end:
            phase = None
        cycles.append(BreathCycle(self._index, onset, end, self._rate, True, self._samples_heard, confidence, phase))
        self._index += 1
        self._last_sample = end


def _confidence(contrast_db: float) -> float:
    return round(float(1.0 - np.exp(-max(0.0, contrast_db) / _CONTRAST_SCALE_DB)), 4)
