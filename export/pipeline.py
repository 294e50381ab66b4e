"""Checkpoint → graphs → quantised artefacts → figures on real cycles → one verified bundle."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from edge_sdk.errors import ExportError
from edge_sdk.runtime.decoding import decode
from edge_sdk.runtime.schema import Decoder
from edge_sdk.training.checkpoint import Checkpoint
from export.cycles import load_cycles
from export.formats import Format
from export.golden import golden_clips
from export.graph import export_front_end, export_network, join
from export.quantise import quantise_static
from export.verify import CycleSet, accuracy, compare, gate_failures, parity, run_batches

_log = logging.getLogger(__name__)

RESEARCH_USE = "Research use only: not a medical device, not cleared by any regulator."
CALIBRATION_CYCLES = 512
_BATCH = 64
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
    golden_logits: npt.NDArray[np.float32]  # [k, C]


def gather(checkpoint: Checkpoint, corpus: str, root: Path, *, seed: int = 0) -> Data:
    """Read the cycles of a corpus: all of them to verify on, a balanced draw of training patients to calibrate on.

    Raises
    ------
    ExportError
        The corpus holds no cycle of the split the checkpoint was trained on.
    """
    cycles, splits = load_cycles(corpus, root, checkpoint.front_end)
    trained_on = str(checkpoint.provenance.get("split", "train"))
    rows = np.flatnonzero(splits == trained_on)
    if not len(rows):
        raise ExportError(
            f"{corpus} at {root} holds no cycles of split {trained_on!r}, which the checkpoint was trained on; "
            "calibration needs training patients: give the corpus the model was trained on"
        )
    chosen = _balanced(rows, np.asarray(cycles.labels), seed)
    calibration = CycleSet(
        corpus, trained_on, cycles.pcm[chosen],
        tuple(cycles.labels[i] for i in chosen), tuple(cycles.patients[i] for i in chosen),
    )  # fmt: skip
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
    checkpoint: Checkpoint, formats: Sequence[Format], data: Data | None, progress: Progress
) -> list[Artefact]:
    """Export, quantise and measure every format asked for.

    Raises
    ------
    ExportError
        A format needs data that was not given, or a graph is not portable.
    """
    spec, model = checkpoint.front_end, checkpoint.build()
    progress("exporting the front end and the network")
    front_end, network = export_front_end(spec), export_network(model, spec)
    reference = None
    if data is not None:
        progress(f"torch reference on {len(data.verification)} cycles")
        reference = _torch_logits(checkpoint, data.verification.pcm)
    artefacts = []
    for wanted in formats:
        graph = network
        if wanted.precision == "int8":
            if data is None:
                raise ExportError(f"{wanted.name} needs calibration cycles: pass --corpus and --root")
            progress(f"{wanted.name}: calibrating on {len(data.calibration)} cycles")
            graph = quantise_static(network, _feature_batches(front_end, data.calibration.pcm))
        joined = join(front_end, graph, _properties(checkpoint, wanted))
        progress(f"{wanted.name}: measuring")
        artefacts.append(_measure(checkpoint, wanted, joined, data, reference))
    return artefacts


def _torch_logits(checkpoint: Checkpoint, pcm: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    network = checkpoint.build_end_to_end()
    with torch.inference_mode():
        return run_batches(lambda x: network(torch.from_numpy(x)).numpy(), pcm, _BATCH)


def _session(model: onnx.ModelProto) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # spinning threads slow each other down; figures in specs of export
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = session.run(None, {name: values})[0]
        return result

    return run


def _feature_batches(front_end: onnx.ModelProto, pcm: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    run = _session(front_end)
    batch = min(16, len(pcm))  # the calibrator wants equal batches, so a short last one is left out
    return [run(pcm[i : i + batch]) for i in range(0, len(pcm) - batch + 1, batch)]


def _properties(checkpoint: Checkpoint, wanted: Format) -> dict[str, str]:
    """What a bare ONNX file must still say of itself when it is separated from its bundle."""
    return {
        "labels": json.dumps(list(checkpoint.labels)),
        "decoder": json.dumps(
            {"kind": checkpoint.decoder, "temperature": checkpoint.temperature, "bias": list(checkpoint.bias)}
        ),
        "front_end": json.dumps(checkpoint.front_end.to_dict(), sort_keys=True),
        "front_end_sha256": checkpoint.front_end.digest,
        "model": f"{checkpoint.model}/{checkpoint.size}",
        "format": wanted.name,
        "precision": wanted.precision,
        "research_use": RESEARCH_USE,
    }


def decoder_of(checkpoint: Checkpoint) -> Decoder:
    """The decoder that goes into the bundle."""
    return Decoder(temperature=float(checkpoint.temperature), bias=[float(b) for b in checkpoint.bias])


def _measure(
    checkpoint: Checkpoint,
    wanted: Format,
    model: onnx.ModelProto,
    data: Data | None,
    reference: npt.NDArray[np.float32] | None,
) -> Artefact:
    run, labels = _session(model), list(checkpoint.labels)
    to_probabilities = partial(decode, decoder=decoder_of(checkpoint))
    content = model.SerializeToString()
    golden = run(golden_clips(checkpoint.front_end).astype(np.float32) / np.float32(32768))
    if data is None or reference is None:
        return Artefact(wanted, content, {}, {}, ("exported without a corpus",), golden)
    cycles = data.verification
    logits = run_batches(run, cycles.pcm, _BATCH)
    figures = parity(reference, logits, to_probabilities)
    figures |= compare(to_probabilities(reference), to_probabilities(logits), cycles, labels)
    reports = {
        split: accuracy(
            to_probabilities(logits[mask]),
            CycleSet(
                cycles.corpus, split, cycles.pcm[:0],
                tuple(np.asarray(cycles.labels)[mask]), tuple(np.asarray(cycles.patients)[mask]),
            ),
            labels,
        )
        for split, mask in data.held_out.items()
    }  # fmt: skip
    return Artefact(wanted, content, figures, reports, tuple(gate_failures(wanted.gate, figures)), golden)


def today() -> str:
    """ISO date, UTC."""
    return dt.datetime.now(dt.timezone.utc).date().isoformat()
