"""The double of TensorRT's runtime: an "engine" holds an ONNX file and computes it on the memory of the CUDA double."""

from __future__ import annotations

import json
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx

from edge_sdk.runtime.engines.library import onnxruntime
from tests.support.gpu.cuda_double import CudaDouble

_NUMPY = {1: np.float32, 6: np.int32, 7: np.int64}


class DataType(IntEnum):
    """Names as TensorRT's, values as ONNX's."""

    FLOAT, INT32, INT64 = 1, 6, 7


class Tensor:
    def __init__(self, value: onnx.ValueInfoProto) -> None:
        self.name = value.name
        self.kind = value.type.tensor_type.elem_type
        self.shape = tuple(a.dim_value if a.HasField("dim_value") else -1 for a in value.type.tensor_type.shape.dim)


class Runtime:
    def __init__(self, module: Any) -> None:
        self._module = module
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        head, _, content = plan.partition(b"\n")
        try:
            kind = _RtxEngine if self._module.release == "rtx" else Engine
            return kind(self._module, json.loads(head)["profiles"], content)
        except ValueError:
            return None


class Engine:
    def __init__(self, module: Any, profiles: list[Any], content: bytes) -> None:
        self.module, self.profiles, self.content = module, profiles, content
        graph = onnx.load_from_string(content).graph
        self.inputs = [Tensor(v) for v in graph.input]
        self.outputs = [Tensor(v) for v in graph.output]
        self.tensors = {t.name: t for t in [*self.inputs, *self.outputs]}
        self.num_io_tensors = len(self.tensors)
        self.num_optimization_profiles = len(profiles)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self.module.TensorIOMode
        return modes.INPUT if name in [t.name for t in self.inputs] else modes.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType(self.tensors[name].kind)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        return self.profiles[profile][name]

    def create_execution_context(self, strategy: Any = None) -> Context:
        self.module.strategies.append(getattr(strategy, "strategy", strategy))
        return Context(self)


class _RtxEngine(Engine):
    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig(self.module)


class RuntimeConfig:
    def __init__(self, module: Any) -> None:
        self._module = module
        self.strategy: Any = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Any:
        def deserialize(content: bytes) -> bool:
            self._module.calls.append(("runtime cache", content))
            return content == self._module.jit

        return SimpleNamespace(deserialize=deserialize, serialize=lambda: self._module.jit)

    def set_runtime_cache(self, cache: Any) -> bool:
        return cache is not None


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._session = onnxruntime.InferenceSession(engine.content, providers=["CPUExecutionProvider"])
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._profile = 0
        self.profiler: Any = None

    def set_optimization_profile_async(self, index: int, _stream: int) -> bool:
        self._profile = index
        self._shapes.clear()
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine.profiles[self._profile][name]
        self._shapes[name] = shape
        return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, _stream: int) -> bool:
        if set(self._addresses) != set(self._engine.tensors) or len(self._shapes) != len(self._engine.inputs):
            return False
        addresses, shapes = dict(self._addresses), dict(self._shapes)
        if self.profiler is not None:
            for node in onnx.load_from_string(self._engine.content).graph.node:
                self.profiler.report_layer_time(node.name or node.output[0], 0.01)
        self._engine.module.cuda.enqueue(lambda: self._compute(addresses, shapes))
        return True

    def _compute(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
        cuda: CudaDouble = self._engine.module.cuda
        inputs = {}
        for tensor in self._engine.inputs:
            shape, kind = shapes[tensor.name], np.dtype(_NUMPY[tensor.kind])
            content = cuda.read(addresses[tensor.name], int(np.prod(shape)) * kind.itemsize)
            inputs[tensor.name] = np.frombuffer(content, kind).reshape(shape)
        names = [t.name for t in self._engine.outputs]
        for name, value in zip(names, self._session.run(names, inputs), strict=True):
            cuda.write(addresses[name], np.ascontiguousarray(value).tobytes())
