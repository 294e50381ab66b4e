"""What the ONNX parser of each TensorRT release reads: opsets, and operators that it refuses.

From the support matrices of https://github.com/onnx/onnx-tensorrt (docs/operators.md, of 8.4 for 8.6, which added
LayerNormalization, and of 10.15). Where no matrix was read, that of the nearest older release stands in, which refuses
more; opsets beyond 20 are not written by this SDK.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edge_sdk.errors import ExportError
from export.portability.opset import OLDEST, to_opset_17

_NEVER = {
    "AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad",
    "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger", "DFT", "Det", "DynamicQuantizeLinear", "ImageDecoder",
    "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "Multinomial", "NegativeLogLikelihoodLoss",
    "Optional", "OptionalGetElement", "OptionalHasElement", "QLinearConv", "QLinearMatMul", "RegexFullMatch",
    "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
    "SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringNormalizer", "TfIdfVectorizer", "Unique",
}  # fmt: skip
_NOT_IN_8 = {
    "Hardmax", "IsInf", "MeanVarianceNormalization", "Mod", "NonZero", "OneHot", "RandomNormal", "RandomNormalLike",
    "Reciprocal", "RoiAlign", "STFT", "Shrink",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parser:
    """What the parser of a release reads."""

    newest_opset: int
    refused: frozenset[str]


PARSERS = {
    "8.6": Parser(17, frozenset(_NEVER | _NOT_IN_8)),
    "10.0": Parser(20, frozenset(_NEVER)),
    "10.3": Parser(20, frozenset(_NEVER)),
    "10.13": Parser(20, frozenset(_NEVER)),
    "10.16": Parser(24, frozenset(_NEVER)),
    "11.4": Parser(24, frozenset(_NEVER)),
}


def release_problems(model: onnx.ModelProto, release: str) -> list[str]:
    """Why a release of TensorRT refuses a graph, a line each; 8.6 gets it in opset 17, as from the builder."""
    parser = PARSERS[release]
    if parser.newest_opset <= OLDEST:
        try:
            model = to_opset_17(model)
        except ExportError as error:
            return [f"TensorRT {release}: {error}"]
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    problems = []
    if opset > parser.newest_opset:
        problems.append(f"TensorRT {release} reads opsets up to {parser.newest_opset}, the graph has {opset}")
    refused = (node for node in model.graph.node if node.op_type in parser.refused)
    return problems + [f"TensorRT {release} has no {node.op_type} (node {node.name or '?'})" for node in refused]
