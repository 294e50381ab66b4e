"""Public weights into our networks, strictly: a tensor without a place, or a place without a tensor, is an error.

Public AST files come in three layouts, distinguished by their keys: the authors' (``module.v.*``), Hugging Face's, and
ImageNet DeiT (three colour channels); a checkpoint of this SDK is the fourth.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from edge_sdk.digests import sha256_file
from edge_sdk.errors import CheckpointError, MissingDependencyError
from edge_sdk.models.layers.ast_encoder import TOKENS, Grid
from edge_sdk.models.tflite import read_operators

logger = logging.getLogger(__name__)

_SHOWN = 4  # keys an error names
_GONG_HEADS = {f"v.{head}.{kind}" for head in ("head", "head_dist") for kind in ("weight", "bias")}
_GONG_HEADS |= {f"mlp_head.{layer}.{kind}" for layer in (0, 1) for kind in ("weight", "bias")}
_DEIT_HEADS = {f"{head}.{kind}" for head in ("head", "head_dist") for kind in ("weight", "bias")}
_HF_HEADS = {f"classifier.{layer}.{kind}" for layer in ("layernorm", "dense", "1") for kind in ("weight", "bias")}
_HF_PREFIXES = ("audio_spectrogram_transformer.", "ast.", "")
_HF_TOP = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_HF_LAYER = re.compile(r"(?:encoder\.layer|layers)\.(\d+)\.(.+)\.(weight|bias)")
_HF_BLOCK = {  # names in files; below, those of transformers 5 in memory
    "attention.output.dense": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "attention.o_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_PARTS = ("query", "key", "value")  # the order of our qkv
_HF_QKV = {f"attention.attention.{part}": part for part in _PARTS} | {
    f"attention.{part[0]}_proj": part for part in _PARTS
}


class PublicWeights(Protocol):
    """A network that can convert the tensor names of public files."""

    fresh: tuple[str, ...]  # patterns of own tensors that no public file has

    def public_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a public file → under own names; ``CheckpointError`` for unknown tensors."""
        ...


@dataclass(frozen=True)
class PublicAst:
    """An AST encoder from a public file."""

    tensors: dict[str, Tensor]  # under ``AstEncoder``'s names
    grid: Grid  # patches (mel, time) of its positions
    layout: str


