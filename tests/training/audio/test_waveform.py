"""Published augmentations follow their settings, by their own coin and from the given random numbers alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.audio.waveform import augment_wave, spec_augment
from edge_sdk.training.recipes.objective_settings import PaperAugmentSection

RATE = 4000


def _random(seed: int = 0) -> Randomness:
    return Randomness(torch.Generator().manual_seed(seed))


def _tone(hz: float = 400.0, count: int = 8) -> Tensor:
    return 0.5 * torch.sin(2 * math.pi * hz * torch.arange(RATE) / RATE).repeat(count, 1)


def _pitch(wave: Tensor) -> Tensor:
    return torch.fft.rfft(wave).abs().argmax(dim=1).float()  # windows of one second: bins are hertz


def test_without_settings_nothing_changes_and_nothing_is_drawn() -> None:
    wave, random = _tone(), _random()
    features = torch.randn(2, 1, 48, 186)
    before = random.generator.get_state()
    assert augment_wave(wave, PaperAugmentSection(), random) is wave
    assert spec_augment(features, PaperAugmentSection(), random) is features
    assert torch.equal(before, random.generator.get_state())


def test_gain_and_gaussian_noise_have_the_published_strength() -> None:
    wave = _tone(count=400)
    section = PaperAugmentSection(gain_p=0.5, gaussian_p=0.5)
    changed = augment_wave(wave, section, _random())
    gain = (changed * wave).sum(dim=1) / (wave * wave).sum(dim=1)
    assert float(gain.min()) > 0.89 and float(gain.max()) < 1.11
    untouched = (gain - 1.0).abs() < 1e-5
    assert 0.4 < float(untouched.float().mean()) < 0.6
    residue = (changed - gain[:, None] * wave).std(dim=1)
    noisy = residue > 1e-5
    assert 0.4 < float(noisy.float().mean()) < 0.6
    assert float(residue[noisy].mean()) == pytest.approx(1e-4, rel=0.02)


def test_speed_moves_the_pitch() -> None:
    fast = augment_wave(_tone(), PaperAugmentSection(speed_p=1.0, speed=(1.1, 1.1)), _random())
    assert _pitch(fast).tolist() == [440.0] * 8


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_warp_moves_what_lies_below_the_bend_and_keeps_the_length(factor: float) -> None:
    section = PaperAugmentSection(vtlp_p=1.0, vtlp=(factor, factor))
    warped = augment_wave(_tone(600.0), section, _random())
    assert warped.shape == (8, RATE)
    assert (_pitch(warped) - 600.0 * factor).abs().max() <= 8.0  # a frame's bins are 7.8 Hz wide
    same = augment_wave(_tone(600.0), PaperAugmentSection(vtlp_p=1.0, vtlp=(1.0, 1.0)), _random())
    assert torch.allclose(same, _tone(600.0), atol=1e-5)


def test_loudness_and_noise_keep_to_their_ranges() -> None:
    loud = augment_wave(_tone(), PaperAugmentSection(loudness_p=1.0, loudness_db=(6.0, 6.0)), _random())
    assert torch.allclose(loud, _tone() * 10 ** (6 / 20), atol=1e-6)
    noisy = augment_wave(_tone(), PaperAugmentSection(noise_p=1.0, noise_share=(0.01, 0.01)), _random())
    assert float((noisy - _tone()).std()) == pytest.approx(0.005, rel=0.05)


def test_masks_are_bands_of_the_mean_no_wider_than_set() -> None:
    features = torch.randn(16, 1, 128, 798)
    masked = spec_augment(features, PaperAugmentSection(spec_p=1.0), _random())
    fill = features.mean(dim=(2, 3), keepdim=True)
    changed = masked != features
    assert torch.allclose(masked[changed], fill.expand_as(features)[changed])
    rows, columns = changed.all(dim=3).sum(dim=2), changed.all(dim=2).sum(dim=2)
    assert int(rows.max()) <= 2 * 48 and int(columns.max()) <= 2 * 160
    assert len(set(rows.flatten().tolist())) > 4, "each picture has its own bands"


def test_masks_fit_small_pictures_and_repeat_with_the_seed() -> None:
    features = torch.randn(4, 1, 12, 20)
    section = PaperAugmentSection(spec_p=1.0, spec_fill="zero")
    before = torch.get_rng_state()
    first, second = (spec_augment(features, section, _random(5)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(before, torch.get_rng_state())
    assert bool(((first == features) | (first == 0)).all())


def test_the_coin_of_the_reference_masks_84_of_100_batches() -> None:
    features, random = torch.randn(1, 1, 16, 32), _random()
    section = PaperAugmentSection(spec_p=0.841, spec_time_masks=2)
    spared = sum(spec_augment(features, section, random) is features for _ in range(1000))
    assert 120 < spared < 200
