"""fp16 graphs as bf16: the range of float32 with 8 bits of mantissa, for GPUs from Ampere on."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def to_bfloat16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace float16 by bfloat16 in weights, casts and shapes.

    ONNX's checker allows that for convolutions only from opset 22 on, and ONNX Runtime does not run it on a CPU: such a
    graph is for TensorRT, which reads it, and is measured, not shipped.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            bits = np.ascontiguousarray(values).view(np.uint32)
            rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
            tensor.CopyFrom(
                helper.make_tensor(tensor.name, TensorProto.BFLOAT16, tensor.dims, rounded.tobytes(), raw=True)
            )
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16
    for value in graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    return result
