"""One build of an engine: network, configuration, timing cache, serialised plan."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from edge_sdk.errors import ExportError
from edge_sdk.files import write_whole
from edge_sdk.runtime.engines.cache import EngineKey
from export.formats import ReportStep
from export.portability.front_end_part import front_end_outputs
from export.portability.opset import to_opset_17
from export.tensorrt.api import (
    BuildMonitor,
    TrtApi,
    make_logger,
    make_monitor,
    network_flags,
    parser_errors,
    precision_flags,
    shorten,
)
from export.tensorrt.options import BuildOptions

_log = logging.getLogger(__name__)


def make_builder(api: TrtApi, logger: Any) -> Any:
    """TensorRT's builder.

    Raises
    ------
    ExportError
        TensorRT finds no usable GPU.
    """
    try:
        builder = api.module.Builder(logger)
    except Exception as error:
        raise ExportError(f"{api.title} finds no usable GPU ({error}); 'nvidia-smi' must list one") from error
    if builder is None:
        raise ExportError(f"{api.title} finds no usable GPU; 'nvidia-smi' must list one")
    return builder


def readable(api: TrtApi, content: bytes) -> bytes:
    """The graph as the parser of a release reads it: that of TensorRT 8 ends at opset 17.

    Raises
    ------
    ExportError
        The graph cannot be written in that opset.
    """
    if int(api.version.split(".")[0]) >= 10:
        return content
    try:
        model = onnx.load_from_string(content)
    except Exception:  # whatever is wrong with the file, the parser says so
        return content
    if all(opset.version != 18 for opset in model.opset_import if opset.domain in ("", "ai.onnx")):
        return content
    return bytes(to_opset_17(model).SerializeToString())


class EngineBuild:
    """Builds the plan of one graph with one set of options.

    ``facts`` holds what is worth keeping beside the engine afterwards.
    """

    def __init__(self, api: TrtApi, options: BuildOptions, folder: Path, key: EngineKey, progress: ReportStep) -> None:
        self._api, self._options, self._progress = api, options, progress
        self._timing = folder / f"timing-{key.flavour}-{key.version}-sm{key.capability}-{_slug(key.gpu)}.cache"
        self._logger, self._errors = make_logger(api, progress)
        self._builder = make_builder(api, self._logger)
        self.facts: dict[str, Any] = {}

    def plan(self, content: bytes) -> bytes:
        """The serialised engine of an ONNX file.

        Raises
        ------
        ExportError
            A node or an option is not supported, or the build fails.
        KeyboardInterrupt
            Ctrl-C during the build.
        """
        network = self._parse(content)
        config = self._builder.create_builder_config()
        self._set_memory(config)
        self._set_precision(config, network, content)
        self._set_targets(config)
        self._set_dla(config, network)
        self._set_profiles(config, network)
        cache = self._load_timing(config)
        monitor = make_monitor(self._api, self._progress)
        if monitor.native is not None and hasattr(config, "progress_monitor"):
            config.progress_monitor = monitor.native
        self._progress(f"{self._api.title} builds an engine of {network.num_layers} layers")
        plan = self._serialise(network, config, monitor)
        self._save_timing(config, cache)
        return plan

    def _parse(self, content: bytes) -> Any:
        network = self._builder.create_network(network_flags(self._api, typed=self._options.baked))
        parser = self._api.module.OnnxParser(network, self._logger)
        if not parser.parse(readable(self._api, content)):
            problems = parser_errors(parser) or self._errors or ["the file is no ONNX model"]
            raise ExportError(f"{self._api.title} cannot take this graph: {shorten(problems)}")
        return network

    def _set_memory(self, config: Any) -> None:
        if self._options.workspace_mb is None:
            return  # with any limit some network does not build at the largest batch
        size = self._options.workspace_mb << 20
        workspace = self._api.member("MemoryPoolType", "WORKSPACE")
        if workspace is not None and hasattr(config, "set_memory_pool_limit"):
            config.set_memory_pool_limit(workspace, size)
        elif hasattr(config, "max_workspace_size"):
            config.max_workspace_size = size

    def _set_precision(self, config: Any, network: Any, content: bytes) -> None:
        flags = precision_flags(self._api, self._options.precision, baked=self._options.baked)
        for flag in flags:
            config.set_flag(flag)
        if flags:  # the builder may choose a low precision for any layer
            self._keep_front_end(config, network, content)
        tf32 = self._api.member("BuilderFlag", "TF32")
        if tf32 is not None:
            config.clear_flag(tf32)  # 10 bits of mantissa: what is fp32 stays so for its precision, the front end first
        user = self._api.member("BuilderFlag", "REQUIRE_USER_ALLOCATION")
        if user is not None:
            config.set_flag(user)  # RTX would allocate while it runs, which a CUDA graph cannot record

    def _keep_front_end(self, config: Any, network: Any, content: bytes) -> None:
        """Fix the layers of the front end to fp32: mel energies reach 1e12, float16 ends at 65504."""
        outputs = front_end_outputs(onnx.load_from_string(content))
        obey = self._api.member("BuilderFlag", "OBEY_PRECISION_CONSTRAINTS")
        fp32 = self._api.member("DataType", "FLOAT")
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        made = [{layer.get_output(i).name for i in range(layer.num_outputs)} for layer in layers]
        last = max((index for index, names in enumerate(made) if names & outputs), default=-1)
        if not outputs:
            return  # the graph takes features
        if last < 0 or obey is None or fp32 is None:
            raise ExportError(
                f"{self._api.title} cannot keep the front end in fp32, where float16 overflows: compile onnx-fp16"
            )
        config.set_flag(obey)
        for layer in layers[: last + 1]:  # in order of computation: helpers of the parser in between are included
            tensors = [layer.get_output(i) for i in range(layer.num_outputs)]
            if not tensors or any(tensor.dtype != fp32 for tensor in tensors):
                continue  # shapes and indices
            layer.precision = fp32
            for index in range(layer.num_outputs):
                layer.set_output_type(index, fp32)

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
            raise ExportError("DLA computes in fp16 and int8 only; compile the artefact onnx-fp16")
        if self._options.precision == "int8":
            raise ExportError("DLA takes no Q/DQ nodes, which int8 artefacts have; compile the artefact onnx-fp16")
        config.default_device_type = self._api.module.DeviceType.DLA
        config.DLA_core = core
        config.set_flag(self._api.module.BuilderFlag.GPU_FALLBACK)
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        on_gpu = [layer.name for layer in layers if not config.can_run_on_DLA(layer)]
        share = 1.0 - len(on_gpu) / max(len(layers), 1)
        self.facts["dla"] = {"core": core, "layers": len(layers), "on_gpu": on_gpu}
        if share < 0.5:
            raise ExportError(f"only {share:.0%} of the layers can run on DLA, which is for CNNs; leave --dla out")
        if on_gpu:
            self._progress(f"{len(on_gpu)} of {len(layers)} layers run on the GPU, not on DLA: {shorten(on_gpu)}")

    def _set_profiles(self, config: Any, network: Any) -> None:
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        for tensor in inputs:
            if any(size < 0 for size in tuple(tensor.shape)[1:]):
                raise ExportError(f"input {tensor.name} is {tuple(tensor.shape)}: only the batch may be dynamic")
        if not any(tuple(tensor.shape)[:1] == (-1,) for tensor in inputs):
            return
        for low, best, high in self._options.built_profiles:
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
                write_whole(self._timing, bytes(kept.serialize()))
            except OSError as error:
                _log.warning("the timing cache was not kept (%s): the next build takes as long as this one", error)

    def _serialise(self, network: Any, config: Any, monitor: BuildMonitor) -> bytes:
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
