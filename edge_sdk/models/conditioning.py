"""Conditioning of a transformer on metadata: GRF, FiLM, token-aware FiLM and SoftFiLM in one object.

FiLM: Visual Reasoning with a General Conditioning Layer (https://arxiv.org/abs/1709.07871). In mode ``ours`` every kind
starts at the plain network: the metadata add zero until it is learned. ``paper`` follows the published layers, initial
values and their faults (a layer norm over three z-scores keeps only their direction).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from edge_sdk.errors import RecipeError
from edge_sdk.metadata import MetadataSchema
from edge_sdk.models.layers.metadata_encoder import Continuous, Metadata, MetadataEncoder

__all__ = ["KINDS", "Conditioner", "Conditioning", "ConditioningSettings", "FoldedConditioner", "Metadata"]

Kind = Literal["none", "grf", "film", "tafilm", "softfilm"]
KINDS: tuple[Kind, ...] = get_args(Kind)
HIDDEN = 64  # of every trunk
MASK_START = 0.5  # published SoftFiLM: logits start at plus this on a factor's own third, minus this elsewhere
TAU_FLOOR = 0.1


@dataclass(frozen=True)
class ConditioningSettings:
    """Fields of a recipe's ``model.options.conditioning`` (a kind, or a mapping of these)."""

    kind: Kind = "none"
    mode: Literal["ours", "paper"] = "ours"
    layers: tuple[int, ...] | None = None  # blocks that are modulated; None: all
    token_aware: bool = False  # softfilm: own values for CLS and DIST, as tafilm always has
    masks: Literal["softmax", "paper"] | None = None  # softfilm; None: softmax in ours, paper in paper
    mask_rate: float = 10.0  # factor on the learning rate of softmax masks
    overlap: float = 0.01  # weights of the regulariser of paper masks
    coverage: float = 0.005
    dropout: float = 0.2

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("kind", self.kind, KINDS),
            ("mode", self.mode, ("ours", "paper")),
            ("masks", self.masks, (None, "softmax", "paper")),
        ):
            if value not in choices:
                raise RecipeError(f"conditioning: {name} is {value!r}, must be one of {', '.join(map(str, choices))}")
        if self.token_aware and self.kind not in ("softfilm", "tafilm"):
            raise RecipeError("conditioning: token_aware goes with softfilm; token-aware FiLM is kind: tafilm")

    @classmethod
    def parse(cls, value: str | Mapping[str, Any] | ConditioningSettings) -> ConditioningSettings:
        """A kind, a mapping of fields, or settings; ``RecipeError`` for unknown fields."""
        if isinstance(value, ConditioningSettings):
            return value
        fields: dict[str, Any] = {"kind": value} if isinstance(value, str) else dict(value)
        if fields.get("layers") is not None:
            fields["layers"] = tuple(fields["layers"])
        try:
            return cls(**fields)
        except TypeError as error:
            raise RecipeError(f"conditioning: {error}; fields are {', '.join(cls.__dataclass_fields__)}") from error

    @property
    def mask_kind(self) -> Literal["softmax", "paper"]:
        """Kind of SoftFiLM's masks, by ``masks`` or by ``mode``."""
        return self.masks or ("paper" if self.mode == "paper" else "softmax")

    @property
    def groups(self) -> int:
        """Token groups G with a modulation of their own."""
        return 2 if self.kind == "tafilm" or self.token_aware else 1


@dataclass(frozen=True)
class Conditioning:
    """Modulation and residual that the metadata give."""

    modulation: Tensor | None = None  # [B, Lc, G, 2, D]: change of scale, shift; after the second norm of Lc blocks
    residual: Tensor | None = None  # [B, D], added to the pooled embedding


def _generator(inputs: int, shape: tuple[int, ...], start: str) -> nn.Linear:
    layer = nn.Linear(inputs, math.prod(shape))
    if start == "zero":
        nn.init.zeros_(layer.weight)
    elif start == "xavier":
        nn.init.xavier_uniform_(layer.weight, gain=0.1)
    if start != "default":
        nn.init.zeros_(layer.bias)
    return layer


