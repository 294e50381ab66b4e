"""Rises and falls of a smoothed sound level: where one begins and ends, and where a valley parts two of them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from edge_sdk.runtime.segmentation.level import EnvelopeParams


@dataclass(frozen=True, slots=True)
class Hump:
    """One rise and fall of the level, in frames."""

    start: int
    end: int  # one past the last
    peak_db: float
    floor_db: float  # the noise floor when it ended
    split: bool  # ended in a valley above the floor: the next hump begins at ``end``
    valley: float = 0.0  # share of the way from floor to peak at which that valley lies

    @property
    def contrast_db(self) -> float:
        return self.peak_db - self.floor_db

    @property
    def frames(self) -> int:
        return self.end - self.start


class HumpFinder:
    """Follows floor and peak of a level and cuts out what rises between them; causal, a few operations a frame.

    The floor falls quickly and rises slowly, the peak the other way round. A hump begins where the level crosses
    ``on`` of the way from floor to peak, traced back to the floor, and ends at the floor or in a valley.
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
        self.now = 0  # frames pushed
        self.active = False
        self.start = 0  # of the open hump
        self.peak_db = 0.0  # of the open hump
        self.floor_db = 0.0
        self._roof_db = 0.0
        self._past: deque[float] = deque(maxlen=self._back + 1)
        self._last_end = 0
        self._end = 0  # where the open hump fell to the floor
        self._below = 0  # frames since
        self._top_db = 0.0  # highest since the last valley
        self._valley_db = 0.0
        self._valley = 0

    def push(self, level_db: float) -> Hump | None:
        """Take the level of one more frame; return the hump that it ends."""
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

    def finish(self) -> Hump | None:
        """The open hump, ended by the end of the sound."""
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

    def _split(self, t: int, level_db: float, span: float) -> Hump | None:
        depth = self._p.split * span
        long_enough = self._valley - self.start >= self._split_after
        is_valley = level_db - self._valley_db > depth and self._top_db - self._valley_db > depth
        if is_valley and long_enough and t - self._valley >= self._split_rise:
            return self._part(t, level_db, self._valley)
        if t - self.start > self._longest:
            return self._part(t, level_db, self._valley if long_enough and self._valley < t else t)
        return None

    def _part(self, t: int, level_db: float, at: int) -> Hump:
        span = max(self._roof_db - self.floor_db, self._p.range_db)
        hump = self._close(at, split=True, valley=(self._valley_db - self.floor_db) / span)
        self.active, self.start, self._below = True, at, 0
        self.peak_db = self._top_db = self._valley_db = level_db
        self._valley = t
        return hump

    def _close(self, end: int, *, split: bool, valley: float = 0.0) -> Hump:
        self.active, self._last_end = False, end
        return Hump(self.start, end, self.peak_db, self.floor_db, split, valley)
