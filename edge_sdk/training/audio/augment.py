"""Batched simulation of other devices, rooms and patients on waveforms, and SpecAugment on features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from edge_sdk.training.recipes.recipe import AugmentSection

_CONTROL_POINTS = 10  # of the random equaliser, log-spaced
_CONTROL_HZ = (40.0, 2000.0)
_EPS = 1e-12


@dataclass(frozen=True)
class Randomness:
    """Draws on one generator, so that an epoch is a function of its seed alone."""

    generator: torch.Generator

    def uniform(self, count: int, low: float, high: float) -> Tensor:
        """``[count]`` from U(low, high)."""
        return low + (high - low) * torch.rand(count, generator=self.generator)

    def log_uniform(self, count: int, low: float, high: float) -> Tensor:
        """``[count]``, uniform in the logarithm."""
        return torch.exp(self.uniform(count, math.log(low), math.log(high)))

    def normal(self, *shape: int) -> Tensor:
        """Standard normal of ``shape``."""
        return torch.randn(*shape, generator=self.generator)

    def coin(self, count: int, probability: float) -> Tensor:
        """``[count]`` of 0.0 / 1.0."""
        return (torch.rand(count, generator=self.generator) < probability).float()

    def integers(self, count: int, low: int, high: int) -> Tensor:
        """``[count]`` whole numbers from low to high - 1."""
        return torch.randint(low, high, (count,), generator=self.generator)


def rms(wave: Tensor) -> Tensor:
    """``[B, N]`` → ``[B, 1]`` root mean square, never zero."""
    return torch.sqrt(wave.pow(2).mean(dim=1, keepdim=True) + _EPS)


def _decibels(values: Tensor) -> Tensor:
    return torch.pow(10.0, values / 20.0)


def _mix(wave: Tensor, other: Tensor, level: Tensor) -> Tensor:
    """Add ``other`` at ``level`` [B] times the RMS of ``wave``."""
    return wave + other / rms(other) * rms(wave) * level[:, None]


class DeviceSimulator:
    """Applies the waveform part of an ``AugmentSection``.

    Parameters
    ----------
    settings : AugmentSection
        Strengths and probabilities.
    rate_hz : int
        Rate of the waveforms.
    samples : int
        Their length N.
    """

    def __init__(self, settings: AugmentSection, rate_hz: int, samples: int) -> None:
        self.settings = settings
        self._samples = samples
        self._hz = torch.fft.rfftfreq(samples, 1.0 / rate_hz)  # [F]
        points = torch.linspace(math.log(_CONTROL_HZ[0]), math.log(_CONTROL_HZ[1]), _CONTROL_POINTS)
        log_hz = torch.log(self._hz.clamp(min=20.0))
        upper = torch.searchsorted(points, log_hz).clamp(1, _CONTROL_POINTS - 1)
        share = ((log_hz - points[upper - 1]) / (points[upper] - points[upper - 1])).clamp(0.0, 1.0)
        self._interpolate = torch.zeros(_CONTROL_POINTS, self._hz.numel())  # [points, F]
        columns = torch.arange(self._hz.numel())
        self._interpolate[upper - 1, columns] = 1.0 - share
        self._interpolate[upper, columns] = share

    def __call__(self, wave: Tensor, noise: Tensor | None, heart: Tensor | None, random: Randomness) -> Tensor:
        """Return a new ``[B, N]``; ``noise`` and ``heart`` are raw recordings of the same shape, or None."""
        settings, count = self.settings, len(wave)
        if noise is not None:
            level = _decibels(-random.uniform(count, *settings.noise_snr_db)) * random.coin(count, settings.noise_p)
            wave = _mix(wave, noise, level)
        if heart is not None:
            level = _decibels(random.uniform(count, *settings.heart_db)) * random.coin(count, settings.heart_p)
            wave = _mix(wave, heart, level)
        response = _decibels(self.response_db(count, random).clamp(-80.0, 40.0))  # [B, F]
        filtered = torch.fft.irfft(torch.fft.rfft(wave) * response, n=self._samples)
        wave = filtered * (rms(wave) / rms(filtered))
        wave = _mix(wave, self._hiss(count, random), self._hiss_level(count, random))
        wave = wave * _decibels(random.uniform(count, -settings.gain_db, settings.gain_db))[:, None]
        return (wave.clamp(-1.0, 1.0) * 32768.0).round() / 32768.0  # the converter of the device

    def response_db(self, count: int, random: Randomness) -> Tensor:
        """``[count, F]`` random frequency responses: equaliser and tilt, low-pass, high-pass."""
        s = self.settings
        points = random.normal(count, _CONTROL_POINTS) * s.eq_db * random.uniform(count, 0.0, 1.0)[:, None]
        points = points + random.normal(count, 1) * s.tilt_db * torch.linspace(-1.0, 1.0, _CONTROL_POINTS)
        response = points @ self._interpolate
        order = random.integers(count, 1, 6)[:, None]
        cut = random.log_uniform(count, *s.low_pass_hz)[:, None]
        low = 10.0 * torch.log10(1.0 + (self._hz / cut) ** (2 * order))
        response = response - random.coin(count, s.low_pass_p)[:, None] * low
        order = random.integers(count, 1, 4)[:, None]
        cut = random.log_uniform(count, *s.high_pass_hz)[:, None]
        high = 10.0 * torch.log10(1.0 + (cut / self._hz.clamp(min=1.0)) ** (2 * order))
        return response - random.coin(count, s.high_pass_p)[:, None] * high

    def _hiss(self, count: int, random: Randomness) -> Tensor:
        """Noise between white and pink-and-steeper: amplitude ∝ f ** -U(0, 1)."""
        white = torch.fft.rfft(random.normal(count, self._samples))
        colour = (self._hz.clamp(min=30.0) / 500.0) ** -random.uniform(count, 0.0, 1.0)[:, None]
        return torch.fft.irfft(white * colour, n=self._samples)

    def _hiss_level(self, count: int, random: Randomness) -> Tensor:
        s = self.settings
        return _decibels(-random.uniform(count, *s.hiss_snr_db)) * random.coin(count, s.hiss_p)


def mask_features(features: Tensor, settings: AugmentSection, random: Randomness) -> Tensor:
    """SpecAugment (arXiv:1904.08779): zero bands of bins and of frames of ``[B, 1, M, T]``."""
    for _ in range(settings.masks):
        for axis, share in ((2, settings.mask_bins), (3, settings.mask_frames)):
            extent = features.shape[axis]
            width = random.integers(len(features), 0, int(extent * share) + 1)[:, None]
            start = (random.uniform(len(features), 0.0, 1.0)[:, None] * (extent - width)).long()
            index = torch.arange(extent)[None]
            masked = (index >= start) & (index < start + width)  # [B, extent]
            shape = [len(features), 1, 1, 1]
            shape[axis] = extent
            features = features.masked_fill(masked.view(shape).to(features.device), 0.0)
    return features
