"""Checkpoint → graphs → quantised artefacts → figures on real cycles; :mod:`export.assemble` makes the bundle of it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from edge_sdk import __version__
from edge_sdk.errors import ExportError
from edge_sdk.metadata import MetadataSchema
from edge_sdk.models.conditioning import Metadata
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.runtime.bundle.schema import Decoder
from edge_sdk.runtime.decoding import decide, decode
from edge_sdk.training.calibration import checkpoint_decoder
from edge_sdk.training.checkpoint import Checkpoint
from export.cycles import load_cycles
from export.formats import Format
from export.golden import golden_clips, golden_metadata, simulated_breaths
from export.onnx.build import Request, build
from export.onnx.graph import export_front_end, finish, join
from export.onnx.quantise import Feed
from export.onnx.session import Session, latency_ratio
from export.verify import CycleSet, accuracy, compare, gate_failures, parity

RESEARCH_USE = "Research use only: not a medical device, not cleared by any regulator."
CALIBRATION_CYCLES = 512
MIN_CALIBRATION_CYCLES = 16
"""Fewer breaths do not show the range of the activations."""

_BATCH_SAMPLES = 64 * 12_000  # of sound at once: 64 breaths of our own front end, 6 of 8 s at 16 kHz
_CALIBRATION_WEIGHTS = 5_000_000  # a larger network is calibrated on fewer cycles: each costs seconds
_FEW_CALIBRATION_CYCLES = 64
Logits = npt.NDArray[np.float32]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Data:
    """Annotated cycles for calibration and verification."""

    calibration: CycleSet  # of patients the model was trained on
    verification: CycleSet  # every annotated cycle of the corpus
    held_out: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)  # split → rows of ``verification``


@dataclass(frozen=True, slots=True)
class Artefact:
    """One exported file and what was measured of it."""

    format: Format
    content: bytes
    parity: dict[str, Any]
    accuracy: dict[str, Any]
    failures: tuple[str, ...]  # why it is not verified; empty when it is
    golden_logits: Logits  # [k, C]
    features: bytes | None = None  # the network alone: features → logits


@dataclass(frozen=True)
class Subject:
    """What is exported: a checkpoint, or one whose metadata was fixed."""

    checkpoint: Checkpoint
    fixed: Mapping[str, Any] | None = None  # metadata that every breath of this bundle has

    @cached_property
    def schema(self) -> MetadataSchema | None:
        """Inputs of the graph beside the sound."""
        return None if self.fixed else self.checkpoint.metadata_schema

    @cached_property
    def model(self) -> nn.Module:
        """The network that becomes a graph.

        Raises
        ------
        ExportError
            Metadata was fixed of a network that reads none.
        """
        model = self.checkpoint.build()
        if not self.fixed:
            return model
        schema = self.checkpoint.metadata_schema
        specialise: Callable[[Metadata], nn.Module] | None = getattr(model, "specialised", None)
        if schema is None or specialise is None:
            raise ExportError(f"model {self.checkpoint.model!r} reads no metadata; leave --fix out")
        if unknown := sorted(set(self.fixed) - set(schema.fields)):
            raise ExportError(f"the model does not read {', '.join(unknown)}; --fix knows {', '.join(schema.fields)}")
        return specialise(Metadata.from_arrays(schema.encode([self.fixed])))

    @cached_property
    def decoder(self) -> Decoder:
        """How its logits become labels."""
        return decoder_of(self.checkpoint)

    def labels_of(self, logits: Logits) -> npt.NDArray[np.int64]:
        """Decisions ``[N]``, as on the device."""
        return self.decided(decode(logits, self.decoder))

    def decided(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Decisions ``[N]`` from probabilities ``[N, C]``."""
        return decide(probabilities, self.decoder, list(self.checkpoint.labels).index(self.decoder.normal_label))

    def known(self, rows: Sequence[Mapping[str, Any]] | None, count: int) -> dict[str, npt.NDArray[Any]]:
        """Metadata inputs of the graph for ``count`` breaths."""
        return {} if self.schema is None else self.schema.encode(rows if rows is not None else [{}] * count)

    @torch.inference_mode()
    def torch_logits(self, cycles: CycleSet) -> Logits:
        """The reference: the checkpoint's own network in fp32, metadata fixed or not."""
        network, front_end = self.checkpoint.build(), FoldedFrontEnd(self.checkpoint.front_end)
        schema = self.checkpoint.metadata_schema
        batch = max(1, _BATCH_SAMPLES // self.checkpoint.front_end.window_samples)
        parts = []
        for begin in range(0, len(cycles), batch):
            features = front_end(torch.from_numpy(cycles.pcm[begin : begin + batch]))
            if schema is None:
                parts.append(network(features).numpy())
                continue
            rows = [self.fixed] * len(features) if self.fixed else cycles.rows(begin, begin + batch)
            parts.append(network(features, Metadata.from_arrays(schema.encode(rows))).numpy())
        return np.concatenate(parts)

    def graph_logits(self, session: Session, cycles: CycleSet) -> Logits:
        """The same of a ``pcm → logits`` graph."""
        batch = max(1, _BATCH_SAMPLES // self.checkpoint.front_end.window_samples)
        parts = []
        for begin in range(0, len(cycles), batch):
            pcm = cycles.pcm[begin : begin + batch]
            parts.append(session.run({"pcm": pcm, **self.known(cycles.rows(begin, begin + batch), len(pcm))}))
        return np.concatenate(parts)


def gather(checkpoint: Checkpoint, corpus: str, root: Path, *, seed: int = 0) -> Data:
    """Read the cycles of a corpus: all of them to verify on, a balanced draw of training patients to calibrate on.

    Raises
    ------
    ExportError
        The corpus holds too few cycles of the split the checkpoint was trained on.
    """
    cycles, splits = load_cycles(corpus, root, checkpoint.front_end)
    trained_on = str(checkpoint.provenance.get("split", "train"))
    rows = np.flatnonzero(splits == trained_on)
    if len(rows) < MIN_CALIBRATION_CYCLES:
        raise ExportError(
            f"{corpus} at {root} holds {len(rows)} cycles of split {trained_on!r}, which the checkpoint was trained "
            f"on; calibration needs at least {MIN_CALIBRATION_CYCLES}: give the corpus the model was trained on, whole"
        )
    calibration = cycles.take(_balanced(rows, np.asarray(cycles.labels), seed), trained_on)
    held_out = {str(s): splits == s for s in dict.fromkeys(splits.tolist()) if s != trained_on}
    return Data(calibration, cycles, held_out)


def _balanced(rows: npt.NDArray[np.intp], labels: npt.NDArray[np.str_], seed: int) -> npt.NDArray[np.intp]:
    """At most ``CALIBRATION_CYCLES`` rows, classes as equal as their numbers allow: rare sounds set the ranges too."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows)
    rank = np.zeros(len(order), dtype=np.int64)  # how many of the same class stand before
    for name in np.unique(labels[order]):
        mask = labels[order] == name
        rank[mask] = np.arange(mask.sum())
    return np.sort(order[np.argsort(rank, kind="stable")][:CALIBRATION_CYCLES])


def make_artefacts(
    checkpoint: Checkpoint,
    formats: Sequence[Format],
    data: Data | None,
    progress: Progress,
    *,
    untrained: bool = False,
    features_graph: bool = False,
    fixed: Mapping[str, Any] | None = None,
) -> list[Artefact]:
    """Export, quantise and measure every format asked for.

    Parameters
    ----------
    checkpoint
        The model.
    formats
        Rows of the table; those made from a finished bundle are passed over.
    data
        Without it nothing is verified, and int8 is for untrained models only.
    progress
        Told each step.
    untrained
        Calibrate on simulated breaths: such an artefact is for timing.
    features_graph
        Also keep each network alone.
    fixed
        Metadata to build into the network, which then has no metadata inputs.

    Raises
    ------
    ExportError
        A format needs data that was not given, or a graph is not portable.
    """
    files = [wanted for wanted in formats if wanted.made_from == "checkpoint"]
    needy = [wanted.name for wanted in files if wanted.needs_calibration]
    if needy and data is None and not untrained:
        raise ExportError(f"{needy[0]} needs calibration cycles: pass --corpus and --root")
    subject = Subject(checkpoint, fixed)
    progress("exporting the front end and the network")
    front_end = export_front_end(checkpoint.front_end)
    cycles = (data.calibration if data is not None else simulated_breaths(checkpoint.front_end)) if needy else None
    request = Request(
        subject.model,
        checkpoint.front_end,
        subject.schema,
        progress,
        _feeds(subject, front_end, cycles) if cycles is not None else (),
        subject.labels_of if data is not None else None,
    )
    reference = None
    if data is not None:
        progress(f"torch reference on {len(data.verification)} cycles")
        reference = subject.torch_logits(data.verification)
    fp32 = join(front_end, request.network, {}).SerializeToString()  # what latencies are compared with
    artefacts = []
    for wanted in files:
        progress(f"{wanted.name}: building")
        network = build(wanted, request)
        properties = _properties(subject, wanted)
        joined = join(front_end, network, properties, tensorrt=wanted.tensorrt)
        progress(f"{wanted.name}: measuring")
        artefact = _measure(subject, wanted, joined.SerializeToString(), data, reference, fp32, request.notes)
        if features_graph:
            finish(network, {**properties, "input": "features"}, tensorrt=wanted.tensorrt)
            artefact = replace(artefact, features=network.SerializeToString())
        artefacts.append(artefact)
    return artefacts


def _feeds(subject: Subject, front_end: onnx.ModelProto, cycles: CycleSet) -> list[Feed]:
    """Calibration batches of the network's inputs."""
    weights = sum(parameter.numel() for parameter in subject.model.parameters())
    session = Session(front_end)
    batch = min(16, len(cycles))
    count = len(cycles)
    if weights > _CALIBRATION_WEIGHTS:
        batch, count = 1, min(count, _FEW_CALIBRATION_CYCLES)
        cycles = cycles.take(np.linspace(0, len(cycles) - 1, count).astype(np.intp), cycles.split)
    feeds: list[Feed] = []
    for begin in range(0, count - batch + 1, batch):  # the calibrator wants equal batches: a short last one is left out
        features = session.run({"pcm": cycles.pcm[begin : begin + batch]})
        feeds.append({"features": features, **subject.known(cycles.rows(begin, begin + batch), batch)})
    return feeds


def _properties(subject: Subject, wanted: Format) -> dict[str, str]:
    """What a bare ONNX file must still say of itself when it is separated from its bundle."""
    checkpoint = subject.checkpoint
    return {
        "labels": json.dumps(list(checkpoint.labels)),
        "decoder": json.dumps(msgspec.to_builtins(subject.decoder)),
        "metadata": json.dumps(subject.schema.to_dict() if subject.schema else {}, sort_keys=True),
        "front_end": json.dumps(checkpoint.front_end.to_dict(), sort_keys=True),
        "front_end_sha256": checkpoint.front_end.digest,
        "model": f"{checkpoint.model}/{checkpoint.size}",
        "recipe": str(checkpoint.recipe.get("name", "")),
        "trained_on": json.dumps(checkpoint.provenance, sort_keys=True, default=str),
        "format": wanted.name,
        "precision": wanted.precision,
        "input": "pcm",
        "sdk_version": __version__,
        "research_use": RESEARCH_USE,
    }


def decoder_of(checkpoint: Checkpoint) -> Decoder:
    """The decoder that goes into the bundle."""
    return checkpoint_decoder(checkpoint)


def _measure(
    subject: Subject,
    wanted: Format,
    content: bytes,
    data: Data | None,
    reference: Logits | None,
    fp32: bytes,
    notes: dict[str, Any],
) -> Artefact:
    session, labels = Session(content), list(subject.checkpoint.labels)
    to_probabilities = partial(decode, decoder=subject.decoder)
    clips = golden_clips(subject.checkpoint.front_end).astype(np.float32) / np.float32(32768)
    golden_feed: Feed = {"pcm": clips, **(golden_metadata(subject.schema, len(clips)) if subject.schema else {})}
    golden = session.run(golden_feed)
    one = {name: values[:1] for name, values in golden_feed.items()}
    speed: dict[str, float] = {"latency_ratio": 1.0}
    if wanted.precision != "fp32":
        baseline = Session(fp32)
        speed = latency_ratio(lambda: session.run(one), lambda: baseline.run(one))
    if data is None or reference is None:
        return Artefact(wanted, content, {**notes, **speed}, {}, ("exported without a corpus",), golden)
    cycles = data.verification
    logits = subject.graph_logits(session, cycles)
    figures = {**parity(reference, logits, subject.labels_of), **notes, **speed}
    figures |= compare(to_probabilities(reference), to_probabilities(logits), cycles, labels, decide=subject.decided)
    reports = {
        split: accuracy(
            to_probabilities(logits[mask]),
            subject.labels_of(logits[mask]),
            cycles.take(np.flatnonzero(mask), split, sound=False),
            labels,
        )
        for split, mask in data.held_out.items()
    }
    return Artefact(wanted, content, figures, reports, tuple(gate_failures(wanted.gate, figures)), golden)


def today() -> str:
    """ISO date, UTC."""
    return dt.datetime.now(dt.timezone.utc).date().isoformat()
