"""The front end inside a ``pcm → logits`` graph: the nodes from the samples to the logarithm of the mel energies."""

from __future__ import annotations

import onnx

PREFIX = "front_end/"
"""Of the names of its nodes in every graph that this SDK joins."""


def front_end_outputs(model: onnx.ModelProto) -> set[str]:
    """Names of the tensors that the front end computes; empty for a graph that takes features.

    In a graph that was not joined by this SDK it is everything that the first logarithm needs.
    """
    named = {o for node in model.graph.node if node.name.startswith(PREFIX) for o in node.output}
    if named:
        return named
    makers = {output: node for node in model.graph.node for output in node.output}
    log = next((node for node in model.graph.node if node.op_type == "Log"), None)
    if log is None or "pcm" not in {value.name for value in model.graph.input}:
        return set()
    found: set[str] = set()
    waiting = [log.output[0]]
    while waiting:
        name = waiting.pop()
        if name not in makers or name in found:
            continue
        found.update(makers[name].output)
        waiting.extend(makers[name].input)
    return found
