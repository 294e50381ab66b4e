"""Which layers cost accuracy in int8: each group alone, worst first back to float until the artefact passes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from export.onnx.quantise import Quantiser

_LAYERS = 24  # up to so many layers are tried one by one; beyond, block by block


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search settled on."""

    graph: onnx.ModelProto
    kept_float: tuple[str, ...] = ()  # groups that stay float, worst first
    errors: tuple[tuple[str, float], ...] = ()  # group → relative error where it alone is int8; empty: no search
    passed: bool = True


@dataclass(frozen=True, slots=True)
class Judgement:
    """A quantised graph on the cycles of the search."""

    error: float  # relative, on logits
    passed: bool


def groups_of(layers: Sequence[str]) -> dict[str, list[str]]:
    """Layers by the block they are in: ``encoder.blocks.3.mlp.fc1/MatMul`` is in ``encoder.blocks.3``."""
    groups: dict[str, list[str]] = {}
    for name in layers:
        path = name.split("/")[0]
        found = re.match(r"(.*\.\d+)(\.|$)", path)
        groups.setdefault(found[1] if found and len(layers) > _LAYERS else path, []).append(name)
    return groups


def search(
    quantiser: Quantiser, judge: Callable[[onnx.ModelProto], Judgement], progress: Callable[[str], None]
) -> Outcome:
    """Quantise everything; where that does not pass, leave the groups in float that do most harm.

    Parameters
    ----------
    quantiser
        Of the graph.
    judge
        Runs a graph on training patients, so that the verification stays untouched.
    progress
        Told each step.

    Returns
    -------
    Outcome
        ``passed`` is false where even half of the groups in float did not suffice; the graph is then the best one.
    """
    graph = quantiser.quantise()
    if judge(graph).passed:
        return Outcome(graph)
    groups = groups_of(quantiser.layers)
    if len(groups) < 2:
        return Outcome(graph, passed=False)
    errors = {}
    for position, (name, layers) in enumerate(groups.items(), 1):
        progress(f"sensitivity of {name} ({position} of {len(groups)})")
        alone = quantiser.quantise(keep_float=sorted(set(quantiser.layers) - set(layers)))
        errors[name] = judge(alone).error
    order = sorted(groups, key=lambda name: -errors[name])
    kept: list[str] = []
    passed = False
    for name in order[: max(1, len(order) // 2)]:
        kept.append(name)
        progress(f"leaving {len(kept)} of {len(groups)} groups in float, last {name}")
        graph = quantiser.quantise(keep_float=[layer for group in kept for layer in groups[group]])
        if passed := judge(graph).passed:
            break
    return Outcome(graph, tuple(kept), tuple((name, errors[name]) for name in order), passed)
