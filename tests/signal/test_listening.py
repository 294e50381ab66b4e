"""Listening filters: pass bands, time, blocks."""

from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.signal.listening import LISTENING_FILTERS, band_pass, filter_blocks

RATE = 4000


def filtered(samples: np.ndarray, name: str, size: int = 1000, rate: int = RATE) -> np.ndarray:
    blocks = [samples[i : i + size] for i in range(0, samples.size, size)]
    return np.concatenate(list(filter_blocks(blocks, name, rate)))


def gain_db(name: str, hz: float, rate: int = RATE) -> float:
    t = np.arange(2 * rate) / rate
    tone = np.sin(2 * np.pi * hz * t).astype(np.float32)
    out = filtered(tone, name, rate=rate)
    middle = slice(rate // 2, 3 * rate // 2)
    return float(20 * np.log10(np.std(out[middle]) / np.std(tone[middle])))


@pytest.mark.parametrize("rate", [4000, 8000, 44100])
@pytest.mark.parametrize(
    ("name", "kept", "removed"),
    [("bell", (50, 150), (400, 1500)), ("diaphragm", (150, 400), (40, 900)), ("extended", (50, 800), (1300,))],
)
def test_each_filter_keeps_its_band_and_removes_the_rest(
    name: str, kept: tuple[int, ...], removed: tuple[int, ...], rate: int
) -> None:
    assert all(abs(gain_db(name, hz, rate)) < 1.0 for hz in kept)
    assert all(gain_db(name, hz, rate) < -40.0 for hz in removed)


@pytest.mark.parametrize("name", LISTENING_FILTERS)
@pytest.mark.parametrize("length", [1, 7, 499, 500, 501, 5003])
def test_as_many_samples_come_out_as_go_in_whatever_the_blocks(name: str, length: int) -> None:
    samples = np.random.default_rng(1).standard_normal(length).astype(np.float32)
    whole = filtered(samples, name, size=length)
    assert whole.size == length
    for size in (1, 64, 1000) if length < 600 else (333, 1000):
        np.testing.assert_allclose(filtered(samples, name, size=size), whole, atol=1e-5)


def test_a_sound_stays_where_it_is_in_time() -> None:
    samples = np.zeros(2 * RATE, np.float32)
    t = np.arange(-200, 200) / RATE
    samples[3800:4200] = np.cos(2 * np.pi * 150 * t) * np.hanning(400)
    assert int(np.argmax(filtered(samples, "diaphragm"))) == 4000


def test_a_band_above_half_the_rate_ends_there() -> None:
    assert np.isfinite(band_pass(20.0, 1000.0, 1000)).all()
    assert abs(gain_db("extended", 300, 1000)) < 1.0
