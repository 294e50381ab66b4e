"""A network of crackles and wheezes → its step graph: frames and states in, outputs and the next states out."""

from __future__ import annotations

import copy
import json

import onnx
import torch
from torch import Tensor, nn

from edge_sdk.models.adventitious import (
    ATTENTION_BOUND,
    FRAME_OUTPUTS,
    GATE_CLIP,
    LEAST_VARIANCE,
    LEVEL_SCALE,
    SOUNDS,
    STRIDE,
    AdventitiousNetwork,
    CausalConv,
    for_steps,
)
from edge_sdk.runtime.verdict.adventitious import KIND, OUTPUTS, SCHEMA
from export.onnx.graph import finish
from export.onnx.step_builder import StepGraph

_SIZES = (FRAME_OUTPUTS, len(SOUNDS), len(SOUNDS))
FRAMES_PER_STEP = 40
"""Input frames of a step, 0.4 s: nobody waits for a verdict, and each call costs as much as the arithmetic of a few."""


def export_adventitious(
    network: AdventitiousNetwork, *, frames: int = FRAMES_PER_STEP, name: str = "adventitious"
) -> onnx.ModelProto:
    """Write the step graph, all float32, of any number of streams and any length, with its metadata properties.

    Inputs ``features [streams, frames, M]`` (raw log-mel) and ``state_0 …``; outputs ``frames [streams, t, 3]``
    (probabilities of crackle, wheeze and breathing), ``attention [streams, t, 2]``, ``clip [streams, t, 2]`` and
    ``state_0_next …``, t = frames / 4.

    Parameters
    ----------
    network
        Trained or untrained.
    frames
        Input frames in a step of a stream, a multiple of the stride.
    name
        Name of the recipe.

    Raises
    ------
    ExportError
        The graph is not portable.
    """
    spec, folded = network.front_end, for_steps(network)
    graph, bins = StepGraph(spec.mel_bins), spec.mel_bins
    found = graph.normalised(folded.mean, folded.spread, LEAST_VARIANCE)
    level = graph.op("Sub", found.features, graph.op("ReduceMean", found.means, graph.ints([2])))
    pairs = graph.op("Reshape", graph.op("Concat", found.own, level, axis=2), graph.ints([0, 0, 2, bins]))
    x = graph.op("Transpose", pairs, perm=[1, 2, 3, 0])  # [B, 2, M, T]
    entry = folded.entry.conv.weight.detach().clone()  # [C, 2, taps, taps]
    entry[:, 1] /= LEVEL_SCALE
    x = _causal(graph, x, folded.entry, bins, entry)
    x = _causal(graph, x, folded.early, bins // 2)
    x = _convolved(graph, graph.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), folded.widen)
    x = _convolved(graph, _causal(graph, x, folded.middle, bins // 4), folded.late)
    x = _causal(graph, graph.op("MaxPool", x, kernel_shape=[3, 1], strides=[3, 1]), folded.last, bins // 12)
    # [B, C, F, T] -> [T, B, C * F]
    rows = graph.op("Reshape", graph.op("Transpose", x, perm=[3, 0, 1, 2]), graph.ints([0, 0, -1]))
    now = graph.op("Relu", graph.linear(rows, folded.project))
    y = graph.op("Concat", graph.gru(now, folded.gru, GATE_CLIP), now, axis=2)
    out = graph.op("Transpose", graph.linear(y, _unbounded(folded.head)), perm=[1, 0, 2])  # [B, T, outputs]
    frames_out, attention, clip = (graph.output(n, size) for n, size in zip(OUTPUTS, _SIZES, strict=True))
    graph.op("Split", out, graph.ints(_SIZES), axis=2, out=["frame_logits", "unbounded", clip])
    graph.op("Sigmoid", "frame_logits", out=frames_out)
    graph.op("Mul", graph.op("Tanh", "unbounded"), graph.floats(ATTENTION_BOUND), out=attention)
    model = graph.model(
        "adventitious",
        {
            "kind": KIND,
            "schema": SCHEMA,
            "name": name,
            "front_end": json.dumps(spec.to_dict(), sort_keys=True),
            "frames_per_step": str(frames),
            "stride": str(STRIDE),
            "sounds": ",".join(SOUNDS),
            "attention_bound": repr(ATTENTION_BOUND),
        },
    )
    finish(model)
    return model


def _unbounded(head: nn.Linear) -> nn.Linear:
    """The heads with the attention over its bound."""
    scaled = copy.deepcopy(head)
    begin, end = FRAME_OUTPUTS, FRAME_OUTPUTS + len(SOUNDS)
    with torch.no_grad():
        scaled.weight[begin:end] /= ATTENTION_BOUND
        scaled.bias[begin:end] /= ATTENTION_BOUND
    return scaled


def _causal(graph: StepGraph, x: str, block: CausalConv, rows: int, weight: Tensor | None = None) -> str:
    conv = block.conv
    held = graph.remembered(x, (conv.in_channels, rows, block.memory), axis=3)
    return _convolved(graph, held, conv, weight)


def _convolved(graph: StepGraph, x: str, conv: nn.Conv2d, weight: Tensor | None = None) -> str:
    padding = [int(size) for size in conv.padding]
    weights = graph.weights(conv.weight if weight is None else weight)
    return graph.op(
        "Relu",
        graph.op(
            "Conv", x, weights, graph.floats(conv.bias),
            strides=list(conv.stride), group=conv.groups, pads=[*padding, *padding],
        ),
    )  # fmt: skip
