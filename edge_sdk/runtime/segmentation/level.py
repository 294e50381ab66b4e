"""The band level of breath sounds: energy of short frames in decibels, smoothed by an exact running mean."""

from __future__ import annotations

from collections import deque
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from edge_sdk.settings import NonNegative, Settings

_FLOOR = 1e-11  # added to the energy: below 16-bit quantisation noise in the band


class EnvelopeParams(Settings, frozen=True):
    """Settings of the envelope segmenter, tuned on SPRSound ``train`` and on simulated adults.

    Shares are of the way from floor to peak.
    """

    title: ClassVar[str] = "segmenter"

    low_hz: NonNegative = 200.0  # band of the level: above most of the heart
    high_hz: float = 800.0  # cut at 0.45 x the rate
    hop_s: Annotated[float, Meta(gt=0, le=0.1)] = 0.02  # a frame is two hops
    smooth_s: float = 0.58  # running mean; it removes crackles and heart beats
    warm_s: float = 0.1  # ignored at the start
    floor_rise_db_s: float = 0.5
    floor_fall_db_s: float = 40.0
    peak_rise_db_s: float = 150.0
    peak_fall_db_s: float = 24.0
    range_db: float = 8.0  # smallest distance of peak and floor
    on: float = 0.6  # share at which a peak begins
    off: float = 0.02  # share at which it ends,
    hold_s: float = 0.04  # if the level stays below for so long
    back_s: float = 0.3  # the begin is traced back to the floor by at most this
    split: float = 0.15  # depth of a valley that separates two peaks
    split_after_s: float = 0.1  # earliest
    split_rise_s: float = 0.06  # the rise out of the valley must have lasted
    longest_s: float = 6.0  # longer peaks are cut
    shift_s: float = 0.175  # annotated cycles begin and end later than the smoothed level does
    contrast_db: float = 6.5  # lower peaks are no cycles
    shortest_s: float = 0.35  # no cycle is shorter
    typical_share: float = 0.75  # nor shorter than this share of the median of the last cycles,
    shortest_cap_s: float = 0.8  # up to this limit, which is also that of the first cycles
    pair_drop_db: float = 5.0  # an expiration follows its inspiration without a pause and is weaker by this,
    pair_shallow: float = 0.7  # or the valley between them stays above this share
    pair_first_s: float = 0.8  # the inspiration lasts at least
    pair_second_s: float = 0.5  # the expiration lasts at least
    pair_ratio: float = 2.5  # the expiration lasts at most so many times the inspiration
    pair_longest_s: float = 6.0  # both together
    pair_pause_s: float = 0.1  # the inspiration follows a pause of at least this
    weak_after_s: float = 6.0  # audio without a peak for so long gives a cycle of low confidence
    weak_length_s: float = 3.0
    pause_db: float = 6.0  # unless it is this much below the cycles before: then it is a pause
    silence_db: float = -100.0  # band level below which there is silence

    def frames(self, seconds: float) -> int:
        """Seconds in frames."""
        return round(seconds / self.hop_s)

    def _problem(self) -> str | None:
        if self.smooth_s >= self.hop_s and self.low_hz < self.high_hz:
            return None
        return "need smooth_s >= hop_s and low_hz < high_hz"


class BandLevel:
    """Samples → band energy in dBFS, one value per hop of ``hop_samples``; a frame is two hops, Hann-windowed."""

    def __init__(self, sample_rate: int, params: EnvelopeParams) -> None:
        self.hop_samples = max(1, round(params.hop_s * sample_rate))
        size = 2 * self.hop_samples
        frequencies = np.arange(size // 2 + 1) * sample_rate / size
        high_hz = min(params.high_hz, 0.45 * sample_rate)
        low_hz = min(params.low_hz, 0.5 * high_hz)
        bins = np.flatnonzero((frequencies >= low_hz) & (frequencies < high_hz))
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        angle = 2 * np.pi * np.outer(np.arange(size), bins) / size
        basis = np.concatenate((np.cos(angle), np.sin(angle)), axis=1) * window[:, None] * (2.0 / size)
        # In float64: float32 would leak a large constant offset into the band, above quiet breathing.
        self._head, self._tail = basis[: self.hop_samples], basis[self.hop_samples :]  # [hop, 2 * bins] each
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self._carry: npt.NDArray[np.float32] = np.zeros(0, dtype=np.float32)

    def accept(self, samples: npt.NDArray[np.float32]) -> list[float]:
        """Take ``[n]`` samples; return the level in dB of every frame that is complete now."""
        held = np.concatenate((self._carry, samples))
        count = held.size // self.hop_samples - 1  # frames
        if count < 1:
            self._carry = held
            return []
        hops = held[: (count + 1) * self.hop_samples].reshape(count + 1, self.hop_samples).astype(np.float64)
        spectrum = hops[:-1] @ self._head + hops[1:] @ self._tail  # [count, 2 * bins]
        self._carry = held[count * self.hop_samples :]
        energy = np.einsum("ij,ij->i", spectrum, spectrum)
        levels: list[float] = (10.0 * np.log10(energy + _FLOOR)).tolist()
        return levels


class RunningMean:
    """Mean of the last values in integer thousandths: exact, so that rounding errors do not add up over hours."""

    def __init__(self, length: int) -> None:
        self.length = max(1, length)
        self.reset()

    def reset(self) -> None:
        """Forget all values."""
        self._values: deque[int] = deque()
        self._sum = 0

    def push(self, value: float) -> float:
        """Add a value; return the mean of the last ``length`` (fewer at the start)."""
        thousandths = round(value * 1000)
        self._values.append(thousandths)
        self._sum += thousandths
        if len(self._values) > self.length:
            self._sum -= self._values.popleft()
        return self._sum / (1000 * len(self._values))
