"""Bytes to frames: any split, resynchronises at the next delimiter, never raises, never grows."""

from __future__ import annotations

from dataclasses import dataclass

from firmware_bridge import cobs
from firmware_bridge.constants import MAX_ENCODED
from firmware_bridge.errors import ProtocolError
from firmware_bridge.framing import MAJOR, Frame, parse_body


@dataclass(frozen=True, slots=True)
class Fault:
    """A stretch between two delimiters that is no frame of this major version."""

    reason: str  # "cobs", "crc", "length", "oversize" or "version"
    size: int  # bytes on the wire
    version: int = MAJOR  # the frame's major version, where reason is "version"


class FrameDecoder:
    """Takes bytes as they come; gives back the frames and faults that they complete.

    What stands before the first delimiter is the rest of a frame sent before we listened: counted in
    ``skipped_bytes``, not as a fault. At most ``MAX_ENCODED`` bytes are held.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._oversize = 0  # bytes thrown away of a stretch that is too long
        self._synchronised = False
        self.frames = 0
        self.faults = 0
        self.skipped_bytes = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes held until the next delimiter."""
        return len(self._pending)

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame | Fault]:
        """Accept any number of bytes."""
        found: list[Frame | Fault] = []
        *complete, rest = bytes(data).split(b"\0")
        for piece in complete:
            self._hold(piece)
            self._close(found)
        self._hold(rest)
        return found

    def reset(self) -> None:
        """Forget the frame in progress, as after reopening a port."""
        self._pending.clear()
        self._oversize = 0
        self._synchronised = False

    def _hold(self, piece: bytes) -> None:
        if self._oversize or len(self._pending) + len(piece) > MAX_ENCODED:
            self._oversize += len(self._pending) + len(piece)
            self._pending.clear()
        else:
            self._pending += piece

    def _close(self, found: list[Frame | Fault]) -> None:
        size = self._oversize or len(self._pending)
        if size:
            outcome = Fault("oversize", size) if self._oversize else self._judge(bytes(self._pending))
            self._pending.clear()
            self._oversize = 0
            if isinstance(outcome, Frame):
                self.frames += 1
                found.append(outcome)
            elif self._synchronised:
                self.faults += 1
                found.append(outcome)
            else:
                self.skipped_bytes += size
        self._synchronised = True

    @staticmethod
    def _judge(encoded: bytes) -> Frame | Fault:
        try:
            frame = parse_body(cobs.decode(encoded))
        except cobs.CobsError:
            return Fault("cobs", len(encoded))
        except ProtocolError as error:
            return Fault("crc" if str(error) == "crc" else "length", len(encoded))
        if frame.version >> 4 != MAJOR:
            return Fault("version", len(encoded), frame.version >> 4)
        return frame
