"""Checkpoint → graphs → quantised artefacts → figures on real cycles; :mod:`export.assemble` makes the bundle of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx

from edge_sdk import __version__
from edge_sdk.errors import ExportError
from edge_sdk.metadata import MetadataSchema
from edge_sdk.notices import RESEARCH_USE_IN_BUNDLES
from edge_sdk.runtime.engines.selection import GPU_TOLERANCE
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.checkpoint import Checkpoint
from export.cycles import ExportCycles
from export.formats import ArtefactFormat, ReportStep
from export.golden import golden_clips, golden_metadata, simulated_breaths, stress_clips, stress_metadata
from export.model import Logits, ModelUnderExport
from export.onnx.build import BuildRequest, build_network
from export.onnx.graph import export_front_end, finish, join
from export.onnx.quantise import Feed
from export.onnx.runner import GraphRunner, latency_ratio
from export.portability.stress import stress_failures, stress_figures
from export.verify import artefact_accuracy, artefact_drops, gate_failures, parity

_CALIBRATION_WEIGHTS = 5_000_000  # a larger network is calibrated on fewer cycles: each costs seconds
_FEW_CALIBRATION_CYCLES = 64


@dataclass(frozen=True, slots=True)
class Artefact:
    """One exported file and its measured figures."""

    format: ArtefactFormat
    content: bytes
    parity: dict[str, Any]
    accuracy: dict[str, Any]
    failures: tuple[str, ...]  # why it is not verified; empty when it is
    golden_logits: Logits  # [k, C]
    features: bytes | None = None  # the network alone: features → logits


def make_artefacts(
    checkpoint: Checkpoint,
    formats: Sequence[ArtefactFormat],
    cycles: ExportCycles | None,
    progress: ReportStep,
    *,
    untrained: bool = False,
    features_graph: bool = False,
    fixed: Mapping[str, Any] | None = None,
) -> list[Artefact]:
    """Export, quantise and measure every requested format.

    Parameters
    ----------
    checkpoint
        The trained model.
    formats
        Rows of the table; those that are made from a finished bundle are skipped.
    cycles
        Without them nothing is verified, and int8 is for untrained models only.
    progress
        Called with each step.
    untrained
        Calibrate on simulated breaths: such an artefact is for timing.
    features_graph
        Also keep each network alone.
    fixed
        Metadata to build into the network, which then has no metadata inputs.

    Raises
    ------
    ExportError
        A format needs cycles and there are none, or a graph is not portable.
    """
    files = [row for row in formats if row.made_from == "checkpoint"]
    needs_calibration = [row.name for row in files if row.needs_calibration]
    if needs_calibration and cycles is None and not untrained:
        raise ExportError(f"{needs_calibration[0]} needs calibration cycles: pass --corpus and --root")
    model = ModelUnderExport(checkpoint, fixed)
    progress("exporting the front end and the network")
    front_end = export_front_end(checkpoint.front_end)
    request = BuildRequest(
        model.network,
        checkpoint.front_end,
        model.schema,
        progress,
        _feeds(model, front_end, cycles) if needs_calibration else (),
        model.evaluation.labels_of if cycles is not None else None,
    )
    reference = None if cycles is None else _reference(model, cycles, progress)
    measurement = _Measurement(model, cycles, reference, join(front_end, request.network, {}).SerializeToString())
    artefacts = []
    for row in files:
        progress(f"{row.name}: building")
        network = build_network(row, request)
        properties = _properties(model, row)
        joined = join(front_end, network, properties, tensorrt=row.tensorrt)
        progress(f"{row.name}: measuring")
        artefact = measurement.artefact(row, joined.SerializeToString(), request.notes)
        if features_graph:
            finish(network, {**properties, "input": "features"}, tensorrt=row.tensorrt)
            artefact = replace(artefact, features=network.SerializeToString())
        artefacts.append(artefact)
    return artefacts


def _reference(model: ModelUnderExport, cycles: ExportCycles, progress: ReportStep) -> Logits:
    progress(f"torch reference on {len(cycles.verification)} cycles")
    return model.torch_logits(cycles.verification)


def _feeds(model: ModelUnderExport, front_end: onnx.ModelProto, data: ExportCycles | None) -> list[Feed]:
    """Calibration batches of the network's inputs; of simulated breaths where there is no corpus."""
    cycles = data.calibration if data is not None else simulated_breaths(model.checkpoint.front_end)
    weights = sum(parameter.numel() for parameter in model.network.parameters())
    runner = GraphRunner(front_end)
    batch = min(16, len(cycles))
    count = len(cycles)
    if weights > _CALIBRATION_WEIGHTS:
        batch, count = 1, min(count, _FEW_CALIBRATION_CYCLES)
        cycles = cycles.take(np.linspace(0, len(cycles) - 1, count).astype(np.intp), cycles.split)
    feeds: list[Feed] = []
    for begin in range(0, count - batch + 1, batch):  # the calibrator needs equal batches: a short last one is left out
        features = runner.run({"pcm": cycles.pcm[begin : begin + batch]})
        feeds.append(
            {"features": features, **model.evaluation.metadata_inputs(cycles.metadata_rows(begin, begin + batch))}
        )
    return feeds


