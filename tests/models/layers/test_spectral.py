"""Gaussian smoothing of feature maps follows its options; the response curve shows it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from edge_sdk.errors import RecipeError
from edge_sdk.models.layers.spectral import GaussianBlend, GaussianOptions, gaussian_kernel, spectral_response


def _blend(**options: Any) -> GaussianBlend:
    return GaussianBlend(3, GaussianOptions(**options))


def test_the_kernel_sums_to_one_and_has_the_analytic_ratio() -> None:
    kernel = gaussian_kernel(3, 1.0)
    assert kernel.sum().item() == pytest.approx(1.0, abs=1e-6)
    assert (kernel[0, 1] / kernel[1, 1]).item() == pytest.approx(0.60653, abs=1e-4)  # exp(-1/2)


def test_constant_maps_pass_unchanged_to_the_very_edge() -> None:
    maps = torch.full((2, 3, 4, 9), 1.7)
    torch.testing.assert_close(_blend(kernel=5, rho=1.0)(maps), maps)


def test_rho_blends_between_the_map_and_its_smoothed_copy() -> None:
    maps = torch.randn(2, 3, 6, 9)
    blend = _blend(rho=0.25)
    torch.testing.assert_close(blend(maps), 0.75 * maps + 0.25 * blend.smooth(maps))
    torch.testing.assert_close(_blend(rho=0.0)(maps), maps)


def test_always_smooths_in_evaluation_and_train_only_does_not() -> None:
    maps = torch.randn(2, 3, 6, 9)
    assert not torch.equal(_blend(mode="always").eval()(maps), maps)
    train_only = _blend(mode="train_only", probability=1.0)
    assert not torch.equal(train_only.train()(maps), maps)
    assert torch.equal(train_only.eval()(maps), maps)
    assert torch.equal(_blend(mode="train_only", probability=0.0).train()(maps), maps)


def test_annealing_narrows_the_kernel_and_ends_in_the_identity() -> None:
    maps = torch.randn(1, 3, 8, 8)
    blend = _blend(mode="train_only", probability=1.0, anneal=True, rho=1.0).train()
    changes = []
    for epoch in (0, 8, 16, 60):
        blend.on_epoch(epoch)
        changes.append((blend(maps) - maps).abs().mean().item())
    assert changes == sorted(changes, reverse=True)
    assert blend.sigma == pytest.approx(0.9**30)
    assert changes[-1] == 0.0


def test_the_penalty_is_the_rough_share_of_the_map_and_is_taken_once() -> None:
    blend = _blend(rho=0.0, penalty=0.5).train()
    maps = torch.randn(2, 3, 6, 9, requires_grad=True)
    blend(maps)
    taken = blend.take_penalty()
    assert taken is not None
    rough = (maps - blend.smooth(maps)).square().mean() / maps.square().mean()
    torch.testing.assert_close(taken, 0.5 * rough)
    assert taken.requires_grad
    assert blend.take_penalty() is None
    blend.eval()(maps)
    assert blend.take_penalty() is None


def test_no_checkpoint_holds_the_kernel() -> None:
    assert not _blend().state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "sometimes"}, "train_only"),
        ({"kernel": 4}, "odd"),
        ({"stages": [0]}, "1, 2, 3, 4"),
        ({"rho": 1.5}, "0 to 1"),
        ({"sigma": 0}, "positive"),
        ({"anneal": True}, "train_only"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        GaussianOptions(**options)


def test_white_noise_has_a_flat_curve() -> None:
    noise = torch.randn(64, 32, 200, generator=torch.Generator().manual_seed(0))
    radius, curve = spectral_response(noise)
    assert (radius[0].item(), radius[-1].item()) == (0.0, 1.0)
    assert curve[0] == 0
    assert curve.abs().max() < 0.2


def test_smoothing_takes_high_frequencies_more_than_low_ones() -> None:
    noise = torch.randn(1, 3, 32, 50, generator=torch.Generator().manual_seed(0)).expand(8, -1, -1, -1)
    _, before = spectral_response(noise)
    _, after = spectral_response(_blend(rho=1.0)(noise))
    loss = before - after
    assert loss[-1] > 0.5
    assert loss[-1] > loss[len(loss) // 2] > loss[1]


def test_constant_maps_hold_nothing_but_the_mean() -> None:
    _, curve = spectral_response(torch.full((3, 8, 50), 2.0))
    assert curve[0] == 0
    assert curve[1:].max() < -20


@pytest.mark.parametrize(("cycles", "axis"), [(4, 0), (8, 1)])
def test_a_grating_peaks_at_its_share_of_its_own_axis_nyquist(cycles: int, axis: int) -> None:
    shape = (16, 32)  # 4 of 8 and 8 of 16 cycles: half the Nyquist frequency on either axis
    phase = 2 * torch.pi * cycles * torch.arange(shape[axis]) / shape[axis]
    grating = torch.cos(phase).reshape(-1, 1) if axis == 0 else torch.cos(phase)
    radius, curve = spectral_response(1e-3 + grating.expand(1, *shape), bins=9)
    assert radius[curve.argmax()] == 0.5


@pytest.mark.parametrize(("height", "width"), [(4, 25), (12, 79), (2, 6), (32, 200), (1, 3)])
def test_every_bin_of_any_grid_is_filled(height: int, width: int) -> None:
    _, curve = spectral_response(torch.randn(5, height, width))
    assert torch.isfinite(curve).all()


def test_maps_without_a_curve_are_refused() -> None:
    with pytest.raises(ValueError, match="axes"):
        spectral_response(torch.randn(8, 8))
    with pytest.raises(ValueError, match="single cell"):
        spectral_response(torch.randn(8, 1, 1))
    with pytest.raises(ValueError, match="allow 2 to 5"):
        spectral_response(torch.randn(3, 4, 8), bins=9)
