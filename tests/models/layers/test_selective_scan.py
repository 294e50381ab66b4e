"""Every form of the recurrence is the recurrence, at any length and decay, with its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edge_sdk.models.layers.selective_scan import FORMS, ScanForm, linear_scan, sequential

LENGTHS = (1, 7, 100, 400, 1600, 6400, 8192)


def _walk(decay: Tensor, drive: Tensor) -> Tensor:
    """The definition, in float64 and without any of the code under test."""
    states = torch.empty_like(drive, dtype=torch.float64)
    state = torch.zeros(drive[..., 0, :].shape, dtype=torch.float64)
    for t in range(drive.shape[-2]):
        state = decay[..., t, :].double() * state + drive[..., t, :].double()
        states[..., t, :] = state
    return states


def _signals(length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Step sizes as softplus gives them, with bursts whose decay reaches exp(-20)."""
    random = torch.Generator().manual_seed(seed)
    step = torch.nn.functional.softplus(2 * torch.randn(2, length, 3, generator=random) - 3)
    step = torch.where(torch.rand(step.shape, generator=random) < 0.1, 20.0, step)
    return torch.exp(-step), step * torch.randn(step.shape, generator=random)


@pytest.mark.parametrize("length", LENGTHS)
def test_every_form_is_within_1e5_of_the_float64_walk(length: int) -> None:
    decay, drive = _signals(length)
    expected = _walk(decay, drive)
    scale = expected.abs().max().clamp_min(1.0)
    for form in FORMS:
        got = linear_scan(decay, drive, form)
        assert got.shape == drive.shape
        assert ((got.double() - expected).abs().max() / scale) <= 1e-5, form


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("exponent", [-20.0, -200.0, 0.0])
def test_strong_and_absent_decay_give_no_nan(form: ScanForm, exponent: float) -> None:
    drive = torch.randn(1, 1000, 2)
    decay = torch.full_like(drive, exponent).exp()  # exp(-200) is 0 in float32, exp(0) forgets nothing
    got = linear_scan(decay, drive, form)
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got.double(), _walk(decay, drive), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [1, 7, 30, 67])
def test_the_gradient_is_that_of_the_unrolled_recurrence(form: ScanForm, length: int) -> None:
    decay, drive = (x.double().requires_grad_() for x in _signals(length, seed=1))
    weights = torch.randn(drive.shape, dtype=torch.float64)
    loss = (sequential(decay, drive) * weights).sum()
    expected = torch.autograd.grad(loss, (decay, drive), materialize_grads=True)  # at length 1 no decay takes part
    got = torch.autograd.grad((linear_scan(decay, drive, form) * weights).sum(), (decay, drive))
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-8)


def test_gradients_pass_the_finite_difference_check() -> None:
    decay, drive = (x.double().requires_grad_() for x in _signals(29, seed=2))
    assert torch.autograd.gradcheck(lambda a, b: linear_scan(a, b, "chunked"), (decay, drive))


def test_nothing_but_the_states_is_kept_for_the_backward_pass() -> None:
    decay, drive = (x.requires_grad_() for x in _signals(400))
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        linear_scan(decay, drive)
    assert sum(x.numel() for x in kept) == 2 * drive.numel()


def test_the_form_and_equal_shapes_are_checked() -> None:
    decay, drive = _signals(7)
    with pytest.raises(ValueError, match="choose one of sequential, doubling, two_level, chunked"):
        linear_scan(decay, drive, "serial")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="same shape"):
        linear_scan(decay, drive[:, 1:])
