"""AST: Audio Spectrogram Transformer (https://arxiv.org/abs/2104.01778), one network for every recipe built on it.

Fine-tuning as published for breath sounds (AST + SAM, https://arxiv.org/abs/2512.22564), conditioning on metadata, or
freezing under adapters are options of the recipe, not copies of the network.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.errors import ExportError, RecipeError
from edge_sdk.metadata import MetadataSchema
from edge_sdk.models.conditioning import (
    Conditioner,
    Conditioning,
    ConditioningSettings,
    FoldedConditioner,
    Metadata,
)
from edge_sdk.models.layers.ast_encoder import TOKENS, AstEncoder, AstPlan, Block, Grid, PositionRule, resize_positions
from edge_sdk.models.layers.resize import MatrixResize
from edge_sdk.models.network import GridMix, Network
from edge_sdk.models.pretrained import ast_encoder_state
from edge_sdk.signal.spec import FrontEndSpec

SIZES = {
    # tiny and small: the compact front end's 48 mel x 186 frames; small has 6 x 11 patches, 34 M multiplications
    "tiny": AstPlan(dim=32, depth=2, heads=2, patch=(16, 16), stride=(16, 16)),
    "small": AstPlan(dim=96, depth=4, heads=4, patch=(8, 16), stride=(8, 16)),
    "base": AstPlan(dim=768, depth=12, heads=12, patch=(16, 16), stride=(10, 10)),
}
SILENCE = 4.2677393 / (2 * 4.5689974)  # value of Hugging Face's zero-padding after normalisation

Pooling = Literal["cls_dist", "all", "patches"]
HeadKind = Literal["linear", "ln-linear", "ln-mlp"]
CanvasKind = Literal["cyclic", "constant", "resize"]


class Canvas(nn.Module):
    """Brings the picture to ``frames`` time steps; a longer one is cut around its centre, except by ``resize``."""

    def __init__(self, source: tuple[int, int], frames: int, kind: CanvasKind) -> None:
        super().__init__()
        self.frames, self.kind = frames, kind
        self.resize = (
            MatrixResize(source, (source[0], frames), "bilinear", align_corners=False) if kind == "resize" else None
        )

    def forward(self, picture: Tensor) -> Tensor:
        """``[B, 1, M, T]`` → ``[B, 1, M, frames]``."""
        if self.resize is not None:
            return self.resize(picture)
        frames = picture.shape[3]
        if frames >= self.frames:
            return picture.narrow(3, (frames - self.frames) // 2, self.frames)
        if self.kind == "constant":
            return F.pad(picture, (0, self.frames - frames), value=SILENCE)
        copies = -(-self.frames // frames)
        return torch.cat([picture] * copies, dim=3).narrow(3, 0, self.frames)


def make_head(kind: HeadKind, dim: int, classes: int, *, hidden: int, activation: str, dropout: float) -> nn.Module:
    """Head, embedding ``[B, D]`` → logits ``[B, C]``: ``linear``, ``ln-linear`` or ``ln-mlp`` with ``hidden`` units."""
    if kind == "linear":
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, classes))
    if kind == "ln-linear":
        return nn.Sequential(nn.LayerNorm(dim), nn.Dropout(dropout), nn.Linear(dim, classes))
    act = nn.ReLU() if activation == "relu" else nn.GELU()
    first = (nn.LayerNorm(dim), nn.Dropout(dropout), nn.Linear(dim, hidden), act)
    return nn.Sequential(*first, nn.Dropout(dropout), nn.Linear(hidden, classes))


class Ast(Network):
    """Log-mel picture, and metadata if conditioned → logits.

    Parameters
    ----------
    classes : int
        Number of logits C.
    size : str
        ``tiny`` (tests), ``small`` (two CPU cores) or ``base`` (as published).
    front_end : FrontEndSpec, optional
        Fixes the picture; may be left out where ``picture`` is given.
    picture : pair of int, optional
        (mel bins, frames) of the features, instead of the front end's.
    patch, stride : int or pair of int, optional
        (mel, time) of one patch and between patches, instead of the size's.
    pooling : str
        ``cls_dist``: mean of the two class tokens (as published); ``all``: of all tokens; ``patches``.
    head : str
        ``linear``, ``ln-linear`` or ``ln-mlp`` with ``head_hidden`` units and ``head_activation`` (gelu, relu).
    dropout : float
        In the head; training only.
    canvas_frames : int, optional
        Frames of the transformer's input. ``canvas``: ``cyclic`` repeats a shorter picture, ``constant`` appends the
        value of zero-padding after AudioSet normalisation (parity with Hugging Face), ``resize`` stretches.
    position_rule, norm_eps
        See ``AstEncoder`` and ``AstPlan``.
    pretrained_grid : pair of int, optional
        Patches (mel, time) of the positions in a pretrained file, where their number is ambiguous.
    trainable_blocks : int, optional
        Fine-tune only the last so many blocks (and final norm, conditioning, head); None: everything.
    conditioning : str or mapping
        ``none``, ``grf``, ``film``, ``tafilm``, ``softfilm``, or fields of ``ConditioningSettings``.
    metadata_schema : MetadataSchema, optional
        Needed by every conditioning but ``none``.

    Raises
    ------
    RecipeError
        Options that exclude each other or do not exist.
    """

    no_decay = (
        "encoder.cls_token",
        "encoder.dist_token",
        "encoder.pos_embed",
        "conditioner.encoder.embeddings",
        "conditioner.masks",
    )
    fresh: tuple[str, ...] = ("head.*", "conditioner.*")  # tensors that no pretrained file has

    def __init__(
        self,
        classes: int = 4,
        size: str = "base",
        front_end: FrontEndSpec | None = None,
        *,
        picture: Sequence[int] | None = None,
        patch: int | Sequence[int] | None = None,
        stride: int | Sequence[int] | None = None,
        pooling: Pooling = "cls_dist",
        head: HeadKind = "linear",
        head_hidden: int = 64,
        head_activation: Literal["gelu", "relu"] = "gelu",
        dropout: float = 0.0,
        canvas_frames: int | None = None,
        canvas: CanvasKind = "cyclic",
        position_rule: PositionRule = "bicubic",
        norm_eps: float = 1e-6,
        pretrained_grid: Sequence[int] | None = None,
        trainable_blocks: int | None = None,
        conditioning: str | Mapping[str, Any] | ConditioningSettings = "none",
        metadata_schema: MetadataSchema | None = None,
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("pooling", pooling, Pooling),
            ("head", head, HeadKind),
            ("canvas", canvas, CanvasKind),
            ("position_rule", position_rule, PositionRule),
        ):
            if value not in get_args(choices):
                raise RecipeError(f"model option {name} is {value!r}, must be one of {', '.join(get_args(choices))}")
        plan = SIZES[size]
        plan = replace(plan, patch=_pair(patch, plan.patch), stride=_pair(stride, plan.stride), norm_eps=norm_eps)
        mel, frames = _picture(picture, front_end)
        self.canvas = None if canvas_frames is None else Canvas((mel, frames), canvas_frames, canvas)
        self.encoder = AstEncoder(plan, (mel, canvas_frames or frames), position_rule)
        self.embedding_dim = plan.dim
        self.pooling = pooling
        self.pretrained_grid = None if pretrained_grid is None else _pair(pretrained_grid, (0, 0))
        self.head = make_head(head, plan.dim, classes, hidden=head_hidden, activation=head_activation, dropout=dropout)
        # after encoder and head: with one seed, these two start alike whatever the conditioning
        self.conditioner = self._make_conditioner(ConditioningSettings.parse(conditioning), metadata_schema)
        if trainable_blocks is not None:
            self._freeze_all_but_last(trainable_blocks)

    def _make_conditioner(
        self, settings: ConditioningSettings, schema: MetadataSchema | None
    ) -> Conditioner | FoldedConditioner | None:
        depth = self.encoder.plan.depth
        self.conditioned = tuple(range(depth)) if settings.layers is None else settings.layers
        if settings.kind == "none":
            return None
        if schema is None or not schema.fields:
            raise RecipeError(
                f"conditioning {settings.kind!r} reads metadata and the recipe names none; "
                "add 'metadata: {fields: [device, site, age_years]}' or set model.options.conditioning=none"
            )
        beyond = [index for index in self.conditioned if not 0 <= index < depth]
        if beyond or not self.conditioned:
            raise RecipeError(f"conditioning: layers {list(self.conditioned)} must be among 0..{depth - 1}")
        if settings.kind == "softfilm" and settings.mask_kind == "softmax":
            self.rate_scale = {"conditioner.masks": settings.mask_rate}
        return Conditioner(settings, schema, self.embedding_dim, len(self.conditioned))

    def _freeze_all_but_last(self, blocks: int) -> None:
        self.encoder.requires_grad_(False)
        self.encoder.norm.requires_grad_(True)
        for block in self.encoder.blocks[max(len(self.encoder.blocks) - blocks, 0) :]:
            block.requires_grad_(True)

    def condition(self, metadata: Metadata | None, batch: int) -> Conditioning | None:
        """Conditioning of ``batch`` examples by ``metadata`` (None: all unknown); None without conditioning."""
        if self.conditioner is None:
            return None
        if metadata is None:
            device = self.encoder.pos_embed.device
            metadata = Metadata.unknown(self.conditioner.schema, batch, device)
        return self.conditioner(metadata)

    def embed(self, features: Tensor, metadata: Any = None, *, mix: GridMix | None = None) -> Tensor:
        """``[B, 1, M, T]``, metadata → ``[B, D]``; see ``Network.embed``."""
        return self.embed_conditioned(features, self.condition(metadata, features.shape[0]), mix=mix)

    def embed_conditioned(
        self, features: Tensor, conditioning: Conditioning | None, *, mix: GridMix | None = None
    ) -> Tensor:
        """``embed``, ``[B, 1, M, T]`` → ``[B, D]``, for a conditioning computed before, such as once per patient."""
        if self.canvas is not None:
            features = self.canvas(features)  # [B, 1, M, canvas_frames]
        modulation: dict[int, Tensor] | None = None
        if conditioning is not None and conditioning.modulation is not None:
            modulation = dict(zip(self.conditioned, conditioning.modulation.unbind(1), strict=True))
        tokens = self.encoder(features, modulation, mix)  # [B, N, D]
        if self.pooling == "cls_dist":
            pooled = tokens[:, :TOKENS].mean(dim=1)  # [B, D]
        elif self.pooling == "all":
            pooled = tokens.mean(dim=1)
        else:
            pooled = tokens[:, TOKENS:].mean(dim=1)
        if conditioning is not None and conditioning.residual is not None:
            pooled = pooled + conditioning.residual
        return pooled

    def classify(self, embedding: Tensor) -> Tensor:
        """``[B, D]`` → ``[B, C]``."""
        return self.head(embedding)

    def penalty(self) -> Tensor | None:
        """Weighted regulariser ``[]`` of SoftFiLM's published masks; None without them."""
        return None if self.conditioner is None else self.conditioner.penalty()

    def on_epoch(self, epoch: int, epochs: int) -> None:
        """Cool SoftFiLM's published masks."""
        if isinstance(self.conditioner, Conditioner) and self.conditioner.masks is not None:
            self.conditioner.masks.anneal(epoch, epochs)

    def folded(self) -> Ast:
        """For export: a copy with equal logits that computes nothing twice and nothing that nobody reads.

        SoftFiLM's masks are part of one linear layer, and the last block computes only the tokens of the pooling.
        """
        clone = copy.deepcopy(self)
        if clone.pooling == "cls_dist":
            clone.encoder.kept = TOKENS
        if isinstance(clone.conditioner, Conditioner):
            clone.conditioner = clone.conditioner.folded()
        return clone

    def specialised(self, metadata: Metadata) -> Ast:
        """For export: a plain AST for one fixed metadata row, with the conditioning inside its layer norms.

        Raises
        ------
        ExportError
            More than one row, or a conditioning that differs for class tokens and patches.
        """
        clone = copy.deepcopy(self).eval()
        if clone.conditioner is None:
            return clone
        if len(metadata) != 1:
            raise ExportError(f"a specialised model is made for one metadata row, not {len(metadata)}")
        with torch.no_grad():
            fixed = clone.conditioner(metadata)
            if fixed.modulation is not None:
                if fixed.modulation.shape[2] != 1:
                    raise ExportError("token-aware conditioning does not fit into layer norms; export with metadata")
                for index, (scale, shift) in zip(self.conditioned, fixed.modulation[0, :, 0], strict=True):
                    block = clone.encoder.blocks[index]
                    assert isinstance(block, Block)
                    block.norm2.weight.mul_(1.0 + scale)
                    block.norm2.bias.mul_(1.0 + scale).add_(shift)
            if fixed.residual is not None:  # every pooling is a mean: a shift of all tokens shifts it equally
                clone.encoder.norm.bias.add_(fixed.residual[0])
        clone.conditioner = None
        return clone

    def public_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a public AST file under this network's names, positions resized to its grid.

        Raises
        ------
        CheckpointError
            An unknown layout, or positions whose grid is ambiguous.
        """
        found = ast_encoder_state(state, own_grid=self.encoder.grid, grid=self.pretrained_grid)
        found.tensors["pos_embed"] = resize_positions(
            found.tensors["pos_embed"], found.grid, self.encoder.grid, self.encoder.rule
        )
        return {f"encoder.{name}": tensor for name, tensor in found.tensors.items()}


def _pair(value: int | Sequence[int] | None, default: Grid) -> tuple[int, int]:
    if value is None:
        return default
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise RecipeError(f"model option {value!r} must be a positive number or a pair (mel, time)")
    return int(pair[0]), int(pair[1])


def _picture(picture: Sequence[int] | None, front_end: FrontEndSpec | None) -> tuple[int, int]:
    if picture is not None:
        return _pair(picture, (0, 0))
    if front_end is None:
        raise RecipeError("an AST needs the size of its picture: give front_end, or picture=(mel, frames)")
    return front_end.mel_bins, front_end.frames
