"""What an emulated device has yet to send: held back by jitter, damaged by the wire, bounded."""

from __future__ import annotations

from collections import deque

from firmware_bridge.emulator.faults import FaultyWire
from firmware_bridge.emulator.port import DevicePort

_NEVER_NS = 1 << 62


class Outbox:
    """Frames in order.

    Parameters
    ----------
    wire
        Damages what leaves.
    room
        Bytes; beyond, :attr:`full` tells the device to drop audio.
    """

    def __init__(self, wire: FaultyWire, room: int) -> None:
        self._wire, self._room = wire, room
        self._delayed: deque[tuple[int, bytes]] = deque()
        self._ready: deque[bytes] = deque()
        self._bytes = 0

    @property
    def full(self) -> bool:
        return self._bytes > self._room

    @property
    def held_back(self) -> bool:
        """Whether something waits for its time."""
        return bool(self._delayed)

    @property
    def next_ns(self) -> int:
        """When the next frame that is held back is due."""
        return self._delayed[0][0] if self._delayed else _NEVER_NS

    def waiting(self, now_ns: int) -> bool:
        """Whether something could leave now."""
        return bool(self._ready) or self.next_ns <= now_ns

    def post(self, frame: bytes, not_before_ns: int = 0) -> None:
        """Add a frame; it leaves after all before it."""
        if self._delayed:
            not_before_ns = max(not_before_ns, self._delayed[-1][0])
        if not_before_ns:
            self._delayed.append((not_before_ns, frame))
        else:
            self._release(frame)

    def flush(self, port: DevicePort, now_ns: int) -> None:
        """Give the port what it takes; without a port it is lost."""
        while self._delayed and self._delayed[0][0] <= now_ns:
            self._release(self._delayed.popleft()[1])
        if not port.plugged:
            self.forget()
        while self._ready:
            data = self._ready.popleft()
            taken = port.write(data)
            self._bytes -= taken
            if taken < len(data):
                self._ready.appendleft(data[taken:])
                return

    def forget(self) -> None:
        """Lose everything."""
        self._delayed.clear()
        self._ready.clear()
        self._bytes = 0

    def forget_delayed(self) -> None:
        """Lose what waits for its time, as a STOP does."""
        self._delayed.clear()

    def _release(self, frame: bytes) -> None:
        data = self._wire.damage(frame)
        self._ready.append(data)
        self._bytes += len(data)
