"""ONNX → TensorRT engine: built on the device it runs on, cached, never half written.

One builder for TensorRT 8.6 to 11 and TensorRT-RTX. Only RTX was run, and only to build: no engine was executed.
https://docs.nvidia.com/deeplearning/tensorrt/
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_sdk.errors import EngineError, ExportError
from edge_sdk.runtime.bundle.load import checked_file, read_manifest, resolve_bundle
from edge_sdk.runtime.bundle.schema import ArtefactEntry, Manifest
from edge_sdk.runtime.bundle.signature import trusted_keys
from edge_sdk.runtime.engines.cache import (
    ANY_GPU,
    EngineKey,
    cache_folder,
    check_engine,
    read_sidecar,
    store_engine,
    write_atomically,
)
from edge_sdk.runtime.engines.cuda_driver import Gpu, find_gpu
from export.tensorrt.api import (
    Monitor,
    Progress,
    TrtApi,
    find_api,
    make_logger,
    make_monitor,
    network_flags,
    parser_errors,
    precision_flags,
    shorten,
)

_log = logging.getLogger(__name__)

PROFILES = ((1, 1, 1), (1, 8, 64))
"""Batch sizes (lowest, best, highest): single breaths of a live stream, and batches of an archive."""

_BY_PRECISION = {"fp32": "onnx-fp32", "fp16": "onnx-fp16", "int8": "onnx-int8-trt"}


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How an engine is built."""

    flavour: str = "auto"  # "tensorrt", "tensorrt-rtx", or whichever is installed
    precision: str = "fp32"  # "fp32", "fp16", "int8"
    baked: bool = True  # the ONNX file holds that precision itself
    profiles: tuple[tuple[int, int, int], ...] = PROFILES
    workspace_mb: int | None = None  # scratch memory the engine may use; None: as much as the GPU has
    capabilities: tuple[str, ...] = ()  # RTX: build ahead of time for these, for example ("8.6",); no GPU needed
    hardware_compatible: str = ""  # "ampere": this and later GPUs; "same": GPUs of one compute capability
    version_compatible: bool = False  # runs on later TensorRT too, slower
    dla_core: int | None = None  # deep-learning accelerator of Jetson Xavier and Orin; CNNs in fp16 or int8 only
    cache: Path | None = None  # folder; the user's cache where absent
    force: bool = False  # build even if the cache has it

    def summary(self) -> str:
        """What of these changes an engine beyond precision and profiles, as the key holds it."""
        parts = [
            f"dla{self.dla_core}" if self.dla_core is not None else "",
            f"hardware-compatible:{self.hardware_compatible}" if self.hardware_compatible else "",
            "version-compatible" if self.version_compatible else "",
            "" if self.baked or self.precision == "fp32" else "builder-precision",
        ]
        return ",".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class EngineFile:
    """An engine on disk."""

    path: Path
    sidecar: dict[str, Any]
    seconds: float  # of the build; of the original build where it was cached
    cached: bool

    @property
    def bytes(self) -> int:
        return int(self.sidecar["bytes"])


