"""The TensorRT engine: a compiled engine on this machine's GPU, with pinned buffers, one stream and CUDA graphs.

Never executed on a GPU yet: its calls are tested against doubles of the API (``tests/support/gpu``).
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import EngineError
from edge_sdk.runtime.engines.cache import EngineKey, check_engine, other_driver
from edge_sdk.runtime.engines.cuda_driver import CudaDriver, Gpu
from edge_sdk.runtime.engines.tensorrt_context import ContextMaker, layer_profiler, quiet_logger

_log = logging.getLogger(__name__)

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Flavour → Python module, in the order they are preferred."""

_DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "INT8": "int8", "UINT8": "uint8", "INT32": "int32", "INT64": "int64",
    "BOOL": "bool",
}  # fmt: skip
_RUNS_BEFORE_CAPTURE = 3  # of one batch size: the first may still set things up, and odd batches are not worth a graph


def installed_flavours() -> list[str]:
    """TensorRT flavours whose Python module is installed; none is imported."""
    return [flavour for flavour, module in MODULES.items() if importlib.util.find_spec(module)]


def load_module(flavour: str) -> Any:
    """Import the Python module of a TensorRT flavour.

    Raises
    ------
    EngineError
        It is not installed, or its libraries do not load.
    """
    try:
        return importlib.import_module(MODULES[flavour])
    except Exception as error:  # a missing .so raises OSError, a wrong wheel RuntimeError
        raise EngineError(
            f"{MODULES[flavour]} cannot be imported ({error}); install the extra '{flavour}', or on Jetson the "
            "TensorRT of JetPack"
        ) from error


def key_of_this_machine(onnx_sha256: str, flavour: str, module: Any, gpu: Gpu) -> EngineKey:
    """Make the key that an engine must match to run on this machine."""
    return EngineKey(
        onnx_sha256=onnx_sha256, flavour=flavour, version=str(module.__version__), gpu=gpu.name,
        capability=gpu.capability, driver=gpu.driver, precision="", profiles="", sms=gpu.sms,
    )  # fmt: skip


def _dtype(tensor: str, kind: Any) -> np.dtype[Any]:
    """TensorRT's own ``nptype`` fails with numpy 1.24 to 1.26 in releases up to 8.6."""
    name = _DTYPES.get(kind.name)
    if name is None:
        raise EngineError(
            f"the engine's tensor {tensor} is {kind.name}, which numpy has no type for; compile it in fp16"
        )
    return np.dtype(name)


@dataclass(slots=True)
class _Tensor:
    """One input or output with its two buffers, sized for the largest batch so far."""

    name: str
    is_input: bool
    dtype: np.dtype[Any]
    row: tuple[int, ...]  # shape without the batch
    device: int = 0
    pinned: int = 0
    view: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))

    def nbytes(self, batch: int) -> int:
        return batch * int(np.prod(self.row, dtype=np.int64)) * self.dtype.itemsize

    def host(self, batch: int) -> npt.NDArray[Any]:
        return self.view[: self.nbytes(batch)].view(self.dtype).reshape(batch, *self.row)


