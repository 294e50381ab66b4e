"""Other devices, rooms and disturbances on log-mel frames: the waveform simulation's effects at a tenth of its cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.recipes.adventitious_settings import LogMelAugmentSection

Frames = npt.NDArray[np.float32]

_NEPER = float(np.log(10.0) / 10.0)  # natural log of power, a decibel
_CENTRE_HZ = 300.0


def mel_centres(spec: FrontEndSpec) -> npt.NDArray[np.float32]:
    """Centre of each band in hertz, ``[M]``."""
    low, high = (1127.0 * np.log1p(hz / 700.0) for hz in (spec.low_hz, spec.high_hz))
    mel = np.linspace(low, high, spec.mel_bins + 2)[1:-1]
    return np.asarray(700.0 * np.expm1(mel / 1127.0), dtype=np.float32)


class LogMelSimulator:
    """Draws a device and a room for a window of frames.

    Parameters
    ----------
    settings
        Strengths and probabilities.
    spec
        Bands and floor.
    hearts, poor, noise
        Frames ``[T, M]`` of what may be added.
    """

    def __init__(
        self,
        settings: LogMelAugmentSection,
        spec: FrontEndSpec,
        hearts: Sequence[npt.NDArray[np.float16]] = (),
        poor: Sequence[npt.NDArray[np.float16]] = (),
        noise: Sequence[npt.NDArray[np.float16]] = (),
    ) -> None:
        self._settings = settings
        self._hz = mel_centres(spec)
        self._slope = np.log(self._hz / _CENTRE_HZ)
        self._floor = float(np.log(spec.log_floor))
        self._low = slice(0, int(np.searchsorted(self._hz, 250.0)) + 1)  # of heart sounds
        self._breath = slice(int(np.searchsorted(self._hz, 100.0)), int(np.searchsorted(self._hz, 1000.0)) + 1)
        shares = ((hearts, settings.heart_p), (poor, settings.poor_p), (noise, settings.noise_p))
        self._banks = [(kept, p) for bank, p in shares if (kept := [f for f in bank if len(f) > 20])]

    def __call__(self, frames: Frames, random: np.random.Generator) -> Frames:
        """``[T, M]`` natural-log power → the same of another device."""
        s = self._settings
        if random.random() >= s.p:
            return frames
        for bank, probability in self._banks:
            if random.random() < probability:
                frames = np.logaddexp(frames, self._added(frames, bank, random))
        if random.random() < s.floor_p:
            frames = np.logaddexp(frames, self._hiss(frames, random))
        changed = frames + self._response(random) + _NEPER * random.uniform(-s.gain_db, s.gain_db)
        return np.maximum(changed, self._floor).astype(np.float32)

    def _added(
        self, frames: Frames, bank: Sequence[npt.NDArray[np.float16]], random: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        other = bank[int(random.integers(len(bank)))].astype(np.float32)
        begin = int(random.integers(0, len(other)))
        other = np.take(other, np.arange(begin, begin + len(frames)), axis=0, mode="wrap")
        level = np.percentile(frames[:, self._breath], 90) - np.percentile(other[:, self._breath], 90)
        return np.asarray(other + level + _NEPER * random.uniform(*self._settings.noise_db), dtype=np.float32)

    def _hiss(self, frames: Frames, random: np.random.Generator) -> npt.NDArray[np.float64]:
        level = np.percentile(frames, random.uniform(2.0, 60.0)) - random.uniform(0.0, 3.0)
        rough = random.normal(0.0, 0.35, frames.shape).astype(np.float32)
        return np.asarray(level + random.uniform(-1.5, 0.3) * self._slope + rough)

    def _response(self, random: np.random.Generator) -> npt.NDArray[np.float64]:
        """Response of a device in each band, natural log of power."""
        s = self._settings
        response = _NEPER * random.uniform(-s.tilt_db, s.tilt_db) * self._slope
        place = np.log(self._hz)
        for _ in range(int(random.integers(0, s.peaks + 1))):
            centre, width = random.uniform(np.log(60.0), np.log(1900.0)), random.uniform(0.1, 0.6)
            height = _NEPER * random.uniform(-s.peak_db, s.peak_db)
            response = response + height * np.exp(-0.5 * ((place - centre) / width) ** 2)
        if random.random() < s.low_pass_p:
            above = place - np.log(random.uniform(*s.low_pass_hz))
            response = response - np.maximum(0.0, above) * random.uniform(4.0, 16.0)
        if random.random() < s.high_pass_p:
            below = np.log(random.uniform(*s.high_pass_hz)) - place
            response = response - np.maximum(0.0, below) * random.uniform(2.0, 8.0)
        return np.asarray(response)
