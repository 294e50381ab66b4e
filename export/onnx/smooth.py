"""SmoothQuant (arXiv:2211.10438) as a fold of torch weights: outlier channels move from activations into weights.

Each channel of a layer norm's gain is divided by the factor that multiplies the next linear layer. In fp32 nothing
changes; in int8 the activations lose the few channels that would set the scale of all others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from edge_sdk.models.ast import Ast
from edge_sdk.models.conditioning import Metadata
from edge_sdk.models.layers.ast_encoder import Block
from export.onnx.graph import fold_masks

ALPHA = 0.5
"""Share of the difficulty that goes into the weights; 0.5 as published."""

_SMALLEST = 1e-5
_EQUAL = 1e-4  # relative: a fold that changes the logits more is undone
NetworkInputs: TypeAlias = tuple[Tensor, Metadata | None]
"""Features ``[B, 1, M, T]`` and their metadata."""

_Layer = TypeVar("_Layer", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class FoldableNorm:
    """A layer norm, the linear layers that are its only readers, and a FiLM shift between them."""

    norm: nn.LayerNorm
    linears: list[nn.Linear] = field(default_factory=list)
    shift: tuple[nn.Linear, Tensor] | None = None  # generator of FiLM shifts, its rows [G, D] for this block

    @torch.no_grad()
    def fold(self, scale: Tensor) -> None:
        """Divide the activations by ``scale`` ``[D]`` and multiply the weights by it."""
        self.norm.weight.div_(scale)
        if self.norm.bias is not None:
            self.norm.bias.div_(scale)
        for linear in self.linears:
            linear.weight.mul_(scale)
        if self.shift is not None:
            generator, rows = self.shift
            for row in rows:  # [D]
                generator.weight[row] = generator.weight[row] / scale[:, None]
                generator.bias[row] = generator.bias[row] / scale


@torch.no_grad()
def smooth_activations(
    model: nn.Module, batches: Sequence[NetworkInputs], *, alpha: float = ALPHA
) -> tuple[nn.Module, int]:
    """A copy with equal logits whose linear layers read smoother activations.

    Parameters
    ----------
    model
        Any network of the registry; SoftFiLM's masks are folded first.
    batches
        Batches of training patients: features ``[B, 1, M, T]``, with metadata where the model reads it.
    alpha
        Share of the range that moves into the weights, 0 to 1.

    Returns
    -------
    model, count
        The copy and the number of folded layer norms.
    """
    clone = copy.deepcopy(fold_masks(model)).eval()
    if not batches:
        return clone, 0
    before = clone(*batches[0])
    foldable = [*_plain_norms(clone, batches[0]), *_modulated_norms(clone)]
    ranges = _input_ranges(clone, batches, {linear for entry in foldable for linear in entry.linears})
    scales = [_scale(entry, ranges, alpha) for entry in foldable]
    for entry, scale in zip(foldable, scales, strict=True):
        entry.fold(scale)
    if _near(clone(*batches[0]), before):
        return clone, len(foldable)
    for entry, scale in zip(foldable, scales, strict=True):  # another layer reads one of the norms: find out which
        entry.fold(1.0 / scale)
    folded = 0
    for entry, scale in zip(foldable, scales, strict=True):
        entry.fold(scale)
        if _near(clone(*batches[0]), before):
            folded += 1
        else:
            entry.fold(1.0 / scale)
    return clone, folded


def _near(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).norm() <= _EQUAL * expected.norm().clamp(min=1e-6))


def _scale(entry: FoldableNorm, ranges: Mapping[nn.Linear, Tensor], alpha: float) -> Tensor:
    """``max |activation| ** alpha / max |weight| ** (1 - alpha)`` of each channel ``[D]``."""
    activation = torch.stack([ranges[linear] for linear in entry.linears]).amax(dim=0).clamp(min=_SMALLEST)
    weight = torch.cat([linear.weight for linear in entry.linears]).abs().amax(dim=0).clamp(min=_SMALLEST)
    return (activation**alpha / weight ** (1.0 - alpha)).clamp(min=_SMALLEST)


def _plain_norms(model: nn.Module, batch: NetworkInputs) -> list[FoldableNorm]:
    """Norms whose output is, unchanged, the input of linear layers, found by running the network once."""
    outputs: list[tuple[nn.LayerNorm, Tensor]] = []  # tensors are kept, so that no address is used twice
    foldable: dict[nn.LayerNorm, FoldableNorm] = {}

    def normed(module: nn.LayerNorm, _: Any, output: Tensor) -> None:
        outputs.append((module, output))

    def reads(module: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        given = inputs[0]
        for norm, output in outputs:
            same = given.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()
            if same and given.shape[-1] == output.shape[-1] == norm.normalized_shape[-1] and given.stride(-1) == 1:
                entry = foldable.setdefault(norm, FoldableNorm(norm))
                if module not in entry.linears:
                    entry.linears.append(module)

    with (
        _hooked(model, nn.LayerNorm, lambda m: m.register_forward_hook(normed)),
        _hooked(model, nn.Linear, lambda m: m.register_forward_pre_hook(reads)),
    ):
        model(*batch)
    return [entry for entry in foldable.values() if entry.norm.elementwise_affine]


def _modulated_norms(model: nn.Module) -> Iterator[FoldableNorm]:
    """Second norms of an AST's blocks that FiLM modulates: the scale commutes, the shift is divided at its source."""
    for network in model.modules():
        generator = getattr(getattr(network, "conditioner", None), "generator", None)
        if not isinstance(network, Ast) or not isinstance(generator, nn.Linear) or network.conditioner is None:
            continue
        layers, groups, _, dim = network.conditioner.shape
        rows = torch.arange(generator.out_features).reshape(layers, groups, 2, dim)[:, :, 1]  # [Lc, G, D]
        for position, index in enumerate(network.conditioned):
            block = network.encoder.blocks[index]
            assert isinstance(block, Block)
            yield FoldableNorm(block.norm2, [block.mlp.fc1], (generator, rows[position]))


def _input_ranges(
    model: nn.Module, batches: Sequence[NetworkInputs], linears: set[nn.Linear]
) -> dict[nn.Linear, Tensor]:
    """Largest magnitude of each input channel ``[D]``, over all batches."""
    ranges: dict[nn.Linear, Tensor] = {}

    def measure(module: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        if module in linears:
            largest = inputs[0].abs().flatten(0, -2).amax(dim=0)
            ranges[module] = torch.maximum(ranges[module], largest) if module in ranges else largest

    with _hooked(model, nn.Linear, lambda m: m.register_forward_pre_hook(measure)):
        for batch in batches:
            model(*batch)
    return ranges


@contextmanager
def _hooked(model: nn.Module, kind: type[_Layer], add: Callable[[_Layer], Any]) -> Iterator[None]:
    handles = [add(module) for module in model.modules() if isinstance(module, kind)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
