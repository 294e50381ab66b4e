"""A learned segmenter as a part of a bundle: its step graph, its settings, its figures and its origin."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from edge_sdk.errors import ExportError
from edge_sdk.runtime.bundle.schema import SegmenterEntry
from edge_sdk.runtime.segmentation.factory import SEGMENTER_FILE, describe_segmenter
from edge_sdk.training.checkpoint import Checkpoint, load_checkpoint
from edge_sdk.training.segmentation.building import checkpoint_segmenter, decoder_params
from export.onnx.step_graph import export_segmenter
from export.training_record import chosen_figures, read_cross_validation, training_record

SEGMENTER_FIGURES = (
    "recordings", "patients", "n_true", "n_predicted", "event_f1", "event_f1_ci", "event_f1_iou70",
    "event_f1_ignoring_gaps", "event_f1_ignoring_gaps_and_ends", "onset_error_p50_s", "onset_error_p95_s",
    "detection_delay_p50_s", "detection_delay_p95_s", "revision_rate", "rate_mae_bpm", "rate_recordings",
    "event_f1_regional", "onset_f1_200ms", "rate_error_p50_bpm", "rate_within_15pct", "rate_halved", "rate_doubled",
    "rate_confident_fraction", "rate_mae_confident_bpm",
)  # fmt: skip
"""Figures of a training run that the bundle and the model card hold."""

_ANNOTATIONS = {"cycles": "annotated cycles", "events": "annotated sounds", "exact": "simulated patients"}


@dataclass(frozen=True)
class SegmenterPart:
    """A learned segmenter, ready for a bundle."""

    entry: SegmenterEntry
    content: bytes
    training: dict[str, Any] = field(default_factory=dict)  # its origin; empty for a bare graph


def segmenter_part(path: Path) -> SegmenterPart:
    """Export a segmenter's checkpoint, or take a step graph (``.onnx``) that was exported before.

    Raises
    ------
    ExportError
        The file does not exist.
    CheckpointError
        The file is not a checkpoint, or a classifier's.
    BundleError
        The ``.onnx`` file is not a step graph.
    """
    if not path.is_file():
        raise ExportError(f"segmenter {path} does not exist; give a checkpoint of 'stetho train segmenter'")
    if path.suffix == ".onnx":
        return SegmenterPart(describe_segmenter(path), path.read_bytes())
    checkpoint = load_checkpoint(path)
    model, recipe = checkpoint_segmenter(checkpoint)
    graph = export_segmenter(model, decoder=decoder_params(recipe).to_dict(), name=recipe.name)
    content = graph.SerializeToString()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / SEGMENTER_FILE
        file.write_bytes(content)
        entry = describe_segmenter(file)
    if entry.step:
        entry = replace(entry, step=replace(entry.step, accuracy=_accuracy(checkpoint)))
    exported = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in model.tempo.parameters())
    return SegmenterPart(entry, content, _training(checkpoint, exported))


def _accuracy(checkpoint: Checkpoint) -> dict[str, Any]:
    figures = {name: checkpoint.metrics[name] for name in SEGMENTER_FIGURES if name in checkpoint.metrics}
    split = f"{checkpoint.provenance.get('corpus', '?')} {checkpoint.metrics.get('split', '?')}"
    return {split: figures} if figures else {}


def _training(checkpoint: Checkpoint, parameters: int) -> dict[str, Any]:
    recipe, metrics = checkpoint.recipe, checkpoint.metrics
    return {
        **{name: recipe[name] for name in ("name", "development") if recipe.get(name)},
        "parameters": parameters,
        **{name: metrics[name] for name in ("best_epoch", "phase_accuracy", "decoder_search") if name in metrics},
        **training_record(checkpoint.provenance),
    }


def segmenter_accuracy(report: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of out-of-fold recordings by what is annotated, in the form of a step graph's ``accuracy``."""
    name = f"{report['folds']}-fold cross-validation by patient, recordings with "
    return {
        name + _ANNOTATIONS.get(kind, kind): chosen_figures(figures, SEGMENTER_FIGURES)
        for kind, figures in report["metrics"].items()
    }


def with_cross_validation(part: SegmenterPart, path: Path) -> SegmenterPart:
    """A segmenter with the figures of its cross-validation beside those of its run.

    Raises
    ------
    ExportError
        The file is no such report, or the segmenter has no network.
    """
    report = read_cross_validation(path, str(part.training.get("name", "segmenter")))
    if not part.entry.step:
        raise ExportError("a segmenter without a network has no cross-validation; leave --cv out")
    accuracy = part.entry.step.accuracy | segmenter_accuracy(report)
    entry = replace(part.entry, step=replace(part.entry.step, accuracy=accuracy))
    return SegmenterPart(entry, part.content, part.training)
