"""Configurations of Triton's models, as nested fields and in protobuf's text format.

https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx
from onnx import TensorProto

from edge_sdk.errors import ExportError
from edge_sdk.runtime.bundle.schema import ArtefactEntry

LABEL_FILE = "labels.txt"
_TYPES = {TensorProto.FLOAT: "TYPE_FP32", TensorProto.INT32: "TYPE_INT32", TensorProto.INT64: "TYPE_INT64"}


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """How the server runs the models."""

    format: str | None = None  # artefact; absent: fp16 or fp32 on a GPU, the bundle's default on a CPU
    gpu: bool = False
    instances: int = 1  # copies of the classifier that run at once (per GPU)
    max_batch: int = 64
    delay_us: int = 2000  # longest wait of a request for others to fill a batch
    version: int = 1  # of the models in Triton's numbering
    sequences: int = 1024  # streams that the segmenter follows at once
    plan: bool = False  # serve the compiled TensorRT engine of this machine beside the ONNX file


class EnumName(str):
    """A value that the text format writes without quotes."""

    __slots__ = ()


def output_fields(labels: int) -> list[dict[str, Any]]:
    """Outputs of the decoder and of the ensemble, for ``labels`` labels."""
    return [
        {"name": "probabilities", "data_type": EnumName("TYPE_FP32"), "dims": [labels], "label_filename": LABEL_FILE},
        {"name": "label_index", "data_type": EnumName("TYPE_INT64"), "dims": [1]},
        {"name": "label", "data_type": EnumName("TYPE_STRING"), "dims": [1]},
    ]


def classifier_config(
    name: str, entry: ArtefactEntry, inputs: Sequence[dict[str, Any]], logits: int, options: TritonOptions
) -> dict[str, Any]:
    """Configuration of the classifier: batched, warmed up, on CPU or GPU."""
    preferred = sorted({n for n in (8, options.max_batch) if n <= options.max_batch})
    return {
        "name": name,
        "backend": "onnxruntime",
        "max_batch_size": options.max_batch,
        "input": list(inputs),
        "output": [{"name": entry.output, "data_type": EnumName("TYPE_FP32"), "dims": [logits]}],
        "dynamic_batching": {"preferred_batch_size": preferred, "max_queue_delay_microseconds": options.delay_us},
        "instance_group": [instances(options.instances, gpu=options.gpu)],
        # Every batch size: cuDNN and CUDA set up each one at its first run, and a client would wait for that.
        "model_warmup": [_warm_up(size, inputs) for size in range(1, options.max_batch + 1)],
        **one_thread(gpu=options.gpu),
        **exact_on_gpu(gpu=options.gpu),
    }


def plan_config(
    name: str,
    entry: ArtefactEntry,
    inputs: Sequence[dict[str, Any]],
    logits: int,
    options: TritonOptions,
    profiles: str,
) -> dict[str, Any]:
    """Configuration of the classifier as a TensorRT plan; ``profiles``: of its engine's key, ``1-1-1,1-8-64``."""
    ranges = [tuple(map(int, profile.split("-"))) for profile in profiles.split(",")]
    largest = min(options.max_batch, max(high for _, _, high in ranges))
    config = classifier_config(name, entry, inputs, logits, replace(options, max_batch=largest, gpu=True))
    for key in ("backend", "optimization"):
        del config[key]
    group = {**instances(options.instances, gpu=True), "profile": [str(index) for index in range(len(ranges))]}
    return {**config, "platform": "tensorrt_plan", "instance_group": [group]}


def decoder_config(name: str, logits: int, outputs: Sequence[dict[str, Any]], options: TritonOptions) -> dict[str, Any]:
    """Configuration of the decoder graph, on the CPU."""
    return {
        "name": name,
        "backend": "onnxruntime",
        "max_batch_size": options.max_batch,
        "input": [{"name": "logits", "data_type": EnumName("TYPE_FP32"), "dims": [logits]}],
        "output": list(outputs),
        "instance_group": [instances(1, gpu=False)],  # few numbers: a copy to the GPU costs more
        **one_thread(gpu=False),
    }


