"""Levels of the frames of a stream, and how much they vary."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edge_sdk.signal.modulation import Modulation, flatness

RATE = 4000
Samples = npt.NDArray[np.float32]


def noise(seconds: float, level: float = 0.1) -> Samples:
    return (np.random.default_rng(0).standard_normal(round(seconds * RATE)) * level).astype(np.float32)


def breathing(seconds: float) -> Samples:
    """Noise whose level rises and falls."""
    time_s = np.arange(round(seconds * RATE)) / RATE
    return (noise(seconds) * (0.1 + np.square(np.sin(np.pi * time_s / 2)))).astype(np.float32)


def modulation(samples: Samples, size: int = 320, keep_s: float = 30.0) -> Modulation:
    found = Modulation(RATE, keep_s)
    for begin in range(0, samples.size, size):
        found.accept(samples[begin : begin + size])
    return found


def _levels_db(samples: Samples, low_hz: float, high_hz: float) -> npt.NDArray[np.float64]:
    """Of all frames, one by one."""
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), 256)[::128]
    hz = np.fft.rfftfreq(256, 1 / RATE)
    power = np.abs(np.fft.rfft((frames - samples.mean()) * np.hanning(257)[:-1])) ** 2
    return np.asarray(10 * np.log10(power[:, (hz >= low_hz) & (hz < high_hz)].sum(axis=1)))


def test_it_is_the_deviation_of_the_levels_of_the_frames_inside() -> None:
    samples = breathing(10.0) + np.float32(0.3)  # an offset changes nothing
    found = modulation(samples)
    breath, heart = _levels_db(samples, 100, 1000), _levels_db(samples, 30, 200)
    for begin, end in ((0, samples.size), (5000, 13_000), (5001, 12_999), (8000, 8768)):
        inside = slice(-(-begin // 128), (end - 256) // 128 + 1)
        assert found.swing_db(begin, end) == pytest.approx(np.std(breath[inside]), abs=1e-3)
        assert found.heart_db(begin, end) == pytest.approx(np.std(heart[inside]), abs=1e-3)
        level = 10 * np.log10(np.mean(10 ** (breath[inside] / 10)) / (0.1875 * 256**2))
        assert found.level_dbfs(begin, end) == pytest.approx(level, abs=1e-3)


def test_blocks_and_the_time_of_the_question_change_nothing() -> None:
    samples = breathing(20.0)
    often, seldom = Modulation(RATE, 30.0), modulation(samples, size=samples.size)
    for begin in range(0, samples.size, 77):
        often.accept(samples[begin : begin + 77])
        often.swing_db(0, begin)
    for span in ((0, 80_000), (70_000, 79_999)):
        assert often.swing_db(*span) == pytest.approx(seldom.swing_db(*span), abs=1e-5)


def test_old_frames_are_forgotten_and_the_newest_stay_right() -> None:
    samples = breathing(40.0)
    short, long = modulation(samples, keep_s=5.0), modulation(samples, keep_s=60.0)
    for end in (samples.size, samples.size - 8000):
        assert short.swing_db(end - 8000, end) == pytest.approx(long.swing_db(end - 8000, end))
    short.reset()
    short.accept(samples[:8000])
    assert short.swing_db(0, 8000) == pytest.approx(modulation(samples[:8000]).swing_db(0, 8000))


@pytest.mark.parametrize("span", [(0, 767), (0, 0), (30_000, 40_000), (100, 50)])
def test_a_stretch_that_is_too_short_or_not_there_has_no_deviation(span: tuple[int, int]) -> None:
    assert modulation(noise(5.0)).swing_db(*span) == float("inf")


def test_flatness_tells_noise_from_a_tone() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(8000) / RATE).astype(np.float32)
    assert flatness(tone, RATE) < 0.01 < 0.9 < flatness(noise(2.0), RATE)