KNOWN_TFLITE = {"469be6a3421cbc52cf97e9f2f966cba984198e8e7af9854d68b3e3ebb1e04194": "YAMNet (Apache-2.0)"}
"""Content of the TensorFlow Lite files that may be read, by SHA-256; nothing in such a file itself says what it is."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a ``.safetensors`` file, of a ``.tflite`` file or of a torch file, whose code is never run.

    The weights of a ``.tflite`` file have no usable names: they become ``convolution<k>.weight`` [O, I, H, W],
    ``dense<k>.weight`` [O, I] and their ``.bias``, counted in the order in which they run.

    Raises
    ------
    CheckpointError
        Missing, unreadable, without tensors, or a ``.tflite`` file whose checksum is not known.
    MissingDependencyError
        A ``.safetensors`` file, but the package safetensors is not installed.
    """
    if not path.is_file():
        raise CheckpointError(f"pretrained weights {path} do not exist; download them and set model.pretrained")
    if path.suffix == ".tflite":
        return _tflite_tensors(path)
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file  # type: ignore[import-not-found]
        except ImportError as error:
            raise MissingDependencyError(
                f"{path.name} needs the package safetensors: pip install safetensors"
            ) from error
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} is not a readable file of weights ({type(error).__name__}); download it anew"
        ) from error
    for wrapper in ("state_dict", "model_state", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    tensors = (
        {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, dict)
        else {}
    )
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors; give a state dict (.pth, .pt, .bin) or a .safetensors file")
    return tensors


def _tflite_tensors(path: Path) -> dict[str, Tensor]:
    digest = sha256_file(path)
    if digest not in KNOWN_TFLITE:
        known = ", ".join(f"{name}: {value}" for value, name in KNOWN_TFLITE.items())
        raise CheckpointError(
            f"{path} is no known file of weights (its sha256 is {digest}; known are {known}); give the original file"
        )
    tensors: dict[str, Tensor] = {}
    counts = {"convolution": 0, "dense": 0}
    for operator in read_operators(path.read_bytes()):
        if operator.name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        kind = "dense" if operator.name == "FULLY_CONNECTED" else "convolution"
        _, weight, *bias = operator.constants
        name = f"{kind}{counts[kind]}"
        counts[kind] += 1
        if weight is None:
            raise CheckpointError(f"{path}: {operator.name} has no constant weight; give the original file")
        # [O, H, W, I] or [1, H, W, C] → [O, I, H, W]
        order = {"CONV_2D": (0, 3, 1, 2), "DEPTHWISE_CONV_2D": (3, 0, 1, 2)}.get(operator.name, (0, 1))
        tensors[f"{name}.weight"] = torch.from_numpy(weight.transpose(order).copy())
        if bias and bias[0] is not None:
            tensors[f"{name}.bias"] = torch.from_numpy(bias[0].copy())
    return tensors


def load_public_weights(model: nn.Module, path: Path | str) -> tuple[str, ...]:
    """Fill ``model`` from a public file.

    Parameters
    ----------
    model : nn.Module
        Implements ``PublicWeights``.
    path : Path
        See ``read_tensors``.

    Returns
    -------
    tuple of str
        Names of the model's tensors that were filled; all others match its ``fresh`` patterns.

    Raises
    ------
    CheckpointError
        A network without public weights, or any tensor left over, missing or of another shape, on either side.
    """
    path = Path(path)
    if not hasattr(model, "public_state"):
        raise CheckpointError(
            f"no public weights exist for {type(model).__name__}; remove model.pretrained from the recipe"
        )
    fresh: tuple[str, ...] = model.fresh  # type: ignore[assignment]
    converted: dict[str, Tensor] = model.public_state(read_tensors(path))  # type: ignore[operator]
    own = model.state_dict()
    left_over = [name for name in converted if name not in own]
    missing = [
        name for name in own if name not in converted and not any(fnmatchcase(name, pattern) for pattern in fresh)
    ]
    shapes = [
        f"{name} {tuple(converted[name].shape)} instead of {tuple(own[name].shape)}"
        for name in converted
        if name in own and converted[name].shape != own[name].shape
    ]
    for what, names in (("left over", left_over), ("missing", missing), ("of another shape", shapes)):
        if names:
            raise CheckpointError(
                f"{path.name} does not fit {type(model).__name__}: {len(names)} tensors {what}: {_first(names)}; "
                "choose the size and patches that the file was made for, or another file"
            )
    model.load_state_dict(converted, strict=False)
    logger.info("%s: %d of %d tensors from %s", type(model).__name__, len(converted), len(own), path.name)
    return tuple(converted)


def ast_encoder_state(state: Mapping[str, Tensor], *, own_grid: Grid, grid: Grid | None = None) -> PublicAst:
    """The encoder of an AST from any known layout; classification heads are dropped by name.

    Parameters
    ----------
    state : mapping
        Tensors of the file.
    own_grid : tuple of int
        Grid of the network to be filled: assumed where the number of positions is the same and no other grid is given.
    grid : tuple of int, optional
        Grid (mel, time) of the file's positions, where their number is ambiguous.

    Raises
    ------
    CheckpointError
        An unknown layout, a tensor that belongs nowhere, or positions whose grid is ambiguous.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    square = False
    if "encoder.pos_embed" in state:
        layout, heads = "this SDK", {name for name in state if name.startswith(("head.", "conditioner."))}
        tensors = {name.removeprefix("encoder."): tensor for name, tensor in state.items() if name not in heads}
        left_over = [name for name in state if name not in heads and not name.startswith("encoder.")]
    elif "v.pos_embed" in state:
        layout = "AST authors"
        tensors, left_over = _timm(state, "v.", _GONG_HEADS)
    elif "pos_embed" in state and "dist_token" in state:
        layout, square = "DeiT", True
        tensors, left_over = _timm(state, "", _DEIT_HEADS)
    elif any(name.endswith("embeddings.position_embeddings") for name in state):
        layout = "Hugging Face"
        tensors, left_over = _hugging_face(state)
    else:
        raise CheckpointError(f"no known layout of AST weights; the file starts with {_first(state)}")
    if left_over:
        raise CheckpointError(
            f"{len(left_over)} tensors of the {layout} layout belong nowhere: {_first(left_over)}; "
            "give the original file"
        )
    needed = [name for name in ("pos_embed", "patch_embed.weight") if name not in tensors]
    if needed:
        raise CheckpointError(f"weights of the {layout} layout lack {_first(needed)}; give the original file")
    colours = tensors["patch_embed.weight"]
    if colours.ndim == 4 and colours.shape[1] == 3:  # ImageNet: a grey picture has equal colour channels
        tensors["patch_embed.weight"] = colours.sum(dim=1, keepdim=True)
    return PublicAst(tensors, _grid(tensors["pos_embed"], own_grid, grid, square=square), layout)


def _timm(state: Mapping[str, Tensor], prefix: str, heads: set[str]) -> tuple[dict[str, Tensor], list[str]]:
    tensors: dict[str, Tensor] = {}
    left_over: list[str] = []
    for name, tensor in state.items():
        if name in heads:
            continue
        if name.startswith(prefix):
            tensors[name.removeprefix(prefix).replace("patch_embed.proj.", "patch_embed.")] = tensor
        else:
            left_over.append(name)
    return tensors, left_over


def _hugging_face(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    prefix = next(prefix for prefix in _HF_PREFIXES if not prefix or any(name.startswith(prefix) for name in state))
    tensors: dict[str, Tensor] = {}
    thirds: dict[str, dict[str, Tensor]] = {}  # our qkv name → query, key, value
    left_over: list[str] = []
    for name, tensor in state.items():
        local = name.removeprefix(prefix)
        layer = _HF_LAYER.fullmatch(local)
        if name in _HF_HEADS:
            continue
        if local in _HF_TOP:
            tensors[_HF_TOP[local]] = tensor
        elif layer and layer[2] in _HF_BLOCK:
            tensors[f"blocks.{layer[1]}.{_HF_BLOCK[layer[2]]}.{layer[3]}"] = tensor
        elif layer and layer[2] in _HF_QKV:
            thirds.setdefault(f"blocks.{layer[1]}.attn.qkv.{layer[3]}", {})[_HF_QKV[layer[2]]] = tensor
        else:
            left_over.append(name)
    for target, parts in thirds.items():
        if set(parts) != set(_PARTS):
            raise CheckpointError(
                f"Hugging Face weights lack {sorted(set(_PARTS) - set(parts))} for {target}; give the original file"
            )
        tensors[target] = torch.cat([parts[part] for part in _PARTS])
    return tensors, left_over


def _grid(positions: Tensor, own: Grid, given: Grid | None, *, square: bool) -> Grid:
    patches = positions.shape[1] - TOKENS
    side = round(patches**0.5) if patches > 0 else 0
    if given is not None and given[0] * given[1] == patches:
        return given
    if given is None and square and side * side == patches:
        return side, side
    if given is None and patches == own[0] * own[1]:
        return own
    for stride in (10, 12, 14, 16):  # published files: 128 mel bins x 1024 frames, patches of 16 x 16
        published = ((128 - 16) // stride + 1, (1024 - 16) // stride + 1)
        if given is None and published[0] * published[1] == patches:
            return published
    raise CheckpointError(
        f"{patches} positions: the grid they were learned on is ambiguous; set model.options.pretrained_grid "
        f"(now {given}) to [patches along mel, patches along time]"
    )


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")
