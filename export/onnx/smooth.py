"""SmoothQuant (arXiv:2211.10438) as a fold of torch weights: outlier channels move from activations into weights.

A layer norm's gain is divided, channel by channel, by what the next linear layer is multiplied with. In fp32 nothing
changes; in int8 the activations lose the few channels that would set the scale of all others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from edge_sdk.models.ast import Ast
from edge_sdk.models.conditioning import Metadata
from edge_sdk.models.layers.ast_encoder import Block
from export.onnx.graph import fold_masks

ALPHA = 0.5
"""Share of the difficulty that goes into the weights; 0.5 as published."""

_SMALLEST = 1e-5
_EQUAL = 1e-4  # relative: a fold that changes the logits by more was not legal
Call = tuple[Tensor, Metadata | None]
_Layer = TypeVar("_Layer", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Pair:
    """A layer norm, the linear layers that alone read it, and what else adds to it on the way."""

    norm: nn.LayerNorm
    linears: list[nn.Linear] = field(default_factory=list)
    shift: tuple[nn.Linear, Tensor] | None = None  # generator of FiLM shifts, its rows [G, D] for this block

    @torch.no_grad()
    def fold(self, scale: Tensor) -> None:
        """Divide what is read by ``scale`` ``[D]``, multiply the weights by it."""
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
def smooth(model: nn.Module, calls: Sequence[Call], *, alpha: float = ALPHA) -> tuple[nn.Module, int]:
    """A copy with equal logits whose linear layers read smoother activations.

    Parameters
    ----------
    model
        Any network of ours; SoftFiLM's masks are folded first.
    calls
        Batches of features ``[B, 1, M, T]``, with metadata where the model reads it: training patients.
    alpha
        0: nothing moves, 1: all of the range does.

    Returns
    -------
    model, pairs
        The copy and how many layer norms were folded; 0 in a network without any that can be.
    """
    clone = copy.deepcopy(fold_masks(model)).eval()
    if not calls:
        return clone, 0
    before = clone(*calls[0])
    pairs = [*_plain_pairs(clone, calls[0]), *_modulated_pairs(clone)]
    ranges = _input_ranges(clone, calls, {linear for pair in pairs for linear in pair.linears})
    scales = [_scale(pair, ranges, alpha) for pair in pairs]
    for pair, scale in zip(pairs, scales, strict=True):
        pair.fold(scale)
    if _near(clone(*calls[0]), before):
        return clone, len(pairs)
    for pair, scale in zip(pairs, scales, strict=True):  # something else reads one of the norms: find which
        pair.fold(1.0 / scale)
    legal = 0
    for pair, scale in zip(pairs, scales, strict=True):
        pair.fold(scale)
        if _near(clone(*calls[0]), before):
            legal += 1
        else:
            pair.fold(1.0 / scale)
    return clone, legal


def _near(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).norm() <= _EQUAL * expected.norm().clamp(min=1e-6))


def _scale(pair: Pair, ranges: Mapping[nn.Linear, Tensor], alpha: float) -> Tensor:
    """``max |activation| ** alpha / max |weight| ** (1 - alpha)`` of each channel ``[D]``."""
    activation = torch.stack([ranges[linear] for linear in pair.linears]).amax(dim=0).clamp(min=_SMALLEST)
    weight = torch.cat([linear.weight for linear in pair.linears]).abs().amax(dim=0).clamp(min=_SMALLEST)
    return (activation**alpha / weight ** (1.0 - alpha)).clamp(min=_SMALLEST)


def _plain_pairs(model: nn.Module, call: Call) -> list[Pair]:
    """Norms whose output is, unchanged, the input of linear layers, found by running the network once."""
    outputs: list[tuple[nn.LayerNorm, Tensor]] = []  # tensors are kept, so that no address is given out twice
    pairs: dict[nn.LayerNorm, Pair] = {}

    def normed(module: nn.LayerNorm, _: Any, output: Tensor) -> None:
        outputs.append((module, output))

    def reads(module: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        given = inputs[0]
        for norm, output in outputs:
            same = given.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()
            if same and given.shape[-1] == output.shape[-1] == norm.normalized_shape[-1] and given.stride(-1) == 1:
                pair = pairs.setdefault(norm, Pair(norm))
                if module not in pair.linears:
                    pair.linears.append(module)

    with (
        _hooked(model, nn.LayerNorm, lambda m: m.register_forward_hook(normed)),
        _hooked(model, nn.Linear, lambda m: m.register_forward_pre_hook(reads)),
    ):
        model(*call)
    return [pair for pair in pairs.values() if pair.norm.elementwise_affine]


def _modulated_pairs(model: nn.Module) -> Iterator[Pair]:
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
            yield Pair(block.norm2, [block.mlp.fc1], (generator, rows[position]))


def _input_ranges(model: nn.Module, calls: Sequence[Call], linears: set[nn.Linear]) -> dict[nn.Linear, Tensor]:
    """Largest magnitude of each input channel ``[D]``, over all calls."""
    ranges: dict[nn.Linear, Tensor] = {}

    def measure(module: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        if module in linears:
            largest = inputs[0].abs().flatten(0, -2).amax(dim=0)
            ranges[module] = torch.maximum(ranges[module], largest) if module in ranges else largest

    with _hooked(model, nn.Linear, lambda m: m.register_forward_pre_hook(measure)):
        for call in calls:
            model(*call)
    return ranges


@contextmanager
def _hooked(model: nn.Module, kind: type[_Layer], add: Callable[[_Layer], Any]) -> Iterator[None]:
    handles = [add(module) for module in model.modules() if isinstance(module, kind)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
