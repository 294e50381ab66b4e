"""A segmenter → its step graph: a few frames and the states in, probabilities and the next states out."""

from __future__ import annotations

import json
from typing import Any

import onnx
import torch

from edge_sdk.errors import ExportError
from edge_sdk.models.segmenter import GATE_CLIP, PHASES, STRIDE, SegmenterNetwork, SegmenterStep, for_steps
from export.onnx.exporter import run_exporter
from export.onnx.graph import finish

FRAMES_PER_STEP = 4
KIND = "stetho-segmenter"


def export_segmenter(
    segmenter: SegmenterNetwork,
    *,
    frames: int = FRAMES_PER_STEP,
    decoder: dict[str, Any] | None = None,
    name: str = "segmenter",
) -> onnx.ModelProto:
    """Export the step graph for ``frames`` frames a call, all float32, batch 1, with its metadata properties.

    Inputs ``features [1, M, frames]`` (raw log-mel) and ``state_0 …``; outputs for each of the ``n = frames / STRIDE``
    output frames: ``activity [1, n]``, ``onset [1, n]``, ``phase [1, 3, n]`` (probabilities), ``cycle [1, 2, n]``; and
    ``state_0_next …``.

    Parameters
    ----------
    segmenter
        Trained or untrained network.
    frames
        Number of frames in a step.
    decoder
        Settings of the decoder that were tuned with these weights.
    name
        Name of the recipe.

    Raises
    ------
    ExportError
        Torch cannot export the network, or the graph is not portable.
    """
    spec = segmenter.front_end
    step = SegmenterStep(for_steps(segmenter, frames))
    states = [f"state_{index}" for index in range(len(segmenter.state_shapes))]
    example = (torch.randn(1, spec.mel_bins, frames), *(torch.zeros(shape) for shape in segmenter.state_shapes))
    model = run_exporter(
        step,
        example,
        inputs=["features", *states],
        outputs=["activity", "onset", "phase", "cycle", *(f"{state}_next" for state in states)],
    )
    clip_gates(model)
    onnx.helper.set_model_props(
        model,
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


def clip_gates(model: onnx.ModelProto, clip: float = GATE_CLIP) -> None:
    """Clip the gates in the graph: ONNX's operator has this setting, torch's has not."""
    recurrent = [node for node in model.graph.node if node.op_type == "GRU"]
    if len(recurrent) != 1:
        raise ExportError(f"expected one GRU in the step graph, found {len(recurrent)}; use another torch")
    recurrent[0].attribute.append(onnx.helper.make_attribute("clip", clip))
