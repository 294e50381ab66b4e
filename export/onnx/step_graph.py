"""A segmenter → its step graph: a few frames and the states in, probabilities and the next states out."""

from __future__ import annotations

import json
from typing import Any

import onnx
import torch
from torch import Tensor, nn

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
from edge_sdk.runtime.segmentation.outputs import SCHEMA, SOUNDING
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
    """Write the step graph, all float32, of any number of streams and any length, with its metadata properties.

    Inputs ``features [streams, frames, M]`` (raw log-mel) and ``state_0 …``; outputs for each of the
    ``n = frames / STRIDE`` output frames: ``sounding [streams, n, 2]`` (probabilities of activity and onset),
    ``phase [streams, n, 3]`` (probabilities), ``cycle [streams, n, 2]``; and ``state_0_next …``.

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
    bins = spec.mel_bins
    graph = StepGraph(bins)
    found = graph.normalised(folded.mean, folded.spread, LEAST_VARIANCE)
    features = graph.op("Concat", found.own, found.features, found.means, graph.op("Log", found.variance), axis=2)
    x = _planes(graph, features)  # [B, 3 M + 1, 1, T]
    # In full precision: its weights of features and of their level cancel, whatever the gain of a device.
    x = _convolved(graph, x, graph.floats(_entry(folded.entry.weight, bins)[:, :, None]), folded.entry.bias)
    for block in folded.causal_blocks:
        x = _block(graph, x, block)
    x = _convolved(graph, x, _taps(graph, folded.down), folded.down.bias, strides=[1, STRIDE])
    for block in folded.strided_blocks:
        x = _block(graph, x, block)
    rows = graph.op("Squeeze", graph.op("Transpose", x, perm=[3, 0, 1, 2]), graph.ints([3]))  # [T, B, C]
    out = graph.linear(graph.gru(rows, folded.gru, GATE_CLIP), folded.head)
    sizes = graph.ints([len(SOUNDING), len(PHASES), CYCLE])
    parts = ["both", "phases", graph.output("cycle", CYCLE)]
    graph.op("Split", graph.op("Transpose", out, perm=[1, 0, 2]), sizes, axis=2, out=parts)
    graph.op("Sigmoid", "both", out=graph.output("sounding", len(SOUNDING)))
    graph.op("Softmax", "phases", axis=2, out=graph.output("phase", len(PHASES)))
    model = graph.model(
        "segmenter",
        {
            "kind": KIND,
            "schema": SCHEMA,
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


def _entry(weight: Tensor, bins: int) -> Tensor:
    """Weights ``[C, 3 M + 1, 1]`` of own, features, means and the logarithm of the variance.

    The network takes own, the features minus the level of all bins over a constant, and the logarithm of the spread;
    all of it but ``own`` is linear in these.
    """
    own, relative, spread = weight.detach().split((bins, bins, 1), dim=1)
    relative = relative / LEVEL_SCALE
    level = -relative.sum(dim=1, keepdim=True).expand_as(relative) / bins
    return torch.cat((own, relative, level, 0.5 * spread), dim=1)


def _planes(graph: StepGraph, rows: str) -> str:
    """``[T, B, C]`` → ``[B, C, 1, T]``."""
    return graph.op("Unsqueeze", graph.op("Transpose", rows, perm=[1, 2, 0]), graph.ints([2]))


def _taps(graph: StepGraph, layer: nn.Conv1d) -> str:
    """Weights ``[C', C, 1, taps]``."""
    return graph.weights(layer.weight.detach()[:, :, None])


def _convolved(graph: StepGraph, x: str, weights: str, bias: Tensor | None, **attributes: Any) -> str:
    return graph.op("Relu", graph.op("Conv", x, weights, graph.floats(bias), **attributes))


def _block(graph: StepGraph, x: str, block: CausalBlock) -> str:
    depthwise, pointwise = block.depthwise, block.pointwise
    held = graph.remembered(x, (depthwise.in_channels, 1, block.memory), axis=3)
    y = graph.op("Conv", held, _taps(graph, depthwise), dilations=[1, *depthwise.dilation], group=depthwise.groups)
    return graph.op("Add", x, _convolved(graph, y, _taps(graph, pointwise), pointwise.bias))
