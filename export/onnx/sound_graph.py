"""A network of crackles and wheezes → its step graph: frames and states in, outputs and the next states out."""

from __future__ import annotations

import json

import onnx
import torch

from edge_sdk.models.adventitious import (
    ATTENTION_BOUND,
    GATE_CLIP,
    SOUNDS,
    STRIDE,
    AdventitiousNetwork,
    AdventitiousStep,
    for_steps,
)
from edge_sdk.runtime.adventitious import KIND, OUTPUTS
from export.onnx.exporter import run_exporter
from export.onnx.graph import finish
from export.onnx.step_graph import clip_gates

FRAMES_PER_STEP = 40
"""Input frames of a step, 0.4 s: nobody waits for a verdict, and each call costs as much as the arithmetic of a few."""


def export_adventitious(
    network: AdventitiousNetwork, *, frames: int = FRAMES_PER_STEP, name: str = "adventitious"
) -> onnx.ModelProto:
    """Export the step graph for ``frames`` frames a call, all float32, batch 1, with its metadata properties.

    Inputs ``features [1, M, frames]`` (raw log-mel) and ``state_0 …``; outputs ``frames [1, 3, t]`` (probabilities of
    crackle, wheeze and breathing), ``attention [1, 2, t]``, ``clip [1, 2, t]`` and ``state_0_next …``, t = frames / 4.

    Parameters
    ----------
    network
        Trained or untrained.
    frames
        Input frames in a step, a multiple of the stride.
    name
        Name of the recipe.

    Raises
    ------
    ExportError
        Torch cannot export the network, or the graph is not portable.
    """
    spec = network.front_end
    states = [f"state_{index}" for index in range(len(network.state_shapes))]
    example = (torch.randn(1, spec.mel_bins, frames), *(torch.zeros(shape) for shape in network.state_shapes))
    model = run_exporter(
        AdventitiousStep(for_steps(network, frames)),
        example,
        inputs=["features", *states],
        outputs=[*OUTPUTS, *(f"{state}_next" for state in states)],
    )
    clip_gates(model, GATE_CLIP)
    onnx.helper.set_model_props(
        model,
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
