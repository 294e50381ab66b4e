"""FLAC: the length in its header, and the real one by the last frame of the file."""

from __future__ import annotations

from typing import NamedTuple

from edge_sdk.signal.audio_file.byte_streams import FileBytes, Part

INFO_BYTES = 42  # "fLaC", the block's header, STREAMINFO
_TOTAL_AT = 18  # 8 bytes: rate, channels, bits and, in the last 36 bits, the number of samples
_TOTAL_BITS = 36
_TAIL = 1 << 18


class FlacScan(NamedTuple):
    """What a FLAC says of itself, and what it holds."""

    rate: int  # Hz
    stated: int  # samples per channel; 0 where the header leaves it open
    block_samples: int  # of most frames
    found: int | None  # end of the last frame, in samples per channel; None where none was found
    head: bytes  # of 42 bytes
    begin: int  # of the FLAC in the file: a tag may stand before it

    def with_length(self, size: int, samples: int) -> list[Part]:
        """The file with another length in its header."""
        field = int.from_bytes(self.head[_TOTAL_AT : _TOTAL_AT + 8], "big") >> _TOTAL_BITS << _TOTAL_BITS
        head = self.head[:_TOTAL_AT] + (field | samples).to_bytes(8, "big") + self.head[_TOTAL_AT + 8 :]
        return [head, (self.begin + INFO_BYTES, size)]


def scan_flac(file: FileBytes, begin: int) -> FlacScan | None:
    """Read the header of the FLAC at ``begin`` and find its last frame; None where the header is cut."""
    head = file.read_at(begin, INFO_BYTES)
    if len(head) < INFO_BYTES or head[:4] != b"fLaC" or head[4] & 0x7F:
        return None
    return flac_header(head, begin, _last_sample(file, begin, head))


def flac_header(head: bytes, begin: int = 0, found: int | None = None) -> FlacScan:
    """Fields of the first 42 bytes of a FLAC."""
    fields = int.from_bytes(head[_TOTAL_AT : _TOTAL_AT + 8], "big")
    block = int.from_bytes(head[10:12], "big")
    return FlacScan(fields >> 44, fields & (1 << _TOTAL_BITS) - 1, block, found, head, begin)


def _last_sample(file: FileBytes, begin: int, head: bytes) -> int | None:
    """End of the last frame header that a frame before it confirms."""
    least, most = int.from_bytes(head[8:10], "big"), int.from_bytes(head[10:12], "big")
    longest = int.from_bytes(head[15:18], "big")
    at = max(begin + INFO_BYTES, file.size - max(_TAIL, 3 * longest))
    tail = file.read_at(at, file.size - at)
    spans = []
    for sync in (b"\xff\xf8", b"\xff\xf9"):
        offset = tail.find(sync)
        while offset >= 0:
            span = _frame_span(tail[offset : offset + 18], most if least == most else 0)
            if span is not None:
                spans.append((offset, *span))
            offset = tail.find(sync, offset + 1)
    spans.sort()
    ends = {stop for _, _, stop in spans}
    confirmed = [stop for _, start, stop in spans if start in ends or start == 0]
    return max(confirmed, default=None)


def _frame_span(raw: bytes, block: int) -> tuple[int, int] | None:
    """First sample and end of a frame by its header; None where the bytes are no frame header."""
    if len(raw) < 6 or raw[2] >> 4 == 0 or raw[2] & 0x0F == 0x0F or raw[3] >> 4 > 10 or raw[3] & 1:
        return None
    number, used = _coded_number(raw[4:])
    if used == 0:
        return None
    at = 4 + used
    code = raw[2] >> 4
    if code in (6, 7):
        size = int.from_bytes(raw[at : at + code - 5], "big") + 1
        at += code - 5
    else:
        size = 192 if code == 1 else 576 << code - 2 if code < 6 else 256 << code - 8
    at += {12: 1, 13: 2, 14: 2}.get(raw[2] & 0x0F, 0)
    if at >= len(raw) or _crc8(raw[:at]) != raw[at]:
        return None
    first = number if raw[1] & 1 else number * (block or size)
    return first, first + size


def _coded_number(raw: bytes) -> tuple[int, int]:
    """A number in the long form of UTF-8, and its bytes; 0 bytes where it is none."""
    first = raw[0]
    if first < 0x80:
        return first, 1
    count = 8 - (first ^ 0xFF).bit_length()
    if not 2 <= count <= 7 or len(raw) < count or any(byte & 0xC0 != 0x80 for byte in raw[1:count]):
        return 0, 0
    value = first & (0x7F >> count)
    for byte in raw[1:count]:
        value = value << 6 | byte & 0x3F
    return value, count


def _crc8(raw: bytes) -> int:
    value = 0
    for byte in raw:
        value ^= byte
        for _ in range(8):
            value = value << 1 ^ 0x107 if value & 0x80 else value << 1
    return value & 0xFF
