"""Metadata as tensors, and the encoder that all kinds of conditioning share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.metadata import UNKNOWN, MetadataSchema

if TYPE_CHECKING:
    from numpy.typing import NDArray

EMBEDDING = {"device": 8, "site": 14, "sex": 4}  # widths; device and site as published
CLIP = 4.0  # standard deviations; a mistyped age must not blow the network up
Continuous = Literal["joint", "each", "raw"]
ContinuousInputs = tuple[Tensor, Tensor]  # clipped z-scores (0 where unknown) [B, K], valid flags [B, K]


@dataclass(frozen=True)
class Metadata:
    """One batch of encoded metadata; ``MetadataSchema.encode`` makes the arrays."""

    categorical: dict[str, Tensor] = field(default_factory=dict)  # each int32 [B], 0 = UNKNOWN
    cont: Tensor | None = None  # float32 [B, K], raw units
    cont_valid: Tensor | None = None  # float32 [B, K] of 0 / 1

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any] | Tensor]) -> Metadata:
        """From the arrays (or tensors) of ``MetadataSchema.encode``."""
        tensors = {name: torch.as_tensor(value) for name, value in arrays.items()}
        cont, valid = tensors.pop("cont", None), tensors.pop("cont_valid", None)
        return cls(tensors, cont, valid)

    @classmethod
    def unknown(cls, schema: MetadataSchema, batch: int, device: torch.device | str | None = None) -> Metadata:
        """``batch`` rows without any known value."""
        zeros = torch.zeros(batch, len(schema.continuous), device=device)
        return cls(
            {name: torch.zeros(batch, dtype=torch.int32, device=device) for name in schema.categorical},
            zeros if schema.continuous else None,
            zeros if schema.continuous else None,
        )

    def __len__(self) -> int:
        """Rows."""
        first = self.cont if self.cont is not None else next(iter(self.categorical.values()), None)
        return 0 if first is None else len(first)

    def arrays(self) -> dict[str, Tensor]:
        """Tensors, each ``[B]`` or ``[B, K]``, under the names of the graph's inputs."""
        tensors = dict(self.categorical)
        if self.cont is not None and self.cont_valid is not None:
            tensors |= {"cont": self.cont, "cont_valid": self.cont_valid}
        return tensors

    def index(self, rows: Tensor | Sequence[int] | slice) -> Metadata:
        """The chosen rows, in their order."""
        chosen: Any = rows if isinstance(rows, (slice, Tensor)) else torch.as_tensor(rows)
        return self.from_arrays({name: value[chosen] for name, value in self.arrays().items()})

    def to(self, device: torch.device | str) -> Metadata:
        """All tensors on ``device``."""
        return self.from_arrays({name: value.to(device) for name, value in self.arrays().items()})

    def drop(self, generator: torch.Generator, per_field: float = 0.15, all_fields: float = 0.1) -> Metadata:
        """Hide values at random, so that one network learns to work with and without them.

        Parameters
        ----------
        generator : torch.Generator
            Source of all draws.
        per_field : float
            Probability that one value of one example becomes unknown.
        all_fields : float
            Probability that everything about an example becomes unknown.
        """
        batch = len(self)
        if not batch:
            return self
        fields = len(self.categorical) + (0 if self.cont is None else self.cont.shape[1])
        draws = torch.rand(batch, fields + 1, generator=generator, device=generator.device)
        hidden = (draws[:, :-1] < per_field) | (draws[:, -1:] < all_fields)  # [B, fields]
        categorical = {
            name: value.masked_fill(hidden[:, position].to(value.device), UNKNOWN)
            for position, (name, value) in enumerate(self.categorical.items())
        }
        valid = self.cont_valid
        if valid is not None:
            valid = valid.masked_fill(hidden[:, len(self.categorical) :].to(valid.device), 0.0)
        return replace(self, categorical=categorical, cont_valid=valid)


class IdEmbedding(nn.Module):
    """Index → vector; every index outside the vocabulary is UNKNOWN, also in the exported graph.

    ``learned_unknown`` gives UNKNOWN a vector of its own; without one it is zero, so that the published parameter
    counts hold.
    """

    def __init__(self, names: int, width: int, *, learned_unknown: bool) -> None:
        super().__init__()
        self.names, self.learned_unknown = names, learned_unknown
        self.weight = nn.Parameter(torch.randn(names + int(learned_unknown), width))

    def forward(self, index: Tensor) -> Tensor:
        """Int ``[B]`` → ``[B, width]``."""
        inside = (index >= 0) & (index <= self.names)
        index = torch.where(inside, index, torch.full_like(index, UNKNOWN))
        table: Tensor = self.weight
        if not self.learned_unknown:
            table = torch.cat([table.new_zeros(1, table.shape[1]), table])
        return F.embedding(index, table)


