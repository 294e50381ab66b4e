"""A double of the CUDA driver for ``ctypes``, on host memory: work waits until the stream is synchronised."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

OUT_OF_MEMORY, DEVICE_UNAVAILABLE, ILLEGAL_ADDRESS, NOT_SUPPORTED = 2, 46, 700, 801
_NAMES = {
    OUT_OF_MEMORY: b"CUDA_ERROR_OUT_OF_MEMORY", DEVICE_UNAVAILABLE: b"CUDA_ERROR_DEVICE_UNAVAILABLE",
    ILLEGAL_ADDRESS: b"CUDA_ERROR_ILLEGAL_ADDRESS", NOT_SUPPORTED: b"CUDA_ERROR_NOT_SUPPORTED",
}  # fmt: skip
_MAJOR, _MINOR, _SMS = 75, 76, 16


def _value(argument: Any) -> int:
    return int(getattr(argument, "value", argument) or 0)


def _move(target: int, source: int, size: int) -> None:
    ctypes.memmove(target, source, size)


class CudaDouble:
    """Replaces ``libcuda``; counts every call and checks every address."""

    def __init__(
        self, name: str = "Orin", capability: tuple[int, int] = (8, 7), version: int = 12060, *, graphs: bool = True,
        sms: int = 16, devices: int = 1,
    ) -> None:  # fmt: skip
        self.sms, self.devices = sms, devices
        self.module: Any = None  # double of TensorRT that runs on it
        self.current: list[Any] = []  # contexts of the calling thread, the newest last
        self.fails: dict[str, int] = {}  # function → status that it returns from now on
        self.name, self.capability, self.version, self.graphs = name, capability, version, graphs
        self.calls: Counter[str] = Counter()
        self.memory: dict[int, Any] = {}  # address → buffer, of the "GPU" and pinned
        self._queue: list[Callable[[], None]] = []
        self._recording: list[Callable[[], None]] | None = None
        self._graphs: dict[int, list[Callable[[], None]]] = {}
        self._streams: set[int] = set()
        self._next = 1

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cu") and name != "current":
            object.__getattribute__(self, "calls")[name] += 1
            status = object.__getattribute__(self, "fails").get(name)
            if status is not None:
                return lambda *_: status
        return object.__getattribute__(self, name)

    def enqueue(self, work: Callable[[], None]) -> None:
        """Add work to the stream, or to the graph that is being recorded."""
        (self._queue if self._recording is None else self._recording).append(work)

    def read(self, address: int, size: int) -> bytes:
        assert self._inside(address, size), "kernel reads outside its buffers"
        return ctypes.string_at(address, size)

    def write(self, address: int, content: bytes) -> None:
        assert self._inside(address, len(content)), "kernel writes outside its buffers"
        ctypes.memmove(address, content, len(content))

    def _inside(self, address: int, size: int) -> bool:
        return any(start <= address and address + size <= start + len(b) for start, b in self.memory.items())

    def _new(self, target: Any, size: int) -> int:
        buffer = (ctypes.c_uint8 * size)()
        address = ctypes.addressof(buffer)
        self.memory[address] = buffer
        target._obj.value = address
        return 0

    def _handle(self) -> int:
        self._next += 1
        return self._next

    # Functions of the driver, under its names.

    def cuInit(self, _flags: int) -> int:
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.devices
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        device._obj.value = ordinal
        return 0

    def cuDeviceGetName(self, name: Any, _size: int, _device: Any) -> int:
        name.value = self.name.encode()
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, _device: Any) -> int:
        value._obj.value = {_MAJOR: self.capability[0], _MINOR: self.capability[1], _SMS: self.sms}[attribute]
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self.version
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, _device: Any) -> int:
        context._obj.value = self._handle()
        return 0

    def cuDevicePrimaryCtxSetFlags_v2(self, _device: Any, _flags: int) -> int:
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, _device: Any) -> int:
        return 0

    def cuCtxPushCurrent_v2(self, context: Any) -> int:
        self.current.append(context.value)
        return 0

    def cuCtxPopCurrent_v2(self, context: Any) -> int:
        context._obj.value = self.current.pop()
        return 0

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:
        total._obj.value = 8 << 30
        free._obj.value = (8 << 30) - sum(map(len, self.memory.values()))
        return 0

    def cuMemAlloc_v2(self, address: Any, size: Any) -> int:
        return self._new(address, _value(size))

    def cuMemAllocHost_v2(self, address: Any, size: Any) -> int:
        return self._new(address, _value(size))

    def cuMemFree_v2(self, address: Any) -> int:
        return 0 if self.memory.pop(_value(address), None) is not None else ILLEGAL_ADDRESS

    def cuMemFreeHost(self, address: Any) -> int:
        return 0 if self.memory.pop(_value(address), None) is not None else ILLEGAL_ADDRESS

    def _copy(self, target: Any, source: Any, size: Any) -> int:
        to, start, count = _value(target), _value(source), _value(size)
        if not (self._inside(to, count) and self._inside(start, count)):
            return ILLEGAL_ADDRESS
        self.enqueue(partial(_move, to, start, count))
        return 0

    def cuMemcpyHtoDAsync_v2(self, target: Any, source: Any, size: Any, _stream: Any) -> int:
        return self._copy(target, source, size)

    def cuMemcpyDtoHAsync_v2(self, target: Any, source: Any, size: Any, _stream: Any) -> int:
        return self._copy(target, source, size)

    def cuStreamCreate(self, stream: Any, _flags: int) -> int:
        stream._obj.value = self._handle()
        self._streams.add(stream._obj.value)
        return 0

    def cuStreamDestroy_v2(self, stream: Any) -> int:
        self._streams.remove(_value(stream))
        return 0

    def cuStreamSynchronize(self, _stream: Any) -> int:
        queue, self._queue = self._queue, []
        for work in queue:
            work()
        return 0

    def cuStreamBeginCapture_v2(self, _stream: Any, _mode: int) -> int:
        if not self.graphs:
            return NOT_SUPPORTED
        self._recording = []
        return 0

    def cuStreamEndCapture(self, _stream: Any, graph: Any) -> int:
        assert self._recording is not None
        graph._obj.value = handle = self._handle()
        self._graphs[handle], self._recording = self._recording, None
        return 0

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, _flags: Any) -> int:
        executable._obj.value = handle = self._handle()
        self._graphs[handle] = self._graphs[_value(graph)]
        return 0

    def cuGraphDestroy(self, graph: Any) -> int:
        del self._graphs[_value(graph)]
        return 0

    @property
    def graphs_left(self) -> int:
        """Recorded and executable graphs that were not destroyed."""
        return len(self._graphs)

    @property
    def streams_left(self) -> int:
        """Streams that were not destroyed."""
        return len(self._streams)

    def cuGraphLaunch(self, executable: Any, _stream: Any) -> int:
        for work in self._graphs[_value(executable)]:
            self.enqueue(work)
        return 0

    def cuGraphExecDestroy(self, executable: Any) -> int:
        del self._graphs[_value(executable)]
        return 0

    def cuGetErrorName(self, status: int, text: Any) -> int:
        text._obj.value = _NAMES.get(status)
        return 0 if status in _NAMES else 1
