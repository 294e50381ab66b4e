"""How much the level of a stream varies from frame to frame, in the bands of breath sounds and of heart beats."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.signal.frames import frame_view

Samples: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]

_TINY = 1e-14  # added to energies before the logarithm
_FRAME_S = 0.064
_BREATH_HZ = (100.0, 1000.0)
_HEART_HZ = (30.0, 200.0)
_LEAST_FRAMES = 3.0  # a shorter stretch does not separate noise from breathing


class Bands(NamedTuple):
    """Frames of half their length apart, with a Hann window, and the energy of two bands in each."""

    window: Doubles  # [size]
    first: int  # bin of the spectrum
    sums: Samples  # [2 * bins, 2]: adds the squares of real and imaginary parts, from bin ``first`` on
    wide: slice  # bins from 100 Hz on


@lru_cache(maxsize=16)
def bands(sample_rate: int) -> Bands:
    """Constants at a rate in Hz."""
    size = max(8, round(_FRAME_S * sample_rate))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    frequencies = np.arange(size // 2 + 1) * sample_rate / size
    top = 0.45 * sample_rate
    breath, heart, wide = (
        slice(*np.searchsorted(frequencies, span).tolist())
        for span in ((_BREATH_HZ[0], min(_BREATH_HZ[1], top)), _HEART_HZ, (_BREATH_HZ[0], top))
    )
    first, last = min(breath.start, heart.start), max(breath.stop, heart.stop)
    sums = np.zeros((last - first, 2), dtype=np.float32)
    for column, band in enumerate((breath, heart)):
        sums[band.start - first : band.stop - first, column] = 1.0
    return Bands(window, first, np.repeat(sums, 2, axis=0), wide)


def flatness(samples: Samples, sample_rate: int) -> float:
    """Flatness of the mean spectrum of ``[n]`` samples above 100 Hz: 1 white, near 0 tonal or steep.

    ``n`` is at least a frame.
    """
    window, _, _, wide = bands(sample_rate)
    frames = frame_view(samples - samples.mean(dtype=np.float64), window.size, window.size // 2) * window  # [k, size]
    spectrum = np.fft.rfft(frames)[:, wide]
    power = (np.square(spectrum.real) + np.square(spectrum.imag)).mean(axis=0) + _TINY
    return float(np.exp(np.mean(np.log(power))) / np.mean(power))


class Modulation:
    """Levels of the frames of a stream, each computed once, and how much they vary between two samples.

    A constant offset of the samples changes nothing: a Hann window keeps it out of all bins that count.

    Parameters
    ----------
    sample_rate
        Hz.
    keep_s
        How far back the levels are kept.
    """

    def __init__(self, sample_rate: int, keep_s: float) -> None:
        self._bands = bands(sample_rate)
        self._size = self._bands.window.size
        self._hop = self._size // 2
        self._kept = round(keep_s * sample_rate / self._hop)
        self._levels: Doubles = np.zeros((2, 2 * self._kept))  # dB: breath sounds, heart beats
        self.reset()

    def reset(self) -> None:
        """Start over: the next sample has index 0."""
        self._held: list[Samples] = []
        self._held_size = 0
        self._frames = 0  # computed
        self._written = 0  # columns; the newest frame is in the last

    def accept(self, samples: Samples) -> None:
        """Take the next ``[n]`` samples; their frames are computed when they are asked for."""
        self._held.append(samples)
        self._held_size += samples.size

    def swing_db(self, begin: int, end: int) -> float:
        """Standard deviation of the levels at 100-1000 Hz of the frames within samples ``[begin, end)``."""
        return self._deviation(0, begin, end)

    def heart_db(self, begin: int, end: int) -> float:
        """The same at 30-200 Hz: heart beats."""
        return self._deviation(1, begin, end)

    def level_dbfs(self, begin: int, end: int) -> float:
        """Level at 100-1000 Hz."""
        found = self._between(0, begin, end)
        energy = float(np.mean(10.0 ** (0.1 * found))) if found.size else 0.0
        return float(10 * np.log10(energy / (0.1875 * self._size * self._size) + _TINY))  # Hann: 3/8, halved

    def _deviation(self, band: int, begin: int, end: int) -> float:
        found = self._between(band, begin, end)
        if end - begin < _LEAST_FRAMES * self._size or not found.size:
            return float("inf")
        found = found - np.add.reduce(found) / found.size
        return float(np.sqrt(found.dot(found) / found.size))

    def _between(self, band: int, begin: int, end: int) -> Doubles:
        self._compute()
        shift = self._written - self._frames  # column of frame 0
        first = max(0, shift + -(-begin // self._hop))
        return self._levels[band, first : max(first, shift + min(self._frames, (end - self._size) // self._hop + 1))]

    def _compute(self) -> None:
        count = 1 + (self._held_size - self._size) // self._hop
        if count < 1:
            return
        held = np.concatenate(self._held)
        self._held, self._held_size = [held[count * self._hop :].copy()], held.size - count * self._hop
        frames = frame_view(held, self._size, self._hop)
        for begin in range(0, count, self._kept):
            self._add(frames[begin : begin + self._kept])

    def _add(self, frames: Samples) -> None:
        window, first, sums, _ = self._bands
        spectrum = np.fft.rfft(frames * window)[:, first : first + len(sums) // 2].view(np.float64)
        power = np.square(spectrum, out=np.empty(spectrum.shape, dtype=np.float32), casting="same_kind")
        energies = (power @ sums).astype(np.float64)  # [k, 2]
        if self._written + len(energies) > 2 * self._kept:
            kept = min(self._written, self._kept)
            self._levels[:, :kept] = self._levels[:, self._written - kept : self._written]
            self._written = kept
        self._levels[:, self._written : self._written + len(energies)] = 10.0 * np.log10(energies.T + _TINY)
        self._written += len(energies)
        self._frames += len(energies)
