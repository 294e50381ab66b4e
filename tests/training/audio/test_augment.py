"""The device simulation follows its settings, and changes nothing when they are zero."""

from __future__ import annotations

import msgspec
import pytest
import torch

from edge_sdk.training.audio.augment import DeviceSimulator, Randomness, mask_features, rms
from edge_sdk.training.classification.batch import mixup
from edge_sdk.training.classification.objectives.losses import soft_cross_entropy
from edge_sdk.training.classification.objectives.targets import smooth_targets
from edge_sdk.training.recipes.recipe import AugmentSection

RATE, SAMPLES = 4000, 4000
OFF = AugmentSection(
    noise_p=0.0, heart_p=0.0, eq_db=0.0, tilt_db=0.0, low_pass_p=0.0, high_pass_p=0.0, hiss_p=0.0, gain_db=0.0
)


def _random(seed: int = 0) -> Randomness:
    return Randomness(torch.Generator().manual_seed(seed))


def _wave(count: int = 8) -> torch.Tensor:
    return _random(7).normal(count, SAMPLES) * 0.05


def _simulate(
    settings: AugmentSection, wave: torch.Tensor, seed: int = 0, others: dict[str, torch.Tensor] | None = None
) -> torch.Tensor:
    others = others or {}
    simulator = DeviceSimulator(settings, RATE, wave.shape[1])
    return simulator(wave, others.get("noise"), others.get("heart"), _random(seed))


def _band_energy(wave: torch.Tensor, low: float, high: float) -> torch.Tensor:
    hz = torch.fft.rfftfreq(wave.shape[1], 1 / RATE)
    power = torch.fft.rfft(wave).abs() ** 2
    return power[:, (hz >= low) & (hz < high)].sum(dim=1)


def test_all_off_returns_the_wave_to_16_bit_precision() -> None:
    wave = _wave()
    torch.testing.assert_close(_simulate(OFF, wave), wave, atol=2e-5, rtol=0)


def test_same_randomness_gives_the_same_devices_and_another_seed_others() -> None:
    wave = _wave()
    settings = AugmentSection()
    assert torch.equal(_simulate(settings, wave, 1), _simulate(settings, wave, 1))
    assert not torch.equal(_simulate(settings, wave, 1), _simulate(settings, wave, 2))


def test_output_stays_within_full_scale_on_the_16_bit_grid() -> None:
    loud = _simulate(msgspec.structs.replace(AugmentSection(), gain_db=40.0), _wave() * 10)
    assert loud.abs().max() <= 1.0
    assert torch.equal(loud * 32768, (loud * 32768).round())


def test_low_pass_takes_the_top_and_high_pass_the_bottom() -> None:
    wave = _wave()
    low = _simulate(msgspec.structs.replace(OFF, low_pass_p=1.0, low_pass_hz=(400.0, 401.0)), wave)
    high = _simulate(msgspec.structs.replace(OFF, high_pass_p=1.0, high_pass_hz=(200.0, 201.0)), wave)
    top, bottom = (1200.0, 2000.0), (0.0, 60.0)
    assert (_band_energy(low, *top) < 0.35 * _band_energy(wave, *top)).all()
    assert (_band_energy(high, *bottom) < 0.35 * _band_energy(wave, *bottom)).all()
    torch.testing.assert_close(rms(low), rms(wave), rtol=0.02, atol=0)  # level is the gain's business


@pytest.mark.parametrize(("name", "probability"), [("noise", "noise_p"), ("heart", "heart_p")])
def test_interference_is_added_at_the_requested_level(name: str, probability: str) -> None:
    span = {"noise": "noise_snr_db", "heart": "heart_db"}[name]
    settings = msgspec.structs.replace(OFF, **{probability: 1.0, span: (0.0, 1e-6)})
    wave, other = _wave(), torch.sin(torch.arange(SAMPLES) * 0.3).expand(8, -1)
    added = _simulate(settings, wave, others={name: other})
    # equal powers of two independent signals add up, and the filter stage keeps that level
    torch.testing.assert_close(rms(added), rms(wave) * 2**0.5, rtol=0.05, atol=0)


def test_masks_blank_bands_and_leave_the_rest() -> None:
    picture = torch.ones(16, 1, 48, 100)
    masked = mask_features(picture, AugmentSection(), _random())
    share = (masked == 0).float().mean(dim=(1, 2, 3))
    assert share.max() > 0.1
    assert share.max() < 1 - (1 - 0.167) ** 2 * (1 - 0.125) ** 2 + 0.01
    assert set(masked.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(mask_features(picture, msgspec.structs.replace(AugmentSection(), masks=0), _random()), picture)


def test_soft_targets_sum_to_one_and_reduce_to_cross_entropy() -> None:
    labels = torch.tensor([0, 3, 1])
    assert torch.allclose(smooth_targets(labels, 4, 0.1).sum(dim=1), torch.ones(3))
    logits = torch.randn(3, 4)
    expected = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(soft_cross_entropy(logits, smooth_targets(labels, 4, 0.0)), expected)


def test_mixup_keeps_targets_distributions() -> None:
    features, targets = mixup(torch.randn(8, 1, 4, 4), smooth_targets(torch.arange(8) % 4, 4, 0.0), _random(3))
    assert features.shape == (8, 1, 4, 4)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(8))
