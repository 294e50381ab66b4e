"""Sharpness-aware steps are the analytic ones, and nothing perturbed ever gets out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edge_sdk.errors import CheckpointError
from edge_sdk.training.loop.optim import Replay, frozen_batch_norm
from edge_sdk.training.loop.sam import SAM

CURVATURE = torch.tensor([1.0, 10.0, 0.1], dtype=torch.float64)
START = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
RATE, RHO = 0.03, 0.2


def _quadratic(weight: Tensor) -> Tensor:
    return 0.5 * (CURVATURE * weight**2).sum()


def _step(adaptive: bool) -> Tensor:
    weight = nn.Parameter(START.clone())
    sam = SAM(torch.optim.SGD([weight], lr=RATE), RHO, adaptive=adaptive)
    _quadratic(weight).backward()
    assert sam.first_step()
    _quadratic(weight).backward()
    assert sam.second_step()
    return weight.detach()


def test_sam_takes_the_analytic_step_on_a_quadratic() -> None:
    gradient = CURVATURE * START
    climbed = START + RHO * gradient / gradient.norm()
    expected = START - RATE * CURVATURE * climbed
    assert torch.allclose(_step(adaptive=False), expected, atol=1e-7)
    assert not torch.allclose(START - RATE * gradient, expected, atol=1e-3)  # plain descent would not do


def test_asam_takes_the_analytic_step_on_a_quadratic() -> None:
    gradient = CURVATURE * START
    climbed = START + RHO * START**2 * gradient / (START.abs() * gradient).norm()
    assert torch.allclose(_step(adaptive=True), START - RATE * CURVATURE * climbed, atol=1e-7)


def test_asam_does_not_see_a_rescaling_of_the_weights() -> None:
    gradient, scale = CURVATURE * START, torch.tensor([5.0, 0.2, 3.0], dtype=torch.float64)
    lengths = []
    for weight, slope in ((START, gradient), (START * scale, gradient / scale)):
        parameter = nn.Parameter(weight.clone())
        parameter.grad = slope.clone()
        sam = SAM(torch.optim.SGD([parameter], lr=RATE), RHO, adaptive=True)
        sam.first_step()
        lengths.append(((parameter.detach() - weight) / weight, slope))
        sam.restore()
    assert torch.allclose(lengths[0][0], lengths[1][0], atol=1e-7)


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def _loss(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).pow(2).mean()


def test_second_pass_leaves_running_statistics_alone() -> None:
    model, x = _network(), torch.randn(16, 6)
    model.train()
    sam = SAM(torch.optim.AdamW(model.parameters(), lr=1e-2), 0.05)
    _loss(model, x).backward()
    sam.first_step()
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm1d) and norm.running_mean is not None
    before = {name: value.clone() for name, value in norm.named_buffers()}
    with frozen_batch_norm(model):
        loss = _loss(model, x)
        loss.backward()
    sam.second_step()
    assert all(torch.equal(value, before[name]) for name, value in norm.named_buffers())
    _loss(model, x)
    assert not torch.equal(norm.running_mean, before["running_mean"]), "outside the context it learns again"


@pytest.mark.parametrize("bad_pass", [1, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_skips_the_step_and_is_counted(bad_pass: int, value: float) -> None:
    model, x = _network(), torch.randn(16, 6)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    sam = SAM(optimiser, 0.05)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for number, step in ((1, sam.first_step), (2, sam.second_step)):
        _loss(model, x).backward()
        if number == bad_pass:
            next(model.parameters()).grad[0, 0] = value  # type: ignore[index]
        step()
    assert sam.skipped == 1 and not sam.perturbed and not optimiser.state
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    _loss(model, x).backward()
    sam.first_step()
    _loss(model, x).backward()
    assert sam.second_step(), "the next step is a good one"


def test_perturbed_weights_cannot_be_saved() -> None:
    model, x = _network(), torch.randn(16, 6)
    sam = SAM(torch.optim.AdamW(model.parameters(), lr=1e-2), 0.05, guarded=model)
    clean = {name: value.clone() for name, value in model.state_dict().items() if "running" not in name}
    _loss(model, x).backward()
    sam.first_step()
    for save in (model.state_dict, sam.state_dict):
        with pytest.raises(CheckpointError, match="perturbed"):
            save()
    sam.restore()
    stored = model.state_dict()
    assert all(torch.equal(stored[name], value) for name, value in clean.items() if "num_batches" not in name)
    sam.load_state_dict(sam.state_dict())


def test_micro_batches_replayed_give_the_step_of_the_whole_batch() -> None:
    x = torch.randn(16, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    results = []
    for parts in (1, 4):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        sam = SAM(torch.optim.SGD(model.parameters(), lr=0.1), 0.5)
        for step in (sam.first_step, sam.second_step):
            for part in x.chunk(parts):
                (_loss(model, part) / parts).backward()
            step()
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(results[0], results[1], atol=1e-12)


def test_bfloat16_autocast_trains_without_a_scaler() -> None:
    model, x = _network(), torch.randn(64, 6)
    sam = SAM(torch.optim.AdamW(model.parameters(), lr=1e-2), 0.05)
    losses = []
    for _ in range(30):
        for step in (sam.first_step, sam.second_step):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = _loss(model, x)
            loss.backward()  # type: ignore[no-untyped-call]
            step()
        losses.append(float(loss.detach()))
    assert sam.skipped == 0 and losses[-1] < 0.5 * losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_replay_repeats_the_dropout_of_the_first_pass() -> None:
    dropout, x = nn.Dropout(0.5), torch.ones(100)
    draws = Replay()
    first = dropout(x)
    assert not torch.equal(first, dropout(x))
    draws.rewind()
    assert torch.equal(first, dropout(x))


def test_steps_out_of_order_are_refused() -> None:
    weight = nn.Parameter(torch.ones(2))
    sam = SAM(torch.optim.SGD([weight], lr=0.1), 0.1)
    with pytest.raises(RuntimeError, match="without first_step"):
        sam.second_step()
    weight.sum().backward()  # type: ignore[no-untyped-call]
    sam.first_step()
    with pytest.raises(RuntimeError, match="twice"):
        sam.first_step()
    with pytest.raises(ValueError, match="rho must be positive"):
        SAM(torch.optim.SGD([weight], lr=0.1), 0.0)
