"""What a GPU may do to a graph, tried on the CPU: float16 that overflows, and TF32 in the front end.

Both on the clips that show it: a strong rumble below the band (a contact microphone moved over cloth) and full scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.portability.front_end_part import front_end_outputs

LARGEST_HALF = 65504.0
_HEADROOM = 2.0  # real audio is not louder than full scale, but networks react to more than level
_SPLIT = float(2**13 + 1)  # Veltkamp's constant: leaves 11 significant bits, as TF32 does
_LINEAR = ("Conv", "MatMul", "Gemm")

Feed = Mapping[str, npt.NDArray[Any]]


def stress_figures(model: onnx.ModelProto, golden: Feed, stress: Feed) -> dict[str, float]:
    """Figures of one artefact.

    Parameters
    ----------
    model
        ``pcm → logits``.
    golden, stress
        Inputs of the golden vector, and of harder clips.

    Returns
    -------
    dict
        ``half_largest``: largest magnitude of a float16 tensor, infinite where one overflows; absent without such
        tensors. ``tf32_golden``, ``tf32_stress``: largest change of a logit if the front end computed in TF32.
    """
    figures: dict[str, float] = {}
    largest = largest_half(model, (golden, stress))
    if largest is not None:
        figures["half_largest"] = largest
    if front_end_outputs(model):
        changed = with_tf32_front_end(model)
        for name, feed in (("golden", golden), ("stress", stress)):
            figures[f"tf32_{name}"] = float(np.abs(_run(changed, feed)[0] - _run(model, feed)[0]).max())
    return figures


def stress_failures(figures: Mapping[str, Any], tolerance: float) -> list[str]:
    """Why an artefact is not safe on a GPU, a line each; ``tolerance``: of the golden vector on a GPU."""
    failures = []
    largest = figures.get("half_largest", 0.0)
    if not largest * _HEADROOM <= LARGEST_HALF:
        failures.append(f"float16 tensors reach {largest:.4g} (must be <= {LARGEST_HALF / _HEADROOM:g})")
    seen, hidden = figures.get("tf32_golden", 0.0), figures.get("tf32_stress", 0.0)
    if hidden > tolerance >= seen:
        failures.append(
            f"TF32 in the front end moves logits by {hidden:.3g}, and the golden vector ({seen:.3g}) would not show it"
        )
    return failures


def largest_half(model: onnx.ModelProto, feeds: tuple[Feed, ...]) -> float | None:
    """Largest magnitude of the float16 tensors of a graph, infinite where one is not finite; None without any."""
    inferred = onnx.shape_inference.infer_shapes(model)
    kinds = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    names = [o for node in model.graph.node for o in node.output if kinds.get(o) == TensorProto.FLOAT16]
    if not names:
        return None
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT16, None) for name in names)
    largest = 0.0
    for feed in feeds:
        for values in _run(shown, feed, optimised=False):
            largest = max(
                largest, float(np.abs(values.astype(np.float32)).max()) if np.isfinite(values).all() else np.inf
            )
    return largest


def with_tf32_front_end(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph whose front end rounds the factors of its products to TF32 and adds them in float32."""
    outputs = front_end_outputs(model)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    constants = {t.name: t for t in result.graph.initializer}
    result.graph.initializer.append(numpy_helper.from_array(np.array(_SPLIT, np.float32), "tf32/split"))
    nodes: list[onnx.NodeProto] = []
    for node in result.graph.node:
        if node.op_type in _LINEAR and node.output[0] in outputs:
            for place, name in enumerate(node.input[:2]):
                rounded = f"{node.output[0]}/tf32_{place}"
                if name in constants:
                    values = numpy_helper.to_array(constants[name])
                    result.graph.initializer.append(numpy_helper.from_array(_rounded(values), rounded))
                else:
                    nodes += _rounding(name, rounded)
                node.input[place] = rounded
        nodes.append(node)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


def _rounding(name: str, rounded: str) -> list[onnx.NodeProto]:
    """Veltkamp's splitting: ``x * s - (x * s - x)`` is x with fewer bits, rounded to nearest."""
    return [
        helper.make_node("Mul", [name, "tf32/split"], [f"{rounded}/scaled"], f"{rounded}/scale"),
        helper.make_node("Sub", [f"{rounded}/scaled", name], [f"{rounded}/rest"], f"{rounded}/subtract"),
        helper.make_node("Sub", [f"{rounded}/scaled", f"{rounded}/rest"], [rounded], f"{rounded}/round"),
    ]


def _rounded(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    scaled = values.astype(np.float32) * np.float32(_SPLIT)
    return np.asarray(scaled - (scaled - values), np.float32)


def _run(model: onnx.ModelProto, feed: Feed, *, optimised: bool = True) -> list[npt.NDArray[Any]]:
    from edge_sdk.runtime.engines.library import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[npt.NDArray[Any]] = session.run(None, dict(feed))
    return found
