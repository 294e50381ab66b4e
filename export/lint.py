"""Names every node and property of an ONNX file that an older ONNX Runtime (1.19, 1.23) or TensorRT cannot take."""

from __future__ import annotations

import onnx

MIN_OPSET, MAX_OPSET, MAX_IR = 17, 20, 10

_FORBIDDEN = {
    "DFT": "TensorRT has no DFT: use constant DFT matrices",
    "STFT": "differs from Kaldi framing: use the folded Conv1d front end",
    "MelWeightMatrix": "TensorRT has no MelWeightMatrix: make the mel matrix a constant",
    "Attention": "opset 23 only: export with opset 20 or lower",
    "Loop": "serial on a GPU: unroll it or use a parallel scan",
    "Scan": "serial on a GPU: use a parallel scan",
    "If": "TensorRT needs static control flow: decide at export time",
    "SkipLayerNormalization": "an ONNX Runtime fusion: export without the transformer optimiser",
    "DynamicQuantizeLinear": "not for TensorRT: use the static Q/DQ format there",
    "NonZero": "data-dependent shape: use a mask",
}
_STANDARD_DOMAINS = {"", "ai.onnx"}


def lint(model: onnx.ModelProto) -> list[str]:
    """Problems of a model, each with its fix; an empty list means portable.

    Parameters
    ----------
    model
        A loaded ONNX model without external data.
    """
    problems = []
    opset = next((o.version for o in model.opset_import if o.domain in _STANDARD_DOMAINS), 0)
    if not MIN_OPSET <= opset <= MAX_OPSET:
        problems.append(f"opset {opset} is outside {MIN_OPSET}–{MAX_OPSET}: pass opset_version to the exporter")
    if model.ir_version > MAX_IR:
        problems.append(f"IR version {model.ir_version} is newer than {MAX_IR}: ONNX Runtime 1.19 cannot load it")
    for node in model.graph.node:
        if node.op_type in _FORBIDDEN:
            problems.append(f"node {node.name or '?'} is {node.op_type}: {_FORBIDDEN[node.op_type]}")
        elif node.domain not in _STANDARD_DOMAINS:
            problems.append(f"node {node.name or '?'} is from domain {node.domain!r}: only standard ONNX travels")
    problems.extend(
        f"initializer {tensor.name} is external data: save the model as one file"
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    )
    return problems
