"""Every parameter is in the right group, and the default groups are the plain ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from edge_sdk.training.loop.optim import make_optimiser, make_sam, make_schedule, parameter_groups
from edge_sdk.training.recipes.objective_settings import OptimiserSection, SamSection


class _Model(nn.Module):
    no_decay = ("odd.",)
    rate_scale = {"odd.": 10.0, "backbone.": 0.1, "backbone.last.": 0.5}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"first": nn.Linear(3, 3), "last": nn.Linear(3, 3)})
        self.odd = nn.Linear(3, 2, bias=False)
        self.head = nn.Linear(3, 2)
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 3))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def _lookup(groups: list[dict]) -> dict[int, tuple[Any, Any]]:
    return {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_groups_follow_prefixes_of_the_model_and_leave_out_what_is_frozen() -> None:
    model, projector = _Model(), nn.Linear(3, 3)
    where = _lookup(parameter_groups(model, projector, 0.05, 1e-3))
    assert where[id(model.odd.weight)] == (pytest.approx(1e-2), 0.0)
    assert where[id(model.backbone["first"].weight)] == (pytest.approx(1e-4), 0.05)
    assert where[id(model.backbone["last"].bias)] == (pytest.approx(5e-4), 0.05)
    assert where[id(model.head.bias)] == where[id(projector.weight)] == (1e-3, 0.05)
    assert id(model.frozen.weight) not in where
    trainable = sum(p.requires_grad for p in model.parameters()) + 2
    assert len(where) == trainable


def test_vectors_positions_and_embeddings_can_be_spared_weight_decay() -> None:
    model = _Model()
    where = _lookup(parameter_groups(model, None, 0.05, 1e-3, spare_vectors=True))
    assert where[id(model.head.bias)][1] == where[id(model.pos_embed)][1] == 0.0
    assert where[id(model.head.weight)][1] == 0.05


def test_a_plain_model_gets_one_group_in_its_own_order() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    groups = parameter_groups(model, None, 1e-3, 3e-3)
    assert len(groups) == 1
    assert all(a is b for a, b in zip(groups[0]["params"], model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("kind", "expected"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_each_kind_of_optimiser_is_made(kind: str, expected: type) -> None:
    model = _Model()
    section = OptimiserSection(kind=kind)  # type: ignore[arg-type]
    optimiser = make_optimiser(section, parameter_groups(model, None, 0.01, 1e-3))
    assert type(optimiser) is expected
    assert make_sam(section, optimiser, model) is None


def test_sam_is_made_where_the_section_has_it() -> None:
    model = _Model()
    section = OptimiserSection(sam=SamSection(rho=0.5, adaptive=True))
    sam = make_sam(section, make_optimiser(section, parameter_groups(model, None, 0.01, 1e-3)), model)
    assert sam is not None and sam.adaptive and sam.rho == 0.5


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_schedules_warm_up_to_each_groups_own_peak(schedule: str) -> None:
    model = _Model()
    section = OptimiserSection(schedule=schedule)  # type: ignore[arg-type]
    optimiser = make_optimiser(section, parameter_groups(model, None, 0.01, 1e-3))
    peaks = [group["lr"] for group in optimiser.param_groups]
    scheduler = make_schedule(section, optimiser, steps_per_epoch=10, epochs=10, warm_up=0.1)
    seen = []
    for _ in range(99):
        seen.append([group["lr"] for group in optimiser.param_groups])
        optimiser.step()
        scheduler.step()
    rates = torch.tensor(seen)
    assert torch.allclose(rates.amax(dim=0), torch.tensor(peaks), rtol=1e-3)
    assert bool((rates[0] < 0.2 * rates.amax(dim=0)).all())
    final = {"one_cycle": 0.0, "cosine": 0.01, "constant": 1.0}[schedule]
    assert torch.allclose(rates[-1] / torch.tensor(peaks), torch.tensor(final), atol=0.01)
