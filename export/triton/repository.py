"""A bundle as a model repository of Triton Inference Server: PCM in, label out, batched on the server.

Three models: the classifier, the decoder as a graph, and an ensemble of both that clients call.
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from edge_sdk.errors import BundleError, ExportError
from edge_sdk.runtime.bundle.load import checked_file, read_manifest, resolve_bundle
from edge_sdk.runtime.bundle.schema import ArtefactEntry, Manifest
from edge_sdk.runtime.bundle.signature import trusted_keys
from export.triton.decoder_graph import decoder_graph

LABEL_FILE = "labels.txt"
_MARKER = ".stetho-triton"  # in the repository's root: a folder without it is not ours to replace
_TYPES = {TensorProto.FLOAT: "TYPE_FP32", TensorProto.INT32: "TYPE_INT32", TensorProto.INT64: "TYPE_INT64"}
_GPU_FORMATS, _CPU_FORMATS = ("onnx-fp16", "onnx-fp32"), ("onnx-int8-cpu", "onnx-fp32")


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """How the server shall run the models."""

    format: str | None = None  # artefact; absent: fp16 or fp32 on a GPU, the bundle's default on a CPU
    gpu: bool = False
    instances: int = 1  # copies of the classifier that run at once (per GPU)
    max_batch: int = 64
    delay_us: int = 2000  # longest that a request waits for others to make up a batch
    version: int = 1  # of the models, as Triton counts


class Word(str):
    """A value that the text format writes without quotes: a name of an enum, ``true``."""

    __slots__ = ()


def write_repository(bundle: Path, out: Path, options: TritonOptions | None = None) -> list[Path]:
    """Write the repository, whole or not at all, and give back its files.

    Parameters
    ----------
    bundle
        A written bundle.
    out
        Folder for ``tritonserver --model-repository``; one of ours is replaced.
    options
        See :class:`TritonOptions`.

    Raises
    ------
    ExportError
        ``out`` holds something else or cannot be written, or an option is out of range.
    BundleError
        The bundle is missing, damaged or has no such artefact.
    """
    options = options or TritonOptions()
    _check(options)
    folder = resolve_bundle(bundle)
    manifest = read_manifest(folder, trusted_keys())
    if manifest.untrained:
        raise BundleError(
            f"{folder} holds untrained weights; a server must not give their answers: export a checkpoint"
        )
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / _MARKER).is_file())):
        raise ExportError(f"{out} exists and is not a repository of ours; give another folder or remove it")
    entry = _choose(manifest, options)
    content = checked_file(folder, entry).read_bytes()
    files = repository_files(manifest, entry, content, options)
    try:
        _place(out, files, options.version)
    except OSError as error:
        raise ExportError(f"cannot write {out} ({error.strerror or error}); give another folder") from error
    return [out / name for name in files]


def build_format(bundle: Path, progress: Callable[[str], None]) -> list[Path]:
    """The ``triton`` row of the formats table: a repository beside the bundle."""
    out = bundle.with_name(f"{bundle.name}-triton")
    progress(f"writing {out}")
    write_repository(bundle, out)
    return [out]


def repository_files(
    manifest: Manifest, entry: ArtefactEntry, content: bytes, options: TritonOptions
) -> dict[str, bytes]:
    """Name → content of every file of the repository.

    Parameters
    ----------
    manifest, entry
        Bundle and artefact.
    content
        The artefact's bytes.
    options
        See :class:`TritonOptions`.
    """
    name = model_name(manifest.name)
    classifier, decoder = f"{name}_classifier", f"{name}_decoder"
    inputs = _inputs(onnx.load_from_string(content))
    graph = decoder_graph(manifest.decoder, manifest.labels)
    logits = graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    labels = len(manifest.labels)
    answers = [
        {"name": "probabilities", "data_type": Word("TYPE_FP32"), "dims": [labels], "label_filename": LABEL_FILE},
        {"name": "label_index", "data_type": Word("TYPE_INT64"), "dims": [1]},
        {"name": "label", "data_type": Word("TYPE_STRING"), "dims": [1]},
    ]
    version = options.version
    label_file = ("\n".join(manifest.labels) + "\n").encode()
    configs = {
        classifier: _classifier_config(classifier, entry, inputs, logits, options),
        decoder: _decoder_config(decoder, logits, answers, options),
        name: _ensemble_config(name, classifier, decoder, entry, inputs, answers, options),
    }
    files = {f"{model}/config.pbtxt": to_pbtxt(config).encode() for model, config in configs.items()}
    return files | {
        f"{classifier}/{version}/model.onnx": content,
        f"{decoder}/{version}/model.onnx": graph.SerializeToString(),
        f"{decoder}/{LABEL_FILE}": label_file,
        f"{name}/{LABEL_FILE}": label_file,
        _MARKER: f"{manifest.name} {manifest.version}, {entry.format}, sha256 {entry.sha256}\n".encode(),
    }


def model_name(bundle: str) -> str:
    """The ensemble's name on the server: the bundle's, with what Triton's URLs cannot hold replaced."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", bundle).strip(".") or "stetho"