class _PerFeature(nn.Module):
    """Continuous encoder as published for FiLM: each value through a layer of its own, then two together."""

    def __init__(self, features: int, width: int, dropout: float) -> None:
        super().__init__()
        each = width // max(features, 1)
        self.each = nn.ModuleList(
            nn.Sequential(nn.Linear(1, each), nn.LayerNorm(each), nn.ReLU(), nn.Dropout(dropout))
            for _ in range(features)
        )
        self.together = nn.Sequential(
            nn.Linear(each * features, width),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
        )

    def forward(self, values: Tensor) -> Tensor:
        parts = [encode(values[:, k : k + 1]) for k, encode in enumerate(self.each)]
        return self.together(torch.cat(parts, dim=1))


class MetadataEncoder(nn.Module):
    """Metadata → one vector per factor: ``device``, ``site``, ``rest`` (sex and continuous); absent ones are left out.

    Parameters
    ----------
    schema : MetadataSchema
        Fields, vocabularies and statistics; the statistics become buffers of the state dict.
    learned_unknown : bool
        See ``IdEmbedding``.
    continuous : str
        ``joint``: clipped z-scores and valid flags through one layer (ours). ``each``, ``raw``: as published for FiLM,
        and for GRF and SoftFiLM; both use no flags, and an unknown value is the training mean.
    dropout : float
        Inside ``each``.
    """

    mean: Tensor  # [K]
    std: Tensor  # [K]
    CONTINUOUS_WIDTH = 32

    def __init__(
        self, schema: MetadataSchema, *, learned_unknown: bool, continuous: Continuous, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                name: IdEmbedding(len(vocabulary), EMBEDDING[name], learned_unknown=learned_unknown)
                for name, vocabulary in schema.categorical.items()
            }
        )
        features = len(schema.continuous)
        self.features, self.kind = features, continuous
        self.register_buffer("mean", torch.tensor(schema.mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(schema.std, dtype=torch.float32))
        self.values: nn.Module | None = None
        width = features
        if features and continuous == "joint":
            self.values = nn.Sequential(nn.Linear(2 * features, self.CONTINUOUS_WIDTH), nn.GELU())
        elif features and continuous == "each":
            self.values = _PerFeature(features, self.CONTINUOUS_WIDTH, dropout)
        if self.values is not None:
            width = self.CONTINUOUS_WIDTH
        self.widths: dict[str, int] = {
            name: EMBEDDING[name] for name in ("device", "site") if name in schema.categorical
        }
        rest = width + (EMBEDDING["sex"] if "sex" in schema.categorical else 0)
        if rest:
            self.widths["rest"] = rest

    def standardised(self, metadata: Metadata) -> ContinuousInputs:
        """Clipped z-scores, 0 where unknown, and valid flags; each ``[B, K]``.

        Raises
        ------
        ValueError
            Continuous metadata are missing.
        """
        if metadata.cont is None or metadata.cont_valid is None:
            raise ValueError("the model reads continuous metadata; give 'cont' and 'cont_valid' (0 = unknown)")
        valid = metadata.cont_valid > 0.5
        # where, not a product: a NaN under a flag of 0 must not spread
        raw = torch.where(valid, metadata.cont, self.mean.expand_as(metadata.cont))
        return torch.clamp((raw - self.mean) / self.std, -CLIP, CLIP), valid.to(raw.dtype)

    def forward(self, metadata: Metadata) -> dict[str, Tensor]:
        """One ``[B, widths[factor]]`` per factor.

        Raises
        ------
        ValueError
            A field that the schema names is missing.
        """
        absent = sorted(set(self.embeddings) - set(metadata.categorical))
        if absent:
            raise ValueError(f"the model reads metadata {absent}; give it as indices, 0 = UNKNOWN")
        parts = {name: embed(metadata.categorical[name]) for name, embed in self.embeddings.items()}
        rest = [parts.pop("sex")] if "sex" in parts else []
        if self.features:
            scores, valid = self.standardised(metadata)  # [B, K] each
            if self.values is None:
                rest.append(scores)
            else:
                rest.append(self.values(torch.cat([scores, valid], dim=1) if self.kind == "joint" else scores))
        if rest:
            parts["rest"] = torch.cat(rest, dim=1)
        return {name: parts[name] for name in self.widths}