def ensemble_config(
    name: str,
    classifier: str,
    decoder: str,
    entry: ArtefactEntry,
    inputs: Sequence[dict[str, Any]],
    outputs: Sequence[dict[str, Any]],
    options: TritonOptions,
) -> dict[str, Any]:
    """Configuration of the ensemble that clients call: classifier, then decoder."""
    steps = [
        {
            "model_name": classifier,
            "model_version": -1,
            "input_map": [{"key": i["name"], "value": i["name"]} for i in inputs],
            "output_map": [{"key": entry.output, "value": "classifier_logits"}],
        },
        {
            "model_name": decoder,
            "model_version": -1,
            "input_map": [{"key": "logits", "value": "classifier_logits"}],
            "output_map": [{"key": a["name"], "value": a["name"]} for a in outputs],
        },
    ]
    return {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": options.max_batch,
        "input": [{k: v for k, v in i.items() if k != "reshape"} for i in inputs],
        "output": list(outputs),
        "ensemble_scheduling": {"step": steps},
    }


def graph_inputs(model: onnx.ModelProto) -> list[dict[str, Any]]:
    """Triton's description of a graph's inputs; one number per row is ``[1]`` for clients and ``[]`` for the graph.

    Raises
    ------
    ExportError
        An input has a type other than float32, int32 and int64.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    found = []
    for value in model.graph.input:
        if value.name in constants:
            continue
        kind = value.type.tensor_type
        if kind.elem_type not in _TYPES:
            raise ExportError(f"input {value.name} has a type other than float32, int32 and int64")
        row = [axis.dim_value for axis in kind.shape.dim][1:]
        fields: dict[str, Any] = {"name": value.name, "data_type": EnumName(_TYPES[kind.elem_type]), "dims": row or [1]}
        if not row:
            fields["reshape"] = {"shape": []}
        found.append(fields)
    return found


def to_pbtxt(fields: Mapping[str, Any], indent: int = 0) -> str:
    """Nested fields in protobuf's text format; lists of mappings become repeated messages."""
    space = "  " * indent
    lines = []
    for name, value in fields.items():
        if isinstance(value, Mapping):
            lines.append(f"{space}{name} {{\n{to_pbtxt(value, indent + 1)}{space}}}\n")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines += [f"{space}{name} {{\n{to_pbtxt(item, indent + 1)}{space}}}\n" for item in value]
        elif isinstance(value, list):
            lines.append(f"{space}{name}: [{', '.join(_scalar(item) for item in value)}]\n")
        else:
            lines.append(f"{space}{name}: {_scalar(value)}\n")
    return "".join(lines)


def _scalar(value: Any) -> str:
    if isinstance(value, EnumName):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{text}"'
    return str(value)


def instances(count: int, *, gpu: bool) -> dict[str, Any]:
    """Group of ``count`` copies, per GPU or on the CPU."""
    return {"count": count, "kind": EnumName("KIND_GPU" if gpu else "KIND_CPU")}


def one_thread(*, gpu: bool) -> dict[str, Any]:
    """On CPUs instances scale better than threads within one: each gets a core."""
    if gpu:
        return {}
    return {"parameters": [{"key": "intra_op_thread_count", "value": {"string_value": "1"}}]}


def exact_on_gpu(*, gpu: bool) -> dict[str, Any]:
    """No TF32, whose 10 bits of mantissa the logarithm of the front end shows; cuDNN chooses without trying out."""
    if not gpu:
        return {}
    cuda = {"name": "cuda", "parameters": _parameters({"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})}
    return {"optimization": {"execution_accelerators": {"gpu_execution_accelerator": [cuda]}}}


def _parameters(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _warm_up(batch: int, inputs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    values = [
        {
            "key": i["name"],
            "value": {"data_type": i["data_type"], "dims": i["dims"], "zero_data": True},
        }
        for i in inputs
    ]
    return {"name": f"batch of {batch}", "batch_size": batch, "inputs": values}
