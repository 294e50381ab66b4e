"""The CUDA driver through ctypes: memory, streams and graphs for TensorRT, without any package to install."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import EngineError

_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_CAPTURE_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on allocating
_STREAM_NON_BLOCKING = 1
_VERSION_FILES = ("/sys/module/nvidia/version", "/proc/driver/nvidia/version", "/etc/nv_tegra_release")


@dataclass(frozen=True, slots=True)
class Gpu:
    """The properties of the first GPU that a compiled engine depends on."""

    name: str  # "Orin", "NVIDIA RTX A4000"
    capability: str  # "8.7"
    driver: str  # "CUDA 12.6, 540.4.0"

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.capability}, driver {self.driver})"


def find_gpu(library: Any = None) -> Gpu | None:
    """Find the first GPU of this machine; ``None`` without one, in under a millisecond where there is no driver."""
    try:
        return CudaDriver(library).gpu
    except EngineError:
        return None


class CudaDriver:
    """Memory, streams and graphs on the first GPU; all calls raise :class:`EngineError` with CUDA's name of the error.

    Parameters
    ----------
    library
        A replacement for ``libcuda`` (tests); the real one where absent.

    Raises
    ------
    EngineError
        There is no driver or no GPU.
    """

    def __init__(self, library: Any = None) -> None:
        self._lib = _load() if library is None else library
        self._call("cuInit", 0)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._device = device
        self.gpu = self._describe()
        # The primary context is the one TensorRT works in.
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._context = context

    def make_current(self) -> None:
        """Bind the GPU to the calling thread; needed once per thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """Allocate ``size`` bytes on the GPU; return their address."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value

    def free(self, address: int) -> None:
        """Free memory of :meth:`allocate`."""
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def allocate_pinned(self, size: int) -> tuple[int, npt.NDArray[np.uint8]]:
        """Allocate ``size`` bytes of page-locked host memory, which is copied faster; return address and view."""
        address = ctypes.c_void_p()
        self._call("cuMemAllocHost_v2", ctypes.byref(address), ctypes.c_size_t(size))
        value = int(address.value or 0)
        return value, np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(value))

    def free_pinned(self, address: int) -> None:
        """Free memory of :meth:`allocate_pinned`."""
        self._call("cuMemFreeHost", ctypes.c_void_p(address))

    def to_device(self, target: int, source: int, size: int, stream: int) -> None:
        """Copy ``size`` bytes host → GPU, in order on the stream."""
        self._call(
            "cuMemcpyHtoDAsync_v2", ctypes.c_uint64(target), ctypes.c_void_p(source), ctypes.c_size_t(size),
            ctypes.c_void_p(stream),
        )  # fmt: skip

    def to_host(self, target: int, source: int, size: int, stream: int) -> None:
        """Copy ``size`` bytes GPU → host, in order on the stream."""
        self._call(
            "cuMemcpyDtoHAsync_v2", ctypes.c_void_p(target), ctypes.c_uint64(source), ctypes.c_size_t(size),
            ctypes.c_void_p(stream),
        )  # fmt: skip

    def make_stream(self) -> int:
        """Create a stream; return its handle."""
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), _STREAM_NON_BLOCKING)
        return int(stream.value or 0)

    def free_stream(self, stream: int) -> None:
        """Destroy a stream."""
        self._call("cuStreamDestroy_v2", ctypes.c_void_p(stream))

    def synchronise(self, stream: int) -> None:
        """Wait until everything on the stream is done; errors of earlier calls are raised here."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """Record the calls that ``work`` puts on the stream, without running them; return an executable graph."""
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), _CAPTURE_THREAD_LOCAL)
        try:
            work()
        finally:
            self._call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        finally:
            self._call("cuGraphDestroy", graph)
        return int(executable.value or 0)

    def launch(self, executable: int, stream: int) -> None:
        """Run a graph of :meth:`capture` on the stream."""
        self._call("cuGraphLaunch", ctypes.c_void_p(executable), ctypes.c_void_p(stream))

    def free_graph(self, executable: int) -> None:
        """Destroy a graph of :meth:`capture`."""
        self._call("cuGraphExecDestroy", ctypes.c_void_p(executable))

    def _describe(self) -> Gpu:
        name, major, minor, version = ctypes.create_string_buffer(128), ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        self._call("cuDeviceGetName", name, len(name), self._device)
        self._call("cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, self._device)
        self._call("cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, self._device)
        self._call("cuDriverGetVersion", ctypes.byref(version))
        cuda = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
        driver = ", ".join(part for part in (cuda, _driver_version()) if part)
        return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}", driver)

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._lib, function)(*arguments)
        if status:
            raise EngineError(f"{function} failed: {self._name_of(status)}; check the GPU with 'nvidia-smi'")

    def _name_of(self, status: int) -> str:
        text = ctypes.c_char_p()
        if self._lib.cuGetErrorName(status, ctypes.byref(text)) == 0 and text.value:
            return f"{text.value.decode()} ({status})"
        return f"CUDA error {status}"


def _load() -> Any:
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise EngineError("no NVIDIA driver (libcuda) on this machine; engines for GPUs need one")


def _driver_version() -> str:
    """Version from the kernel module or, on Jetson, the board's release file; empty where neither has one."""
    for path in _VERSION_FILES:
        try:
            text = Path(path).read_text(errors="replace")
        except OSError:
            continue
        if found := re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text):
            return f"L4T {found[1]}.{found[2]}"
        if found := re.search(r"\b\d{3}\.\d+(?:\.\d+)?\b", text):
            return found[0]
    return ""
