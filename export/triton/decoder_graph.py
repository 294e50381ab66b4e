"""The decoder as an ONNX graph: the function of ``runtime/decoding.py`` for servers that run graphs, not Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_sdk.runtime.bundle.schema import Decoder
from edge_sdk.runtime.decoding import logit_count
from export.onnx.lint import MAX_IR, OPSET

_HALF = 0.5


def decoder_graph(decoder: Decoder, labels: Sequence[str]) -> onnx.ModelProto:
    """``logits [B, L]`` → ``probabilities [B, C]``, ``label_index [B, 1]`` (int64), ``label [B, 1]`` (string).

    Temperature, bias and thresholds are constants of the graph; arithmetic is in float64, as on the device. A server
    does not know which requests are of one recording: the decoder's ``context`` is left to the client.

    Parameters
    ----------
    decoder
        Decoder of a bundle that was read and checked.
    labels
        Labels of the bundle ``[C]``.
    """
    graph = _Graph()
    scores = graph.node("Cast", "logits", to=TensorProto.DOUBLE)
    scores = graph.node("Div", scores, graph.constant(np.float64(decoder.temperature)))
    if decoder.bias:
        scores = graph.node("Add", scores, graph.constant(np.asarray(decoder.bias, np.float64)))
    normal = list(labels).index(decoder.normal_label)
    if decoder.kind == "softmax":
        probabilities = graph.node("Softmax", scores, axis=1)
        index = _most_probable(graph, probabilities, normal, _threshold(decoder, None), len(labels))
    elif decoder.kind == "binary":
        present = graph.node("Sigmoid", scores)
        absent = graph.node("Sigmoid", graph.node("Neg", scores))
        probabilities = graph.node("Concat", absent, present, axis=1)
        index = _most_probable(graph, probabilities, normal, _threshold(decoder, _HALF), len(labels))
    else:
        probabilities, index = _multilabel(graph, scores, decoder)
    graph.node("Cast", probabilities, output="probabilities", to=TensorProto.FLOAT)
    graph.node("Identity", index, output="label_index")
    names = graph.constant(np.asarray(labels, dtype=object))
    graph.node("Gather", names, "label_index", output="label", axis=0)
    return graph.model(logit_count(decoder.kind, labels), len(labels))


def _most_probable(graph: _Graph, probabilities: str, normal: int, threshold: float | None, count: int) -> str:
    """The most probable label; with a threshold, the most probable abnormal one where abnormal reaches it."""
    if threshold is None:
        return graph.node("ArgMax", probabilities, axis=1, keepdims=1)
    column = graph.constant(np.asarray([normal], np.int64))
    of_normal = graph.node("Gather", probabilities, column, axis=1)  # [B, 1]
    abnormal = graph.node("Sub", graph.constant(np.float64(1.0)), of_normal)
    called = graph.node("GreaterOrEqual", abnormal, graph.constant(np.float64(threshold)))
    mask = np.zeros((1, count), np.float64)
    mask[0, normal] = 2.0  # below every other probability
    best = graph.node("ArgMax", graph.node("Sub", probabilities, graph.constant(mask)), axis=1, keepdims=1)
    return graph.node("Where", called, best, graph.constant(np.asarray([[normal]], np.int64)))


def _multilabel(graph: _Graph, scores: str, decoder: Decoder) -> tuple[str, str]:
    present = graph.node("Sigmoid", scores)
    absent = graph.node("Sigmoid", graph.node("Neg", scores))
    first, second = (graph.constant(np.asarray([i], np.int64)) for i in (0, 1))
    crackle, no_crackle = (graph.node("Gather", x, first, axis=1) for x in (present, absent))
    wheeze, no_wheeze = (graph.node("Gather", x, second, axis=1) for x in (present, absent))
    products = [
        graph.node("Mul", a, b)
        for a, b in ((no_crackle, no_wheeze), (crackle, no_wheeze), (no_crackle, wheeze), (crackle, wheeze))
    ]
    probabilities = graph.node("Concat", *products, axis=1)
    limits = decoder.threshold if isinstance(decoder.threshold, list) else [decoder.threshold]
    thresholds = [_HALF if limit is None else limit for limit in (limits[0], limits[-1])]
    of_crackle = graph.node("Add", products[1], products[3])
    of_wheeze = graph.node("Add", products[2], products[3])
    bits = [
        graph.node("Cast", graph.node("GreaterOrEqual", p, graph.constant(np.float64(t))), to=TensorProto.INT64)
        for p, t in zip((of_crackle, of_wheeze), thresholds, strict=True)
    ]
    twice = graph.node("Mul", bits[1], graph.constant(np.int64(2)))
    return probabilities, graph.node("Add", bits[0], twice)


def _threshold(decoder: Decoder, default: float | None) -> float | None:
    value = decoder.threshold
    if isinstance(value, list):
        value = value[0] if value else None
    return default if value is None else value


class _Graph:
    """Collects nodes and constants under running names."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, value: Any) -> str:
        name = f"constant_{len(self._constants)}"
        array = np.asarray(value)
        if array.dtype == object:
            texts = [str(text).encode() for text in array.tolist()]
            tensor = helper.make_tensor(name, TensorProto.STRING, array.shape, texts)
        else:
            tensor = numpy_helper.from_array(array, name)
        self._constants.append(tensor)
        return name

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"value_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def model(self, logits: int, labels: int) -> onnx.ModelProto:
        batch = "batch"
        graph = helper.make_graph(
            self._nodes,
            "decoder",
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, logits])],
            [
                helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [batch, labels]),
                helper.make_tensor_value_info("label_index", TensorProto.INT64, [batch, 1]),
                helper.make_tensor_value_info("label", TensorProto.STRING, [batch, 1]),
            ],
            self._constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=MAX_IR,
            producer_name="stethoscope-edge-sdk",
        )
        onnx.checker.check_model(model, full_check=True)
        return model
