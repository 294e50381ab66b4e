"""A trained segmenter → its step graph: a few frames and the states in, probabilities and the next states out."""

from __future__ import annotations

import io
import json
import warnings
from typing import Any

import onnx
import torch

from edge_sdk.errors import ExportError
from edge_sdk.models.segmenter import GATE_CLIP, PHASES, Segmenter, SegmenterStep, for_steps
from export.graph import OPSET, _drop_exporter_notes, finish
from export.quantise import strip_initializer_info

FRAMES_PER_STEP = 4
KIND = "stetho-segmenter"


def export_segmenter(
    segmenter: Segmenter,
    *,
    frames: int = FRAMES_PER_STEP,
    decoder: dict[str, Any] | None = None,
    name: str = "segmenter",
) -> onnx.ModelProto:
    """The step graph for ``frames`` frames a call, all float32, batch 1, with its metadata.

    Inputs ``features [1, M, frames]`` (raw log-mel) and ``state_0 …``; outputs ``activity [1, frames]``,
    ``onset [1, frames]``, ``phase [1, 3, frames]`` (probabilities) and ``state_0_next …``.

    Parameters
    ----------
    segmenter
        Trained, or not.
    frames
        A step's.
    decoder
        Settings of the decoder that were tuned with these weights.
    name
        Of the recipe.

    Raises
    ------
    ExportError
        The exporter wrote another opset, or a node that other runtimes cannot take.
    """
    spec = segmenter.front_end
    step = SegmenterStep(for_steps(segmenter, frames)).eval()
    states = [f"state_{index}" for index in range(len(segmenter.state_shapes))]
    example = (torch.randn(1, spec.mel_bins, frames), *(torch.zeros(shape) for shape in segmenter.state_shapes))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program: Any = torch.onnx.export(
            step,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=["features", *states],
            output_names=["activity", "onset", "phase", *(f"{state}_next" for state in states)],
            verbose=False,
        )
    buffer = io.BytesIO()
    program.save(buffer)
    model = strip_initializer_info(onnx.load_from_string(buffer.getvalue()))
    written = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if written != OPSET:
        raise ExportError(f"asked the exporter for opset {OPSET}, it wrote {written}")
    _drop_exporter_notes(model)
    _clip_gates(model)
    onnx.helper.set_model_props(
        model,
        {
            "kind": KIND,
            "schema": "1",
            "name": name,
            "front_end": json.dumps(spec.to_dict(), sort_keys=True),
            "frames_per_step": str(frames),
            "look_ahead_frames": str(segmenter.delay),
            "look_ahead_s": repr(segmenter.look_ahead_s),
            "phases": ",".join(PHASES),
            "outputs": "probabilities",
            "decoder": json.dumps(decoder or {}, sort_keys=True),
        },
    )
    finish(model)
    return model


def _clip_gates(model: onnx.ModelProto) -> None:
    """Torch's operator has no such setting, ONNX's has."""
    recurrent = [node for node in model.graph.node if node.op_type == "GRU"]
    if len(recurrent) != 1:
        raise ExportError(f"expected one GRU in the segmenter's graph, found {len(recurrent)}; use another torch")
    recurrent[0].attribute.append(onnx.helper.make_attribute("clip", GATE_CLIP))
