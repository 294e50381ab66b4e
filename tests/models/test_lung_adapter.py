"""Adapters start as the frozen AST, and only what shall be trained is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from edge_sdk.errors import RecipeError
from edge_sdk.models.ast import Ast
from edge_sdk.models.lung_adapter import Adapter, LungAdapter


def _trained(model: torch.nn.Module) -> dict[str, int]:
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("placement", ["parallel", "sequential"])
def test_starts_as_the_frozen_transformer(placement: Any) -> None:
    torch.manual_seed(0)
    plain = Ast(4, "tiny", picture=(48, 64), head="ln-linear").eval()
    torch.manual_seed(0)
    adapted = LungAdapter(4, "tiny", picture=(48, 64), placement=placement).eval()
    picture = torch.randn(2, 1, 48, 64)
    torch.testing.assert_close(adapted(picture), plain(picture), atol=0, rtol=0)


def test_published_share_of_trained_parameters() -> None:
    with torch.device("meta"):
        model = LungAdapter(4, "base", picture=(128, 798))
        plain = Ast(4, "base", picture=(128, 798), head="ln-linear")
    trained = sum(_trained(model).values())
    # 24 adapters with norm and scale, head with norm, final norm
    assert trained == 24 * (2 * 768 * 64 + 64 + 768 + 2 * 768 + 1) + 4_612 + 2 * 768
    assert trained == pytest.approx(2.42e6, rel=0.005)
    assert trained / sum(p.numel() for p in plain.parameters()) <= 0.03


def test_only_adapters_final_norm_and_head_move() -> None:
    torch.manual_seed(0)
    model = LungAdapter(4, "tiny", picture=(48, 64))
    assert all("adapter_" in name or name.startswith(("encoder.norm.", "head.")) for name in _trained(model))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):  # the inner layers of a zero-initialised adapter move from the second step on
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.randn(4, 1, 48, 64)), torch.arange(4)).backward()
        optimiser.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == set(_trained(model))


def test_frozen_parts_stay_in_evaluation_mode() -> None:
    model = LungAdapter(4, "tiny", picture=(48, 64), dropout=0.3).train()
    assert model.training and model.head.training
    assert not model.encoder.training
    assert not any(m.training for name, m in model.encoder.named_modules() if "adapter_" not in name)
    assert all(m.training for m in model.encoder.modules() if isinstance(m, Adapter))
    assert not any(m.training for m in model.eval().modules())


def test_impossible_options_are_named() -> None:
    with pytest.raises(RecipeError, match="parallel or sequential"):
        LungAdapter(4, "tiny", picture=(48, 64), placement="between")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="trainable_blocks"):
        LungAdapter(4, "tiny", picture=(48, 64), trainable_blocks=1)
