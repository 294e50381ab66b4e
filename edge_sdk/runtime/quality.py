"""The quality gate (silence, clipping, no contact, noise) and the monitor of audio without respiratory cycles.

The thresholds are conservative on purpose: no label is better than a wrong one, but only in plain cases. On the real
recordings (SPRSound, KAUH, HLS-CMDS, HF_Lung) 9 of about 18 000 cycles are refused, 8 of them 1-s clips of HF_Lung;
white and pink noise are always detected. These measures do not separate crying, speech and handling (SPRSound's
``Poor Quality``) from breathing; such cycles do get labels.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from typing import Annotated, ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from edge_sdk.events import QualityEvent, QualityState
from edge_sdk.settings import Positive, Settings
from edge_sdk.signal.frames import sum_of_squares
from edge_sdk.signal.modulation import Modulation, flatness

Samples: TypeAlias = npt.NDArray[np.float32]

_TINY = 1e-14  # added to energies before the logarithm
_MEMORY_S = 30.0  # clipped samples and the levels of frames are remembered for so long
_SMALLEST_PEAK = 0.05  # below this a flat top is quantisation, not clipping


class QualityParams(Settings, frozen=True):
    """Settings of the quality gate and of the not-breathing monitor."""

    title: ClassVar[str] = "quality"

    silence_dbfs: float = -85.0  # RMS below which the audio is silence
    clipped_share: float = 0.02  # of samples in flat tops at the largest level so far
    steady_db: float = 1.35  # standard deviation of frame levels (100-1000 Hz) below which there is no breathing
    loud_dbfs: float = -45.0  # steady noise above this (100-1000 Hz) is ``noisy``, below it is ``no-contact``
    heart_db: float = 3.2  # swing at 30-200 Hz above which there are heart beats: contact, but no breathing
    tonal_flatness: float = 0.02  # a steady signal with a flatter spectrum is noise, else mains hum: ``no-contact``
    window_s: Annotated[float, Meta(le=10)] = 2.0  # of the running state
    step_s: Positive = 0.5  # between two measurements
    confirm: Annotated[float, Meta(ge=1)] = 2.0  # measurements that must agree before the state changes
    breathless_s: float = 15.0  # audio for so long without a cycle from a learned segmenter: ``not-breathing``

    def _problem(self) -> str | None:
        return None if self.step_s <= self.window_s else "need step_s <= window_s"


@dataclass(frozen=True, slots=True)
class Measures:
    """Level, modulation and spectrum of a stretch of audio."""

    rms_dbfs: float  # without its mean
    swing_db: float  # standard deviation of the frame levels, 100-1000 Hz
    heart_db: float  # the same, 30-200 Hz
    band_dbfs: float  # level, 100-1000 Hz
    flatness: float  # of the mean spectrum above 100 Hz: 1 white, near 0 tonal or steep


def measure(samples: Samples, sample_rate: int) -> Measures:
    """Measure ``[n]`` samples, n >= 1."""
    rms_dbfs, modulation = _Power.of(samples).dbfs, Modulation(sample_rate, samples.size / sample_rate + 1.0)
    modulation.accept(samples)
    whole = (0, samples.size)
    swing_db = modulation.swing_db(*whole)
    if math.isinf(swing_db):
        return Measures(rms_dbfs, swing_db, swing_db, rms_dbfs, 0.0)  # too short to separate noise from breathing
    heart_db, band_dbfs = modulation.heart_db(*whole), modulation.level_dbfs(*whole)
    return Measures(rms_dbfs, swing_db, heart_db, band_dbfs, flatness(samples, sample_rate))


class _Power(NamedTuple):
    """Running sums of samples."""

    size: int
    total: float
    squares: float

    @classmethod
    def of(cls, samples: Samples) -> _Power:
        exact = samples.astype(np.float64)
        return cls(samples.size, float(np.add.reduce(exact)), sum_of_squares(exact))

    def and_(self, other: _Power) -> _Power:
        return _Power(self.size + other.size, self.total + other.total, self.squares + other.squares)

    @property
    def dbfs(self) -> float:
        """RMS without the mean."""
        mean = self.total / self.size
        return 10.0 * math.log10(max(0.0, self.squares / self.size - mean * mean) + _TINY)


class QualityGate:
    """Measures the quality of a stream and of each cycle; a pure function of the samples.

    Parameters
    ----------
    source_rate
        Hz, of the source: clipping is counted there, before any resampling rounds the corners.
    model_rate
        Hz, of the samples that all other measures use.
    params
        Settings.
    """

    def __init__(self, source_rate: int, model_rate: int, params: QualityParams | None = None) -> None:
        self._p = params or QualityParams()
        self._source_rate, self._model_rate = source_rate, model_rate
        self._step = max(1, round(self._p.step_s * model_rate))
        self._steps = max(1, round(self._p.window_s / self._p.step_s))
        self._modulation = Modulation(model_rate, _MEMORY_S)
        self.reset()

    def reset(self, first: int = 0) -> None:
        """Start over at source sample ``first``."""
        self._first = first  # source index of model sample 0
        self._clips: deque[tuple[int, int, int]] = deque()  # (begin, end, clipped samples) of each hop
        self._clipped = 0  # hops in it with clipped samples
        self._peak = 0.0
        self._modulation.reset()
        self._open: list[Samples] = []  # samples of the step that is not complete yet
        self._open_size = 0
        self._window: deque[tuple[_Power, Samples]] = deque(maxlen=self._steps)
        self._loudest: deque[float] = deque()  # of each hop that is held
        self._measured = 0
        self._state: QualityState | None = None
        self._level_dbfs = -140.0
        self._candidate: tuple[QualityState, int, float, int] | None = None  # state, since, level, measurements

    @property
    def state(self) -> QualityState | None:
        """The running state; None before the first measurement."""
        return self._state

    @property
    def level_dbfs(self) -> float:
        """RMS in dBFS of the newest measurement, rounded."""
        return self._level_dbfs

    def hold(self, source_hops: Sequence[Samples], model_samples: Samples) -> None:
        """Take all that :meth:`go_on` will go through: what is measured by itself is computed at once."""
        if len(source_hops) == 1:
            hop = source_hops[0]
            loudest = max(float(np.maximum.reduce(hop)), -float(np.minimum.reduce(hop))) if hop.size else 0.0
            self._loudest.append(loudest)
        else:
            begins = [*accumulate((hop.size for hop in source_hops[:-1]), initial=0)]
            self._loudest.extend(np.maximum.reduceat(np.abs(np.concatenate(source_hops)), begins).tolist())
        if model_samples.size:
            self._modulation.accept(model_samples)

    def accept(self, source_hop: Samples, begin: int, model_samples: Samples) -> list[QualityEvent]:
        """Take a hop at the source's rate, from source index ``begin``, and the ``[m]`` model samples it released."""
        self.hold([source_hop], model_samples)
        return self.go_on(source_hop, begin, model_samples)

    def go_on(self, source_hop: Samples, begin: int, model_samples: Samples) -> list[QualityEvent]:
        """As :meth:`accept`, of a hop that was held."""
        self._count_clips(source_hop, begin, self._loudest.popleft())
        events: list[QualityEvent] = []
        if model_samples.size:
            self._open.append(model_samples)
            self._open_size += model_samples.size
        while self._open_size >= self._step:
            held = np.concatenate(self._open)
            self._open, self._open_size = [held[self._step :]], held.size - self._step
            self._measure_step(held[: self._step], events)
        return events

    def finish(self, *, fragment: bool = False) -> list[QualityEvent]:
        """Return the state of audio that ended before it was confirmed; else nothing.

        Parameters
        ----------
        fragment
            A gap is on one side of the audio or on both: where it is too short for one measurement its quality is
            ``gap``, since nothing can be found in it.
        """
        events: list[QualityEvent] = []
        rest = np.concatenate(self._open) if self._open else np.zeros(0, np.float32)
        if self._state is None and (rest.size or self._window):
            too_short = fragment and not self._window
            if rest.size:
                self._window.append((_Power.of(rest), rest))
            end = self._measured * self._step + rest.size
            state, level = self._assess_window(end, self._first, self._first + (1 << 62))
            if too_short:
                state = "gap"
            events.append(QualityEvent(self._first, self._source_rate, state, level))
            self._state = state
        return events

    def is_steady(self, begin: int, end: int) -> bool:
        """Whether the level of model samples ``[begin, end)`` is constant, clipped or not: a tone, a hum or noise."""
        found = self._modulation
        return found.swing_db(begin, end) < self._p.steady_db and found.heart_db(begin, end) < self._p.heart_db

    # -- the running state ---------------------------------------------------------------------------------------------

    def _measure_step(self, step: Samples, events: list[QualityEvent]) -> None:
        self._window.append((_Power.of(step), step))
        self._measured += 1
        end = self._source_index(self._measured * self._step)
        since = self._source_index((self._measured - 1) * self._step)
        begin = self._source_index((self._measured - len(self._window)) * self._step)
        state, level = self._assess_window(self._measured * self._step, begin, end)
        self._level_dbfs = round(level, 2)
        if state == self._state:
            self._candidate = None
            return
        if self._candidate is None or self._candidate[0] != state:
            self._candidate = (state, since, level, 1)
        else:
            state, since, level, count = self._candidate
            self._candidate = (state, since, level, count + 1)
        if self._candidate[3] >= self._p.confirm:
            at = self._candidate[1] if self._state is not None else self._first
            events.append(QualityEvent(at, self._source_rate, state, round(self._candidate[2], 2)))
            self._state, self._candidate = state, None

    def _source_index(self, model_index: int) -> int:
        return self._first + model_index * self._source_rate // self._model_rate

    def _assess_window(self, now: int, begin: int, end: int) -> tuple[QualityState, float]:
        """Assess the window that ends with model sample ``now``, and spans the source's ``[begin, end)``."""
        powers, parts = zip(*self._window, strict=True)
        level = powers[-1].dbfs
        if level < self._p.silence_dbfs:  # by the newest step alone: a device that became silent
            return "silence", level
        power = reduce(_Power.and_, powers)
        return self._assess(power.dbfs, parts, now - power.size, now, (begin, end)), power.dbfs

    # -- measuring -----------------------------------------------------------------------------------------------------

    def assess(self, pcm: Samples, first: int, begin: int, end: int) -> tuple[QualityState, float]:
        """State and RMS in dBFS of a part of the stream.

        Parameters
        ----------
        pcm, first
            ``[n]`` model samples, and the index of the first.
        begin, end
            They span the source's samples ``[begin, end)``.
        """
        rms_dbfs = _Power.of(pcm).dbfs
        return self._assess(rms_dbfs, (pcm,), first, first + pcm.size, (begin, end)), rms_dbfs

    def _assess(
        self, rms_dbfs: float, parts: Sequence[Samples], first: int, last: int, source: tuple[int, int]
    ) -> QualityState:
        p, found = self._p, self._modulation
        if rms_dbfs < p.silence_dbfs:
            return "silence"
        if self._clipped_share(*source) >= p.clipped_share:
            return "clipping"
        if found.swing_db(first, last) < p.steady_db:
            loud = found.level_dbfs(first, last) >= p.loud_dbfs
            if loud and flatness(np.concatenate(parts), self._model_rate) >= p.tonal_flatness:
                return "noisy"
            if found.heart_db(first, last) < p.heart_db:
                return "no-contact"
        return "ok"

    def _count_clips(self, hop: Samples, begin: int, loudest: float) -> None:
        clipped = 0
        self._peak = max(self._peak, loudest)
        if self._peak >= _SMALLEST_PEAK and loudest >= 0.98 * self._peak:  # else no sample reaches the threshold
            clipped = self._flat_tops(hop)
        self._clips.append((begin, begin + hop.size, clipped))
        self._clipped += clipped > 0
        oldest = begin - _MEMORY_S * self._source_rate
        while self._clips[0][1] < oldest:
            self._clipped -= self._clips.popleft()[2] > 0

    def _flat_tops(self, hop: Samples) -> int:
        """Samples at the largest level so far that equal the one before."""
        high = np.abs(hop) >= 0.985 * self._peak
        flat = np.abs(np.diff(hop)) <= 1e-4 * self._peak
        return int(np.count_nonzero(high[1:] & flat))

    def _clipped_share(self, begin: int, end: int) -> float:
        if not self._clipped:
            return 0.0
        total = clipped = 0
        for hop_begin, hop_end, count in reversed(self._clips):  # newest first: requests are about recent samples
            if hop_end <= begin:
                break
            if hop_begin < end:
                total += hop_end - hop_begin
                clipped += count
        return clipped / total if total else 0.0


