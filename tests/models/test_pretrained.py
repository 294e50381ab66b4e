"""Public weights load completely or not at all."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edge_sdk.errors import CheckpointError, MissingDependencyError
from edge_sdk.models.ast import Ast
from edge_sdk.models.compact import Compact
from edge_sdk.models.layers.ast_encoder import resize_positions
from edge_sdk.models.lung_adapter import LungAdapter
from edge_sdk.models.pretrained import load_public_weights, read_tensors

PICTURE = (128, 1024)
TIMM = {"patch_embed.weight": "patch_embed.proj.weight", "patch_embed.bias": "patch_embed.proj.bias"}
HF_TOP = {
    "cls_token": "embeddings.cls_token",
    "dist_token": "embeddings.distillation_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
HF_BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def _ast(seed: int = 0, picture: tuple[int, int] = PICTURE, stride: int = 10) -> Ast:
    torch.manual_seed(seed)
    return Ast(4, "tiny", picture=picture, stride=stride).eval()


def _gong(model: Ast, prefix: str = "module.") -> dict[str, Tensor]:
    """The authors' names, with DataParallel's prefix, two ImageNet heads and the AudioSet head."""
    state = {f"{prefix}v.{TIMM.get(name, name)}": value for name, value in model.encoder.state_dict().items()}
    for head in ("head", "head_dist"):
        state |= {f"{prefix}v.{head}.weight": torch.randn(1000, 32), f"{prefix}v.{head}.bias": torch.randn(1000)}
    state |= {f"{prefix}mlp_head.0.weight": torch.ones(32), f"{prefix}mlp_head.0.bias": torch.zeros(32)}
    return state | {f"{prefix}mlp_head.1.weight": torch.randn(527, 32), f"{prefix}mlp_head.1.bias": torch.randn(527)}


def _hugging_face(model: Ast, prefix: str = "audio_spectrogram_transformer.") -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, value in model.encoder.state_dict().items():
        if name in HF_TOP:
            state[prefix + HF_TOP[name]] = value
            continue
        _, index, rest = name.split(".", 2)
        layer, kind = rest.rsplit(".", 1)
        if layer == "attn.qkv":
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                state[f"{prefix}encoder.layer.{index}.attention.attention.{part}.{kind}"] = third.clone()
        else:
            state[f"{prefix}encoder.layer.{index}.{HF_BLOCK[layer]}.{kind}"] = value
    if prefix == "audio_spectrogram_transformer.":
        state |= {"classifier.layernorm.weight": torch.ones(32), "classifier.layernorm.bias": torch.zeros(32)}
        state |= {"classifier.dense.weight": torch.randn(527, 32), "classifier.dense.bias": torch.randn(527)}
    elif prefix == "ast.":  # AST + SAM
        state |= {"classifier.1.weight": torch.randn(4, 32), "classifier.1.bias": torch.randn(4)}
    return state


def _transformers_5(model: Ast) -> dict[str, Tensor]:
    """What ``ASTModel.state_dict()`` is called in transformers 5; its ``save_pretrained`` writes the older names."""
    names = {
        "encoder.layer.": "layers.",
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    state = {}
    for name, value in _hugging_face(model).items():
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = value
    return state


def _saved(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


def test_both_public_layouts_load_completely_and_give_equal_embeddings(tmp_path: Path) -> None:
    source = _ast()
    picture = torch.randn(2, 1, *PICTURE)
    files = {
        "gong": _gong(source),
        "bare": _gong(source, prefix=""),
        "hf": _hugging_face(source),
        "hf_model": _hugging_face(source, prefix=""),
        "hf_5": _transformers_5(source),
        "ast_sam": _hugging_face(source, prefix="ast."),
    }
    for name, state in files.items():
        model = _ast(seed=1)
        loaded = load_public_weights(model, _saved(state, tmp_path / f"{name}.pth"))
        assert set(loaded) == {f"encoder.{key}" for key in source.encoder.state_dict()}
        torch.testing.assert_close(model.embed(picture), source.embed(picture), atol=0, rtol=0)
        model.head.load_state_dict(source.head.state_dict())
        torch.testing.assert_close(model(picture), source(picture), atol=0, rtol=0)


@pytest.mark.parametrize("layout", [_gong, _hugging_face])
def test_one_missing_or_foreign_tensor_is_an_error_that_names_it(layout: object, tmp_path: Path) -> None:
    assert callable(layout)
    state = layout(_ast())
    victim = next(name for name in state if "1.mlp.fc1.weight" in name or "1.intermediate.dense.weight" in name)
    path = _saved({name: value for name, value in state.items() if name != victim}, tmp_path / "less.pth")
    with pytest.raises(CheckpointError, match=r"1 tensors missing: encoder\.blocks\.1\.mlp\.fc1\.weight"):
        load_public_weights(_ast(), path)
    with pytest.raises(CheckpointError, match=r"surplus"):
        load_public_weights(_ast(), _saved(state | {"module.surplus": torch.ones(1)}, tmp_path / "more.pth"))
    deeper = {name.replace("s.1.", "s.7.").replace("layer.1.", "layer.7."): value for name, value in state.items()}
    with pytest.raises(CheckpointError, match=r"left over: encoder\.blocks\.7"):
        load_public_weights(_ast(), _saved(state | deeper, tmp_path / "deeper.pth"))


def test_a_failed_load_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    state = _gong(_ast())
    state["module.v.norm.weight"] = torch.ones(31)
    model = _ast(seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"encoder\.norm\.weight \(31,\) instead of \(32,\)"):
        load_public_weights(model, _saved(state, tmp_path / "odd.pth"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_third_of_the_attention_missing_is_named(tmp_path: Path) -> None:
    state = _hugging_face(_ast())
    del state["audio_spectrogram_transformer.encoder.layer.0.attention.attention.key.bias"]
    with pytest.raises(CheckpointError, match=r"\['key'\] for blocks\.0\.attn\.qkv\.bias"):
        load_public_weights(_ast(), _saved(state, tmp_path / "odd.pth"))


def test_positions_of_audioset_are_resized_in_the_right_orientation(tmp_path: Path) -> None:
    source = _ast()
    model = _ast(seed=1, picture=(256, 1024), stride=16)
    assert source.encoder.grid == (12, 101)
    assert model.encoder.grid == (16, 64)
    load_public_weights(model, _saved(_gong(source), tmp_path / "gong.pth"))
    expected = resize_positions(source.encoder.pos_embed, (12, 101), (16, 64))
    torch.testing.assert_close(model.encoder.pos_embed, expected, atol=0, rtol=0)


def test_imagenet_weights_sum_their_colours(tmp_path: Path) -> None:
    source = _ast(picture=(384, 384), stride=16)
    state = {TIMM.get(name, name): value for name, value in source.encoder.state_dict().items()}
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].expand(-1, 3, -1, -1) / 3
    state |= {"head.weight": torch.randn(1000, 32), "head_dist.weight": torch.randn(1000, 32)}
    model = _ast(seed=1)
    load_public_weights(model, _saved({"model": state}, tmp_path / "deit.pth"))
    torch.testing.assert_close(model.encoder.patch_embed.weight, source.encoder.patch_embed.weight)
    expected = resize_positions(source.encoder.pos_embed, (24, 24), (12, 101))
    torch.testing.assert_close(model.encoder.pos_embed, expected)


def test_our_own_checkpoint_starts_an_adapter(tmp_path: Path) -> None:
    source = _ast()
    path = _saved({"format": "x", "state_dict": source.state_dict()}, tmp_path / "checkpoint.pt")
    model = LungAdapter(4, "tiny", picture=PICTURE, stride=10).eval()
    load_public_weights(model, path)
    picture = torch.randn(1, 1, *PICTURE)
    torch.testing.assert_close(model.embed(picture), source.embed(picture), atol=0, rtol=0)


def test_an_ambiguous_grid_must_be_given(tmp_path: Path) -> None:
    path = _saved(_gong(_ast(picture=(64, 96), stride=16)), tmp_path / "odd.pth")  # 4 x 6
    with pytest.raises(CheckpointError, match="pretrained_grid"):
        load_public_weights(_ast(), path)
    given = Ast(4, "tiny", picture=(96, 96), stride=16, pretrained_grid=(4, 6))
    load_public_weights(given, path)


def test_files_without_weights_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="do not exist"):
        load_public_weights(_ast(), tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(CheckpointError, match="not a readable"):
        load_public_weights(_ast(), tmp_path / "text.pth")
    with pytest.raises(CheckpointError, match="no tensors"):
        load_public_weights(_ast(), _saved({"epoch": 3}, tmp_path / "empty.pth"))
    with pytest.raises(CheckpointError, match=r"no known layout.*conv1\.weight"):
        load_public_weights(_ast(), _saved({"conv1.weight": torch.ones(1)}, tmp_path / "resnet.pth"))
    with pytest.raises(CheckpointError, match="no public weights exist for Compact"):
        load_public_weights(Compact(4, "tiny"), tmp_path / "empty.pth")


def test_safetensors_are_read_where_the_package_is_present(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    if importlib.util.find_spec("safetensors") is None:
        path.write_bytes(b"")
        with pytest.raises(MissingDependencyError, match="pip install safetensors"):
            read_tensors(path)
        return
    from safetensors.torch import save_file  # type: ignore[import-not-found]

    state = _hugging_face(_ast())
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    assert set(read_tensors(path)) == set(state)
    load_public_weights(_ast(seed=1), path)
