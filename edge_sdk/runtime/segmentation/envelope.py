"""The envelope segmenter: respiratory cycles from the level of the audio alone, causal and adaptive.

A cycle is a peak of the smoothed band level; an inspiration and the weaker expiration right after it are one cycle.
Audio without any peak for seconds still gives a cycle, of low confidence: audible breathing is never dropped silently.
All thresholds are relative to floor and roof of the recent level, so that the loudness of a recording does not matter.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_sdk.events import BreathCycle
from edge_sdk.runtime.segmentation.level import BandLevel, EnvelopeParams, RunningMean

WEAK_CONFIDENCE = 0.1
"""Confidence of a cycle without a rise in level."""

_CONTRAST_SCALE_DB = 10.0  # confidence is 1 - exp(-contrast / this)


@dataclass(frozen=True, slots=True)
class Peak:
    """One rise and fall of the smoothed level; times in frames."""

    start: int
    end: int  # one past the last
    peak_db: float
    floor_db: float  # the noise floor when it ended
    split: bool  # it ended in a valley above the floor: the next peak begins at ``end``
    valley: float = 0.0  # share of the way from floor to peak at which that valley lies

    @property
    def contrast_db(self) -> float:
        """Height above the noise floor."""
        return self.peak_db - self.floor_db

    @property
    def frames(self) -> int:
        """Length."""
        return self.end - self.start


class PeakFinder:
    """Finds the peaks of a level, one value a frame; causal.

    It follows a floor (falls quickly, rises slowly) and a roof (the other way round). A peak begins where the level
    crosses the share ``on`` of the way from floor to roof, traced back to the floor, and ends at the floor or in a
    valley.
    """

    def __init__(self, params: EnvelopeParams) -> None:
        step = params.hop_s
        self._p = params
        self._floor_up, self._floor_down = params.floor_rise_db_s * step, params.floor_fall_db_s * step
        self._peak_up, self._peak_down = params.peak_rise_db_s * step, params.peak_fall_db_s * step
        self._hold = params.frames(params.hold_s)
        self._back = params.frames(params.back_s)
        self._warm = params.frames(params.warm_s)
        self._longest = params.frames(params.longest_s)
        self._split_after = params.frames(params.split_after_s)
        self._split_rise = params.frames(params.split_rise_s)
        self.reset()

    def reset(self) -> None:
        """Forget the level so far; the next frame is frame 0."""
        self.now = 0  # frames pushed
        self.active = False
        self.start = 0  # of the open peak
        self.peak_db = 0.0  # of the open peak
        self.floor_db = 0.0
        self._roof_db = 0.0
        self._past: deque[float] = deque(maxlen=self._back + 1)
        self._last_end = 0
        self._end = 0  # where the open peak fell to the floor
        self._below = 0  # frames since
        self._top_db = 0.0  # highest since the last valley
        self._valley_db = 0.0
        self._valley = 0

    def push(self, level_db: float) -> Peak | None:
        """Take the level of one more frame; return the peak that ends with it, if any."""
        t = self.now
        self.now += 1
        self._past.append(level_db)
        if t < self._warm:
            return None
        if t == self._warm:
            self.floor_db, self._roof_db = level_db, level_db + self._p.range_db
        span = self._follow(level_db)
        if not self.active:
            if level_db > self.floor_db + self._p.on * span:
                self._begin(t, level_db)
            return None
        self._track(t, level_db)
        if level_db < self.floor_db + self._p.off * span:
            if self._below == 0:
                self._end = t
            self._below += 1
            return self._close(self._end, split=False) if self._below >= self._hold else None
        self._below = 0
        return self._split(t, level_db, span)

    def finish(self) -> Peak | None:
        """Return the open peak, if any; it ends with the audio."""
        return self._close(self._end if self._below else self.now, split=False) if self.active else None

    def _follow(self, level_db: float) -> float:
        rise = level_db - self.floor_db
        self.floor_db += min(self._floor_up, rise) if rise > 0 else max(-self._floor_down, rise)
        rise = level_db - self._roof_db
        self._roof_db += min(self._peak_up, rise) if rise > 0 else max(-self._peak_down, rise)
        return max(self._roof_db - self.floor_db, self._p.range_db)

    def _begin(self, t: int, level_db: float) -> None:
        self.active, self._below = True, 0
        start = t
        for earlier in range(2, len(self._past) + 1):  # _past[-1] is frame t
            if self._past[-earlier + 1] <= self.floor_db or start <= self._last_end:
                break
            start = t - earlier + 1
        self.start, self._end = start, t
        self.peak_db = self._top_db = self._valley_db = level_db
        self._valley = t

    def _track(self, t: int, level_db: float) -> None:
        if level_db > self._top_db:
            self._top_db = self._valley_db = level_db
            self._valley = t
            self.peak_db = max(self.peak_db, level_db)
        elif level_db < self._valley_db:
            self._valley_db, self._valley = level_db, t

    def _split(self, t: int, level_db: float, span: float) -> Peak | None:
        depth = self._p.split * span
        long_enough = self._valley - self.start >= self._split_after
        is_valley = level_db - self._valley_db > depth and self._top_db - self._valley_db > depth
        if is_valley and long_enough and t - self._valley >= self._split_rise:
            return self._part(t, level_db, self._valley)
        if t - self.start > self._longest:
            return self._part(t, level_db, self._valley if long_enough and self._valley < t else t)
        return None

    def _part(self, t: int, level_db: float, at: int) -> Peak:
        span = max(self._roof_db - self.floor_db, self._p.range_db)
        peak = self._close(at, split=True, valley=(self._valley_db - self.floor_db) / span)
        self.active, self.start, self._below = True, at, 0
        self.peak_db = self._top_db = self._valley_db = level_db
        self._valley = t
        return peak

    def _close(self, end: int, *, split: bool, valley: float = 0.0) -> Peak:
        self.active, self._last_end = False, end
        return Peak(self.start, end, self.peak_db, self.floor_db, split, valley)


@dataclass(frozen=True, slots=True)
class _Pending:
    """A peak that has ended, but whose expiration may follow."""

    peak: Peak
    announced: bool


class EnvelopeSegmenter:
    """Finds respiratory cycles in a stream of samples; a pure function of the samples.

    Parameters
    ----------
    sample_rate
        Hz, of the samples.
    params
        Settings.

    Notes
    -----
    A final cycle is emitted about half of ``smooth_s`` after its end, or, where the next one follows without a pause,
    when the level has risen again; never later than ``pair_longest_s`` after the onset of the next cycle.
    """

    def __init__(self, sample_rate: int, params: EnvelopeParams | None = None) -> None:
        self._p = params or EnvelopeParams()
        self._rate = sample_rate
        self._level = BandLevel(sample_rate, self._p)
        self._mean = RunningMean(self._p.frames(self._p.smooth_s))
        self._finder = PeakFinder(self._p)
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
        self._index = 0
        self._pending: _Pending | None = None
        self._announced = False  # the open peak has been emitted as a provisional cycle
        self._last_end = 0  # frame up to which the audio is accounted for
        self._last_sample = 0  # end of the last final cycle
        self._peak_end = -(1 << 30)  # of the last peak with contrast, for the pause before the next
        self._loudest = (-1e9, 0)  # level and frame, since the last cycle
        self._typical_db: float | None = None  # peak level of recent cycles
        self._lengths: deque[int] = deque(maxlen=7)  # frames of recent cycles
        self._shortest = self._p.frames(self._p.shortest_cap_s)

    def accept(self, hop: npt.NDArray[np.float32]) -> list[BreathCycle]:
        """Take ``[n]`` samples; return what they determine, provisional and final cycles, in order."""
        cycles: list[BreathCycle] = []
        for level in self._level.accept(hop):
            self.push_level(level, cycles)
        return cycles

    def push_level(self, level_db: float, cycles: list[BreathCycle]) -> None:
        """Take the band level of one frame in dB; append the cycles that it determines to ``cycles``."""
        smooth = self._mean.push(level_db)
        peak = self._finder.push(smooth)
        if smooth > self._loudest[0]:
            self._loudest = (smooth, self._finder.now - 1)
        if peak is not None:
            self._ended(peak, cycles)
        if self._pending is not None and not self._can_still_pair(self._pending):
            self._emit_pending(cycles)
        if self._finder.active:
            self._announce(cycles)
        elif self._pending is None:
            self._check_idle(cycles)

    def finish(self, *, cut: bool = False) -> list[BreathCycle]:
        """End the open cycle with the audio; without any cycle so far, emit the loudest stretch as one.

        ``cut``: a gap ended the audio, so that the open cycle may have any length.
        """
        cycles: list[BreathCycle] = []
        if cut:
            self._shortest = 1
        peak = self._finder.finish()
        if peak is not None:
            self._ended(peak, cycles, to_the_end=peak.end == self._finder.now)
        if self._pending is not None:
            self._emit_pending(cycles)
        if self._index == 0:
            self._emit_weak(cycles, self._finder.now)
        return cycles

    # -- from peaks to cycles ------------------------------------------------------------------------------------------

    def _ended(self, peak: Peak, cycles: list[BreathCycle], *, to_the_end: bool = False) -> None:
        announced, self._announced = self._announced, False
        if not announced and peak.contrast_db < self._p.contrast_db:
            return
        pause = peak.start - self._peak_end
        self._peak_end = peak.end
        first = self._pending
        if first is not None:
            if self._is_expiration(first.peak, peak):
                self._pending = None
                both = Peak(first.peak.start, peak.end, first.peak.peak_db, first.peak.floor_db, peak.split)
                self._emit(both, cycles, announced=first.announced, phase=peak.start, to_the_end=to_the_end)
                return
            self._emit_pending(cycles)
        may_pair = peak.split and peak.frames >= self._p.frames(self._p.pair_first_s)
        may_pair = may_pair and pause >= self._p.frames(self._p.pair_pause_s)
        if may_pair and not to_the_end:
            self._pending = _Pending(peak, announced)
        else:
            self._emit(peak, cycles, announced=announced, to_the_end=to_the_end)

    def _is_expiration(self, first: Peak, second: Peak) -> bool:
        p = self._p
        return (
            second.start == first.end
            and self._looks_paired(first, second.peak_db)
            and second.frames >= p.frames(p.pair_second_s)
            and second.frames <= p.pair_ratio * first.frames
            and second.end - first.start <= p.frames(p.pair_longest_s)
        )

    def _looks_paired(self, first: Peak, second_peak_db: float) -> bool:
        """The second peak is weaker, or the valley is shallow: the pause between two cycles is deeper."""
        return first.peak_db - second_peak_db >= self._p.pair_drop_db or first.valley >= self._p.pair_shallow

    def _can_still_pair(self, first: _Pending) -> bool:
        p, finder = self._p, self._finder
        return (
            finder.active
            and finder.start == first.peak.end
            and self._looks_paired(first.peak, finder.peak_db)
            and finder.now - finder.start <= p.pair_ratio * first.peak.frames + p.frames(p.hold_s) + 1
            and finder.now - first.peak.start <= p.frames(p.pair_longest_s) + p.frames(p.hold_s) + 1
        )

    def _emit_pending(self, cycles: list[BreathCycle]) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            self._emit(pending.peak, cycles, announced=pending.announced)

    def _emit(
        self,
        peak: Peak,
        cycles: list[BreathCycle],
        *,
        announced: bool,
        phase: int | None = None,
        to_the_end: bool = False,
    ) -> None:
        if not announced and peak.frames < self._shortest:
            return
        self._learn(peak)
        end = self._samples_framed if to_the_end else self._sample(peak.end)
        self._final(
            cycles, self._sample(peak.start), end, _confidence(peak.contrast_db),
            None if phase is None else self._sample(phase),
        )  # fmt: skip
        self._account(peak.end)

    def _learn(self, peak: Peak) -> None:
        import statistics  # takes long to load, and learned segmenters do without

        p = self._p
        self._lengths.append(peak.frames)
        wanted = p.typical_share * statistics.median(self._lengths)
        self._shortest = round(min(max(wanted, p.shortest_s / p.hop_s), p.shortest_cap_s / p.hop_s))
        old = self._typical_db
        self._typical_db = peak.peak_db if old is None else old + 0.3 * (peak.peak_db - old)

    def _announce(self, cycles: list[BreathCycle]) -> None:
        """Emit the open peak as a provisional cycle as soon as it is certain to become a final one."""
        finder = self._finder
        long_enough = finder.now - finder.start >= self._shortest
        high_enough = finder.peak_db - finder.floor_db >= self._p.contrast_db
        if self._announced or self._pending is not None or not (long_enough and high_enough):
            return
        self._announced = True
        onset = max(self._sample(finder.start), self._last_sample)
        end = max(onset + 1, min(self._sample(finder.now), self._samples_framed))
        confidence = _confidence(finder.peak_db - finder.floor_db)
        cycles.append(BreathCycle(self._index, onset, end, self._rate, False, self._samples_framed, confidence))

    def _check_idle(self, cycles: list[BreathCycle]) -> None:
        now = self._finder.now
        if now - self._last_end >= self._p.frames(self._p.weak_after_s):
            self._emit_weak(cycles, now)

    def _emit_weak(self, cycles: list[BreathCycle], now: int) -> None:
        """Emit the loudest stretch since the last cycle, unless it is a pause or silence."""
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
            end = self._samples_framed
        self._final(cycles, onset, end, WEAK_CONFIDENCE, None)
        self._account(now)

    def _account(self, frame: int) -> None:
        self._last_end = frame
        self._loudest = (-1e9, frame)

    @property
    def _samples_framed(self) -> int:
        """Samples up to the end of the newest frame; the same whatever the block sizes."""
        return (self._finder.now + 1) * self._level.hop_samples

    def _sample(self, frame: int) -> int:
        return max(0, frame * self._level.hop_samples - self._lag)

    def _final(self, cycles: list[BreathCycle], onset: int, end: int, confidence: float, phase: int | None) -> None:
        onset = max(onset, self._last_sample)
        end = max(onset + 1, min(end, self._samples_framed))
        if phase is not None and not onset < phase < end:
            phase = None
        cycles.append(BreathCycle(self._index, onset, end, self._rate, True, self._samples_framed, confidence, phase))
        self._index += 1
        self._last_sample = end


def _confidence(contrast_db: float) -> float:
    return round(float(1.0 - np.exp(-max(0.0, contrast_db) / _CONTRAST_SCALE_DB)), 4)