class NotBreathingMonitor:
    """Reports audio of acceptable quality that has no respiratory cycle for long: speech, handling, a held breath.

    Times are source samples.

    Parameters
    ----------
    sample_rate
        Hz, of the source.
    after_s
        Audio without any cycle for so long is ``not-breathing``.
    least_s
        A source without a single cycle is reported at its end too, if it lasted at least this long.
    """

    def __init__(self, sample_rate: int, after_s: float, least_s: float = 4.0) -> None:
        self._rate = sample_rate
        self._after, self._least = round(after_s * sample_rate), round(least_s * sample_rate)
        self.reset(0)

    def reset(self, begin: int) -> None:
        """Start over at source sample ``begin``."""
        self._base = self._last = begin
        self._reported = self._any = False

    def cycle(self, onset: int, end: int, level_dbfs: float) -> list[QualityEvent]:
        """Take a final cycle ``[onset, end)``; return ``ok`` if ``not-breathing`` was reported before it."""
        reported, self._reported, self._any = self._reported, False, True
        self._last = max(self._last, end)
        return [QualityEvent(onset, self._rate, "ok", level_dbfs)] if reported else []

    def update(self, now: int, state: QualityState | None, level_dbfs: float) -> list[QualityEvent]:
        """Take the quality gate's state at source sample ``now``; return ``not-breathing`` when it is due."""
        if state != "ok":  # the gate has a better reason
            self._last, self._reported = now, False
            return []
        if self._reported or now - self._last < self._after:
            return []
        self._reported = True
        return [QualityEvent(self._last, self._rate, "not-breathing", level_dbfs)]

    def finish(self, now: int, state: QualityState | None, level_dbfs: float) -> list[QualityEvent]:
        """End of the source at sample ``now``: return ``not-breathing`` if no cycle was found at all."""
        if self._any or self._reported or state != "ok" or now - self._base < self._least:
            return []
        return [QualityEvent(self._base, self._rate, "not-breathing", level_dbfs)]
