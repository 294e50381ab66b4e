"""Figures show what the network computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from edge_sdk.metadata import MetadataSchema
from edge_sdk.models.ast import Ast
from edge_sdk.models.conditioning import Metadata
from edge_sdk.models.inspect import attention_maps, factor_contributions, film_parameters, mask_report, metadata_swap

SCHEMA = MetadataSchema({"device": ("a", "b"), "site": ("c",)}, ("age_years",), (40.0,), (20.0,))


def _model(conditioning: Any) -> Ast:
    torch.manual_seed(0)
    model = Ast(4, "tiny", picture=(48, 64), conditioning=conditioning, metadata_schema=SCHEMA).eval()
    with torch.no_grad():
        for parameter in model.conditioner.parameters() if model.conditioner is not None else ():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def _metadata() -> Metadata:
    return Metadata.from_arrays(SCHEMA.encode([{"device": "a", "age_years": 70}, {"device": "b", "site": "c"}]))


def test_attention_maps_lie_on_the_grid_and_explain_the_first_block() -> None:
    model = _model("none")
    picture = torch.randn(2, 1, 48, 64)
    maps = attention_maps(model, picture)
    assert maps.shape == (2, 2, 2, 3, 4)  # batch, blocks, heads, mel, time
    assert (maps >= 0).all()
    assert (maps.sum(dim=(3, 4)) <= 1 + 1e-6).all()
    assert attention_maps(model, torch.randn(1, 1, 48, 96)).shape[-2:] == (3, 6)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_token_that_all_keys_point_to_takes_all_attention() -> None:
    model = _model("none")
    attention: Any = model.encoder.blocks[0].attn
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.bias.zero_()
    even = attention_maps(model, torch.randn(1, 1, 48, 64))[0, 0]
    torch.testing.assert_close(even, torch.full_like(even, 1 / 14))  # 12 patches and two class tokens share alike


def test_film_parameters_are_those_that_the_blocks_use() -> None:
    model = _model({"kind": "tafilm", "layers": [1]})
    (film,) = film_parameters(model, _metadata())
    conditioning = model.condition(_metadata(), 2)
    assert conditioning is not None and conditioning.modulation is not None
    assert film.block == 1
    torch.testing.assert_close(film.gamma - 1.0, conditioning.modulation[:, 0, :, 0])
    torch.testing.assert_close(film.beta, conditioning.modulation[:, 0, :, 1])
    assert film_parameters(_model("grf"), _metadata()) == ()
    assert film_parameters(_model("none"), _metadata()) == ()


def test_factors_add_up_to_the_whole() -> None:
    model = _model("softfilm")
    parts = factor_contributions(model, _metadata())
    conditioning = model.condition(_metadata(), 2)
    assert conditioning is not None and conditioning.modulation is not None
    assert set(parts) == {"device", "site", "rest"}
    torch.testing.assert_close(torch.stack(list(parts.values())).sum(dim=0), conditioning.modulation)
    with pytest.raises(ValueError, match="softfilm"):
        factor_contributions(_model("film"), _metadata())


def test_mask_report_says_how_much_is_still_the_start() -> None:
    torch.manual_seed(0)
    fresh = Ast(4, "tiny", picture=(48, 64), conditioning={"kind": "softfilm", "mode": "paper"}, metadata_schema=SCHEMA)
    report = mask_report(fresh)
    assert report.start_agreement == 1.0
    assert report.factors == ("device", "site", "rest")
    assert report.overlap.shape == (3, 3)
    assert report.coverage == pytest.approx(0.6225, abs=1e-4)
    assert mask_report(_model("softfilm")).start_agreement is None
    with pytest.raises(ValueError, match="unfolded"):
        mask_report(fresh.folded())


def test_swapping_metadata_moves_only_conditioned_models() -> None:
    picture = torch.randn(2, 1, 48, 64)
    assert metadata_swap(_model("none"), picture, _metadata(), "device", 2).abs().max() == 0.0
    change = metadata_swap(_model("film"), picture, _metadata(), "device", 2)
    assert change[0].abs().max() > 1e-4
    assert change[1].abs().max() == 0.0  # has device 2 already
    with pytest.raises(ValueError, match="device, site"):
        metadata_swap(_model("film"), picture, _metadata(), "sex", 1)