def to_pbtxt(fields: Mapping[str, Any], indent: int = 0) -> str:
    """Protobuf's text format of nested fields; lists of mappings are repeated messages."""
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
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{text}"'
    return str(value)


def _classifier_config(
    name: str, entry: ArtefactEntry, inputs: Sequence[dict[str, Any]], logits: int, options: TritonOptions
) -> dict[str, Any]:
    preferred = sorted({n for n in (8, options.max_batch) if n <= options.max_batch})
    return {
        "name": name,
        "backend": "onnxruntime",
        "max_batch_size": options.max_batch,
        "input": list(inputs),
        "output": [{"name": entry.output, "data_type": Word("TYPE_FP32"), "dims": [logits]}],
        "dynamic_batching": {"preferred_batch_size": preferred, "max_queue_delay_microseconds": options.delay_us},
        "instance_group": [_instances(options.instances, gpu=options.gpu)],
        "model_warmup": [_warm_up(size, inputs) for size in sorted({1, options.max_batch})],
        **_one_thread(gpu=options.gpu),
    }


def _decoder_config(
    name: str, logits: int, answers: Sequence[dict[str, Any]], options: TritonOptions
) -> dict[str, Any]:
    return {
        "name": name,
        "backend": "onnxruntime",
        "max_batch_size": options.max_batch,
        "input": [{"name": "logits", "data_type": Word("TYPE_FP32"), "dims": [logits]}],
        "output": list(answers),
        "instance_group": [_instances(1, gpu=False)],  # a handful of numbers: not worth a copy to the GPU
        **_one_thread(gpu=False),
    }


def _ensemble_config(
    name: str,
    classifier: str,
    decoder: str,
    entry: ArtefactEntry,
    inputs: Sequence[dict[str, Any]],
    answers: Sequence[dict[str, Any]],
    options: TritonOptions,
) -> dict[str, Any]:
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
            "output_map": [{"key": a["name"], "value": a["name"]} for a in answers],
        },
    ]
    return {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": options.max_batch,
        "input": [{k: v for k, v in i.items() if k != "reshape"} for i in inputs],
        "output": list(answers),
        "ensemble_scheduling": {"step": steps},
    }


def _inputs(model: onnx.ModelProto) -> list[dict[str, Any]]:
    """Triton's description of a graph's inputs; one number a row is ``[1]`` to clients and ``[]`` to the graph."""
    constants = {tensor.name for tensor in model.graph.initializer}
    found = []
    for value in model.graph.input:
        if value.name in constants:
            continue
        kind = value.type.tensor_type
        if kind.elem_type not in _TYPES:
            raise ExportError(f"input {value.name} has a type that Triton configurations here do not know")
        row = [axis.dim_value for axis in kind.shape.dim][1:]
        fields: dict[str, Any] = {"name": value.name, "data_type": Word(_TYPES[kind.elem_type]), "dims": row or [1]}
        if not row:
            fields["reshape"] = {"shape": []}
        found.append(fields)
    return found


def _instances(count: int, *, gpu: bool) -> dict[str, Any]:
    return {"count": count, "kind": Word("KIND_GPU" if gpu else "KIND_CPU")}


def _one_thread(*, gpu: bool) -> dict[str, Any]:
    """On CPUs instances scale better than threads within one: each gets a core."""
    if gpu:
        return {}
    return {"parameters": [{"key": "intra_op_thread_count", "value": {"string_value": "1"}}]}


def _warm_up(batch: int, inputs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    values = [
        {
            "key": i["name"],
            "value": {"data_type": i["data_type"], "dims": i["dims"], "zero_data": True},
        }
        for i in inputs
    ]
    return {"name": f"batch of {batch}", "batch_size": batch, "inputs": values}


def _choose(manifest: Manifest, options: TritonOptions) -> ArtefactEntry:
    by_format = {entry.format: entry for entry in manifest.artefacts}
    if options.format is not None:
        if options.format not in by_format:
            raise BundleError(f"the bundle holds no artefact {options.format!r}; it holds {', '.join(by_format)}")
        return by_format[options.format]
    if not options.gpu and (default := next((e for e in manifest.artefacts if e.default), None)):
        return default
    wanted = _GPU_FORMATS if options.gpu else _CPU_FORMATS
    return next((by_format[f] for f in wanted if f in by_format), manifest.artefacts[0])


def _check(options: TritonOptions) -> None:
    for name, value, low, high in (
        ("instances", options.instances, 1, 256),
        ("max_batch", options.max_batch, 1, 4096),
        ("delay_us", options.delay_us, 0, 10_000_000),
        ("version", options.version, 1, 2**31),
    ):
        if not low <= value <= high:
            raise ExportError(f"{name} is {value}; it must lie between {low} and {high}")


def _place(out: Path, files: Mapping[str, bytes], version: int) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for name, content in files.items():
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for config in list(staging.glob("*/config.pbtxt")):
            (config.parent / str(version)).mkdir(exist_ok=True)  # an ensemble has a version folder too, empty
        staging.chmod(0o755)  # mkdtemp makes it private
        old = out.with_name(f".{out.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            out.replace(old)
        staging.replace(out)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