def _properties(model: ModelUnderExport, row: ArtefactFormat) -> dict[str, str]:
    """What a bare ONNX file must describe when it is separated from its bundle."""
    checkpoint = model.checkpoint
    return {
        "labels": json.dumps(list(checkpoint.labels)),
        "decoder": json.dumps(msgspec.to_builtins(model.decoder)),
        "metadata": json.dumps(model.schema.to_dict() if model.schema else {}, sort_keys=True),
        "front_end": json.dumps(checkpoint.front_end.to_dict(), sort_keys=True),
        "front_end_sha256": checkpoint.front_end.digest,
        "model": f"{checkpoint.model}/{checkpoint.size}",
        "recipe": str(checkpoint.recipe.get("name", "")),
        "trained_on": json.dumps(checkpoint.provenance, sort_keys=True, default=str),
        "format": row.name,
        "precision": row.precision,
        "input": "pcm",
        "sdk_version": __version__,
        "research_use": RESEARCH_USE_IN_BUNDLES,
    }


def golden_feed(spec: FrontEndSpec, schema: MetadataSchema | None) -> tuple[Feed, Feed]:
    """Inputs of the golden clips, and of the stress clips."""

    def inputs(clips: npt.NDArray[np.int16], metadata: Mapping[str, npt.NDArray[Any]]) -> Feed:
        return {"pcm": clips.astype(np.float32) / np.float32(32768), **metadata}

    golden, stress = golden_clips(spec), stress_clips(spec)
    return (
        inputs(golden, golden_metadata(schema, len(golden)) if schema else {}),
        inputs(stress, stress_metadata(schema, len(stress)) if schema else {}),
    )


def gpu_tolerance(row: ArtefactFormat) -> float:
    """Tolerance of the golden vector when a GPU runs an artefact."""
    return max(GPU_TOLERANCE.get(row.precision, 0.0), row.golden_tolerance)


@dataclass(frozen=True)
class _Measurement:
    """What every artefact of one export is compared with."""

    model: ModelUnderExport
    cycles: ExportCycles | None
    reference: Logits | None  # of torch, on the cycles for verification
    fp32: bytes  # graph that latencies are compared with

    def artefact(self, row: ArtefactFormat, content: bytes, notes: dict[str, Any]) -> Artefact:
        """Run a graph on the golden clips and the cycles, and compare its logits and its latency."""
        model, runner = self.model, GraphRunner(content)
        feed, stress = golden_feed(model.checkpoint.front_end, model.schema)
        golden = runner.run(feed)
        safety: dict[str, float] = {}
        if row.tensorrt:
            safety = stress_figures(onnx.load_from_string(content), feed, stress)
        speed = self._speed(row, runner, {name: values[:1] for name, values in feed.items()})
        if self.cycles is None or self.reference is None:
            figures = {**notes, **speed, **safety}
            return Artefact(row, content, figures, {}, ("exported without a corpus",), golden)
        logits = model.evaluation.logits(runner, self.cycles.verification)
        figures = {**parity(self.reference, logits, model.evaluation.labels_of), **notes, **speed, **safety}
        figures |= artefact_drops(
            model.evaluation.probabilities(self.reference, self.cycles.verification),
            model.evaluation.probabilities(logits, self.cycles.verification),
            self.cycles.verification,
            list(model.checkpoint.labels),
            decide=model.evaluation.decisions,
        )
        failures = (*gate_failures(row.gate, figures), *stress_failures(figures, gpu_tolerance(row)))
        return Artefact(row, content, figures, self._accuracy(self.cycles, logits), failures, golden)

    def _speed(self, row: ArtefactFormat, runner: GraphRunner, feed: Feed) -> dict[str, float]:
        if row.precision == "fp32":
            return {"latency_ratio": 1.0}
        baseline = GraphRunner(self.fp32)
        return latency_ratio(lambda: runner.run(feed), lambda: baseline.run(feed))

    def _accuracy(self, cycles: ExportCycles, logits: Logits) -> dict[str, Any]:
        """Split → figures, on the splits that the model was not trained on."""
        figures = {}
        for split, mask in cycles.held_out.items():
            part = cycles.verification.take(np.flatnonzero(mask), split, samples=False)
            probabilities = self.model.evaluation.probabilities(logits[mask], part)
            labels = list(self.model.checkpoint.labels)
            figures[split] = artefact_accuracy(
                probabilities, self.model.evaluation.decisions(probabilities), part, labels
            )
        return figures
