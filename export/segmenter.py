"""A trained segmenter → its step graph: a few frames and the states in, probabilities and the next states out.

The graph goes into a bundle with what was measured of it.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx
import torch
from msgspec.structs import replace

from edge_sdk.errors import ExportError
from edge_sdk.models.segmenter import GATE_CLIP, PHASES, Segmenter, SegmenterStep, for_steps
from edge_sdk.runtime.bundle.schema import SegmenterEntry
from edge_sdk.runtime.segmentation.factory import SEGMENTER_FILE, describe_segmenter
from edge_sdk.training.checkpoint import Checkpoint, load_checkpoint
from edge_sdk.training.segmentation.run import load_segmenter
from edge_sdk.training.segmentation.task import decoder_params
from export.onnx.graph import finish, run_exporter

FRAMES_PER_STEP = 4
KIND = "stetho-segmenter"
ACCURACY = (
    "recordings", "patients", "n_true", "n_predicted", "event_f1", "event_f1_ci", "event_f1_iou70",
    "event_f1_ignoring_gaps", "event_f1_ignoring_gaps_and_ends", "onset_error_p50_s", "onset_error_p95_s",
    "detection_delay_p50_s", "detection_delay_p95_s", "revision_rate", "rate_mae_bpm", "rate_recordings",
)  # fmt: skip
"""Figures of a run that go with its network into the bundle and the model card."""


@dataclass(frozen=True)
class SegmenterPart:
    """A learned segmenter as it goes into a bundle."""

    entry: SegmenterEntry
    content: bytes
    training: dict[str, Any] = field(default_factory=dict)  # where it comes from; empty of a bare graph


def segmenter_part(path: Path) -> SegmenterPart:
    """A segmenter's checkpoint, or a step graph (``.onnx``) that was exported before.

    Raises
    ------
    ExportError
        There is no such file.
    CheckpointError
        It is a classifier's checkpoint, or none.
    BundleError
        It is no step graph.
    """
    if not path.is_file():
        raise ExportError(f"segmenter {path} does not exist; give a checkpoint of 'stetho train segmenter'")
    if path.suffix == ".onnx":
        return SegmenterPart(describe_segmenter(path), path.read_bytes())
    checkpoint = load_checkpoint(path)
    model, recipe = load_segmenter(checkpoint)
    graph = export_segmenter(model, decoder=asdict(decoder_params(recipe)), name=recipe.name)
    content = graph.SerializeToString()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / SEGMENTER_FILE
        file.write_bytes(content)
        entry = describe_segmenter(file)
    if entry.step:
        entry = replace(entry, step=replace(entry.step, accuracy=_accuracy(checkpoint)))
    return SegmenterPart(entry, content, _training(checkpoint, sum(p.numel() for p in model.parameters())))


def _accuracy(checkpoint: Checkpoint) -> dict[str, Any]:
    figures = {name: checkpoint.metrics[name] for name in ACCURACY if name in checkpoint.metrics}
    split = f"{checkpoint.provenance.get('corpus', '?')} {checkpoint.metrics.get('split', '?')}"
    return {split: figures} if figures else {}


def _training(checkpoint: Checkpoint, parameters: int) -> dict[str, Any]:
    told = {name: checkpoint.recipe[name] for name in ("name", "development") if checkpoint.recipe.get(name)}
    kept = ("best_epoch", "phase_accuracy", "decoder_search")
    return {
        **told,
        "parameters": parameters,
        **{name: checkpoint.metrics[name] for name in kept if name in checkpoint.metrics},
        **checkpoint.provenance,
    }


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
        Torch cannot export it, or writes another opset, or a node that other runtimes cannot take.
    """
    spec = segmenter.front_end
    step = SegmenterStep(for_steps(segmenter, frames))
    states = [f"state_{index}" for index in range(len(segmenter.state_shapes))]
    example = (torch.randn(1, spec.mel_bins, frames), *(torch.zeros(shape) for shape in segmenter.state_shapes))
    model = run_exporter(
        step,
        example,
        inputs=["features", *states],
        outputs=["activity", "onset", "phase", *(f"{state}_next" for state in states)],
    )
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
