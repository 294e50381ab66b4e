"""The CUDA driver through ctypes: memory, streams and graphs for TensorRT, without any package to install."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import EngineError

_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
_MAJOR, _MINOR, _SMS = 75, 76, 16  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*, _MULTIPROCESSOR_COUNT
_BLOCKING_SYNC = 4  # CU_CTX_SCHED_BLOCKING_SYNC: a waiting thread leaves its core to the capture of audio
_CAPTURE_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on allocating
_STREAM_NON_BLOCKING = 1
_VERSION_FILES = ("/sys/module/nvidia/version", "/proc/driver/nvidia/version", "/etc/nv_tegra_release")

GPU_VARIABLE = "STETHO_GPU"
"""Number of the GPU to use, as CUDA counts them; 0 where absent."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """The properties of a GPU that a compiled engine depends on."""

    name: str  # "Orin", "NVIDIA RTX A4000"
    capability: str  # "8.7"
    driver: str  # "CUDA 12.6, 540.4.0"
    sms: int = 0  # multiprocessors: Jetsons of one name and capability differ in them; 0: not known
    index: int = 0  # as CUDA counts

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.capability}, driver {self.driver})"


def find_gpu(library: Any = None) -> Gpu | None:
    """Find the GPU to use on this machine; ``None`` without one, in under a millisecond where there is no driver."""
    try:
        return CudaDriver(library).gpu
    except EngineError:
        return None


def wanted_gpu() -> int:
    """Number of the GPU to use, from ``$STETHO_GPU``.

    Raises
    ------
    EngineError
        It is no number.
    """
    text = os.environ.get(GPU_VARIABLE, "").strip() or "0"
    if not text.isdecimal():
        raise EngineError(f"{GPU_VARIABLE}={text!r} is no number of a GPU; give 0 for the first one")
    return int(text)


class CudaDriver:
    """Memory, streams and graphs on one GPU; all calls raise :class:`EngineError` with CUDA's name of the error.

    Nothing is allocated on the GPU before :meth:`current` is entered for the first time.

    Parameters
    ----------
    library
        A replacement for ``libcuda`` (tests); the real one where absent.
    index
        Number of the GPU; absent: ``$STETHO_GPU``, else the first.

    Raises
    ------
    EngineError
        There is no driver or no such GPU.
    """

    def __init__(self, library: Any = None, index: int | None = None) -> None:
        self._lib = _load() if library is None else library
        self._call("cuInit", 0)
        self._index = wanted_gpu() if index is None else index
        device, count = ctypes.c_int(), ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        if self._index >= count.value:
            raise EngineError(f"there is no GPU {self._index}, CUDA counts {count.value}; set {GPU_VARIABLE}")
        self._call("cuDeviceGet", ctypes.byref(device), self._index)
        self._device = device
        self._context: ctypes.c_void_p | None = None
        self.gpu = self._describe()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU the calling thread's for a while; another library's choice is restored afterwards."""
        self._call("cuCtxPushCurrent_v2", self._retained())
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def release(self) -> None:
        """Give the GPU's context back; everything allocated must be free by then. May be called twice."""
        if self._context is not None:
            self._context = None
            self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    def _retained(self) -> ctypes.c_void_p:
        """The primary context, the one TensorRT works in."""
        if self._context is None:
            with suppress(EngineError):  # refused where another library already uses the context; then its way holds
                self._call("cuDevicePrimaryCtxSetFlags_v2", self._device, _BLOCKING_SYNC)
            context = ctypes.c_void_p()
            self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
            self._context = context
        return self._context

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

    def memory_mb(self) -> tuple[float, float]:
        """Free and total memory of the GPU, MiB."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value / 2**20, total.value / 2**20

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
            try:
                work()
            finally:
                self._call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        finally:
            if graph.value:  # a capture that failed half way leaves one too
                self._call("cuGraphDestroy", graph)
        return int(executable.value or 0)

    def launch(self, executable: int, stream: int) -> None:
        """Run a graph of :meth:`capture` on the stream."""
        self._call("cuGraphLaunch", ctypes.c_void_p(executable), ctypes.c_void_p(stream))

    def free_graph(self, executable: int) -> None:
        """Destroy a graph of :meth:`capture`."""
        self._call("cuGraphExecDestroy", ctypes.c_void_p(executable))

    def _describe(self) -> Gpu:
        name, version = ctypes.create_string_buffer(128), ctypes.c_int()
        major, minor, sms = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        self._call("cuDeviceGetName", name, len(name), self._device)
        for value, attribute in ((major, _MAJOR), (minor, _MINOR), (sms, _SMS)):
            self._call("cuDeviceGetAttribute", ctypes.byref(value), attribute, self._device)
        self._call("cuDriverGetVersion", ctypes.byref(version))
        cuda = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
        driver = ", ".join(part for part in (cuda, _driver_version()) if part)
        title = name.value.decode(errors="replace")
        return Gpu(title, f"{major.value}.{minor.value}", driver, sms.value, self._index)

    def _call(self, function: str, *arguments: Any) -> None:
        try:
            called = getattr(self._lib, function)
        except AttributeError as error:
            raise EngineError(f"the NVIDIA driver has no {function}; update it to one of CUDA 11.4 or later") from error
        status = called(*arguments)
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
