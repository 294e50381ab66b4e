"""TensorRT's Python API of releases 8.6, 10.3, 10.16, 11.4 and RTX 1.7, for machines without TensorRT.

Members follow the table in the export specification; a test compares those of RTX with the installed module. An
"engine" holds the ONNX file and computes it with ONNX Runtime on the memory of ``tests.support.gpu.cuda_double``.
"""

from __future__ import annotations

import json
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import onnx

from tests.support.gpu.cuda_double import CudaDouble
from tests.support.gpu.runtime_double import DataType, Runtime, Tensor

RELEASES = ("8.6", "10.3", "10.16", "11.4", "rtx")
_VERSIONS = {"8.6": "8.6.2", "10.3": "10.3.0", "10.16": "10.16.2", "11.4": "11.4.1", "rtx": "1.7.1.116"}
_FLAGS_OLD = (
    "FP16", "INT8", "GPU_FALLBACK", "TF32", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME", "OBEY_PRECISION_CONSTRAINTS",
)  # fmt: skip
_FLAGS_NEW = ("GPU_FALLBACK", "TF32", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME", "EDITABLE_TIMING_CACHE")
_MEMBERS: dict[str, dict[str, tuple[str, ...]]] = {
    "8.6": {"network": ("EXPLICIT_BATCH",), "flags": _FLAGS_OLD, "hardware": ("NONE", "AMPERE_PLUS")},
    "10.3": {
        "network": ("EXPLICIT_BATCH", "STRONGLY_TYPED"),
        "flags": (*_FLAGS_OLD, "BF16", "FP8", "INT4"),
        "hardware": ("NONE", "AMPERE_PLUS"),
    },
    "10.16": {
        "network": ("EXPLICIT_BATCH", "STRONGLY_TYPED"),
        "flags": (*_FLAGS_OLD, "BF16", "FP8", "INT4", "EDITABLE_TIMING_CACHE"),
        "hardware": ("NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"),
    },
    "11.4": {
        "network": ("STRONGLY_TYPED",),
        "flags": _FLAGS_NEW,
        "hardware": ("NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"),
    },
    "rtx": {
        "network": ("STRONGLY_TYPED",),
        "flags": (*_FLAGS_NEW, "REQUIRE_USER_ALLOCATION"),
        "hardware": ("NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"),
    },
}
_UNSUPPORTED = {"DFT", "MelWeightMatrix", "DynamicQuantizeLinear"}
Call = tuple[Any, ...]


def tensorrt_double(
    release: str, cuda: CudaDouble | None = None, *, dla_cores: int = 0, on_dla: float = 1.0, fails: bool = False
) -> Any:
    """A stand-in for the module ``tensorrt`` (or ``tensorrt_rtx``); ``.calls`` lists the calls it received.

    Parameters
    ----------
    release
        One of ``RELEASES``.
    cuda
        Memory that engines run on; without it engines can only be built.
    dla_cores, on_dla
        DLA cores of the machine, and the share of layers they take.
    fails
        Every build fails with a logged error.
    """
    members = _MEMBERS[release]
    module = SimpleNamespace(
        __version__=_VERSIONS[release],
        release=release,
        calls=[],
        cuda=cuda,
        dla_cores=dla_cores,
        on_dla=on_dla,
        fails=fails,
        ILogger=_ILogger,
        Logger=_Logger,
        NetworkDefinitionCreationFlag=_enum("NetworkDefinitionCreationFlag", members["network"]),
        BuilderFlag=_enum("BuilderFlag", members["flags"]),
        HardwareCompatibilityLevel=_enum("HardwareCompatibilityLevel", members["hardware"]),
        MemoryPoolType=_enum("MemoryPoolType", ("WORKSPACE", "DLA_MANAGED_SRAM")),
        DeviceType=_enum("DeviceType", ("GPU", "DLA")),
        TensorIOMode=_enum("TensorIOMode", ("NONE", "INPUT", "OUTPUT")),
        DataType=DataType,
    )
    module.network = None  # of the last build
    module.strategies = []  # of execution contexts
    module.jit = b"compiled"  # what RTX keeps
    module.IProfiler = _ILogger  # a base without methods
    module.Builder = lambda logger: _Builder(module, logger)
    module.OnnxParser = lambda network, logger: _Parser(module, network)
    module.Runtime = lambda logger: Runtime(module)
    if release != "8.6":
        module.IProgressMonitor = _IProgressMonitor
        module.ExecutionContextAllocationStrategy = _enum(
            "ExecutionContextAllocationStrategy", ("STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED")
        )
    if release == "rtx":
        module.ComputeCapability = _enum("ComputeCapability", ("NONE", "CURRENT", "SM75", "SM86", "SM89"))
    return module


def _enum(name: str, names: tuple[str, ...]) -> Any:
    return IntEnum(name, names, start=0)  # type: ignore[misc]


class _ILogger:
    """Base of loggers."""


class _Logger(_ILogger):
    ERROR, WARNING, INFO = 1, 2, 3

    def __init__(self, severity: int = WARNING) -> None:
        self.severity = severity


class _IProgressMonitor:
    """Base of progress monitors."""


class _Layer:
    def __init__(self, index: int, node: onnx.NodeProto) -> None:
        self.index, self.name, self.num_outputs = index, node.name or f"node_of_{node.output[0]}", len(node.output)
        self._outputs = [SimpleNamespace(name=name, dtype=DataType.FLOAT) for name in node.output]
        self.precision: Any = None
        self.output_types: dict[int, Any] = {}

    def get_output(self, index: int) -> Any:
        return self._outputs[index]

    def set_output_type(self, index: int, kind: Any) -> None:
        self.output_types[index] = kind


class _Network:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.content = b""
        self.nodes: list[onnx.NodeProto] = []
        self.layers: list[_Layer] = []
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []

    @property
    def num_layers(self) -> int:
        return len(self.nodes)

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    @property
    def num_outputs(self) -> int:
        return len(self.outputs)

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]

    def get_layer(self, index: int) -> _Layer:
        return self.layers[index]


