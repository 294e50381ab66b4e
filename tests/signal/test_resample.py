"""The resampler: right length, right place, no aliases, and the same bits whatever the block sizes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.signal.clock import convert_index
from edge_sdk.signal.resample import StreamResampler, resample

RATES = [4000, 8000, 11025, 16000, 44100, 48000, 96000]


def _streamed(samples: npt.NDArray[np.float32], rate: int, target: int, size: int) -> npt.NDArray[np.float32]:
    resampler = StreamResampler(rate, target)
    parts = [resampler.accept(samples[i : i + size]) for i in range(0, samples.size, size)]
    assert resampler.consumed == samples.size
    assert resampler.produced == sum(p.size for p in parts)
    return np.concatenate([*parts, resampler.flush()])


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("target", [4000, 16000])
@pytest.mark.parametrize("extra", [0, 1, 17])
def test_total_length_is_the_exact_ratio(rate: int, target: int, extra: int) -> None:
    samples = np.zeros(rate + extra, dtype=np.float32)
    assert resample(samples, rate, target).size == convert_index(samples.size, rate, target)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 40])
@pytest.mark.parametrize("rate", [4000, 8000, 44100])
def test_tiny_inputs_have_the_right_length_too(size: int, rate: int) -> None:
    out = resample(np.ones(size, dtype=np.float32), rate, 4000)
    assert out.size == convert_index(size, rate, 4000)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("size", [1, 37, 4096])
def test_block_sizes_change_no_bit(rate: int, size: int) -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, rate // 2).astype(np.float32)
    np.testing.assert_array_equal(_streamed(samples, rate, 4000, size), resample(samples, rate, 4000))


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 20_000), max_size=12), rate=st.sampled_from([8000, 11025, 44100]))
def test_ragged_blocks_change_no_bit(cuts: list[int], rate: int) -> None:
    samples = np.random.default_rng(2).normal(0, 0.1, 20_000).astype(np.float32)
    resampler = StreamResampler(rate, 4000)
    parts = [resampler.accept(block) for block in np.split(samples, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate([*parts, resampler.flush()]), resample(samples, rate, 4000))


def test_one_huge_block_equals_many() -> None:
    samples = np.random.default_rng(3).normal(0, 0.1, 300_000).astype(np.float32)  # more than one internal slice
    np.testing.assert_array_equal(resample(samples, 48000, 4000), _streamed(samples, 48000, 4000, 960))


@pytest.mark.parametrize("rate", RATES)
def test_delay_is_compensated(rate: int) -> None:
    time_s = np.arange(rate) / rate
    burst = np.exp(-(((time_s - 0.5) / 0.01) ** 2)).astype(np.float32)
    out = resample(burst, rate, 4000)
    centre = np.sum(np.arange(out.size) * out) / np.sum(out) / 4000
    assert centre == pytest.approx(0.5, abs=0.02 / 4000)
    assert int(np.argmax(out)) == 2000


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_keeps_amplitude_phase_and_frequency(rate: int) -> None:
    out = resample(np.sin(2 * np.pi * 440.0 * np.arange(rate) / rate).astype(np.float32), rate, 4000)
    expected = np.sin(2 * np.pi * 440.0 * np.arange(out.size) / 4000)
    np.testing.assert_allclose(out[400:-400], expected[400:-400], atol=2e-4)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000, 96000])
@pytest.mark.parametrize("tone_hz", [2300.0, 3100.0])
def test_what_lies_above_the_new_nyquist_is_gone(rate: int, tone_hz: float) -> None:
    tone = np.sin(2 * np.pi * tone_hz * np.arange(rate) / rate).astype(np.float32)
    alias = resample(tone, rate, 4000)[400:-400]
    assert 20 * np.log10(np.sqrt(np.mean(alias**2)) / np.sqrt(0.5)) < -90


def test_equal_rates_pass_through_untouched() -> None:
    samples = np.random.default_rng(4).normal(0, 1, 999).astype(np.float32)
    resampler = StreamResampler(4000, 4000)
    np.testing.assert_array_equal(resampler.accept(samples), samples)
    assert resampler.flush().size == 0


@pytest.mark.parametrize("rate", [4000, 8000, 44100])
def test_audio_is_held_back_for_less_than_half_a_second(rate: int) -> None:
    resampler = StreamResampler(rate, 4000)
    for _ in range(100):
        resampler.accept(np.zeros(rate // 50, dtype=np.float32))
        behind_s = resampler.consumed / rate - resampler.produced / 4000
        assert 0 <= behind_s <= 0.5


def test_flush_and_reset_start_over() -> None:
    samples = np.random.default_rng(5).normal(0, 0.1, 8000).astype(np.float32)
    resampler = StreamResampler(8000, 4000)
    resampler.accept(samples)
    resampler.flush()
    resampler.accept(samples[:1234])
    resampler.reset()
    again = np.concatenate((resampler.accept(samples), resampler.flush()))
    np.testing.assert_array_equal(again, resample(samples, 8000, 4000))


def test_two_streams_do_not_interact() -> None:
    samples = np.random.default_rng(6).normal(0, 0.1, 8000).astype(np.float32)
    one, other = StreamResampler(8000, 4000), StreamResampler(8000, 4000)
    parts = []
    for start in range(0, 8000, 500):
        parts.append(one.accept(samples[start : start + 500]))
        other.accept(-samples[start : start + 500])
    np.testing.assert_array_equal(np.concatenate([*parts, one.flush()]), resample(samples, 8000, 4000))


def test_impossible_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        StreamResampler(0, 4000)
