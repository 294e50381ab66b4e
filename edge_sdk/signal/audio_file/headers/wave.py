"""Headers of WAV, RF64, BW64 and Sony Wave64."""

from __future__ import annotations

import struct

from edge_sdk.signal.audio_file.byte_streams import ByteStream
from edge_sdk.signal.audio_file.headers.chunks import (
    WAVE,
    WAVE64,
    WAVE_BIG,
    ChunkStyle,
    Header,
    HeaderError,
    check_header,
    next_chunk,
    skip_rest,
)
from edge_sdk.signal.audio_file.pcm import Coding

OPEN_SIZE = 0x7FFF0000
"""Sizes from here on are what recorders write that cannot go back to their header (arecord, sox, ffmpeg, others)."""

_FORMAT_BYTES = 4096  # no format description is longer
_PCM, _FLOAT, _ALAW, _ULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_MPEG = (0x50, 0x55)
_GUID_DATA, _GUID_FORMAT = b"data", b"fmt "


def read_wave(stream: ByteStream) -> Header:
    """Read up to the first byte of audio.

    Raises
    ------
    HeaderError
        No audio in it, or a format that contradicts itself.
    """
    head = stream.read(12)
    style = WAVE_BIG if head[:4] == b"RIFX" else WAVE
    return _chunks(stream, style, wide=head[:4] in (b"RF64", b"BW64"))


def read_wave64(stream: ByteStream) -> Header:
    """As :func:`read_wave`, for 64-bit chunks named by GUIDs."""
    stream.read(40)
    return _chunks(stream, WAVE64, wide=False)


def _chunks(stream: ByteStream, style: ChunkStyle, *, wide: bool) -> Header:
    form: bytes | None = None
    data_size: int | None = None
    seen = 0
    while found := next_chunk(stream, style, seen):
        seen += 1
        name, size = found[:4], style.size(found)
        if name == b"data":
            if form is None:
                raise HeaderError("its audio comes before its format")
            return _header(form, style, stream.tell(), data_size if wide and size == 0xFFFFFFFF else size)
        kept = b""
        if name == b"fmt ":
            kept = form = stream.read(min(size, _FORMAT_BYTES))
        elif name == b"ds64":
            kept = stream.read(min(size, _FORMAT_BYTES))
            data_size = struct.unpack_from("<Q", kept, 8)[0] if len(kept) >= 16 else None
        skip_rest(stream, style, size, len(kept))
    raise HeaderError("it ends within its header" if form is None else "its header leads to no audio")


def _header(form: bytes, style: ChunkStyle, data_at: int, stated: int | None) -> Header:
    order = ">" if style.big_endian else "<"
    if len(form) < 14:
        raise HeaderError("its format description is cut short")
    tag, channels, rate, byte_rate, align = struct.unpack_from(f"{order}HHIIH", form)
    bits = struct.unpack_from(f"{order}H", form, 14)[0] if len(form) >= 16 else 8
    if tag == _EXTENSIBLE and len(form) >= 26:
        tag = struct.unpack_from(f"{order}H", form, 24)[0]
    coding = _coding(tag, bits, align, channels, big_endian=style.big_endian)
    frame = align if coding is None else coding.width * channels
    return check_header(Header(rate, channels, frame, coding, data_at, stated, style, byte_rate, tag in _MPEG))


def _coding(tag: int, bits: int, align: int, channels: int, *, big_endian: bool) -> Coding | None:
    if tag in (_ALAW, _ULAW):
        return Coding("alaw" if tag == _ALAW else "ulaw", 1)
    if tag not in (_PCM, _FLOAT):
        return None
    width = align // channels if channels and align % channels == 0 else 0
    if not 8 * width >= bits > 8 * width - 8:  # some writers leave one of the two wrong; bits are the safer one
        width = -(-bits // 8)
    if tag == _FLOAT:
        if width not in (4, 8):
            raise HeaderError(f"its header names floats of {bits} bits")
        return Coding("float", width, big_endian)
    if not 1 <= width <= 4:
        raise HeaderError(f"its header names samples of {bits} bits")
    return Coding("unsigned" if width == 1 else "signed", width, big_endian)
