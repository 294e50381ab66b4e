"""Inspection of a trained AST and its conditioning: the numbers behind the figures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from edge_sdk.models.ast import Ast
from edge_sdk.models.conditioning import Conditioner, Metadata
from edge_sdk.models.layers.ast_encoder import TOKENS, Attention, Block


@dataclass(frozen=True)
class FilmParameters:
    """Scale and shift of one conditioned block; G = 2: class tokens, then patches."""

    block: int
    gamma: Tensor  # [B, G, D]; 1 is no change
    beta: Tensor  # [B, G, D]


@dataclass(frozen=True)
class MaskReport:
    """SoftFiLM's masks, and how far training moved them from their start."""

    factors: tuple[str, ...]
    masks: Tensor  # [F, D], at the temperature of the checkpoint
    overlap: Tensor  # [F, F] mean product over channels; the diagonal is the mean square
    coverage: float  # mean over channels of the largest mask
    start_agreement: float | None  # share of channels whose largest mask is still the one set at the start


@torch.no_grad()
def attention_maps(model: Ast, features: Tensor, metadata: Metadata | None = None) -> Tensor:
    """Attention of the two class tokens on the patches.

    Parameters
    ----------
    model : Ast
        In evaluation mode.
    features : Tensor
        ``[B, 1, M, T]``.
    metadata : Metadata, optional
        As in ``forward``.

    Returns
    -------
    Tensor
        ``[B, L, heads, H, W]``: weights of CLS and DIST on the patches, averaged over the two; weights between the
        tokens are left out, so a map sums to at most 1. Rows are mel, lowest first.
    """
    maps: list[Tensor] = []
    sizes: list[tuple[int, int]] = []

    def record_scores(attention: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(attention, Attention)
        query, key, _value = attention.queries_keys_values(inputs[0])
        scores = query[:, :, :TOKENS] @ key.transpose(2, 3) / query.shape[3] ** 0.5  # [B, heads, 2, N]
        maps.append(scores.softmax(dim=3)[..., TOKENS:].mean(dim=2))

    def record_grid(_: nn.Module, __: tuple[Tensor, ...], grid: Tensor) -> None:
        sizes.append((grid.shape[2], grid.shape[3]))

    handles = [model.encoder.patch_embed.register_forward_hook(record_grid)]
    handles += [
        block.attn.register_forward_hook(record_scores) for block in model.encoder.blocks if isinstance(block, Block)
    ]
    try:
        model(features, metadata)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(maps, dim=1).unflatten(3, sizes[0])


@torch.no_grad()
def film_parameters(model: Ast, metadata: Metadata) -> tuple[FilmParameters, ...]:
    """Scale and shift of every conditioned block for these examples; empty where nothing is modulated."""
    conditioning = model.condition(metadata, len(metadata))
    if conditioning is None or conditioning.modulation is None:
        return ()
    return tuple(
        FilmParameters(block, 1.0 + part[:, :, 0], part[:, :, 1])
        for block, part in zip(model.conditioned, conditioning.modulation.unbind(1), strict=True)
    )


@torch.no_grad()
def factor_contributions(model: Ast, metadata: Metadata) -> dict[str, Tensor]:
    """SoftFiLM: modulation by each factor alone, ``[B, Lc, G, 2, D]`` by name; ``ValueError`` for other kinds."""
    conditioner = _soft(model)
    return conditioner.factor_modulations(conditioner.encoder(metadata))


@torch.no_grad()
def mask_report(model: Ast) -> MaskReport:
    """SoftFiLM's masks; ``ValueError`` for other kinds and for a model folded for export."""
    conditioner = _soft(model)
    assert conditioner.masks is not None
    masks = conditioner.masks()
    agreement = None
    if conditioner.masks.kind == "paper":
        factors, dim = masks.shape
        start = (torch.arange(dim, device=masks.device) * factors) // dim
        agreement = float((masks.argmax(dim=0) == start).float().mean())
    return MaskReport(
        tuple(conditioner.trunks), masks, masks @ masks.T / masks.shape[1], float(masks.amax(dim=0).mean()), agreement
    )


@torch.no_grad()
def metadata_swap(model: Ast, features: Tensor, metadata: Metadata, field: str, index: int) -> Tensor:
    """Change of the softmax probabilities ``[B, C]`` when the categorical ``field`` of all rows becomes ``index``.

    Raises
    ------
    ValueError
        The metadata have no such field.
    """
    if field not in metadata.categorical:
        raise ValueError(f"metadata has no categorical field {field!r}; it has {', '.join(metadata.categorical)}")
    swapped = replace(
        metadata,
        categorical={**metadata.categorical, field: torch.full_like(metadata.categorical[field], index)},
    )
    return model(features, swapped).softmax(dim=1) - model(features, metadata).softmax(dim=1)


def _soft(model: Ast) -> Conditioner:
    if not isinstance(model.conditioner, Conditioner) or model.conditioner.masks is None:
        raise ValueError("only an unfolded softfilm model has masks and factors")
    return model.conditioner
