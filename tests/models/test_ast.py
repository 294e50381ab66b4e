"""The AST has the published size, takes any picture and exports to plain operators."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from edge_sdk.errors import RecipeError
from edge_sdk.metadata import MetadataSchema
from edge_sdk.models import MODELS, build_model, count_parameters
from edge_sdk.models.ast import SILENCE, Ast
from edge_sdk.models.layers.ast_encoder import TOKENS, Block, resize_positions
from edge_sdk.models.network import Network
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.recipes.recipe import load_recipe

COMPACT = load_recipe("compact").spec


def _on_meta(**options: Any) -> Ast:
    with torch.device("meta"):
        return Ast(4, "base", **options)


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_published_parameter_counts() -> None:
    model = _on_meta(picture=(128, 1024))
    assert model.encoder.pos_embed.shape == (1, 1214, 768)
    assert _count(model.encoder) == 86_187_264
    assert count_parameters(model) == 86_190_340  # AST + SAM: linear head on four classes
    assert _count(_on_meta(picture=(128, 1024), head="ln-linear").head) == 4_612


def test_geometries_of_the_other_published_systems() -> None:
    without_overlap = _on_meta(picture=(256, 1024), stride=16)
    assert without_overlap.encoder.pos_embed.shape[1] == 1026
    assert _count(without_overlap.encoder) == 86_042_880
    assert _on_meta(picture=(128, 798)).encoder.pos_embed.shape[1] == 950


def test_front_end_gives_the_picture_and_canvas_the_frames() -> None:
    spec = FrontEndSpec(rate_hz=16_000, window_s=8.0, frame_samples=400, hop_samples=160, mel_bins=128, high_hz=8000.0)
    assert spec.frames == 798
    assert _on_meta(front_end=spec, canvas_frames=1024).encoder.grid == (12, 101)


def test_tiny_and_small_stay_small() -> None:
    tiny = Ast(4, "tiny", COMPACT)
    small = Ast(4, "small", COMPACT)
    assert _count(tiny) < 100_000
    assert _count(small) < 1_000_000
    dim, tokens = small.embedding_dim, small.encoder.pos_embed.shape[1]
    depth = small.encoder.plan.depth
    assert depth * (12 * tokens * dim * dim + 2 * tokens * tokens * dim) < 40e6  # multiply-accumulates per example


@pytest.mark.parametrize("name", ["ast", "lung-adapter"])
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_registered_model_keeps_the_contract(name: str, size: str) -> None:
    model = build_model(name, size=size, classes=3, front_end=COMPACT).eval()
    assert isinstance(model, Network)
    features = torch.randn(2, 1, COMPACT.mel_bins, COMPACT.frames)
    outputs = model.outputs(features)
    assert outputs.embedding.shape == (2, model.embedding_dim)
    torch.testing.assert_close(outputs.logits, model(features))
    assert outputs.logits.shape == (2, 3)
    assert MODELS[name].sizes == ("tiny", "small", "base")


def test_options_reach_the_network_through_the_registry() -> None:
    options = {"pooling": "all", "head": "ln-mlp", "dropout": 0.4, "patch": [8, 16], "stride": [8, 8]}
    model = build_model("ast", size="tiny", classes=2, front_end=COMPACT, options=options)
    assert isinstance(model, Ast)
    assert model.encoder.grid == (6, (COMPACT.frames - 16) // 8 + 1)


@pytest.mark.parametrize("pooling", ["cls_dist", "all", "patches"])
def test_pooling_takes_the_tokens_it_names(pooling: Any) -> None:
    model = Ast(4, "tiny", picture=(32, 64), pooling=pooling).eval()
    tokens = model.encoder(features := torch.randn(2, 1, 32, 64))
    chosen = {"cls_dist": tokens[:, :2], "all": tokens, "patches": tokens[:, 2:]}[pooling]
    torch.testing.assert_close(model.embed(features), chosen.mean(dim=1))


@pytest.mark.parametrize("conditioning", ["none", "tafilm"])
def test_a_folded_network_leaves_out_the_patches_that_its_pooling_does_not_read(conditioning: str) -> None:
    schema = MetadataSchema({"site": ("Trachea", "Posterior")}, (), (), ())
    model = Ast(4, "tiny", picture=(32, 64), conditioning=conditioning, metadata_schema=schema).eval()
    folded, features = model.folded(), torch.randn(2, 1, 32, 64)
    rows: list[int] = []
    for block in folded.encoder.blocks:
        assert isinstance(block, Block)
        block.mlp.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0].shape[1]))
    torch.testing.assert_close(folded(features), model(features))
    assert rows == [TOKENS + 8, TOKENS]
    assert model.encoder(features).shape[1] == TOKENS + 8  # training and analysis still see them


@pytest.mark.parametrize("pooling", ["all", "patches"])
def test_a_folded_network_keeps_every_token_that_its_pooling_reads(pooling: Any) -> None:
    model, features = Ast(4, "tiny", picture=(32, 64), pooling=pooling).eval(), torch.randn(2, 1, 32, 64)
    assert model.folded().encoder(features).shape[1] == TOKENS + 8
    torch.testing.assert_close(model.folded()(features), model(features))


def test_any_picture_is_served_by_resampled_positions() -> None:
    model = Ast(4, "tiny", picture=(48, 160)).eval()
    for mel, frames in [(48, 160), (48, 90), (64, 200), (16, 16)]:
        assert torch.isfinite(model(torch.randn(2, 1, mel, frames))).all()


@pytest.mark.parametrize("rule", ["bicubic", "gong"])
def test_positions_resample_along_the_right_axes(rule: Any) -> None:
    """A ramp over mel rows stays one over mel rows and constant over time, and the other way round."""
    rows = torch.arange(6.0)[:, None].expand(6, 9)
    columns = torch.arange(9.0)[None, :].expand(6, 9)
    field = torch.stack([rows, columns], dim=-1).reshape(1, 54, 2)
    positions = torch.cat([torch.full((1, TOKENS, 2), 99.0), field], dim=1)
    out = resize_positions(positions, (6, 9), (12, 18), rule)
    assert (out[:, :TOKENS] == 99.0).all()
    grid = out[0, TOKENS:].reshape(12, 18, 2)
    torch.testing.assert_close(grid[..., 0], grid[:, :1, 0].expand(12, 18), atol=1e-5, rtol=0)
    torch.testing.assert_close(grid[..., 1], grid[:1, :, 1].expand(12, 18), atol=1e-5, rtol=0)
    assert (grid[:, 0, 0].diff() > -1e-5).all()
    assert grid[-1, 0, 0] > 4.9
    assert grid[0, -1, 1] > 7.9


def test_equal_grids_keep_positions_bit_for_bit() -> None:
    positions = torch.randn(1, TOKENS + 12, 4)
    assert resize_positions(positions, (3, 4), (3, 4)) is positions
    with pytest.raises(ValueError, match="do not make a grid"):
        resize_positions(positions, (3, 5), (3, 4))


def test_gong_rule_cuts_the_centre_of_a_shorter_picture() -> None:
    patches = torch.arange(12.0 * 101).reshape(1, 12 * 101, 1)
    positions = torch.cat([torch.zeros(1, TOKENS, 1), patches], dim=1)
    out = resize_positions(positions, (12, 101), (12, 79), "gong")[0, TOKENS:, 0].reshape(12, 79)
    torch.testing.assert_close(out, patches.reshape(12, 101)[:, 50 - 79 // 2 :][:, :79])


def test_mix_sees_the_patch_grid_once() -> None:
    model = Ast(4, "tiny", picture=(32, 64)).eval()
    features = torch.randn(3, 1, 32, 64)
    shapes: list[tuple[int, ...]] = []

    def shuffled(grid: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(grid.shape))
        return grid.flip(0)

    torch.testing.assert_close(model.embed(features, mix=shuffled), model.embed(features.flip(0)))
    assert shapes == [(3, 32, 2, 4)]


def test_canvas_fills_cuts_and_stretches() -> None:
    picture = torch.randn(1, 1, 16, 20)
    cyclic = Ast(4, "tiny", picture=(16, 20), canvas_frames=50).canvas
    constant = Ast(4, "tiny", picture=(16, 20), canvas_frames=50, canvas="constant").canvas
    stretched = Ast(4, "tiny", picture=(16, 20), canvas_frames=50, canvas="resize").canvas
    shorter = Ast(4, "tiny", picture=(16, 20), canvas_frames=16).canvas
    assert cyclic is not None and constant is not None and stretched is not None and shorter is not None
    torch.testing.assert_close(cyclic(picture)[..., 20:40], picture)
    assert constant(picture)[..., 20:].unique().tolist() == pytest.approx([0.46703], abs=1e-5)
    assert pytest.approx(0.46703, abs=1e-5) == SILENCE
    expected = torch.nn.functional.interpolate(picture, size=(16, 50), mode="bilinear", align_corners=False)
    torch.testing.assert_close(stretched(picture), expected)
    torch.testing.assert_close(shorter(picture), picture[..., 2:18])


def test_attention_equals_its_definition() -> None:
    attention: Any = Ast(4, "tiny", picture=(16, 64)).encoder.blocks[0].attn
    x = torch.randn(2, 6, 32)
    query, key, value = attention.queries_keys_values(x)
    weights = (query @ key.transpose(2, 3) / 4.0).softmax(dim=3)  # heads are 16 wide
    expected = attention.proj((weights @ value).transpose(1, 2).reshape(2, 6, 32))
    torch.testing.assert_close(attention(x), expected)


def test_only_the_last_blocks_train_when_asked() -> None:
    model = Ast(4, "tiny", picture=(32, 64), trainable_blocks=1)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.rsplit(".", 1)[0] for name in trained if "blocks" not in name} == {"encoder.norm", "head.1"}
    assert all(name.startswith("encoder.blocks.1.") for name in trained if "blocks" in name)


def test_one_small_step_lowers_the_loss() -> None:
    torch.manual_seed(0)
    model = Ast(4, "tiny", COMPACT)
    features, targets = torch.randn(8, 1, COMPACT.mel_bins, COMPACT.frames), torch.arange(8) % 4
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(model(features), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_state_dict_round_trip() -> None:
    model = Ast(4, "tiny", COMPACT).eval()
    other = copy.deepcopy(model)
    other.load_state_dict(Ast(4, "tiny", COMPACT).state_dict())
    other.load_state_dict(model.state_dict())
    features = torch.randn(1, 1, COMPACT.mel_bins, COMPACT.frames)
    torch.testing.assert_close(other(features), model(features), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "cls_dist, all, patches"),
        ({"head": "mlp"}, "ln-linear"),
        ({"canvas_frames": 64, "canvas": "mirror"}, "cyclic"),
        ({"patch": [8, 8, 8]}, "pair"),
        ({"patch": [64, 16]}, "smaller than one patch"),
        ({"conditioning": "film"}, "recipe names none"),
        ({"conditioning": "flim"}, "softfilm"),
        ({"conditioning": {"kind": "film", "layer": [1]}}, "layers"),
        ({"head_hiden": 3}, "head_hiden"),
    ],
)
def test_impossible_options_are_refused_with_the_choices(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_model("ast", size="tiny", classes=4, front_end=COMPACT, options=options)


def test_a_picture_must_come_from_somewhere() -> None:
    with pytest.raises(RecipeError, match="front_end"):
        Ast(4, "tiny")
