"""Splits a byte stream into frames: accepts any split, resynchronises at the next delimiter, uses bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

from firmware_bridge.cobs import CobsError, cobs_decode
from firmware_bridge.constants import MAJOR, MAX_ENCODED
from firmware_bridge.errors import ProtocolError
from firmware_bridge.framing import Frame, parse_body


@dataclass(frozen=True, slots=True)
class FrameFault:
    """Bytes between two delimiters that are no frame of this major version."""

    reason: str  # "cobs", "crc", "length", "oversize" or "version"
    size: int  # bytes on the wire
    version: int = MAJOR  # the frame's major version, where reason is "version"


class FrameDecoder:
    """Accepts bytes in any split and returns the frames and faults that they complete. Never raises.

    Bytes before the first delimiter belong to a frame that began before the host listened: they are counted in
    ``skipped_bytes``, not as a fault. At most ``MAX_ENCODED`` bytes are held.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._oversize = 0  # bytes discarded so far between two delimiters that are too far apart
        self._synchronised = False
        self.frames = 0
        self.faults = 0
        self.skipped_bytes = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes held until the next delimiter."""
        return len(self._pending)

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame | FrameFault]:
        """Accept any number of bytes; return what they complete, in order."""
        found: list[Frame | FrameFault] = []
        *complete, rest = bytes(data).split(b"\0")
        for part in complete:
            self._hold(part)
            self._close(found)
        self._hold(rest)
        return found

    def reset(self) -> None:
        """Forget the frame in progress, for example after reopening a port."""
        self._pending.clear()
        self._oversize = 0
        self._synchronised = False

    def _hold(self, part: bytes) -> None:
        if self._oversize or len(self._pending) + len(part) > MAX_ENCODED:
            self._oversize += len(self._pending) + len(part)
            self._pending.clear()
        else:
            self._pending += part

    def _close(self, found: list[Frame | FrameFault]) -> None:
        size = self._oversize or len(self._pending)
        if size:
            outcome = FrameFault("oversize", size) if self._oversize else self._decode(bytes(self._pending))
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
    def _decode(encoded: bytes) -> Frame | FrameFault:
        try:
            frame = parse_body(cobs_decode(encoded))
        except CobsError:
            return FrameFault("cobs", len(encoded))
        except ProtocolError as error:
            return FrameFault("crc" if str(error) == "crc" else "length", len(encoded))
        if frame.version >> 4 != MAJOR:
            return FrameFault("version", len(encoded), frame.version >> 4)
        return frame
