"""ONNX → TensorRT engine: built on the device it runs on, cached, never half written.

One builder for TensorRT 8.6 to 11 and TensorRT-RTX. Only RTX was run, and only to build: no engine was executed.
https://docs.nvidia.com/deeplearning/tensorrt/
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge_sdk.errors import EngineError, ExportError
from edge_sdk.runtime.bundle.engine_trust import EngineTrust
from edge_sdk.runtime.bundle.load import checked_file, read_manifest, resolve_bundle
from edge_sdk.runtime.bundle.schema import MANIFEST, ArtefactEntry, Manifest
from edge_sdk.runtime.bundle.signature import trusted_keys
from edge_sdk.runtime.engines.cache import (
    ANY_GPU,
    EngineKey,
    cache_folder,
    check_engine,
    store_engine,
)
from edge_sdk.runtime.engines.cuda_driver import Gpu, find_gpu
from export.formats import ReportStep
from export.signing import SignEngine, engine_signer
from export.tensorrt.api import TrtApi, find_api, make_logger, network_flags, parser_errors
from export.tensorrt.options import BuildOptions
from export.tensorrt.plan import EngineBuild, make_builder, readable

_log = logging.getLogger(__name__)

_BY_PRECISION = {"fp32": "onnx-fp32", "fp16": "onnx-fp16", "int8": "onnx-int8-trt"}


@dataclass(frozen=True, slots=True)
class EngineFile:
    """An engine on disk."""

    path: Path
    sidecar: dict[str, Any]
    seconds: float  # of the build; of the original build where it was cached
    cached: bool

    @property
    def bytes(self) -> int:
        """Size of the engine."""
        return int(self.sidecar["bytes"])


def build_engine(
    onnx: bytes | Path,
    options: BuildOptions | None = None,
    *,
    progress: ReportStep = _log.info,
    api: TrtApi | None = None,
    gpu: Gpu | None = None,
    trust: EngineTrust | None = None,
    signer: SignEngine | None = None,
) -> EngineFile:
    """Build an engine, or find it in the cache.

    Parameters
    ----------
    onnx
        The graph; the batch is the only dynamic axis of its inputs.
    options
        See :class:`~export.tensorrt.options.BuildOptions`.
    progress
        Called with each step of the builder.
    api, gpu
        TensorRT and GPU to use instead of the installed ones.
    trust
        Of a device that wants signatures: the engine gets its seal, and one of the cache without is built again.
    signer
        Gives the fields of a signature for the engine's sha256 and key; the engine is built again.

    Raises
    ------
    ExportError
        TensorRT is missing, nodes are not supported (the message names all), an option does not exist in this release,
        there is no GPU, or the cache cannot be written. No file with the engine's name is left.
    """
    options = options or BuildOptions()
    content = onnx if isinstance(onnx, bytes) else onnx.read_bytes()
    api = api or find_api(options.flavour)
    key = _key(hashlib.sha256(content).hexdigest(), options, api, gpu)
    folder = options.cache or cache_folder()
    path = folder / key.file_name
    if not options.force and signer is None and (found := _cached(path, key, trust)):
        return found
    begin = time.perf_counter()
    build = EngineBuild(api, options, folder, key, progress)
    plan = build.plan(content)
    seconds = time.perf_counter() - begin
    facts = {"built": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"), "seconds": round(seconds, 2)}
    facts |= build.facts
    digest, fields = hashlib.sha256(plan).hexdigest(), asdict(key.on_platform())
    if trust is not None:
        facts |= trust.seal(digest, fields)
    if signer is not None:
        facts |= signer(digest, fields)
    try:
        return EngineFile(path, store_engine(path, plan, key, facts), seconds, cached=False)
    except EngineError as error:
        raise ExportError(str(error)) from error


def compile_bundle(
    folder: Path,
    precision: str | None = None,
    options: BuildOptions | None = None,
    *,
    progress: ReportStep = _log.info,
    sign: Path | None = None,
) -> tuple[ArtefactEntry, EngineFile]:
    """Build an engine from a bundle's ONNX, whose hash and, where keys are trusted, signature are checked first.

    Parameters
    ----------
    folder
        Directory of the bundle.
    precision
        ``fp32``, ``fp16`` or ``int8``; absent: the fp16 artefact where there is one, else fp32. For ``fp16`` without
        such an artefact the builder converts the fp32 one, where it has a flag for it.
    options
        Their ``precision`` and ``baked`` are replaced.
    progress
        Called with each step of the builder.
    sign
        Private key that signs the engine for other devices of this kind, which trust its public key.

    Raises
    ------
    ExportError
        See :func:`build_engine`; or the bundle has no artefact of this precision.
    BundleError
        The bundle is missing, damaged or not trusted.
    """
    folder, keys = resolve_bundle(folder), trusted_keys()
    manifest = read_manifest(folder, keys)
    entry, chosen, baked = _artefact(manifest, precision)
    content = checked_file(folder, entry).read_bytes()
    return entry, build_engine(
        content,
        replace(options or BuildOptions(), precision=chosen, baked=baked),
        progress=progress,
        trust=EngineTrust.of(folder, keys),
        signer=None if sign is None else engine_signer(sign, (folder / MANIFEST).read_bytes()),
    )


def build_engine_format(bundle: Path, progress: ReportStep) -> list[Path]:
    """The ``engine`` row of the formats table: an engine for this machine, in the cache."""
    return [compile_bundle(bundle, progress=progress)[1].path]


def _artefact(manifest: Manifest, precision: str | None) -> tuple[ArtefactEntry, str, bool]:
    by_format = {entry.format: entry for entry in manifest.artefacts}
    if precision not in (None, *_BY_PRECISION):
        raise ExportError(f"precision {precision!r} does not exist; choose {', '.join(_BY_PRECISION)}")
    wanted = [precision] if precision else ["fp16", "fp32"]
    for name in wanted:
        if entry := by_format.get(_BY_PRECISION[name]):
            return entry, name, True
    if precision == "fp16" and (entry := by_format.get("onnx-fp32")):
        return entry, "fp16", False
    raise ExportError(
        f"the bundle holds {', '.join(by_format)}; export it with --formats {_BY_PRECISION[wanted[0]]} to compile this"
    )


def parse_problems(onnx: bytes, *, api: TrtApi | None = None) -> list[str]:
    """Parse a graph without building it: a line for each node that TensorRT refuses; empty where it parses.

    Raises
    ------
    ExportError
        TensorRT is missing.
    """
    api = api or find_api()
    logger, _ = make_logger(api, _log.debug)
    builder = make_builder(api, logger)
    network = builder.create_network(network_flags(api, typed=True))
    parser = api.module.OnnxParser(network, logger)
    return [] if parser.parse(readable(api, onnx)) else parser_errors(parser) or ["the file is no ONNX model"]


def _cached(path: Path, key: EngineKey, trust: EngineTrust | None) -> EngineFile | None:
    try:
        sidecar, _ = check_engine(path, key)
        if trust is not None:
            trust.check(sidecar)
    except EngineError:
        return None
    return EngineFile(path, sidecar, float(sidecar.get("seconds", 0.0)), cached=True)


def _key(digest: str, options: BuildOptions, api: TrtApi, gpu: Gpu | None) -> EngineKey:
    if options.capabilities:
        where: tuple[str, str, str, int] = (ANY_GPU, ",".join(options.capabilities), ANY_GPU, 0)
    else:
        gpu = gpu or find_gpu()
        if gpu is None:
            hint = "; with tensorrt-rtx, --for 8.6 builds ahead of time without one" if _ahead(api) else ""
            raise ExportError(f"no NVIDIA GPU on this machine, and an engine is built on the GPU that runs it{hint}")
        where = (gpu.name, gpu.capability, gpu.driver, gpu.sms)
    profiles = ",".join("-".join(map(str, profile)) for profile in options.built_profiles)
    return EngineKey(
        onnx_sha256=digest, flavour=api.flavour, version=api.version, gpu=where[0], capability=where[1],
        driver=where[2], precision=options.precision, profiles=profiles, options=options.summary(),
        sms=where[3],
    )  # fmt: skip


def _ahead(api: TrtApi) -> bool:
    return api.flavour == "tensorrt-rtx" and hasattr(api.module, "ComputeCapability")
