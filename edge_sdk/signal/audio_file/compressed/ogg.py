"""Ogg: whether its pages are complete, from their headers alone."""

from __future__ import annotations

from edge_sdk.signal.audio_file.byte_streams import FileBytes

_FIRST, _LAST = 0x02, 0x04  # flags of a page


def ogg_fault(file: FileBytes) -> str | None:
    """What is missing from an Ogg file; None where its pages are complete and of one stream."""
    at, serial, expected, ended, began = 0, -1, 0, False, False
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
        lacing = file.read_at(at + 27, head[26])
        at += 27 + head[26] + sum(lacing)
    if at > file.size:
        return "cut: it ends within a page"
    return None if ended else "cut: its last page is missing"
