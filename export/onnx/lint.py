"""Names every node and property of an ONNX file that an older ONNX Runtime (1.19, 1.23) or TensorRT refuses."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

OPSET = 18
"""Opset of every exported graph: ONNX Runtime 1.19 (Python 3.8) and later and TensorRT from 10 load it."""

MIN_OPSET, MAX_OPSET, MAX_IR = 17, 20, 10

_FORBIDDEN = {
    "STFT": "differs from Kaldi framing: use the folded Conv1d front end",
    "Attention": "opset 23 only: export with opset 20 or lower",
    "Loop": "serial on a GPU: unroll it or use a parallel scan",
    "Scan": "serial on a GPU: use a parallel scan",
    "If": "the graph must not depend on values: decide at export time",
    "SkipLayerNormalization": "an ONNX Runtime fusion: export without the transformer optimiser",
    "NonZero": "data-dependent shape: use a mask",
    "Unique": "data-dependent shape: use a mask",
    "NonMaxSuppression": "data-dependent shape: decide outside the graph",
    "SequenceConstruct": "sequences are not portable: stack tensors instead",
    "SequenceAt": "sequences are not portable: slice a tensor instead",
    "RandomNormalLike": "random numbers in an inference graph: put the model in evaluation mode",
    "RandomUniformLike": "random numbers in an inference graph: put the model in evaluation mode",
    "Dropout": "training only: put the model in evaluation mode",
}
_NOT_IN_TENSORRT = {
    "DFT": "TensorRT has no DFT: use constant DFT matrices",
    "MelWeightMatrix": "TensorRT has no MelWeightMatrix: make the mel matrix a constant",
    "DynamicQuantizeLinear": "TensorRT has no dynamic int8: export onnx-int8-trt for it",
    "MatMulInteger": "TensorRT has no integer MatMul: export onnx-int8-trt for it",
    "ConvInteger": "TensorRT has no integer Conv: export onnx-int8-trt for it",
    "QLinearConv": "TensorRT reads Q/DQ only: quantise with QuantFormat.QDQ",
    "QLinearMatMul": "TensorRT reads Q/DQ only: quantise with QuantFormat.QDQ",
}
_STANDARD_DOMAINS = {"", "ai.onnx"}
_ONNX_RUNTIME = {("com.microsoft", "MultiHeadAttention")}  # in every release from 1.19, for CPUs only
_8_BIT = (TensorProto.INT8, TensorProto.UINT8)


def lint(model: onnx.ModelProto, *, tensorrt: bool = True) -> list[str]:
    """Problems of a model, each with its fix; an empty list means that it is portable.

    Parameters
    ----------
    model
        A loaded ONNX model.
    tensorrt
        Also check what TensorRT's parser refuses; false for a graph that only ONNX Runtime on a CPU runs.
    """
    problems = []
    opset = next((o.version for o in model.opset_import if o.domain in _STANDARD_DOMAINS), 0)
    if not MIN_OPSET <= opset <= MAX_OPSET:
        problems.append(f"opset {opset} is outside {MIN_OPSET}–{MAX_OPSET}: pass opset_version to the exporter")
    if model.ir_version > MAX_IR:
        problems.append(f"IR version {model.ir_version} is newer than {MAX_IR}: ONNX Runtime 1.19 cannot load it")
    forbidden = _FORBIDDEN | (_NOT_IN_TENSORRT if tensorrt else {"DFT": _NOT_IN_TENSORRT["DFT"]})
    for node in model.graph.node:
        if not tensorrt and (node.domain, node.op_type) in _ONNX_RUNTIME:
            continue
        if node.domain not in _STANDARD_DOMAINS:
            problems.append(f"node {node.name or '?'} is from domain {node.domain!r}: only standard ONNX is portable")
        elif node.op_type in forbidden:
            problems.append(f"node {node.name or '?'} is {node.op_type}: {forbidden[node.op_type]}")
    if tensorrt:
        problems.extend(_quantisation(model))
    problems.extend(
        f"initializer {tensor.name} is external data: save the model as one file"
        for tensor in model.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    )
    problems.extend(_tensors(model))
    return problems


def _tensors(model: onnx.ModelProto) -> Iterator[str]:
    """Stale shapes, which stop ONNX Runtime's quantiser, and input or output types that TensorRT refuses."""
    names = {tensor.name for tensor in model.graph.initializer}
    stale = [value.name for value in model.graph.value_info if value.name in names]
    if stale:
        yield f"value_info of initializer {stale[0]} (and {len(stale) - 1} more): drop it with strip_initializer_info"
    for value in [*model.graph.input, *model.graph.output]:
        kind = value.type.tensor_type.elem_type
        if kind in (TensorProto.DOUBLE, TensorProto.STRING, TensorProto.INT64):
            name = TensorProto.DataType.Name(kind)
            yield f"{value.name} is {name}: cast it to float32 or int32, which every TensorRT takes"


def _quantisation(model: onnx.ModelProto) -> Iterator[str]:
    """Q/DQ that TensorRT refuses: a zero point that is not zero, or a bias in 32-bit integers."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        if node.input[0] in constants and constants[node.input[0]].data_type == TensorProto.INT32:
            yield f"node {node.name} dequantises a 32-bit bias: quantise with QuantizeBias False"
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero is not None and zero.data_type in _8_BIT and np.any(numpy_helper.to_array(zero)):
            yield f"node {node.name} has a zero point that is not zero: quantise symmetrically (onnx-int8-trt)"
