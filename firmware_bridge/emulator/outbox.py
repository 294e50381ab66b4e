"""Bounded send queue of an emulated device: frames are delayed by jitter and damaged by the wire."""

from __future__ import annotations

from collections import deque

from firmware_bridge.emulator.faults import FaultyWire
from firmware_bridge.emulator.port import DevicePort

_NEVER_NS = 1 << 62


class Outbox:
    """Queue of frames that leave in order.

    Parameters
    ----------
    wire
        Damages every frame.
    max_bytes
        Above this size the queue is :attr:`full`, and the device drops audio.
    """

    def __init__(self, wire: FaultyWire, max_bytes: int) -> None:
        self._wire, self._max_bytes = wire, max_bytes
        self._delayed: deque[tuple[int, bytes]] = deque()
        self._ready: deque[bytes] = deque()
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether more than ``max_bytes`` wait."""
        return self._bytes > self._max_bytes

    @property
    def held_back(self) -> bool:
        """Whether a frame waits for its time."""
        return bool(self._delayed)

    @property
    def next_ns(self) -> int:
        """Time at which the next delayed frame is due."""
        return self._delayed[0][0] if self._delayed else _NEVER_NS

    def waiting(self, now_ns: int) -> bool:
        """Whether a frame could leave at ``now_ns``."""
        return bool(self._ready) or self.next_ns <= now_ns

    def post(self, frame: bytes, not_before_ns: int = 0) -> None:
        """Add a frame; it leaves after those before it, and not before ``not_before_ns``."""
        if self._delayed:
            not_before_ns = max(not_before_ns, self._delayed[-1][0])
        if not_before_ns:
            self._delayed.append((not_before_ns, frame))
        else:
            self._release(frame)

    def flush(self, port: DevicePort, now_ns: int) -> None:
        """Write what the port accepts; discard everything while it is unplugged."""
        while self._delayed and self._delayed[0][0] <= now_ns:
            self._release(self._delayed.popleft()[1])
        if not port.plugged:
            self.clear()
        while self._ready:
            data = self._ready.popleft()
            accepted = port.write(data)
            self._bytes -= accepted
            if accepted < len(data):
                self._ready.appendleft(data[accepted:])
                return

    def clear(self) -> None:
        """Discard all frames."""
        self._delayed.clear()
        self._ready.clear()
        self._bytes = 0

    def clear_delayed(self) -> None:
        """Discard the frames that wait for their time, as STOP does."""
        self._delayed.clear()

    def _release(self, frame: bytes) -> None:
        data = self._wire.damage(frame)
        self._ready.append(data)
        self._bytes += len(data)
