"""The segmenter on Triton: one sequence a stream, its states kept by the server, steps of many streams in one run.

https://github.com/triton-inference-server/server/blob/main/docs/user_guide/architecture.md (implicit state management)
"""

from __future__ import annotations

from typing import Any

import onnx

from edge_sdk.runtime.engines.steps import FRAMES, OUTPUTS
from export.portability.open_batch import open_batch
from export.triton.config import EnumName, TritonOptions, exact_on_gpu, instances, one_thread

_IDLE_US = 60_000_000  # a stream that sends nothing for so long has ended


def segmenter_model(content: bytes) -> bytes:
    """The bundle's step graph with an open batch, at the length of one step."""
    model = onnx.load_from_string(content)
    properties = {prop.key: prop.value for prop in model.metadata_props}
    frames, stride = int(properties["frames_per_step"]), int(properties["stride"])
    sizes = {FRAMES: frames, OUTPUTS: frames // stride}
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in sizes:
                axis.dim_value = sizes[axis.dim_param]
    return bytes(open_batch(model).SerializeToString())


def segmenter_config(name: str, content: bytes, options: TritonOptions) -> dict[str, Any]:
    """Configuration: the oldest batcher joins the steps of different streams; a new sequence begins with zeros.

    Parameters
    ----------
    name
        Of the model.
    content
        From :func:`segmenter_model`.
    options
        See :class:`~export.triton.config.TritonOptions`; ``max_batch`` is the number of streams in one run.
    """
    graph = onnx.load_from_string(content).graph
    states = [value for value in graph.input if value.name.startswith("state_")]
    features = next(value for value in graph.input if not value.name.startswith("state_"))
    outputs = [value for value in graph.output if not value.name.endswith("_next")]
    return {
        "name": name,
        "backend": "onnxruntime",
        "max_batch_size": options.max_batch,
        "input": [_tensor(features)],
        "output": [_tensor(value) for value in outputs],
        "sequence_batching": {
            "max_sequence_idle_microseconds": _IDLE_US,
            "oldest": {
                "max_candidate_sequences": options.sequences,
                "max_queue_delay_microseconds": options.delay_us,
            },
            "state": [_state(value) for value in states],
        },
        "instance_group": [instances(1, gpu=options.gpu)],
        **one_thread(gpu=options.gpu),
        **exact_on_gpu(gpu=options.gpu),
    }


def _tensor(value: onnx.ValueInfoProto) -> dict[str, Any]:
    return {"name": value.name, "data_type": EnumName("TYPE_FP32"), "dims": _row(value)}


def _state(value: onnx.ValueInfoProto) -> dict[str, Any]:
    fields = {"data_type": EnumName("TYPE_FP32"), "dims": _row(value)}
    zeros = {**fields, "zero_data": True, "name": "silence"}
    return {"input_name": value.name, "output_name": f"{value.name}_next", **fields, "initial_state": [zeros]}


def _row(value: onnx.ValueInfoProto) -> list[int]:
    return [axis.dim_value for axis in value.type.tensor_type.shape.dim][1:]
