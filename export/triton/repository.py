"""A bundle as a model repository of Triton Inference Server: PCM in, label out, batched on the server.

Three models: the classifier, the decoder as a graph, and an ensemble of both that clients call. With them the
segmenter, one sequence a stream, and on demand the classifier as a TensorRT plan with an ensemble of its own.
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from edge_sdk.digests import sha256_file
from edge_sdk.errors import BundleError, EngineError, ExportError
from edge_sdk.runtime.bundle.engine_trust import EngineTrust
from edge_sdk.runtime.bundle.files import hash_check, require
from edge_sdk.runtime.bundle.load import checked_file, read_manifest, resolve_bundle
from edge_sdk.runtime.bundle.schema import ArtefactEntry, Manifest
from edge_sdk.runtime.bundle.signature import trusted_keys
from edge_sdk.runtime.engines.cache import engines_of, read_sidecar
from export.formats import ReportStep
from export.triton.config import (
    LABEL_FILE,
    TritonOptions,
    classifier_config,
    decoder_config,
    ensemble_config,
    graph_inputs,
    output_fields,
    plan_config,
    to_pbtxt,
)
from export.triton.decoder_graph import decoder_graph
from export.triton.segmenter import segmenter_config, segmenter_model

_MARKER = ".stetho-triton"  # in the repository's root; a folder without it is never replaced
_GPU_FORMATS, _CPU_FORMATS = ("onnx-fp16", "onnx-fp32"), ("onnx-int8-cpu", "onnx-fp32")


def write_repository(bundle: Path, out: Path, options: TritonOptions | None = None) -> list[Path]:
    """Write the repository, whole or not at all, and return its files.

    Parameters
    ----------
    bundle
        A written bundle.
    out
        Folder for ``tritonserver --model-repository``; an older repository of this SDK is replaced.
    options
        See :class:`~export.triton.config.TritonOptions`.

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
            f"{folder} holds untrained weights, which a server must not offer to clients: export a checkpoint"
        )
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / _MARKER).is_file())):
        raise ExportError(f"{out} exists and is not a repository of this SDK; give another folder or remove it")
    entry = _choose(manifest, options)
    content = checked_file(folder, entry).read_bytes()
    files = repository_files(manifest, entry, content, options)
    if manifest.segmenter.kind == "learned" and manifest.segmenter.file:
        require(hash_check(folder, manifest.segmenter.file, manifest.segmenter.sha256 or ""))
        files |= _segmenter_files(manifest, (folder / manifest.segmenter.file).read_bytes(), options)
    if options.plan:  # the engine is that of 'stetho compile', also where the CPU serves the bundle's default artefact
        compiled = entry if options.format else _choose(manifest, replace(options, gpu=True))
        files |= plan_files(folder, manifest, compiled, checked_file(folder, compiled).read_bytes(), options)
    try:
        _place(out, files, options.version)
    except OSError as error:
        raise ExportError(f"cannot write {out} ({error.strerror or error}); give another folder") from error
    return [out / name for name in files]


def build_repository_format(bundle: Path, progress: ReportStep) -> list[Path]:
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
        The bundle and one of its artefacts.
    content
        Bytes of the artefact.
    options
        See :class:`~export.triton.config.TritonOptions`.
    """
    name = model_name(manifest.name)
    classifier, decoder = f"{name}_classifier", f"{name}_decoder"
    inputs = graph_inputs(onnx.load_from_string(content))
    graph = decoder_graph(manifest.decoder, manifest.labels)
    logits = graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    outputs = output_fields(len(manifest.labels))
    version = options.version
    label_file = ("\n".join(manifest.labels) + "\n").encode()
    configs = {
        classifier: classifier_config(classifier, entry, inputs, logits, options),
        decoder: decoder_config(decoder, logits, outputs, options),
        name: ensemble_config(name, classifier, decoder, entry, inputs, outputs, options),
    }
    files = {f"{model}/config.pbtxt": to_pbtxt(config).encode() for model, config in configs.items()}
    return files | {
        f"{classifier}/{version}/model.onnx": content,
        f"{decoder}/{version}/model.onnx": graph.SerializeToString(),
        f"{decoder}/{LABEL_FILE}": label_file,
        f"{name}/{LABEL_FILE}": label_file,
        _MARKER: f"{manifest.name} {manifest.version}, {entry.format}, sha256 {entry.sha256}\n".encode(),
    }


def _segmenter_files(manifest: Manifest, content: bytes, options: TritonOptions) -> dict[str, bytes]:
    name = f"{model_name(manifest.name)}_segmenter"
    graph = segmenter_model(content)
    config = to_pbtxt(segmenter_config(name, graph, options)).encode()
    return {f"{name}/config.pbtxt": config, f"{name}/{options.version}/model.onnx": graph}


def plan_files(
    folder: Path, manifest: Manifest, entry: ArtefactEntry, content: bytes, options: TritonOptions
) -> dict[str, bytes]:
    """The engine that 'stetho compile' built here as a model of its own, and an ensemble that uses it.

    Raises
    ------
    ExportError
        No engine of this artefact for plain TensorRT is in the cache, or none that this device may trust.
    """
    name, plan = model_name(manifest.name), f"{model_name(manifest.name)}_classifier_plan"
    path, sidecar = _engine_file(folder, entry)
    inputs = graph_inputs(onnx.load_from_string(content))
    logits = onnx.load_from_string(content).graph.output[0].type.tensor_type.shape.dim[1].dim_value
    outputs = output_fields(len(manifest.labels))
    profiles = str(sidecar["key"]["profiles"])
    config = plan_config(plan, entry, inputs, logits, options, profiles)
    limited = replace(options, max_batch=config["max_batch_size"])
    ensemble = ensemble_config(f"{name}_plan", plan, f"{name}_decoder", entry, inputs, outputs, limited)
    about = f"TensorRT {sidecar['key']['version']}, {sidecar['key']['gpu']}: the server must have both\n"
    return {
        f"{plan}/config.pbtxt": to_pbtxt(config).encode(),
        f"{plan}/{options.version}/model.plan": path.read_bytes(),
        f"{plan}/README": about.encode(),
        f"{name}_plan/config.pbtxt": to_pbtxt(ensemble).encode(),
        f"{name}_plan/{LABEL_FILE}": ("\n".join(manifest.labels) + "\n").encode(),
    }


def _engine_file(folder: Path, entry: ArtefactEntry) -> tuple[Path, dict[str, Any]]:
    trust = EngineTrust.of(folder, trusted_keys())
    for path in engines_of(entry.sha256):
        with contextlib.suppress(EngineError):
            sidecar = read_sidecar(path)
            if sidecar["key"]["flavour"] != "tensorrt" or sidecar["sha256"] != sha256_file(path):
                continue
            if trust is not None:
                trust.check(sidecar)
            return path, sidecar
    raise ExportError(f"there is no TensorRT engine of {entry.format} in the cache; run 'stetho compile' here first")


def model_name(bundle: str) -> str:
    """Name of the ensemble on the server: the bundle's, without characters that Triton's URLs refuse."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", bundle).strip(".") or "stetho"


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
        ("sequences", options.sequences, 1, 1_000_000),
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
