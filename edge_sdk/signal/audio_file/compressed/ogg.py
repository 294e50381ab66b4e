"""Ogg: whether its pages are complete, from their headers alone."""

from __future__ import annotations

from functools import lru_cache

from edge_sdk.signal.audio_file.byte_streams import FileBytes

_LONGEST_PAGE = 65_307  # bytes
_FIRST, _LAST = 0x02, 0x04  # flags of a page


def ogg_length(file: FileBytes) -> tuple[int, int | None]:
    """Samples by the number of the last one, which stands in the last page; and their rate in Hz if it is fixed."""
    head = file.read_at(0, 512)
    at = head.find(b"OpusHead")
    skipped = int.from_bytes(head[at + 10 : at + 12], "little") if at >= 0 else 0
    begin = max(0, file.size - _LONGEST_PAGE)
    last = file.read_at(begin, file.size - begin).rfind(b"OggS")
    number = int.from_bytes(file.read_at(begin + max(0, last) + 6, 8), "little", signed=True)
    return max(0, number - skipped), 48_000 if at >= 0 else None


def ogg_fault(file: FileBytes) -> str | None:
    """What is missing from an Ogg file; None where its pages are complete and of one stream."""
    at, last, serial, expected, ended, began = 0, 0, -1, 0, False, False
    while at < file.size:
        head = file.read_at(at, 27)
        if head[:4] != b"OggS" or len(head) < 27:
            if ended:
                return None  # tags or filling behind the last page
            return "cut: it ends within a page" if len(head) < 27 else "damaged: there are bytes between its pages"
        flags, number = head[5], int.from_bytes(head[18:22], "little")
        if flags & _FIRST and began:
            return "it holds several streams one after another, of which only the first is read"
        if flags & _FIRST and serial < 0:
            serial, expected = int.from_bytes(head[14:18], "little"), number
        began = began or not flags & _FIRST
        if int.from_bytes(head[14:18], "little") == serial:
            if number != expected:
                return f"damaged: {abs(number - expected)} of its pages are missing"
            expected, ended = number + 1, bool(flags & _LAST)
        last = at
        lacing = file.read_at(at + 27, head[26])
        at += 27 + head[26] + sum(lacing)
    if at > file.size:
        return "cut: it ends within a page"
    if not ended:
        return "cut: its last page is missing"
    page = file.read_at(last, at - last)
    whole = _checksum(page[:22] + bytes(4) + page[26:]) == int.from_bytes(page[22:26], "little")
    return None if whole else "damaged: its last page has another checksum"


def _checksum(content: bytes) -> int:
    """CRC of a page: polynomial 0x04c11db7, without reflection."""
    value, table = 0, _table()
    for byte in content:
        value = value << 8 & 0xFFFFFFFF ^ table[value >> 24 ^ byte]
    return value


@lru_cache(maxsize=1)
def _table() -> list[int]:
    found = []
    for value in range(256):
        value <<= 24
        for _ in range(8):
            value = value << 1 & 0xFFFFFFFF ^ (0x04C11DB7 if value & 0x80000000 else 0)
        found.append(value)
    return found
