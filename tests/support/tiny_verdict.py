"""A verdict in a few nodes, without torch: loud audio is a crackle, loud high bands are a wheeze."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_sdk.runtime.bundle.schema import VerdictEntry
from edge_sdk.runtime.engines.onnx import OrtEngine
from edge_sdk.runtime.verdict.adventitious import KIND, SoundModel, golden_outputs
from edge_sdk.signal.spec import FrontEndSpec

FRAMES, STRIDE = 8, 4
FILE = "verdict.onnx"


def tiny_sound_spec(rate_hz: int = 4000) -> FrontEndSpec:
    """10-ms frames in twelve bands."""
    return FrontEndSpec(
        rate_hz=rate_hz,
        frame_samples=rate_hz // 25,
        hop_samples=rate_hz // 100,
        mel_bins=12,
        low_hz=100.0,
        high_hz=1800.0,
        preemphasis=0.0,
        scale=32768.0,
        log_floor=1.0,
        normalisation="none",
    )


def tiny_sound_graph(*, threshold: float = 14.0, rate_hz: int = 4000, kind: str = KIND) -> bytes:
    """``features [1, 12, 8]`` and a slow mean ``state_0 [1, 1, 1]`` → the contract; the mean is part of the clip."""
    count = FRAMES // STRIDE
    constants = {
        "bins": np.array([1], np.int64),
        "time": np.array([2], np.int64),
        "threshold": np.array(threshold, np.float32),
        "keep": np.array(0.9, np.float32),
        "learn": np.array(0.1, np.float32),
        "high": np.array([8], np.int64),
        "all": np.array([12], np.int64),
        "zero": np.array(0.0, np.float32),
    }
    nodes = [
        helper.make_node("AveragePool", ["features"], ["pooled"], kernel_shape=[STRIDE], strides=[STRIDE]),
        helper.make_node("ReduceMean", ["pooled", "bins"], ["level"], keepdims=1),  # [1, 1, 2]
        helper.make_node("Slice", ["pooled", "high", "all", "bins"], ["top"]),
        helper.make_node("ReduceMean", ["top", "bins"], ["top_level"], keepdims=1),
        helper.make_node("Concat", ["level", "top_level"], ["levels"], axis=1),  # [1, 2, 2]
        helper.make_node("ReduceMean", ["level", "time"], ["now"], keepdims=1),
        helper.make_node("Mul", ["state_0", "keep"], ["kept"]),
        helper.make_node("Mul", ["now", "learn"], ["new"]),
        helper.make_node("Add", ["kept", "new"], ["state_0_next"]),
        helper.make_node("Sub", ["levels", "threshold"], ["excess"]),
        helper.make_node("Sigmoid", ["excess"], ["sounds"]),
        helper.make_node("Sub", ["state_0", "threshold"], ["drift"]),
        helper.make_node("Mul", ["drift", "learn"], ["small"]),
        helper.make_node("Add", ["excess", "small"], ["clip"]),
        helper.make_node("Concat", ["sounds", "level"], ["frames"], axis=1),
        helper.make_node("Mul", ["excess", "zero"], ["attention"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tiny-sounds",
        [info("features", TensorProto.FLOAT, [1, 12, FRAMES]), info("state_0", TensorProto.FLOAT, [1, 1, 1])],
        [
            info("frames", TensorProto.FLOAT, [1, 3, count]),
            info("attention", TensorProto.FLOAT, [1, 2, count]),
            info("clip", TensorProto.FLOAT, [1, 2, count]),
            info("state_0_next", TensorProto.FLOAT, [1, 1, 1]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    properties = {
        "kind": kind,
        "schema": "1",
        "front_end": json.dumps(tiny_sound_spec(rate_hz).to_dict()),
        "frames_per_step": str(FRAMES),
        "stride": str(STRIDE),
    }
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_tiny_sounds(folder: Path, **options: Any) -> SoundModel:
    """Write the graph to ``folder`` and load it."""
    path = folder / FILE
    path.write_bytes(tiny_sound_graph(**options))
    return SoundModel(OrtEngine(path), FILE)


def tiny_verdict_entry(folder: Path, params: dict[str, Any] | None = None, **changes: Any) -> VerdictEntry:
    """Entry of the graph that :func:`write_tiny_sounds` wrote to ``folder``."""
    content = (folder / FILE).read_bytes()
    fields = {
        "file": FILE,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "params": params or {},
        "golden": golden_outputs(SoundModel(OrtEngine(folder / FILE), FILE)),
    }
    return VerdictEntry(**{**fields, **changes})
