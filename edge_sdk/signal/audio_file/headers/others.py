"""Headers of AIFF, AIFF-C, Sun AU and Apple CAF."""

from __future__ import annotations

import math
import struct

from edge_sdk.signal.audio_file.byte_streams import ByteStream, FileBytes
from edge_sdk.signal.audio_file.headers.chunks import (
    AIFF,
    CAF,
    Header,
    HeaderError,
    check_header,
    next_chunk,
    skip_rest,
)
from edge_sdk.signal.audio_file.pcm import Coding

_KEPT_BYTES = 4096

_AIFC = {
    b"twos": ("signed", None, True),
    b"sowt": ("signed", None, False),
    b"raw ": ("unsigned", 1, True),
    b"fl32": ("float", 4, True),
    b"FL32": ("float", 4, True),
    b"fl64": ("float", 8, True),
    b"FL64": ("float", 8, True),
    b"in24": ("signed", 3, True),
    b"in32": ("signed", 4, True),
    b"ulaw": ("ulaw", 1, True),
    b"ULAW": ("ulaw", 1, True),
    b"alaw": ("alaw", 1, True),
    b"ALAW": ("alaw", 1, True),
}
"""Compression type → encoding, width where it does not follow the bits, big-endian."""

_AU = {
    1: ("ulaw", 1),
    2: ("signed", 1),
    3: ("signed", 2),
    4: ("signed", 3),
    5: ("signed", 4),
    6: ("float", 4),
    7: ("float", 8),
    27: ("alaw", 1),
}


def read_aiff(stream: ByteStream) -> Header:
    """Read up to the first byte of audio.

    Raises
    ------
    HeaderError
        No audio in it, or no format before it in a pipe.
    """
    stream.read(8)
    packed = stream.read(4) == b"AIFC"
    common: bytes | None = None
    audio: tuple[int, int] | None = None
    seen = 0
    while found := next_chunk(stream, AIFF, seen):
        seen += 1
        name, size, kept = found[:4], AIFF.size(found), b""
        if name == b"COMM":
            kept = common = stream.read(min(size, _KEPT_BYTES))
        elif name == b"SSND":
            kept = stream.read(8)
            shift = int.from_bytes(kept[:4], "big")
            audio = stream.tell() + shift, max(0, size - 8 - shift)
        if audio is not None and common is not None:
            break
        if audio is not None and not isinstance(stream, FileBytes):
            raise HeaderError("its audio comes before its format")
        skip_rest(stream, AIFF, size, len(kept))
    if common is None or audio is None:
        raise HeaderError("its header leads to no audio")
    if isinstance(stream, FileBytes):
        stream.seek(audio[0])
    return _aiff(common, audio, packed=packed)


def _aiff(common: bytes, audio: tuple[int, int], *, packed: bool) -> Header:
    if len(common) < 18:
        raise HeaderError("its format description is cut short")
    channels, _, bits = struct.unpack_from(">hIh", common)
    compression = common[18:22] if packed else b"twos"
    encoding = _AIFC.get(compression if compression != b"NONE" else b"twos")
    coding = None
    if encoding is not None:
        coding = Coding(encoding[0], encoding[1] or -(-bits // 8), encoding[2])  # type: ignore[arg-type]
        if not 1 <= coding.width <= 8:
            raise HeaderError(f"its header names samples of {bits} bits")
    frame = coding.width * channels if coding else max(1, channels)
    return check_header(Header(_extended(common[8:18]), channels, frame, coding, audio[0], audio[1], AIFF))


def _extended(raw: bytes) -> int:
    """An 80-bit float as a rate in Hz; 0 where it is none."""
    exponent, mantissa = struct.unpack(">HQ", raw)
    if exponent & 0x8000 or exponent - 16383 > 40:
        return 0
    return round(math.ldexp(mantissa, exponent - 16383 - 63))


def read_au(stream: ByteStream) -> Header:
    """Read up to the first byte of audio; errors as :func:`read_aiff`."""
    head = stream.read(24)
    if len(head) < 24:
        raise HeaderError("it ends within its header")
    big = head[:4] == b".snd"
    data_at, size, encoding, rate, channels = struct.unpack(f"{'>' if big else '<'}5I", head[4:])
    if data_at < 24:
        raise HeaderError("its header overlaps its audio")
    known = _AU.get(encoding)
    coding = None if known is None else Coding(known[0], known[1], big)  # type: ignore[arg-type]
    stream.skip(data_at - 24)
    frame = coding.width * channels if coding else max(1, channels)
    stated = None if size == 0xFFFFFFFF else size
    return check_header(Header(rate, channels, frame, coding, data_at, stated))


def read_caf(stream: ByteStream) -> Header:
    """Read up to the first byte of audio; errors as :func:`read_aiff`."""
    stream.read(8)
    form: bytes | None = None
    seen = 0
    while found := next_chunk(stream, CAF, seen):
        seen += 1
        name, size, kept = found[:4], CAF.size(found), b""
        if name == b"data":
            if form is None:
                raise HeaderError("its audio comes before its format")
            stream.read(4)  # edit count
            return _caf(form, stream.tell(), None if size >= 1 << 63 else max(0, size - 4))
        if name == b"desc":
            kept = form = stream.read(min(size, _KEPT_BYTES))
        skip_rest(stream, CAF, size, len(kept))
    raise HeaderError("its header leads to no audio")


def _caf(form: bytes, data_at: int, stated: int | None) -> Header:
    if len(form) < 32:
        raise HeaderError("its format description is cut short")
    rate, kind, flags, packet, _, channels, bits = struct.unpack_from(">d4s5I", form)
    coding = None
    if kind == b"lpcm":
        width = packet // channels if channels and packet else -(-bits // 8)
        if width > 8 or (not flags & 1 and width > 4) or (flags & 1 and width not in (4, 8)) or width < 1:
            raise HeaderError(f"its header names samples of {bits} bits")
        coding = Coding("float" if flags & 1 else "signed", width, not flags & 2)
    elif kind in (b"ulaw", b"alaw"):
        coding = Coding("ulaw" if kind == b"ulaw" else "alaw", 1)
    elif kind in (b"aac ", b".mp3", b"ilbc", b"ac-3", b"qdm2"):
        raise HeaderError(f"it holds {kind.decode().strip(' .').upper()} audio, which is not decoded here")
    frame = coding.width * channels if coding else max(1, packet)
    return check_header(Header(round(rate) if 0 < rate < 1e12 else 0, channels, frame, coding, data_at, stated, CAF))