def build_engine(
    onnx: bytes | Path,
    options: BuildOptions | None = None,
    *,
    progress: Progress = _log.info,
    api: TrtApi | None = None,
    gpu: Gpu | None = None,
) -> EngineFile:
    """Build an engine, or find it in the cache.

    Parameters
    ----------
    onnx
        The graph; all inputs have the batch as their only free axis.
    options
        See :class:`BuildOptions`.
    progress
        Told what the builder does, a line at a time.
    api, gpu
        Stand-ins for what is installed.

    Raises
    ------
    ExportError
        TensorRT is missing, a node is not supported (all are named), an option does not exist in this release, there is
        no GPU, or the cache cannot be written. Nothing is left under the engine's name.
    """
    options = options or BuildOptions()
    content = onnx if isinstance(onnx, bytes) else onnx.read_bytes()
    api = api or find_api(options.flavour)
    key = _key(hashlib.sha256(content).hexdigest(), options, api, gpu)
    folder = options.cache or cache_folder()
    path = folder / key.file_name
    if not options.force and (found := _cached(path, key)):
        return found
    begin = time.perf_counter()
    plan = _Build(api, options, folder, key, progress).run(content)
    seconds = time.perf_counter() - begin
    facts = {"built": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"), "seconds": round(seconds, 2)}
    try:
        return EngineFile(path, store_engine(path, plan, key, facts), seconds, cached=False)
    except EngineError as error:
        raise ExportError(str(error)) from error


def compile_bundle(
    folder: Path, precision: str | None = None, options: BuildOptions | None = None, *, progress: Progress = _log.info
) -> tuple[ArtefactEntry, EngineFile]:
    """Build an engine from a bundle's ONNX, whose hash and, where keys are trusted, signature are checked first.

    Parameters
    ----------
    folder
        The bundle.
    precision
        ``fp32``, ``fp16`` or ``int8``; absent: the fp16 artefact where there is one, else fp32. ``fp16`` without such
        an artefact is left to the builder, where it still has a flag for it.
    options
        ``precision`` and ``baked`` are set here.
    progress
        As of :func:`build_engine`.

    Raises
    ------
    ExportError
        As :func:`build_engine`, or the bundle has no artefact of this precision.
    BundleError
        It is missing, damaged or not trusted.
    """
    manifest = read_manifest(resolve_bundle(folder), trusted_keys())
    entry, chosen, baked = _artefact(manifest, precision)
    content = checked_file(folder, entry).read_bytes()
    return entry, build_engine(
        content, replace(options or BuildOptions(), precision=chosen, baked=baked), progress=progress
    )


def build_format(bundle: Path, progress: Progress) -> list[Path]:
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
    """What keeps TensorRT from taking a graph, a line per node; empty where it parses. Builds nothing.

    Raises
    ------
    ExportError
        TensorRT is missing.
    """
    api = api or find_api()
    logger, _ = make_logger(api, _log.debug)
    builder = _builder(api, logger)
    network = builder.create_network(network_flags(api, typed=True))
    parser = api.module.OnnxParser(network, logger)
    return [] if parser.parse(onnx) else parser_errors(parser) or ["the file is no ONNX model"]


def _cached(path: Path, key: EngineKey) -> EngineFile | None:
    try:
        check_engine(path, key)
        sidecar = read_sidecar(path)
    except EngineError:
        return None
    return EngineFile(path, sidecar, float(sidecar.get("seconds", 0.0)), cached=True)


def _key(digest: str, options: BuildOptions, api: TrtApi, gpu: Gpu | None) -> EngineKey:
    if options.capabilities:
        where = (ANY_GPU, ",".join(options.capabilities), ANY_GPU)
    else:
        gpu = gpu or find_gpu()
        if gpu is None:
            hint = "; with tensorrt-rtx, --for 8.6 builds ahead of time without one" if _ahead(api) else ""
            raise ExportError(f"no NVIDIA GPU on this machine, and an engine is built on the GPU that runs it{hint}")
        where = (gpu.name, gpu.capability, gpu.driver)
    profiles = ",".join("-".join(map(str, profile)) for profile in options.profiles)
    return EngineKey(
        onnx_sha256=digest, flavour=api.flavour, version=api.version, gpu=where[0], capability=where[1],
        driver=where[2], precision=options.precision, profiles=profiles, options=options.summary(),
    )  # fmt: skip


def _ahead(api: TrtApi) -> bool:
    return api.flavour == "tensorrt-rtx" and hasattr(api.module, "ComputeCapability")


def _builder(api: TrtApi, logger: Any) -> Any:
    try:
        builder = api.module.Builder(logger)
    except Exception as error:
        raise ExportError(f"{api.title} finds no usable GPU ({error}); 'nvidia-smi' must list one") from error
    if builder is None:
        raise ExportError(f"{api.title} finds no usable GPU; 'nvidia-smi' must list one")
    return builder


class _Build:
    """One build: the network, its configuration, the plan."""

    def __init__(self, api: TrtApi, options: BuildOptions, folder: Path, key: EngineKey, progress: Progress) -> None:
        self._api, self._options, self._progress = api, options, progress
        self._timing = folder / f"timing-{key.flavour}-{key.version}-sm{key.capability}-{_slug(key.gpu)}.cache"
        self._logger, self._errors = make_logger(api, progress)
        self._builder = _builder(api, self._logger)

    def run(self, content: bytes) -> bytes:
        network = self._parse(content)
        config = self._builder.create_builder_config()
        self._set_memory(config)
        self._set_precision(config)
        self._set_targets(config)
        self._set_dla(config, network)
        self._set_profiles(config, network)
        cache = self._load_timing(config)
        monitor = make_monitor(self._api, self._progress)
        if monitor.native is not None and hasattr(config, "progress_monitor"):
            config.progress_monitor = monitor.native
        self._progress(f"{self._api.title} builds an engine of {network.num_layers} layers")
        plan = self._plan(network, config, monitor)
        self._save_timing(config, cache)
        return plan

    def _parse(self, content: bytes) -> Any:
        network = self._builder.create_network(network_flags(self._api, typed=self._options.baked))
        parser = self._api.module.OnnxParser(network, self._logger)
        if not parser.parse(content):
            problems = parser_errors(parser) or self._errors or ["the file is no ONNX model"]
            raise ExportError(f"{self._api.title} cannot take this graph: {shorten(problems)}")
        return network

    def _set_memory(self, config: Any) -> None:
        if self._options.workspace_mb is None:
            return  # any limit is too small for some network at the largest batch: it would not build at all
        size = self._options.workspace_mb << 20
        workspace = self._api.member("MemoryPoolType", "WORKSPACE")
        if workspace is not None and hasattr(config, "set_memory_pool_limit"):
            config.set_memory_pool_limit(workspace, size)
        elif hasattr(config, "max_workspace_size"):
            config.max_workspace_size = size

    def _set_precision(self, config: Any) -> None:
        for flag in precision_flags(self._api, self._options.precision, baked=self._options.baked):
            config.set_flag(flag)
        tf32 = self._api.member("BuilderFlag", "TF32")
        if self._options.precision == "fp32" and tf32 is not None:
            config.clear_flag(tf32)  # 10 bits of mantissa are not what fp32 promises

    def _set_targets(self, config: Any) -> None:
        options = self._options
        if options.capabilities:
            self._set_capabilities(config, options.capabilities)
        if options.version_compatible:
            flag = self._api.member("BuilderFlag", "VERSION_COMPATIBLE")
            if flag is None:
                raise ExportError(f"{self._api.title} cannot build version-compatible engines; leave the option out")
            config.set_flag(flag)
        if options.hardware_compatible:
            name = {"ampere": "AMPERE_PLUS", "same": "SAME_COMPUTE_CAPABILITY"}.get(options.hardware_compatible, "")
            level = self._api.member("HardwareCompatibilityLevel", name)
            if level is None:
                raise ExportError(f"{self._api.title} has no hardware compatibility {options.hardware_compatible!r}")
            if options.dla_core is not None:
                raise ExportError("hardware compatibility and DLA exclude each other; choose one")
            config.hardware_compatibility_level = level

    def _set_capabilities(self, config: Any, capabilities: Sequence[str]) -> None:
        if not hasattr(config, "set_compute_capability"):
            raise ExportError(f"{self._api.title} builds only for the GPU it runs on; leave --for out")
        members = [self._api.member("ComputeCapability", f"SM{c.replace('.', '')}") for c in capabilities]
        if None in members:
            missing = capabilities[members.index(None)]
            raise ExportError(f"{self._api.title} does not build for compute capability {missing}")
        config.num_compute_capabilities = len(members)
        for index, member in enumerate(members):
            config.set_compute_capability(member, index)

    def _set_dla(self, config: Any, network: Any) -> None:
        core = self._options.dla_core
        if core is None:
            return
        cores = getattr(self._builder, "num_DLA_cores", 0)
        if core >= cores:
            raise ExportError(f"{self._api.title} sees {cores} DLA cores here, so there is no core {core}")
        if self._options.precision == "fp32":
            raise ExportError("DLA computes in fp16 and int8 only; compile such an artefact")
        config.default_device_type = self._api.module.DeviceType.DLA
        config.DLA_core = core
        config.set_flag(self._api.module.BuilderFlag.GPU_FALLBACK)
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        share = sum(bool(config.can_run_on_DLA(layer)) for layer in layers) / max(len(layers), 1)
        if share < 0.5:
            raise ExportError(f"only {share:.0%} of the layers can run on DLA, which is for CNNs; leave --dla out")

    def _set_profiles(self, config: Any, network: Any) -> None:
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        for tensor in inputs:
            if any(size < 0 for size in tuple(tensor.shape)[1:]):
                raise ExportError(f"input {tensor.name} is {tuple(tensor.shape)}: only the batch may be free")
        if not any(tuple(tensor.shape)[:1] == (-1,) for tensor in inputs):
            return
        for low, best, high in self._options.profiles:
            profile = self._builder.create_optimization_profile()
            for tensor in inputs:
                row = tuple(tensor.shape)[1:]
                profile.set_shape(tensor.name, (low, *row), (best, *row), (high, *row))
            config.add_optimization_profile(profile)

    def _load_timing(self, config: Any) -> Any:
        if not hasattr(config, "create_timing_cache") or self._options.capabilities:
            return None  # nothing is timed ahead of time
        try:
            content = self._timing.read_bytes()
        except OSError:
            content = b""
        cache = config.create_timing_cache(content)
        if cache is not None:
            config.set_timing_cache(cache, False)
        return cache

    def _save_timing(self, config: Any, cache: Any) -> None:
        if cache is None:
            return
        kept = config.get_timing_cache()
        if kept is not None:
            try:
                self._timing.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self._timing, bytes(kept.serialize()))
            except OSError as error:
                _log.warning("the timing cache was not kept (%s): the next build takes as long as this one", error)

    def _plan(self, network: Any, config: Any, monitor: Monitor) -> bytes:
        plan = self._builder.build_serialized_network(network, config)
        if monitor.interrupted:
            raise KeyboardInterrupt
        if plan is None:
            reasons = shorten(self._errors) or "it gave no reason; try a smaller --batch"
            if self._options.workspace_mb is not None:
                reasons += "; leave --workspace out or raise it, or give a smaller --batch"
            raise ExportError(f"{self._api.title} could not build the engine: {reasons}")
        return bytes(plan)


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower())
