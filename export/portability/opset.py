"""Opset 18 → 17, exactly: what TensorRT 8.6 (JetPack 6.0) reads, whose parser ignores axes that are an input."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from edge_sdk.errors import ExportError

OLDEST = 17
_AXES = {
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSumSquare",
}  # fmt: skip
_NEW = {"BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad", "Col2Im", "GroupNormalization", "Mish"}
_CHANGED = {"Pad", "Resize"}  # axes as an input, and other modes


def to_opset_17(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in opset 17; a graph of opset 17 or older is returned as it is.

    Raises
    ------
    ExportError
        The graph is of a later opset than 18, or has a node that opset 17 cannot express.
    """
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version <= OLDEST:
        return model
    if version != 18:
        raise ExportError(f"the graph is of opset {version}; only opset 18 is converted to 17: export it again")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    constants = {t.name: t for t in result.graph.initializer}
    for node in result.graph.node:
        if node.op_type in _NEW or (node.op_type in _CHANGED and len(node.input) > 3):
            raise ExportError(f"node {node.name or '?'} ({node.op_type}) does not exist in opset 17")
        if node.op_type in _AXES:
            _axes_as_attribute(node, constants)
        elif node.op_type == "Split":
            _without(node, "num_outputs")  # equal parts where no sizes are given, as in opset 17
    used = {name for node in result.graph.node for name in node.input}
    kept = [t for t in result.graph.initializer if t.name in used]
    del result.graph.initializer[:]
    result.graph.initializer.extend(kept)
    for opset in result.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = OLDEST
    onnx.checker.check_model(result, full_check=True)
    return result


def _axes_as_attribute(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> None:
    _without(node, "noop_with_empty_axes")
    if len(node.input) < 2 or not node.input[1]:
        return
    tensor = constants.get(node.input[1])
    if tensor is None:
        raise ExportError(f"node {node.name or '?'} ({node.op_type}) computes its axes, which opset 17 cannot")
    axes = [int(axis) for axis in numpy_helper.to_array(tensor).ravel()]
    node.attribute.append(onnx.helper.make_attribute("axes", axes))
    node.input[:] = node.input[:1]


def _without(node: onnx.NodeProto, attribute: str) -> None:
    kept = [a for a in node.attribute if a.name != attribute]
    del node.attribute[:]
    node.attribute.extend(kept)
