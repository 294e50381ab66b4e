"""A segmenter → its step graph: a few frames and the states in, probabilities and the next states out."""

from __future__ import annotations

import json
from typing import Any

import onnx
from torch import Tensor

from edge_sdk.models.segmenter import (
    CYCLE,
    GATE_CLIP,
    LEAST_VARIANCE,
    LEVEL_SCALE,
    PHASES,
    STRIDE,
    CausalBlock,
    SegmenterNetwork,
    for_steps,
)
from export.onnx.graph import finish
from export.onnx.step_builder import StepGraph

FRAMES_PER_STEP = 4
KIND = "stetho-segmenter"


def export_segmenter(
    segmenter: SegmenterNetwork,
    *,
    frames: int = FRAMES_PER_STEP,
    decoder: dict[str, Any] | None = None,
    name: str = "segmenter",
) -> onnx.ModelProto:
    """Write the step graph, all float32, batch 1, of any length, with its metadata properties.

    Inputs ``features [1, M, frames]`` (raw log-mel) and ``state_0 …``; outputs for each of the ``n = frames / STRIDE``
    output frames: ``activity [1, n]``, ``onset [1, n]``, ``phase [1, 3, n]`` (probabilities), ``cycle [1, 2, n]``; and
    ``state_0_next …``.

    Parameters
    ----------
    segmenter
        Trained or untrained network.
    frames
        Number of frames in a step of a stream.
    decoder
        Settings of the decoder that were tuned with these weights.
    name
        Name of the recipe.

    Raises
    ------
    ExportError
        The graph is not portable.
    """
    spec, folded = segmenter.front_end, for_steps(segmenter)
    graph = StepGraph(spec.mel_bins)
    own, level, spread = graph.normalised(folded.mean, folded.spread, LEAST_VARIANCE)
    features = graph.op("Concat", own, level, graph.op("Log", spread), axis=1)
    entry = folded.entry.weight.detach().clone()
    entry[:, spec.mel_bins : 2 * spec.mel_bins] /= LEVEL_SCALE
    x = _convolved(graph, features, entry, folded.entry.bias)
    for block in folded.causal_blocks:
        x = _block(graph, x, block)
    x = _convolved(graph, x, folded.down.weight, folded.down.bias, strides=[STRIDE])
    for block in folded.strided_blocks:
        x = _block(graph, x, block)
    y = graph.gru(graph.op("Transpose", x, perm=[2, 0, 1]), folded.gru, GATE_CLIP)  # [T, 1, H]
    out = graph.op("Transpose", graph.linear(y, folded.head), perm=[1, 2, 0])  # [1, outputs, T]
    sizes = graph.ints([2, len(PHASES), CYCLE])
    graph.op("Split", out, sizes, axis=1, out=["both", "phases", graph.output("cycle", (CYCLE,))])
    both = graph.op("Sigmoid", "both")
    graph.op("Gather", both, graph.ints(0), axis=1, out=graph.output("activity", ()))
    graph.op("Gather", both, graph.ints(1), axis=1, out=graph.output("onset", ()))
    graph.op("Softmax", "phases", axis=1, out=graph.output("phase", (len(PHASES),)))
    model = graph.model(
        "segmenter",
        {
            "kind": KIND,
            "schema": "2",
            "name": name,
            "front_end": json.dumps(spec.to_dict(), sort_keys=True),
            "frames_per_step": str(frames),
            "look_ahead_frames": str(segmenter.delay),
            "stride": str(STRIDE),
            "look_ahead_s": repr(segmenter.look_ahead_s),
            "phases": ",".join(PHASES),
            "outputs": "probabilities",
            "decoder": json.dumps(decoder or {}, sort_keys=True),
        },
    )
    finish(model)
    return model


def _convolved(graph: StepGraph, x: str, weight: Tensor, bias: Tensor | None, **attributes: Any) -> str:
    return graph.op("Relu", graph.op("Conv", x, graph.floats(weight), graph.floats(bias), **attributes))


def _block(graph: StepGraph, x: str, block: CausalBlock) -> str:
    depthwise, pointwise = block.depthwise, block.pointwise
    held = graph.remembered(x, (1, depthwise.in_channels, block.memory), axis=2)
    taps = graph.floats(depthwise.weight)
    y = graph.op("Conv", held, taps, dilations=list(depthwise.dilation), group=depthwise.groups)
    return graph.op("Add", x, _convolved(graph, y, pointwise.weight, pointwise.bias))