class _Parser:
    def __init__(self, module: Any, network: _Network) -> None:
        self._module, self._network = module, network
        self._errors: list[Any] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def parse(self, content: bytes) -> bool:
        explicit = getattr(self._module.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
        if self._module.release == "8.6" and not (explicit is not None and self._network.flags >> explicit & 1):
            raise RuntimeError("this release needs EXPLICIT_BATCH")
        try:
            model = onnx.load_from_string(content)
        except Exception:
            return False
        for number, node in enumerate(model.graph.node):
            if node.op_type in _UNSUPPORTED:
                self._errors.append(self._error(number, node))
        opset = max((o.version for o in model.opset_import if not o.domain), default=0)
        if self._module.release == "8.6" and opset > 17 and not self._errors:
            self._errors.append(self._error(0, onnx.NodeProto(name=f"opset {opset}")))
        self._network.content, self._network.nodes = content, list(model.graph.node)
        self._network.layers = [_Layer(index, node) for index, node in enumerate(model.graph.node)]
        self._network.inputs = [Tensor(v) for v in model.graph.input]
        self._network.outputs = [Tensor(v) for v in model.graph.output]
        return not self._errors

    def _error(self, number: int, node: onnx.NodeProto) -> Any:
        methods = {"desc": lambda: "Plugin not found,\n are the name and version correct?", "node": lambda: number}
        if self._module.release != "8.6":
            methods |= {"node_name": lambda: node.name, "node_operator": lambda: node.op_type}
        return SimpleNamespace(**methods)


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, name: str, low: tuple[int, ...], best: tuple[int, ...], high: tuple[int, ...]) -> None:
        self.shapes[name] = (low, best, high)


class _Config:
    def __init__(self, module: Any) -> None:
        self._module = module
        self.profiles: list[_Profile] = []
        self.flags: set[str] = set()
        if module.release == "rtx":
            self.num_compute_capabilities = 0
            self.set_compute_capability = lambda member, index: self._note("capability", member.name, index)
        if module.release != "8.6":
            self.progress_monitor: Any = None

    def _note(self, *call: Any) -> None:
        self._module.calls.append(call)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("hardware_compatibility_level", "default_device_type"):
            self._note(name, value.name)
        elif name == "DLA_core":
            self._note(name, value)
        object.__setattr__(self, name, value)

    def set_flag(self, flag: Any) -> None:
        assert flag in self._module.BuilderFlag
        self.flags.add(flag.name)
        self._note("set_flag", flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._note("clear_flag", flag.name)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self._note("memory", pool.name, size)

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> Any:
        self._note("timing cache", len(content))
        return SimpleNamespace(serialize=lambda: b"timings")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return not ignore_mismatch

    def get_timing_cache(self) -> Any:
        return self._cache

    def can_run_on_DLA(self, layer: _Layer) -> bool:
        return layer.index % 10 < 10 * self._module.on_dla


class _Builder:
    def __init__(self, module: Any, logger: Any) -> None:
        self._module, self._logger = module, logger
        self.num_DLA_cores = module.dla_cores

    def create_network(self, flags: int) -> _Network:
        flags_of_release = self._module.NetworkDefinitionCreationFlag
        names = tuple(member.name for member in flags_of_release if flags >> member & 1)
        assert flags < 1 << (max(flags_of_release) + 1), "a flag that this release does not have"
        self._module.calls.append(("network", *names))
        return _Network(flags)

    def create_builder_config(self) -> _Config:
        return _Config(self._module)

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes | None:
        typed = getattr(self._module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        if typed is not None and network.flags >> typed & 1 and config.flags & {"FP16", "INT8"}:
            raise RuntimeError("a strongly typed network takes no precision flags")
        if self._module.fails:
            self._logger.log(SimpleNamespace(name="ERROR"), "Could not find any implementation for node stem\n")
            return None
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Building engine", None, 10)
            for step in range(10):
                if not monitor.step_complete("Building engine", step):
                    return None
            monitor.phase_finish("Building engine")
        else:
            self._logger.log(SimpleNamespace(name="INFO"), "Local timing cache in use.")
        self._module.network = network
        shapes = [profile.shapes for profile in config.profiles]
        self._module.calls.append(("build", [list(profile.values()) for profile in shapes]))
        return json.dumps({"profiles": shapes}).encode() + b"\n" + network.content
