"""One function per row of the formats table: a network becomes the ``features → logits`` graph of that format."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from edge_sdk.metadata import MetadataSchema
from edge_sdk.models.conditioning import Metadata
from edge_sdk.signal.spec import FrontEndSpec
from export.formats import Format, Gate
from export.onnx.attention import fuse_attention
from export.onnx.graph import export_network
from export.onnx.quantise import Feed, Int8Count, Quantiser, Scheme, cpu_scheme, strip_initializer_info
from export.onnx.sensitivity import Judgement, Outcome, search
from export.onnx.session import Session
from export.onnx.smooth import smooth

Decide = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.int64]]
_SMOOTHING_FEEDS = 8  # batches whose ranges set the folds; more change nothing
_FP32_OPS = [  # sums of many numbers, and what can leave the range of float16
    "LayerNormalization", "InstanceNormalization", "GroupNormalization", "Softmax", "LogSoftmax", "ReduceMean",
    "ReduceSum", "ReduceMax", "GlobalAveragePool", "Exp", "Log", "Sqrt", "Pow", "Reciprocal", "Softplus", "Erf",
]  # fmt: skip


@dataclass
class Request:
    """What every builder may draw on."""

    model: nn.Module
    spec: FrontEndSpec
    schema: MetadataSchema | None
    progress: Callable[[str], None]
    calibration: Sequence[Feed] = ()  # batches of training patients
    decide: Decide | None = None  # logits → labels, by the decoder; None: do not search for sensitive layers
    notes: dict[str, Any] = field(default_factory=dict)  # of the build at hand, for the manifest

    @cached_property
    def network(self) -> onnx.ModelProto:
        """The fp32 graph."""
        return export_network(self.model, self.spec, self.schema)

    @cached_property
    def smoothed(self) -> tuple[onnx.ModelProto, int]:
        """The graph after SmoothQuant, and how many norms were folded."""
        calls = [_call(feed) for feed in self.calibration[:_SMOOTHING_FEEDS]]
        model, pairs = smooth(self.model, calls)
        return (export_network(model, self.spec, self.schema), pairs) if pairs else (self.network, 0)

    @cached_property
    def expected(self) -> npt.NDArray[np.float32]:
        """fp32 logits of the calibration cycles ``[N, C]``."""
        session = Session(self.network)
        return np.concatenate([session.run(feed) for feed in self.calibration])


def build(wanted: Format, request: Request) -> onnx.ModelProto:
    """Call the row's builder; ``request.notes`` is then what it has to say."""
    module, _, function = wanted.builder.partition(":")
    builder = cast("Callable[[Format, Request], onnx.ModelProto]", getattr(import_module(module), function))
    request.notes = {}
    return builder(wanted, request)


def fp32(wanted: Format, request: Request) -> onnx.ModelProto:
    """As it is."""
    return request.network


def fp16(wanted: Format, request: Request) -> onnx.ModelProto:
    """Weights and activations in half precision; inputs, outputs, norms, softmax and exponentials stay fp32."""
    paths = list(sys.path)
    from onnxruntime.transformers import float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    sys.path[:] = paths  # that package puts its own folder, with a module 'models', on the path
    graph = onnx.ModelProto()
    graph.CopyFrom(request.network)
    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *_FP32_OPS]
    converted: onnx.ModelProto = float16.convert_float_to_float16(graph, keep_io_types=True, op_block_list=blocked)
    nodes = {tuple(node.output): node for node in converted.graph.node}  # it casts a value twice for two readers
    del converted.graph.node[:]
    converted.graph.node.extend(nodes.values())
    OnnxModel(converted).topological_sort()  # and appends its casts at the end
    return strip_initializer_info(converted)


def int8_cpu(wanted: Format, request: Request) -> onnx.ModelProto:
    """Dynamic for linear layers, static for convolutions: what the graph mostly consists of decides."""
    return _int8(wanted, request, cpu_scheme(request.network))


def int8_trt(wanted: Format, request: Request) -> onnx.ModelProto:
    """Symmetric Q/DQ."""
    return _int8(wanted, request, "static-s8")


def _int8(wanted: Format, request: Request, scheme: Scheme) -> onnx.ModelProto:
    network, folded = request.smoothed if scheme != "static-u8s8" else (request.network, 0)
    with Quantiser(network, scheme, request.calibration) as quantiser:
        if request.decide is None or not request.calibration:
            outcome = Outcome(quantiser.quantise())
        else:
            outcome = search(quantiser, _judge(wanted.gate, request, request.decide), request.progress)
        layers = len(quantiser.layers)
    graph, fused = fuse_attention(outcome.graph) if scheme == "dynamic" else (outcome.graph, 0)
    count, before = Int8Count.of(graph), request.network.ByteSize()
    request.notes = {
        "scheme": scheme,
        "layers": layers,
        "smoothed_norms": folded,
        "fused_attentions": fused,
        "int8_weights": count.weights,
        "int8_share": count.share,
        "size_ratio": count.bytes / before,
        "kept_float": list(outcome.kept_float),
        "sensitivity": dict(outcome.errors),
    }
    return graph


def _judge(gate: Gate, request: Request, decide: Decide) -> Callable[[onnx.ModelProto], Judgement]:
    labels = decide(request.expected)

    def judge(graph: onnx.ModelProto) -> Judgement:
        session = Session(graph)
        logits = np.concatenate([session.run(feed) for feed in request.calibration])
        error = float(np.linalg.norm(logits - request.expected) / np.linalg.norm(request.expected))
        same = float((decide(logits) == labels).mean())
        return Judgement(error, error <= gate.max_relative_error and same >= gate.min_agreement)

    return judge


def _call(feed: Feed) -> tuple[torch.Tensor, Metadata | None]:
    arrays = dict(feed)
    features = torch.from_numpy(arrays.pop("features"))
    return features, Metadata.from_arrays(arrays) if arrays else None
