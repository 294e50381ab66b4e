"""A network of crackles and wheezes → its step graph: frames and states in, outputs and the next states out."""

from __future__ import annotations

import json

import onnx
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
from edge_sdk.runtime.adventitious import KIND, OUTPUTS
from export.onnx.graph import finish
from export.onnx.step_builder import StepGraph

FRAMES_PER_STEP = 40
"""Input frames of a step, 0.4 s: nobody waits for a verdict, and each call costs as much as the arithmetic of a few."""


def export_adventitious(
    network: AdventitiousNetwork, *, frames: int = FRAMES_PER_STEP, name: str = "adventitious"
) -> onnx.ModelProto:
    """Write the step graph, all float32, batch 1, of any length, with its metadata properties.

    Inputs ``features [1, M, frames]`` (raw log-mel) and ``state_0 …``; outputs ``frames [1, 3, t]`` (probabilities of
    crackle, wheeze and breathing), ``attention [1, 2, t]``, ``clip [1, 2, t]`` and ``state_0_next …``, t = frames / 4.

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
    own, level, _ = graph.normalised(folded.mean, folded.spread, LEAST_VARIANCE)
    one = graph.ints([1])
    x = graph.op("Concat", graph.op("Unsqueeze", own, one), graph.op("Unsqueeze", level, one), axis=1)
    entry = folded.entry.conv.weight.detach().clone()  # [C, 2, taps, taps]
    entry[:, 1] /= LEVEL_SCALE
    x = _causal(graph, x, folded.entry, bins, entry)
    x = _causal(graph, x, folded.early, bins // 2)
    x = _convolved(graph, graph.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), folded.widen)
    x = _convolved(graph, _causal(graph, x, folded.middle, bins // 4), folded.late)
    x = _causal(graph, graph.op("MaxPool", x, kernel_shape=[3, 1], strides=[3, 1]), folded.last, bins // 12)
    # [1, C, F, T] -> [T, 1, C * F]
    rows = graph.op("Reshape", graph.op("Transpose", x, perm=[3, 0, 1, 2]), graph.ints([0, 0, -1]))
    now = graph.op("Relu", graph.linear(rows, folded.project))
    y = graph.op("Concat", graph.gru(now, folded.gru, GATE_CLIP), now, axis=2)
    out = graph.op("Transpose", graph.linear(y, folded.head), perm=[1, 2, 0])  # [1, outputs, T]
    sizes = graph.ints([FRAME_OUTPUTS, len(SOUNDS), len(SOUNDS)])
    frames_out, attention, clip = (graph.output(n, (r,)) for n, r in zip(OUTPUTS, (FRAME_OUTPUTS, 2, 2), strict=True))
    graph.op("Split", out, sizes, axis=1, out=["frame_logits", "unbounded", clip])
    graph.op("Sigmoid", "frame_logits", out=frames_out)
    bound = graph.floats(ATTENTION_BOUND)
    graph.op("Mul", graph.op("Tanh", graph.op("Div", "unbounded", bound)), bound, out=attention)
    model = graph.model(
        "adventitious",
        {
            "kind": KIND,
            "schema": "1",
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


def _causal(graph: StepGraph, x: str, block: CausalConv, rows: int, weight: Tensor | None = None) -> str:
    conv = block.conv
    held = graph.remembered(x, (1, conv.in_channels, rows, block.memory), axis=3)
    return _convolved(graph, held, conv, weight)


def _convolved(graph: StepGraph, x: str, conv: nn.Conv2d, weight: Tensor | None = None) -> str:
    padding = [int(size) for size in conv.padding]
    weights = graph.floats(conv.weight if weight is None else weight)
    return graph.op(
        "Relu",
        graph.op(
            "Conv", x, weights, graph.floats(conv.bias),
            strides=list(conv.stride), group=conv.groups, pads=[*padding, *padding],
        ),
    )  # fmt: skip
