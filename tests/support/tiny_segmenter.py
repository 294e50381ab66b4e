"""A step graph in a few nodes, without torch: audio above a threshold is a cycle, a quick rise is its onset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_sdk.signal.spec import FrontEndSpec

FRAMES = 4
STRIDE = 2
SPEC = FrontEndSpec(
    frame_samples=160,
    hop_samples=80,
    mel_bins=8,
    low_hz=150.0,
    high_hz=1200.0,
    scale=32768.0,
    log_floor=1.0,
    normalisation="none",
)


def tiny_step_graph(*, threshold: float = 11.6, look_ahead_frames: int = 2, decoder: str = "{}") -> bytes:
    """``features [1, 8, 4]``, last levels ``state_0 [1, 1, 2]`` and a slow mean ``state_1 [1, 1, 1]`` → the contract.

    With a look-ahead of two output frames the outputs belong to the step before: to the levels in ``state_0``. The sine
    of the cycle's angle is positive while it is loud, as in the first half of a cycle; its cosine follows the onset.
    """
    constants = {
        "mel": np.array([1], np.int64),
        "time": np.array([2], np.int64),
        "threshold": np.array(threshold, np.float32),
        "rise": np.array(0.6, np.float32),
        "steep": np.array(3.0, np.float32),
        "keep": np.array(0.98, np.float32),
        "learn": np.array(0.02, np.float32),
        "one": np.array(1.0, np.float32),
        "small": np.array(0.01, np.float32),
    }
    nodes = [
        helper.make_node("ReduceMean", ["features", "mel"], ["levels"], keepdims=1),  # [1, 1, 4]
        helper.make_node("AveragePool", ["levels"], ["level"], kernel_shape=[STRIDE], strides=[STRIDE]),  # [1, 1, 2]
        helper.make_node("Identity", ["level"], ["state_0_next"]),
        helper.make_node("ReduceMean", ["level", "time"], ["now"], keepdims=1),
        helper.make_node("Mul", ["state_1", "keep"], ["kept"]),
        helper.make_node("Mul", ["now", "learn"], ["new"]),
        helper.make_node("Add", ["kept", "new"], ["state_1_next"]),
        helper.make_node("Sub", ["state_0", "threshold"], ["excess"]),
        helper.make_node("Sigmoid", ["excess"], ["loud"]),
        helper.make_node("Squeeze", ["loud", "mel"], ["activity"]),
        helper.make_node("Sub", ["level", "state_0"], ["climb"]),
        helper.make_node("Sub", ["climb", "rise"], ["steepness"]),
        helper.make_node("Mul", ["steepness", "steep"], ["scaled"]),
        helper.make_node("Sigmoid", ["scaled"], ["quick"]),
        helper.make_node("Sub", ["level", "threshold"], ["above"]),
        helper.make_node("Sigmoid", ["above"], ["after"]),
        helper.make_node("Mul", ["quick", "after"], ["pulse"]),  # a quick rise that ends above the threshold
        helper.make_node("Squeeze", ["pulse", "mel"], ["onset"]),
        helper.make_node("Sub", ["one", "loud"], ["quiet"]),
        helper.make_node("Mul", ["loud", "small"], ["neither"]),
        helper.make_node("Concat", ["loud", "quiet", "neither"], ["phase"], axis=1),
        helper.make_node("Sub", ["loud", "quiet"], ["sine"]),
        helper.make_node("Concat", ["pulse", "sine"], ["cycle"], axis=1),
    ]
    each = FRAMES // STRIDE
    graph = helper.make_graph(
        nodes,
        "tiny-segmenter",
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, SPEC.mel_bins, FRAMES]),
            helper.make_tensor_value_info("state_0", TensorProto.FLOAT, [1, 1, each]),
            helper.make_tensor_value_info("state_1", TensorProto.FLOAT, [1, 1, 1]),
        ],
        [
            helper.make_tensor_value_info("activity", TensorProto.FLOAT, [1, each]),
            helper.make_tensor_value_info("onset", TensorProto.FLOAT, [1, each]),
            helper.make_tensor_value_info("phase", TensorProto.FLOAT, [1, 3, each]),
            helper.make_tensor_value_info("cycle", TensorProto.FLOAT, [1, 2, each]),
            helper.make_tensor_value_info("state_0_next", TensorProto.FLOAT, [1, 1, each]),
            helper.make_tensor_value_info("state_1_next", TensorProto.FLOAT, [1, 1, 1]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    properties = {
        "kind": "stetho-segmenter",
        "schema": "2",
        "front_end": json.dumps(SPEC.to_dict()),
        "frames_per_step": str(FRAMES),
        "look_ahead_frames": str(look_ahead_frames),
        "stride": str(STRIDE),
        "decoder": decoder,
    }
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_tiny_segmenter(folder: Path, name: str = "segmenter.onnx", **options: object) -> Path:
    """Write the graph and give its path back."""
    path = folder / name
    path.write_bytes(tiny_step_graph(**options))  # type: ignore[arg-type]
    return path
