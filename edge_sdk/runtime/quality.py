"""The quality gate (silence, clipping, no contact, noise) and the monitor of audio without respiratory cycles.

The thresholds are conservative on purpose: no label is better than a wrong one, but only in plain cases. On the real
recordings (SPRSound, KAUH, HLS-CMDS, HF_Lung) 9 of about 18 000 cycles are refused, 8 of them 1-s clips of HF_Lung;
white and pink noise are always detected. These measures do not separate crying, speech and handling (SPRSound's
``Poor Quality``) from breathing; such cycles do get labels.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from edge_sdk.events import QualityEvent, QualityState
from edge_sdk.settings import Positive, Settings
from edge_sdk.signal.frames import frame_view

_TINY = 1e-14  # added to energies before the logarithm
_FRAME_S = 0.064
_MEMORY_S = 30.0  # clipped samples are remembered for so long
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


def measure(samples: npt.NDArray[np.float32], sample_rate: int) -> Measures:
    """Measure ``[n]`` samples, n >= 1."""
    centred = samples - samples.mean(dtype=np.float64)
    rms_dbfs = _dbfs(centred)
    window, band_bins, heart_bins, wide_bins = _analysis(sample_rate)
    size = window.size
    if centred.size < 3 * size:
        return Measures(
            rms_dbfs, float("inf"), float("inf"), rms_dbfs, 0.0
        )  # too short to separate noise from breathing
    frames = frame_view(centred, size, size // 2) * window  # [k, size]
    spectrum = np.fft.rfft(frames, axis=1)
    power = np.square(spectrum.real) + np.square(spectrum.imag)  # [k, bins]
    band = power[:, band_bins].sum(axis=1)
    low = power[:, heart_bins].sum(axis=1)
    swing_db, heart_db = (float(np.std(10 * np.log10(energy + _TINY))) for energy in (band, low))
    band_dbfs = float(10 * np.log10(band.mean() / (0.1875 * size * size) + _TINY))  # Hann: 3/8 of the energy, halved
    wide = power[:, wide_bins].mean(axis=0) + _TINY
    flatness = float(np.exp(np.mean(np.log(wide))) / np.mean(wide))
    return Measures(rms_dbfs, swing_db, heart_db, band_dbfs, flatness)


@lru_cache(maxsize=16)
def _analysis(sample_rate: int) -> tuple[npt.NDArray[np.float64], slice, slice, slice]:
    """Window of a frame, and the bins of 100-1000 Hz, 30-200 Hz and above 100 Hz."""
    size = max(8, round(_FRAME_S * sample_rate))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    frequencies = np.arange(size // 2 + 1) * sample_rate / size
    top = 0.45 * sample_rate
    spans = ((100.0, min(1000.0, top)), (30.0, 200.0), (100.0, top))
    band, heart, wide = (slice(*np.searchsorted(frequencies, span).tolist()) for span in spans)
    return window, band, heart, wide


def _dbfs(centred: npt.NDArray[np.floating[Any]]) -> float:
    return float(10 * np.log10(np.mean(np.square(centred)) + _TINY))


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
        self.reset()

    def reset(self, first: int = 0) -> None:
        """Start over at source sample ``first``."""
        self._first = first  # source index of model sample 0
        self._clips: deque[tuple[int, int, int]] = deque()  # (begin, end, clipped samples) of each hop
        self._peak = 0.0
        self._open: list[npt.NDArray[np.float32]] = []
        self._open_size = 0
        self._window: deque[npt.NDArray[np.float32]] = deque(maxlen=self._steps)
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

    def accept(
        self, source_hop: npt.NDArray[np.float32], begin: int, model_samples: npt.NDArray[np.float32]
    ) -> list[QualityEvent]:
        """Take a hop at the source's rate, from source index ``begin``, and the ``[m]`` model samples it released."""
        self._count_clips(source_hop, begin)
        self._open.append(model_samples)
        self._open_size += model_samples.size
        events: list[QualityEvent] = []
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
                self._window.append(rest)
            state, level = self._assess_window(self._first, self._first + (1 << 62))
            if too_short:
                state = "gap"
            events.append(QualityEvent(self._first, self._source_rate, state, level))
            self._state = state
        return events

    def is_steady(self, pcm: npt.NDArray[np.float32]) -> bool:
        """Whether the level of ``[n]`` model samples is constant, clipped or not: a tone, a hum or noise."""
        found = measure(pcm, self._model_rate)
        return found.swing_db < self._p.steady_db and found.heart_db < self._p.heart_db

    # -- the running state ---------------------------------------------------------------------------------------------

    def _measure_step(self, step: npt.NDArray[np.float32], events: list[QualityEvent]) -> None:
        self._window.append(step)
        self._measured += 1
        end = self._source_index(self._measured * self._step)
        since = self._source_index((self._measured - 1) * self._step)
        begin = self._source_index((self._measured - len(self._window)) * self._step)
        state, level = self._assess_window(begin, end)
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

    def _assess_window(self, begin: int, end: int) -> tuple[QualityState, float]:
        newest = self._window[-1]
        level = _dbfs(newest - newest.mean(dtype=np.float64))
        if level < self._p.silence_dbfs:  # by the newest step alone: a device that became silent
            return "silence", level
        return self.assess(np.concatenate(tuple(self._window)), begin, end)

    # -- measuring -----------------------------------------------------------------------------------------------------

    def assess(self, pcm: npt.NDArray[np.float32], begin: int, end: int) -> tuple[QualityState, float]:
        """State and RMS in dBFS of ``[n]`` model samples that span the source's samples ``[begin, end)``."""
        p = self._p
        found = measure(pcm, self._model_rate)
        if found.rms_dbfs < p.silence_dbfs:
            return "silence", found.rms_dbfs
        if self._clipped_share(begin, end) >= p.clipped_share:
            return "clipping", found.rms_dbfs
        if found.swing_db < p.steady_db:
            if found.band_dbfs >= p.loud_dbfs and found.flatness >= p.tonal_flatness:
                return "noisy", found.rms_dbfs
            if found.heart_db < p.heart_db:
                return "no-contact", found.rms_dbfs
        return "ok", found.rms_dbfs

    def _count_clips(self, hop: npt.NDArray[np.float32], begin: int) -> None:
        size = np.abs(hop)
        loudest = float(size.max(initial=0.0))
        self._peak = max(self._peak, loudest)
        clipped = 0
        if self._peak >= _SMALLEST_PEAK and loudest >= 0.98 * self._peak:  # else no sample reaches the threshold below
            high = size >= 0.985 * self._peak
            if high.any():
                flat = np.abs(np.diff(hop)) <= 1e-4 * self._peak
                clipped = int(np.count_nonzero(high[1:] & flat))
        self._clips.append((begin, begin + hop.size, clipped))
        oldest = begin - _MEMORY_S * self._source_rate
        while self._clips[0][1] < oldest:
            self._clips.popleft()

    def _clipped_share(self, begin: int, end: int) -> float:
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
