"""One function per row of the formats table: a network becomes the ``features → logits`` graph of that format."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from edge_sdk.metadata import MetadataSchema
from edge_sdk.models.conditioning import Metadata
from edge_sdk.signal.spec import FrontEndSpec
from export.formats import ArtefactFormat, Gate, ReportStep
from export.onnx.attention import fuse_attention
from export.onnx.graph import export_network
from export.onnx.quantise import Feed, Int8Count, Quantiser, Scheme, cpu_scheme, strip_initializer_info
from export.onnx.runner import GraphRunner
from export.onnx.sensitivity import SearchResult, Trial, search_float_groups
from export.onnx.smooth import smooth_activations

LabelsOf: TypeAlias = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.int64]]
"""Logits ``[N, C]`` → class indices ``[N]``, by the decoder."""

_SMOOTHING_FEEDS = 8  # batches whose ranges set the folds; more change nothing
_FP32_OPS = [  # sums of many numbers, and what can leave the range of float16
    "LayerNormalization", "InstanceNormalization", "GroupNormalization", "Softmax", "LogSoftmax", "ReduceMean",
    "ReduceSum", "ReduceMax", "GlobalAveragePool", "Exp", "Log", "Sqrt", "Pow", "Reciprocal", "Softplus", "Erf",
]  # fmt: skip


@dataclass
class BuildRequest:
    """What every builder may use."""

    model: nn.Module
    spec: FrontEndSpec
    schema: MetadataSchema | None
    progress: ReportStep
    calibration: Sequence[Feed] = ()  # batches of training patients
    decide: LabelsOf | None = None  # None: no search for sensitive layers
    notes: dict[str, Any] = field(default_factory=dict)  # of the current build, for the manifest

    @cached_property
    def network(self) -> onnx.ModelProto:
        """The fp32 graph."""
        return export_network(self.model, self.spec, self.schema)

    @cached_property
    def smoothed(self) -> tuple[onnx.ModelProto, int]:
        """The graph after SmoothQuant, and the number of folded norms."""
        batches = [_network_inputs(feed) for feed in self.calibration[:_SMOOTHING_FEEDS]]
        model, norms = smooth_activations(self.model, batches)
        return (export_network(model, self.spec, self.schema), norms) if norms else (self.network, 0)

    @cached_property
    def expected(self) -> npt.NDArray[np.float32]:
        """fp32 logits of the calibration cycles ``[N, C]``."""
        runner = GraphRunner(self.network)
        return np.concatenate([runner.run(feed) for feed in self.calibration])


def build_network(row: ArtefactFormat, request: BuildRequest) -> onnx.ModelProto:
    """Call the row's builder, which writes its figures into ``request.notes``."""
    module, _, function = row.builder.partition(":")
    builder = cast(
        "Callable[[ArtefactFormat, BuildRequest], onnx.ModelProto]", getattr(import_module(module), function)
    )
    request.notes = {}
    return builder(row, request)


def fp32(row: ArtefactFormat, request: BuildRequest) -> onnx.ModelProto:
    """The network as exported."""
    return request.network


def fp16(row: ArtefactFormat, request: BuildRequest) -> onnx.ModelProto:
    """Weights and activations in half precision; inputs, outputs, norms, softmax and exponentials stay fp32."""
    return half_precision(request.network)


def half_precision(network: onnx.ModelProto) -> onnx.ModelProto:
    """A ``features → logits`` graph in half precision, as far as that is safe."""
    from edge_sdk.runtime.engines.library import onnxruntime_part

    paths = list(sys.path)
    float16 = onnxruntime_part("transformers.float16")
    onnx_model = onnxruntime_part("transformers.onnx_model")
    sys.path[:] = paths  # that package puts its own folder, with a module 'models', on the path
    graph = onnx.ModelProto()
    graph.CopyFrom(network)
    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *_FP32_OPS]
    converted: onnx.ModelProto = float16.convert_float_to_float16(graph, keep_io_types=True, op_block_list=blocked)
    nodes = {
        tuple(node.output): node for node in converted.graph.node
    }  # the converter casts a value twice for two readers
    del converted.graph.node[:]
    converted.graph.node.extend(nodes.values())
    onnx_model.OnnxModel(converted).topological_sort()  # it appends its casts at the end
    return strip_initializer_info(converted)


def int8_cpu(row: ArtefactFormat, request: BuildRequest) -> onnx.ModelProto:
    """Dynamic for linear layers, static for convolutions: the scheme follows the larger share of weights."""
    return _int8(row, request, cpu_scheme(request.network))


def int8_trt(row: ArtefactFormat, request: BuildRequest) -> onnx.ModelProto:
    """Symmetric Q/DQ for TensorRT."""
    return _int8(row, request, "static-s8")


def _int8(row: ArtefactFormat, request: BuildRequest, scheme: Scheme) -> onnx.ModelProto:
    network, folded = request.smoothed if scheme != "static-u8s8" else (request.network, 0)
    with Quantiser(network, scheme, request.calibration) as quantiser:
        if request.decide is None or not request.calibration:
            found = SearchResult(quantiser.quantise())
        else:
            found = search_float_groups(quantiser, _trial(row.gate, request, request.decide), request.progress)
        layers = len(quantiser.layers)
    graph, fused = fuse_attention(found.graph) if scheme == "dynamic" else (found.graph, 0)
    count, before = Int8Count.of(graph), request.network.ByteSize()
    request.notes = {
        "scheme": scheme,
        "layers": layers,
        "smoothed_norms": folded,
        "fused_attentions": fused,
        "int8_weights": count.weights,
        "int8_share": count.share,
        "size_ratio": count.bytes / before,
        "kept_float": list(found.kept_float),
        "sensitivity": dict(found.errors),
    }
    return graph


def _trial(gate: Gate, request: BuildRequest, decide: LabelsOf) -> Callable[[onnx.ModelProto], Trial]:
    labels = decide(request.expected)

    def run_trial(graph: onnx.ModelProto) -> Trial:
        runner = GraphRunner(graph)
        logits = np.concatenate([runner.run(feed) for feed in request.calibration])
        error = float(np.linalg.norm(logits - request.expected) / np.linalg.norm(request.expected))
        same = float((decide(logits) == labels).mean())
        return Trial(error, error <= gate.max_relative_error and same >= gate.min_agreement)

    return run_trial


def _network_inputs(feed: Feed) -> tuple[torch.Tensor, Metadata | None]:
    arrays = dict(feed)
    features = torch.from_numpy(arrays.pop("features"))
    return features, Metadata.from_arrays(arrays) if arrays else None
