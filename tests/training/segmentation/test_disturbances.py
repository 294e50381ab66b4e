"""Other devices and rooms around a breath, and audio without one."""

from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.training.segmentation.disturbances import FrameDisturber, band_centres_hz, fitted
from edge_sdk.training.segmentation.excerpts import Annotation, log_mel_frames
from edge_sdk.training.segmentation.negatives import Negatives
from tests.support.tiny_segmentation import RATE, SPEC, bursts, hiss

FLOOR = float(np.log(SPEC.log_floor))


def _bank() -> dict[str, list[np.ndarray]]:
    random = np.random.default_rng(0)
    waves = [(0.1 * random.standard_normal(3 * RATE)).astype(np.float32) for _ in range(3)]
    heart, noise, voice = log_mel_frames(waves, SPEC)
    return {"heart": [heart], "noise": [noise], "voice": [voice]}


@pytest.mark.parametrize("seed", range(20))
def test_a_disturbed_breath_is_finite_repeatable_and_of_equal_length(seed: int) -> None:
    frames = bursts(seconds=6.0).frames
    kept, disturber = frames.copy(), FrameDisturber(SPEC, _bank())
    one, two = (disturber(frames, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(frames, kept)  # the recording itself stays as it is
    assert one.shape == frames.shape and one.dtype == np.float32 and np.isfinite(one).all()
    assert one.min() >= FLOOR - 1e-3  # as of the front end
    assert not np.array_equal(one, disturber(frames, np.random.default_rng(seed + 100)))


def test_disturbances_hide_few_breaths() -> None:
    """In most surroundings the breath stays louder than what is around it, in some only a little."""
    excerpt = bursts(Annotation.EXACT, seconds=6.0)
    level = excerpt.frames.mean(axis=1)
    breath = level > level.mean()
    disturber = FrameDisturber(SPEC, _bank())
    apart = []
    for seed in range(120):
        frames = disturber(excerpt.frames, np.random.default_rng(seed))
        apart.append(frames[breath].mean() - frames[~breath].mean())
    assert np.mean(np.array(apart) > 0.1) > 0.95 and np.std(apart) > 1.0
    assert min(apart) < 3.0 < max(apart)


def test_gains_and_responses_vary() -> None:
    frames = bursts(seconds=4.0).frames
    top = [FrameDisturber(SPEC, {})(frames, np.random.default_rng(seed)).max(axis=0) for seed in range(60)]
    assert np.std([row.mean() for row in top]) > 1.5  # 4.6 natural-log units of energy are 20 dB
    shape = np.array([row - row.mean() for row in top])
    assert np.median(shape.std(axis=0)) > 0.5


@pytest.mark.parametrize("length", [1, 2, 3, 10])
def test_the_shortest_frames_can_be_disturbed(length: int) -> None:
    frames = bursts(seconds=2.0).frames[:length]
    for seed in range(30):
        assert FrameDisturber(SPEC, _bank())(frames, np.random.default_rng(seed)).shape == frames.shape


def test_a_shorter_sound_is_repeated_and_a_longer_one_cut() -> None:
    frames = np.arange(20, dtype=np.float32).reshape(10, 2)
    random = np.random.default_rng(0)
    assert fitted(frames, 25, random).shape == (25, 2)
    np.testing.assert_array_equal(fitted(frames, 25, random)[10:20], frames)
    cuts = {float(fitted(frames, 4, random)[0, 0]) for _ in range(60)}
    assert cuts == {0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0}
    np.testing.assert_array_equal(fitted(frames, 10, random), frames)


def test_bands_are_where_a_tone_is_loudest() -> None:
    centres = band_centres_hz(SPEC)
    assert len(centres) == SPEC.mel_bins and (np.diff(centres) > 0).all()
    time_s = np.arange(RATE) / RATE
    for band in (3, 8, 13):
        tone = np.sin(2 * np.pi * centres[band] * time_s).astype(np.float32)
        assert abs(int(log_mel_frames([tone], SPEC)[0].mean(axis=0).argmax()) - band) <= 1


# -- audio without a cycle ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hearts", [(), (0.1 * hiss(3.0, 0.1, 0.9)[0],)])
@pytest.mark.parametrize("seconds", [0.5, 3.0, 16.0])
def test_negatives_are_audio_of_any_length(seconds: float, hearts: tuple[np.ndarray, ...]) -> None:
    made, samples = Negatives(RATE, hearts, seed=1), round(seconds * RATE)
    for seed in range(30):
        wave, again = (made.draw(samples, np.random.default_rng(seed)) for _ in range(2))
        assert wave.shape == (samples,) and wave.dtype == np.float32
        assert np.isfinite(wave).all() and np.abs(wave).max() <= 1.0
        np.testing.assert_array_equal(wave, again)


def test_negatives_are_of_many_kinds() -> None:
    """Silence, offsets, steady sounds, and bursts like those of voices, coughs and knocks."""
    made = Negatives(RATE, seed=1)
    crest, offset, level = [], [], []
    for seed in range(80):
        wave = made.draw(8 * RATE, np.random.default_rng(seed)).astype(np.float64)
        blocks = np.sqrt(np.square(wave - wave.mean()).reshape(-1, RATE // 10).mean(axis=1)) + 1e-9
        crest.append(np.log(np.percentile(blocks, 95) / np.percentile(blocks, 5)))
        offset.append(abs(wave.mean()))
        level.append(blocks.max())
    assert sum(value > 0.05 for value in offset) >= 3
    assert sum(value < 1e-2 for value in level) >= 5 and sum(value > 0.1 for value in level) >= 5
    assert sum(value < 0.3 for value in crest) >= 15 and sum(value > 2.0 for value in crest) >= 15


def test_another_seed_makes_other_voices() -> None:
    def drawn(seed: int) -> list[np.ndarray]:
        made = Negatives(RATE, seed=seed)
        return [made.draw(RATE, np.random.default_rng(k)) for k in range(12)]

    one, same, other = (drawn(seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