def _trunk(inputs: int, settings: ConditioningSettings) -> nn.Sequential:
    """Metadata vector → ``HIDDEN``."""
    drop = nn.Dropout(settings.dropout)
    if settings.mode == "ours":
        return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.GELU(), drop, nn.Linear(HIDDEN, HIDDEN), nn.GELU())
    if settings.kind == "softfilm":
        half = nn.Dropout(settings.dropout / 2)
        first = (nn.LayerNorm(inputs), nn.Linear(inputs, HIDDEN), nn.ReLU())
        return nn.Sequential(*first, half, nn.Linear(HIDDEN, HIDDEN), nn.ReLU())
    act = nn.GELU if settings.kind == "tafilm" else nn.ReLU
    start = (nn.LayerNorm(inputs), nn.Linear(inputs, HIDDEN), act())
    return nn.Sequential(*start, drop, nn.Linear(HIDDEN, HIDDEN), act())


class _Residual(nn.Module):
    """GRF: metadata vector → addition to the pooled embedding."""

    def __init__(self, inputs: int, raw: int, dim: int, settings: ConditioningSettings) -> None:
        super().__init__()
        self.raw = raw  # number of raw scores at the end of the vector, which the published form normalises first
        self.scores: nn.Module | None = None
        self.gate: nn.Parameter | None = None
        if settings.mode == "ours":
            self.project = nn.Sequential(_trunk(inputs, settings), _generator(HIDDEN, (dim,), "zero"))
            return
        self.scores = nn.LayerNorm(raw) if raw else None
        self.gate = nn.Parameter(torch.tensor(0.5))
        first = (nn.Linear(inputs, dim), nn.LayerNorm(dim), nn.GELU(), nn.Dropout(2 * settings.dropout))
        self.project = nn.Sequential(*first, nn.Linear(dim, dim), nn.LayerNorm(dim))

    def forward(self, vector: Tensor) -> Tensor:
        if self.scores is not None:
            vector = torch.cat([vector[:, : -self.raw], self.scores(vector[:, -self.raw :])], dim=1)
        added = self.project(vector)  # [B, D]
        return added if self.gate is None else self.gate * added


class SoftMasks(nn.Module):
    """Share of each channel that each factor modulates: ``[F, D]``.

    ``paper``: sigmoids at a falling temperature that start as contiguous parts; ``softmax``: the factors and a null
    compete for each channel, from a random start.
    """

    tau: Tensor  # [], in the state dict: a checkpoint keeps the temperature it was chosen at

    def __init__(self, factors: int, dim: int, kind: Literal["softmax", "paper"]) -> None:
        super().__init__()
        self.kind, self.factors = kind, factors
        self.register_buffer("tau", torch.tensor(1.0))
        if kind == "paper":
            owner = (torch.arange(dim) * factors) // dim
            start = torch.where(owner == torch.arange(factors)[:, None], MASK_START, -MASK_START)
            self.logits = nn.Parameter(start)  # [F, D]
        else:
            self.logits = nn.Parameter(torch.randn(factors + 1, dim))

    def forward(self) -> Tensor:
        """``[F, D]`` in 0..1."""
        if self.kind == "softmax":
            return torch.softmax(self.logits, dim=0)[: self.factors]
        return torch.sigmoid(self.logits / torch.clamp(self.tau, min=TAU_FLOOR))

    def anneal(self, epoch: int, epochs: int) -> None:
        """Temperature 1 for the first tenth of the run, then a cosine down to 0.2."""
        rest = epochs / 10
        phase = min(max(epoch - rest, 0.0) / max(epochs - rest, 1.0), 1.0)
        self.tau.fill_(0.2 + 0.4 * (1.0 + math.cos(math.pi * phase)))

    def penalty(self, overlap: float, coverage: float) -> Tensor | None:
        """Published regulariser ``[]`` against overlap and uncovered channels; None for ``softmax``."""
        if self.kind == "softmax":
            return None
        masks = self()
        pairs = [(masks[i] * masks[j]).mean() for i in range(len(masks)) for j in range(i)]
        shared = torch.stack(pairs).mean() if pairs else masks.new_zeros(())
        return overlap * shared + coverage * (1.0 - masks.amax(dim=0)).mean()


