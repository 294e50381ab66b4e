"""A complete untrained bundle in milliseconds, without torch: folded front end, mean over time, one linear layer."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_sdk import __version__
from edge_sdk.runtime.bundle.load import write_bundle
from edge_sdk.runtime.bundle.schema import ArtefactEntry, Decoder, Golden, Manifest, SegmenterEntry
from edge_sdk.runtime.engines.library import onnxruntime
from edge_sdk.signal.logmel import kaldi_matrices
from edge_sdk.signal.padding import fit_window
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.sources.phantom import PhantomSource

LABELS = ("normal", "crackle", "wheeze", "both")
FORMAT = "onnx-fp32"
ARTEFACT = "classifier.fp32.onnx"


def tiny_spec(rate_hz: int = 4000) -> FrontEndSpec:
    """A front end of 32 ms frames, 32 mel bins, 3-s window."""
    return FrontEndSpec(
        rate_hz=rate_hz,
        frame_samples=rate_hz * 32 // 1000,
        hop_samples=rate_hz * 16 // 1000,
        mel_bins=32,
        high_hz=rate_hz / 2,
        log_floor=1e-6,
        normalisation="none",
    )


def tiny_graph(spec: FrontEndSpec, *, seed: int = 0) -> bytes:
    """``pcm [B, window_samples]`` → ``logits [B, 4]`` with random weights."""
    dft, mel = (matrix.astype(np.float32) for matrix in kaldi_matrices(spec))
    bins = mel.shape[0]
    rng = np.random.default_rng(seed)
    constants = {
        "kernel": dft.T[:, None, :],  # [2 * bins, 1, frame]
        "mel": mel.T[:, :, None],  # as a 1x1 convolution: [mel, bins, 1]
        "floor": np.array(spec.log_floor, np.float32),
        "weight": (rng.standard_normal((spec.mel_bins, len(LABELS))) * 0.3).astype(np.float32),
        "bias": rng.standard_normal(len(LABELS)).astype(np.float32),
        "axis1": np.array([1], np.int64),
        "axis2": np.array([2], np.int64),
        "halves": np.array([bins, bins], np.int64),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["pcm", "axis1"], ["samples"]),
        helper.make_node("Conv", ["samples", "kernel"], ["spectrum"], strides=[spec.hop_samples]),
        helper.make_node("Mul", ["spectrum", "spectrum"], ["squares"]),
        helper.make_node("Split", ["squares", "halves"], ["re", "im"], axis=1),
        helper.make_node("Add", ["re", "im"], ["power"]),
        helper.make_node("Conv", ["power", "mel"], ["energy"]),
        helper.make_node("Max", ["energy", "floor"], ["floored"]),
        helper.make_node("Log", ["floored"], ["logmel"]),
        helper.make_node("ReduceMean", ["logmel", "axis2"], ["mean"], keepdims=0),
        helper.make_node("Gemm", ["mean", "weight", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pcm", TensorProto.FLOAT, ["batch", spec.window_samples])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def tiny_golden_clips(spec: FrontEndSpec) -> npt.NDArray[np.int16]:
    """Two simulated breaths in the window, ``[2, window_samples]``."""
    source = PhantomSource("pneumonia", seed=1_000_001, duration_s=10.0, sample_rate=spec.rate_hz)
    samples = np.concatenate([block.samples for block in source])
    clips = [fit_window(samples[cycle.onset : cycle.end], spec) for cycle in source.truth[:2]]
    return np.round(np.clip(np.stack(clips), -1, 32767 / 32768) * 32768).astype(np.int16)


def write_tiny_bundle(
    folder: Path,
    *,
    rate_hz: int = 4000,
    segmenter_rate_hz: int = 4000,
    seed: int = 0,
    untrained: bool = True,
    **changes: Any,
) -> Path:
    """Write the bundle to ``folder`` and return it; ``changes`` replace fields of the manifest."""
    spec = tiny_spec(rate_hz)
    model, pcm = tiny_graph(spec, seed=seed), tiny_golden_clips(spec)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    logits = session.run(None, {"pcm": pcm.astype(np.float32) / 32768})[0]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, pcm=pcm, logits_onnx_fp32=logits)
    golden = buffer.getvalue()
    fields: dict[str, Any] = {
        "name": "tiny",
        "version": "0",
        "created": "2026-01-01",
        "sdk_version": __version__,
        "description": "random weights for tests",
        "research_use": "Research use only.",
        "untrained": untrained,
        "labels": list(LABELS),
        "decoder": Decoder(temperature=2.0, bias=[0.1, 0.0, -0.1, 0.0]),
        "artefacts": [
            ArtefactEntry(
                file=ARTEFACT,
                format=FORMAT,
                precision="fp32",
                sha256=hashlib.sha256(model).hexdigest(),
                bytes=len(model),
                front_end=spec.to_dict(),
                default=True,
            )
        ],
        "segmenter": SegmenterEntry(rate_hz=segmenter_rate_hz),
        "golden": Golden(
            file="golden.npz", sha256=hashlib.sha256(golden).hexdigest(), tolerance={FORMAT: 1e-3}
        ),
    }  # fmt: skip
    files = {ARTEFACT: model, "golden.npz": golden, "MODEL_CARD.md": b"# tiny\n"}
    write_bundle(folder, Manifest(**(fields | changes)), files)
    return folder
