"""Finds the layers that cost accuracy in int8 and keeps the worst of them in float until the artefact passes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from export.formats import ReportStep
from export.onnx.quantise import Quantiser

_LAYERS = 24  # up to this number layers are tried one by one, beyond it block by block


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The graph that a search ended with."""

    graph: onnx.ModelProto
    kept_float: tuple[str, ...] = ()  # groups that stay float, worst first
    errors: tuple[tuple[str, float], ...] = ()  # group → relative error where it alone is int8; empty: no search
    passed: bool = True


@dataclass(frozen=True, slots=True)
class Trial:
    """Figures of a quantised graph on the cycles of the search."""

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


def search_float_groups(
    quantiser: Quantiser, run_trial: Callable[[onnx.ModelProto], Trial], progress: ReportStep
) -> SearchResult:
    """Quantise everything; where that does not pass, leave the most harmful groups in float.

    Parameters
    ----------
    quantiser
        Quantiser of the graph.
    run_trial
        Runs a graph on training patients, so that the verification data stays unused.
    progress
        Called with each step.

    Returns
    -------
    SearchResult
        ``passed`` is false where half of the groups in float were not enough; the graph is then the last one.
    """
    graph = quantiser.quantise()
    if run_trial(graph).passed:
        return SearchResult(graph)
    groups = groups_of(quantiser.layers)
    if len(groups) < 2:
        return SearchResult(graph, passed=False)
    errors = {}
    for position, (name, layers) in enumerate(groups.items(), 1):
        progress(f"sensitivity of {name} ({position} of {len(groups)})")
        alone = quantiser.quantise(keep_float=sorted(set(quantiser.layers) - set(layers)))
        errors[name] = run_trial(alone).error
    order = sorted(groups, key=lambda name: -errors[name])
    kept: list[str] = []
    passed = False
    for name in order[: max(1, len(order) // 2)]:
        kept.append(name)
        progress(f"leaving {len(kept)} of {len(groups)} groups in float, last {name}")
        graph = quantiser.quantise(keep_float=[layer for group in kept for layer in groups[group]])
        if passed := run_trial(graph).passed:
            break
    return SearchResult(graph, tuple(kept), tuple((name, errors[name]) for name in order), passed)