class TensorRtEngine:
    """Runs an engine made by ``stetho compile``.

    Parameters
    ----------
    path
        The ``.engine`` file, with its sidecar beside it.
    onnx_sha256
        Of the artefact that the engine was built from.
    flavour
        ``tensorrt`` or ``tensorrt-rtx``.
    accept
        Raises ``EngineError`` for the sidecar of an engine that this device must not run; with it RTX compiles at every
        start: nobody signs the cache of its compiler.
    module, driver
        Replacements for TensorRT and CUDA (tests); the installed ones where absent.

    Raises
    ------
    EngineError
        TensorRT or a GPU is missing, or the engine is foreign, damaged or refused by TensorRT.
    """

    def __init__(
        self,
        path: Path,
        onnx_sha256: str,
        flavour: str = "tensorrt",
        *,
        accept: Callable[[Mapping[str, Any]], None] | None = None,
        module: Any = None,
        driver: Any = None,
    ) -> None:
        self._trt = load_module(flavour) if module is None else module
        self._cuda: CudaDriver = CudaDriver() if driver is None else driver
        here = key_of_this_machine(onnx_sha256, flavour, self._trt, self._cuda.gpu)
        self.sidecar, content = check_engine(path, here)
        if accept is not None:
            accept(self.sidecar)
        if warning := other_driver(EngineKey(**self.sidecar["key"]), here):
            _log.warning("%s: %s", path.name, warning)
        self._lock = threading.Lock()  # a context serves one caller at a time
        self._tensors: list[_Tensor] = []
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._stream = self._graph = self._capacity = self._batch = self._profile = self._runs = 0
        self._contexts = ContextMaker(self._trt, path.with_suffix(".jit") if accept is None else None)
        self._name = f"{flavour}-{self._trt.__version__}-{self._cuda.gpu.name}"
        try:
            self._load(path.name, content)
        except BaseException:
            with suppress(EngineError):
                self.close()
            raise

    def _load(self, file: str, content: bytes) -> None:
        with self._cuda.current():
            engine = self._engine = self._deserialise(file, content)
            self._context = self._contexts.make(engine)
            self._stream = self._cuda.make_stream()
            self._tensors = [self._tensor(engine, i) for i in range(engine.num_io_tensors)]
            self._profiles = [self._batches(engine, index) for index in range(engine.num_optimization_profiles)]

    def __del__(self) -> None:
        with suppress(Exception):  # the interpreter may be going down
            self.close()

    @property
    def name(self) -> str:
        """Flavour, version and GPU."""
        return self._name

    @property
    def inputs(self) -> dict[str, tuple[Any, ...]]:
        """Input name → shape, the batch as a string."""
        return {t.name: ("batch", *t.row) for t in self._tensors if t.is_input}

    @property
    def outputs(self) -> dict[str, tuple[Any, ...]]:
        """Output name → shape, the batch as a string."""
        return {t.name: ("batch", *t.row) for t in self._tensors if not t.is_input}

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run arrays by input name; return all outputs by name. Thread-safe; larger batches than any profile are split.

        Raises
        ------
        EngineError
            Names, shapes or types do not fit, or the GPU reports an error.
        """
        rows = self._check(inputs)
        parts = []
        with self._lock:
            if self._context is None:
                raise EngineError("inference failed: the engine is closed; load the bundle again")
            try:
                with self._cuda.current():
                    for begin, end, batch in self._pieces(rows):
                        piece = {n: _padded(v[begin:end], batch) for n, v in inputs.items()}
                        outputs = self._run_batch(piece, batch)
                        parts.append({name: value[: end - begin] for name, value in outputs.items()})
            except EngineError:
                raise
            except Exception as error:  # the bindings raise whatever pybind11 makes of a C++ exception
                raise EngineError(f"inference failed: {type(error).__name__}: {error}") from error
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def layer_times(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
        """Milliseconds of each layer in one run without a CUDA graph; empty where the release has no profiler."""
        found: dict[str, float] = {}
        profiler = layer_profiler(self._trt, found)
        if profiler is None or self._context is None:
            return found
        with self._lock:
            self._batch = 0  # new shapes: no recorded graph, which reports no layers
            self._context.profiler = profiler
        self.run(inputs)
        return found

    def close(self) -> None:
        """Free the memory; the engine cannot run afterwards. May be called twice."""
        with self._lock:
            if self._runtime is None:
                return
            try:
                with self._cuda.current():
                    self._contexts.save()
                    self._free()
            finally:
                self._context = self._engine = self._runtime = None
                self._cuda.release()

    def _free(self) -> None:
        """Buffers, then what TensorRT holds, in the order in which one needs the other."""
        try:
            self._release()
        finally:
            self._context = self._engine = self._runtime = None
            stream, self._stream = self._stream, 0
            if stream:
                self._cuda.free_stream(stream)

    def _pieces(self, rows: int) -> Iterator[tuple[int, int, int]]:
        """First row, end and batch of each run: profiles may have gaps, so that a batch is split or padded."""
        begin = 0
        while begin < rows:
            rest = rows - begin
            fits = [min(high, rest) for low, high in self._profiles if low <= rest]
            batch = max(fits) if fits else min(low for low, _ in self._profiles)
            count = min(batch, rest)
            yield begin, begin + count, batch
            begin += count

    def _run_batch(self, inputs: dict[str, npt.NDArray[Any]], batch: int) -> dict[str, npt.NDArray[Any]]:
        self._reserve(batch)
        if batch != self._batch:
            self._set_shapes(batch)
        for tensor in self._tensors:
            if tensor.is_input:
                tensor.host(batch)[...] = inputs[tensor.name]
        if self._runs == _RUNS_BEFORE_CAPTURE:
            self._capture(batch)
        if self._graph:
            self._cuda.launch(self._graph, self._stream)
        else:
            self._enqueue(batch)
        self._cuda.synchronise(self._stream)
        if not self._runs:
            self._contexts.save()  # RTX compiles at the first run of a shape
        self._runs += 1
        return {t.name: t.host(batch).copy() for t in self._tensors if not t.is_input}

    def _enqueue(self, batch: int) -> None:
        for tensor in self._tensors:
            if tensor.is_input:
                self._cuda.to_device(tensor.device, tensor.pinned, tensor.nbytes(batch), self._stream)
        if not self._context.execute_async_v3(self._stream):
            raise EngineError("inference failed: TensorRT could not start it; run 'stetho compile' again")
        for tensor in self._tensors:
            if not tensor.is_input:
                self._cuda.to_host(tensor.pinned, tensor.device, tensor.nbytes(batch), self._stream)

    def _capture(self, batch: int) -> None:
        """Record a run as a graph: one launch instead of many, until the batch size changes."""
        capturable = getattr(self._context, "is_stream_capturable", None)
        if capturable is not None and not capturable(self._stream):
            return
        try:
            self._graph = self._cuda.capture(self._stream, lambda: self._enqueue(batch))
        except EngineError as error:  # loops and some plug-ins synchronise, which a capture forbids
            _log.info("no CUDA graph for this engine: %s", error)

    def _set_shapes(self, batch: int) -> None:
        self._drop_graph()
        self._batch = 0  # until all of it has worked
        index, context = self._profile_for(batch), self._context
        if index != self._profile:
            if not context.set_optimization_profile_async(index, self._stream):
                raise EngineError(f"inference failed: TensorRT refused profile {index}; run 'stetho compile' again")
            self._cuda.synchronise(self._stream)
            self._profile = index
        for tensor in self._tensors:
            if tensor.is_input and not context.set_input_shape(tensor.name, (batch, *tensor.row)):
                raise EngineError(f"inference failed: TensorRT refused a batch of {batch} for {tensor.name}")
            context.set_tensor_address(tensor.name, tensor.device)
        self._batch, self._runs = batch, 0

    def _drop_graph(self) -> None:
        if self._graph:  # it belongs to one shape of the context
            self._cuda.free_graph(self._graph)
        self._graph = 0

    def _profile_for(self, batch: int) -> int:
        for index, (low, high) in enumerate(self._profiles):
            if low <= batch <= high:
                return index
        raise EngineError(f"inference failed: the engine takes no batch of {batch}; run 'stetho compile' with --batch")

    def _reserve(self, batch: int) -> None:
        if batch <= self._capacity:
            return
        self._release()
        for tensor in self._tensors:
            size = max(tensor.nbytes(batch), 1)
            tensor.device = self._cuda.allocate(size)
            tensor.pinned, tensor.view = self._cuda.allocate_pinned(size)
        self._capacity = batch

    def _release(self) -> None:
        self._drop_graph()
        self._batch = 0  # addresses are set with the shapes
        for tensor in self._tensors:
            tensor.view = np.empty(0, np.uint8)
            if tensor.device:
                self._cuda.free(tensor.device)
            if tensor.pinned:
                self._cuda.free_pinned(tensor.pinned)
            tensor.device = tensor.pinned = 0
        self._capacity = 0

    def _check(self, inputs: Mapping[str, npt.NDArray[Any]]) -> int:
        wanted = {t.name: t for t in self._tensors if t.is_input}
        if set(inputs) != set(wanted):
            raise EngineError(f"inference failed: inputs {sorted(inputs)} given, {sorted(wanted)} needed")
        rows = {len(value) if value.ndim else 0 for value in inputs.values()}
        for name, value in inputs.items():
            if value.ndim == 0 or value.shape[1:] != wanted[name].row:
                raise EngineError(f"inference failed: {name} is {value.shape}, needed is (batch, *{wanted[name].row})")
            # TensorRT before 10 makes int64 ids int32; a float for an id, or a double for samples, is a mistake.
            if value.dtype != wanted[name].dtype and not (value.dtype.kind == wanted[name].dtype.kind == "i"):
                raise EngineError(f"inference failed: {name} is {value.dtype}, needed is {wanted[name].dtype}")
        if len(rows) != 1 or 0 in rows:
            raise EngineError("inference failed: inputs are empty or of different batch sizes")
        return rows.pop()

    def _deserialise(self, file: str, content: bytes) -> Any:
        logger = self._logger = quiet_logger(self._trt)
        try:  # the bindings raise TypeError where the library gives no runtime
            runtime = self._runtime = self._trt.Runtime(logger)
        except Exception as error:
            raise EngineError(f"TensorRT finds no usable GPU ({error}); 'nvidia-smi' must list one") from error
        if runtime is None:
            raise EngineError("TensorRT finds no usable GPU; 'nvidia-smi' must list one")
        if "version-compatible" in self.sidecar["key"]["options"] and hasattr(runtime, "engine_host_code_allowed"):
            runtime.engine_host_code_allowed = True  # such an engine brings its own runtime; its hash was checked
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise EngineError(f"TensorRT {self._trt.__version__} refuses {file}; run 'stetho compile' again")
        return engine

    def _tensor(self, engine: Any, index: int) -> _Tensor:
        name = engine.get_tensor_name(index)
        return _Tensor(
            name=name,
            is_input=engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT,
            dtype=_dtype(name, engine.get_tensor_dtype(name)),
            row=tuple(engine.get_tensor_shape(name))[1:],
        )

    def _batches(self, engine: Any, profile: int) -> tuple[int, int]:
        """Smallest and largest batch of a profile."""
        ranges = [
            engine.get_tensor_profile_shape(t.name, profile) for t in self._tensors if t.is_input
        ]  # each: (min, opt, max)
        return max(int(r[0][0]) for r in ranges), min(int(r[2][0]) for r in ranges)


def _padded(rows: npt.NDArray[Any], batch: int) -> npt.NDArray[Any]:
    """Rows up to the batch, the last one repeated."""
    missing = batch - len(rows)
    return rows if missing <= 0 else np.concatenate((rows, np.repeat(rows[-1:], missing, axis=0)))