class Conditioner(nn.Module):
    """Metadata → ``Conditioning``; every kind uses the same ``MetadataEncoder``.

    Parameters
    ----------
    settings : ConditioningSettings
        ``kind`` is not ``none``.
    schema : MetadataSchema
        Fields to read; at least one.
    dim : int
        D of the transformer.
    layers : int
        Blocks that are modulated, Lc.
    """

    def __init__(self, settings: ConditioningSettings, schema: MetadataSchema, dim: int, layers: int) -> None:
        super().__init__()
        self.settings, self.schema = settings, schema
        self.shape = (layers, settings.groups, 2, dim)
        paper = settings.mode == "paper"
        continuous: Continuous = "joint"
        if paper:
            continuous = "each" if settings.kind in ("film", "tafilm") else "raw"
        self.encoder = MetadataEncoder(
            schema, learned_unknown=not paper, continuous=continuous, dropout=settings.dropout
        )
        widths = self.encoder.widths
        self.masks: SoftMasks | None = None
        start = {"film": "default", "softfilm": "xavier"}.get(settings.kind, "zero") if paper else "zero"
        if settings.kind == "grf":
            self.residual = _Residual(sum(widths.values()), len(schema.continuous), dim, settings)
        elif settings.kind == "softfilm":
            self.trunks = nn.ModuleDict({name: _trunk(width, settings) for name, width in widths.items()})
            self.generators = nn.ModuleDict({name: _generator(HIDDEN, self.shape, start) for name in widths})
            self.masks = SoftMasks(len(widths), dim, settings.mask_kind)
        else:
            self.trunk = _trunk(sum(widths.values()), settings)
            self.generator = _generator(HIDDEN, self.shape, start)

    def forward(self, metadata: Metadata) -> Conditioning:
        """Metadata of B examples → modulation or residual of the transformer."""
        factors = self.encoder(metadata)
        if self.settings.kind == "grf":
            return Conditioning(residual=self.residual(torch.cat(list(factors.values()), dim=1)))
        if self.masks is None:
            flat = self.generator(self.trunk(torch.cat(list(factors.values()), dim=1)))
            return Conditioning(flat.unflatten(1, self.shape))
        parts = self.factor_modulations(factors)
        return Conditioning(torch.stack(list(parts.values())).sum(dim=0))

    def factor_modulations(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """SoftFiLM: modulation by each factor alone, ``[B, Lc, G, 2, D]`` by name.

        Raises
        ------
        ValueError
            Another kind, which has no separate factors.
        """
        if self.masks is None:
            raise ValueError(f"conditioning {self.settings.kind!r} has no separate factors; softfilm has")
        return {
            name: self.generators[name](self.trunks[name](factors[name])).unflatten(1, self.shape) * mask
            for (name, mask) in zip(self.trunks, self.masks().unbind(0), strict=True)
        }

    def penalty(self) -> Tensor | None:
        """Weighted regulariser ``[]`` of the masks, or None."""
        return None if self.masks is None else self.masks.penalty(self.settings.overlap, self.settings.coverage)

    def folded(self) -> Conditioner | FoldedConditioner:
        """For export: masks multiplied into one generator; kinds without masks are returned as they are."""
        return self if self.masks is None else FoldedConditioner(self)


class FoldedConditioner(nn.Module):
    """SoftFiLM with its masks, at their current temperature, inside the rows of a single linear layer."""

    def __init__(self, conditioner: Conditioner) -> None:
        super().__init__()
        if conditioner.masks is None:
            raise ValueError(f"conditioning {conditioner.settings.kind!r} has no masks to fold")
        self.shape, self.schema = conditioner.shape, conditioner.schema
        self.settings = conditioner.settings
        self.encoder, self.trunks = conditioner.encoder, conditioner.trunks
        with torch.no_grad():
            generators = [cast(nn.Linear, conditioner.generators[name]) for name in conditioner.trunks]
            rows = [mask.expand(self.shape).reshape(-1) for mask in conditioner.masks().unbind(0)]  # each [L*G*2*D]
            weights = [row[:, None] * layer.weight for row, layer in zip(rows, generators, strict=True)]
            biases = [row * layer.bias for row, layer in zip(rows, generators, strict=True)]
            self.generator = nn.Linear(HIDDEN * len(rows), math.prod(self.shape), device=rows[0].device)
            self.generator.weight.copy_(torch.cat(weights, dim=1))
            self.generator.bias.copy_(torch.stack(biases).sum(dim=0))

    def forward(self, metadata: Metadata) -> Conditioning:
        """As ``Conditioner.forward``."""
        factors = self.encoder(metadata)
        hidden = torch.cat([trunk(factors[name]) for name, trunk in self.trunks.items()], dim=1)
        return Conditioning(self.generator(hidden).unflatten(1, self.shape))

    def penalty(self) -> Tensor | None:
        """None: the regulariser belongs to training."""
        return None
