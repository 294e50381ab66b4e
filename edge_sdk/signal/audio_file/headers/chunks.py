"""What the headers of chunked containers have in common."""

from __future__ import annotations

from typing import NamedTuple

from edge_sdk.signal.audio_file.byte_streams import ByteStream
from edge_sdk.signal.audio_file.pcm import Coding

MOST_CHANNELS = 1024
_MOST_CHUNKS = 10_000


class HeaderError(Exception):
    """A header that cannot be used; the text says why."""


class DamagedError(Exception):
    """Audio that a decoder cannot go on with."""


class ChunkStyle(NamedTuple):
    """How a container writes its chunks."""

    id_bytes: int = 4
    size_bytes: int = 4
    big_endian: bool = False
    size_has_header: bool = False
    multiple: int = 2  # chunks begin at multiples of so many bytes

    @property
    def header_bytes(self) -> int:
        """Bytes before the content of a chunk."""
        return self.id_bytes + self.size_bytes

    def size(self, header: bytes) -> int:
        """Bytes of the content, from the chunk's header."""
        size = int.from_bytes(header[self.id_bytes : self.header_bytes], "big" if self.big_endian else "little")
        return max(0, size - self.header_bytes) if self.size_has_header else size

    def padding(self, size: int) -> int:
        """Bytes between the content and the next chunk."""
        return -(size + (self.header_bytes if self.size_has_header else 0)) % self.multiple


WAVE = ChunkStyle()
WAVE_BIG = ChunkStyle(big_endian=True)
WAVE64 = ChunkStyle(id_bytes=16, size_bytes=8, size_has_header=True, multiple=8)
AIFF = ChunkStyle(big_endian=True)
CAF = ChunkStyle(size_bytes=8, big_endian=True, multiple=1)


class Header(NamedTuple):
    """Where the audio of a container is, and how it is written."""

    rate: int  # Hz
    channels: int
    frame_bytes: int  # bytes of one sample of all channels; of compressed audio, of one block
    coding: Coding | None  # None: compressed, decoded by libsndfile
    data_at: int  # first byte of the audio
    stated: int | None  # bytes of the audio; None where the header leaves it open on purpose
    chunks: ChunkStyle | None = None  # of what may follow the audio
    bytes_per_second: int = 0  # as the header gives them; 0: it gives none
    mpeg: bool = False  # the audio is an MPEG stream

    def seconds(self, count: int) -> float:
        """Length of so many bytes of audio in seconds."""
        if self.coding is None:
            return count / self.bytes_per_second if self.bytes_per_second else 0.0
        return count / (self.frame_bytes * self.rate)


def check_header(header: Header) -> Header:
    """The header itself.

    Raises
    ------
    HeaderError
        No channels or rate, or far more than exist.
    """
    if not 1 <= header.channels <= MOST_CHANNELS:
        raise HeaderError(f"its header names {header.channels} channels")
    if header.frame_bytes < 1:
        raise HeaderError("its header gives samples without any bytes")
    return header


def next_chunk(stream: ByteStream, style: ChunkStyle, seen: int) -> bytes:
    """Read the header of the next chunk; empty at the end.

    Raises
    ------
    HeaderError
        There are too many of them: this is no header.
    """
    if seen > _MOST_CHUNKS:
        raise HeaderError("its header has thousands of parts and no audio")
    found = stream.read(style.header_bytes)
    return found if len(found) == style.header_bytes else b""


def skip_rest(stream: ByteStream, style: ChunkStyle, size: int, read: int) -> None:
    """Go on to the next chunk after ``read`` of ``size`` bytes; writers that forget the padding byte are tolerated."""
    stream.skip(size - read)
    padding = style.padding(size)
    if padding == 1 and stream.peek(1) not in (b"\0", b""):
        return
    stream.skip(padding)
