"""The low-latency resampler: the output of soxr within the band, 6 ms after the input."""

from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.signal.low_latency_resample import LowLatencyResampler
from edge_sdk.signal.resample import resample
from tests.runtime.conftest import Samples

RATES = (8000, 11025, 16000, 44100, 48000, 2000)


def band_limited(rate: int, seconds: float = 2.0) -> Samples:
    """Noise below 0.42 of the lower rate."""
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(round(rate * seconds)))
    spectrum[np.fft.rfftfreq(round(rate * seconds), 1 / rate) > 0.42 * min(rate, 4000)] = 0
    return np.asarray(np.fft.irfft(spectrum), dtype=np.float32)


@pytest.mark.parametrize("rate", RATES)
def test_it_agrees_with_soxr_in_the_band(rate: int) -> None:
    audio, resampler = band_limited(rate), LowLatencyResampler(rate, 4000)
    found = np.concatenate((resampler.accept(audio), resampler.flush()))
    expected = resample(audio, rate, 4000)
    assert found.size == expected.size
    assert np.abs(found - expected)[200:-200].max() < 1e-3


@pytest.mark.parametrize("rate", RATES)
def test_any_blocks_give_the_same_samples_soon(rate: int) -> None:
    audio, rng = band_limited(rate), np.random.default_rng(2)
    resampler = LowLatencyResampler(rate, 4000)
    parts, at, held = [], 0, 0.0
    while at < audio.size:
        size = int(rng.integers(0, 900))
        parts.append(resampler.accept(audio[at : at + size]))
        at = min(at + size, audio.size)
        held = max(held, at / rate - sum(map(len, parts)) / 4000)
    parts.append(resampler.flush())
    whole = np.concatenate((resampler.accept(audio), resampler.flush()))
    assert np.abs(np.concatenate(parts) - whole).max() < 1e-5
    assert held < 0.012 if rate < 4000 else held < 0.006


def test_what_would_fold_into_the_band_is_gone() -> None:
    tone = np.sin(2 * np.pi * 2300 * np.arange(8000) / 8000).astype(np.float32)
    assert np.abs(LowLatencyResampler(8000, 4000).accept(tone)[100:]).max() < 10 ** (-60 / 20)


def test_equal_rates_pass_through() -> None:
    audio, resampler = band_limited(4000), LowLatencyResampler(4000, 4000)
    assert np.array_equal(resampler.accept(audio), audio) and resampler.flush().size == 0
    assert resampler.delay_samples == 0
    with pytest.raises(ValueError, match="positive"):
        LowLatencyResampler(0, 4000)
