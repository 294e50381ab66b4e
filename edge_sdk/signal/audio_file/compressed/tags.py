"""ID3 tags, which stand before MP3 and, from some programs, before FLAC."""

from __future__ import annotations

from edge_sdk.signal.audio_file.byte_streams import FileBytes


def tag_bytes(file: FileBytes, begin: int) -> int:
    """Bytes of the ID3 tags at a position."""
    at = begin
    while (tag := file.read_at(at, 10))[:3] == b"ID3" and len(tag) == 10:
        at += 10 + (tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9]) + 10 * bool(tag[5] & 0x10)
    return at - begin
