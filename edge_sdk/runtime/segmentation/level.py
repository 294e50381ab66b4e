"""The level of breath sounds over time: band energy of short frames, in decibels, smoothed by an exact running mean."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

_FLOOR = 1e-11  # added to the energy: below 16-bit quantisation noise in the band


@dataclass(frozen=True, slots=True)
class EnvelopeParams:
    """Settings of the envelope segmenter, tuned on SPRSound ``train`` and on simulated adults.

    Shares are of the way from floor to peak.
    """

    low_hz: float = 200.0  # band that is listened to: above most of the heart
    high_hz: float = 800.0  # cut at 0.45 x the rate
    hop_s: float = 0.02  # a frame is two hops
    smooth_s: float = 0.58  # running mean; crackles and heart beats vanish in it
    warm_s: float = 0.1  # ignored at the start
    floor_rise_db_s: float = 0.5
    floor_fall_db_s: float = 40.0
    peak_rise_db_s: float = 150.0
    peak_fall_db_s: float = 24.0
    range_db: float = 8.0  # smallest distance of peak and floor
    on: float = 0.6  # share at which a hump begins
    off: float = 0.02  # share at which it ends
    hold_s: float = 0.04  # and stays for
    back_s: float = 0.3  # a beginning is traced back to the floor by at most this
    split: float = 0.15  # share that a valley must be deep to part two humps
    split_after_s: float = 0.1  # earliest
    split_rise_s: float = 0.06  # the rise out of the valley must have lasted
    longest_s: float = 6.0  # longer humps are cut
    shift_s: float = 0.175  # annotators begin and end a breath later than the smoothed level does
    contrast_db: float = 6.5  # lower humps are no breaths
    shortest_s: float = 0.35  # no breath is shorter
    typical_share: float = 0.75  # nor shorter than this share of the median of the last breaths,
    shortest_cap_s: float = 0.8  # as far as that is below this, which also holds for the first breaths
    pair_drop_db: float = 5.0  # an expiration follows its inspiration at once, and is weaker by this,
    pair_shallow: float = 0.7  # or the valley between them stays above this share
    pair_first_s: float = 0.8  # the inspiration lasts at least
    pair_second_s: float = 0.5  # the expiration lasts at least
    pair_ratio: float = 2.5  # the expiration lasts at most so many times the inspiration
    pair_longest_s: float = 6.0  # both together
    pair_pause_s: float = 0.1  # the inspiration follows a pause of at least this
    weak_after_s: float = 6.0  # sound without any breath for so long gives a breath of low confidence
    weak_length_s: float = 3.0
    pause_db: float = 6.0  # unless it is this much below the breaths before: then it is a pause
    silence_db: float = -100.0  # band level below which there is no sound at all

    def frames(self, seconds: float) -> int:
        """Seconds in frames."""
        return round(seconds / self.hop_s)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EnvelopeParams:
        """Build from a mapping; unknown keys and values that are no numbers raise ``ValueError``."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"segmenter: unknown params {unknown}; this SDK may be older than the file")
        wrong = sorted(k for k, v in values.items() if isinstance(v, bool) or not isinstance(v, (int, float)))
        if wrong:
            raise ValueError(f"segmenter: params {wrong} must be numbers")
        params = cls(**{name: float(value) for name, value in values.items()})
        if not (0 < params.hop_s <= 0.1 and params.smooth_s >= params.hop_s and 0 <= params.low_hz < params.high_hz):
            raise ValueError("segmenter: need 0 < hop_s <= 0.1, smooth_s >= hop_s and 0 <= low_hz < high_hz")
        return params


class BandLevel:
    """Samples → energy of the band in dBFS, a value a hop of ``hop_samples``; a frame is two hops, Hann-windowed."""

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
        # In float64: float32 would let a large constant offset leak into the band above a faint breath.
        self._head, self._tail = basis[: self.hop_samples], basis[self.hop_samples :]  # [hop, 2 * bins] each
        self.reset()

    def reset(self) -> None:
        """Forget everything heard so far."""
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
    """Mean of the last values in integer thousandths: exact, so that hours of sound leave no rounding behind."""

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
