"""Step graphs as servers batch them: the streams are the first axis of everything, the recurrent states too."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge_sdk.errors import ExportError
from edge_sdk.runtime.engines.steps import STREAMS

BATCH = "batch"


def open_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """A step graph → the same with the batch as its first axis, open, of every input and output.

    The state of a recurrent layer, which ONNX keeps as ``[1, B, H]``, becomes ``[B, 1, H]``: the same bytes for one
    stream. Graphs of older bundles, which step one stream, are opened.

    Raises
    ------
    ExportError
        The graph is none of a batch of one, or reshapes in a way that hides the batch.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    values = (*graph.input, *graph.output)
    opened = any(axis.dim_param == STREAMS for value in values for axis in value.type.tensor_type.shape.dim)
    for value in values:
        axes = value.type.tensor_type.shape.dim
        streams = [axis for axis in axes if axis.dim_param == STREAMS] if opened else list(axes)[:1]
        if not streams or (not opened and streams[0].dim_value != 1):
            raise ExportError(f"{value.name} has no batch of one; only step graphs of this SDK are opened")
        if streams[0] is not axes[0]:
            streams[0].Clear()
            streams[0].dim_value = 1
        axes[0].Clear()
        axes[0].dim_param = BATCH
    if not opened:
        _open_reshapes(graph)
    recurrent = [node for node in graph.node if node.op_type in ("GRU", "RNN")]
    turns = [_batch_first(graph, node) for node in recurrent]
    nodes = [*(first for first, _ in turns), *graph.node, *(last for _, last in turns)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    del graph.value_info[:]  # shapes of a batch of one
    onnx.checker.check_model(result, full_check=True)
    return result


def _open_reshapes(graph: onnx.GraphProto) -> None:
    """In each constant target shape the axis of the batch becomes -1: by the form of the step graphs it is the 1."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "Reshape":
            continue
        tensor = constants.get(node.input[1])
        shape = None if tensor is None else numpy_helper.to_array(tensor)
        if shape is not None and not shape[:2].any():
            continue  # it keeps time and batch as they are
        if tensor is None or shape is None or int((shape == 1).sum()) != 1 or (shape < 0).any():
            raise ExportError(f"node {node.name} reshapes in a way that hides the batch; export the network again")
        opened = np.where(shape == 1, -1, shape)
        name = f"{node.name}/open"
        graph.initializer.append(numpy_helper.from_array(opened, name))
        node.input[1] = name


def _batch_first(graph: onnx.GraphProto, node: onnx.NodeProto) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """Nodes that turn the layer's state from ``[1, B, H]`` inside to ``[B, 1, H]`` at the graph's input and output."""
    inputs = {value.name for value in graph.input}
    makers = {output: maker for maker in graph.node for output in maker.output}
    source = node.input[5]
    while source not in inputs:
        if source not in makers:
            raise ExportError(f"node {node.name} has no state as an input; export the network again")
        source = makers[source].input[0]
    target = node.output[1]
    for reader in graph.node:
        reader.input[:] = [f"{source}/inside" if name == source else name for name in reader.input]
    node.output[1] = f"{target}/inside"
    turn_in = helper.make_node("Transpose", [source], [f"{source}/inside"], f"{source}/turn", perm=[1, 0, 2])
    turn_out = helper.make_node("Transpose", [f"{target}/inside"], [target], f"{target}/turn", perm=[1, 0, 2])
    return turn_in, turn_out
