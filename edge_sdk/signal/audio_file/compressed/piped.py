"""Compressed audio from a pipe: FLAC as it arrives, everything else once the pipe has ended."""

from __future__ import annotations

import os
import tempfile

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import AudioError
from edge_sdk.signal.audio_file.byte_streams import FileBytes, PipeBytes
from edge_sdk.signal.audio_file.compressed.flac import INFO_BYTES, flac_header
from edge_sdk.signal.audio_file.compressed.library import LibraryDecoder
from edge_sdk.signal.audio_file.headers.chunks import DamagedError, HeaderError
from edge_sdk.signal.audio_file.reader import AudioReader, checked_rate

_REWIND = 1 << 20  # bytes of the beginning that can be read again
_ENDLESS = 1 << 62


class PipeFile:
    """A pipe as a file of unknown length, for decoders that look at the beginning twice."""

    def __init__(self, stream: PipeBytes) -> None:
        self._stream = stream
        self._kept = bytearray()  # the first bytes
        self._taken = 0  # bytes read from the pipe so far
        self._position = 0
        self.ended = False

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position; only the beginning can be read again."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: _ENDLESS}[whence]
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def read(self, count: int) -> bytes:
        """The next bytes; empty at the end and where they were forgotten."""
        content = bytes(self._kept[self._position : self._position + count])
        self._position += len(content)
        if len(content) < count and self._position == self._taken:
            fresh = self._stream.read(count - len(content))
            self.ended = self.ended or len(content) + len(fresh) < count
            if len(self._kept) < _REWIND:
                self._kept += fresh
            self._taken += len(fresh)
            self._position += len(fresh)
            content += fresh
        return content


class FlacPipe:
    """A FLAC that arrives through a pipe; a pipe that ends early is noted."""

    def __init__(self, stream: PipeBytes, head: bytes) -> None:
        header = flac_header(head)
        self._file = PipeFile(stream)
        self._decoder = LibraryDecoder(self._file, unit=max(1, header.block_samples))
        self.rate, self.channels = self._decoder.rate, self._decoder.channels
        self.frames: int | None = None
        self.notes: list[str] = []
        self._stated, self._done = header.stated, 0

    def read(self, count: int) -> npt.NDArray[np.float32]:
        """``[n, channels]`` samples; errors as those of any decoder."""
        try:
            block = self._decoder.read(count)
        except DamagedError:
            if not self._file.ended:
                raise
            block = self._decoder.rest(count)
            if len(block) < count and not self._stated:
                self._cut("it ended within a frame, so that up to one frame is missing")
        self._done += len(block)
        if len(block) < count and self._done < self._stated:
            missing = (self._stated - self._done) / self.rate
            self._cut(f"its header says {self._stated / self.rate:.2f} s, but it ended {missing:.2f} s earlier")
        return block

    def close(self) -> None:
        """Release the decoder; the pipe has another owner."""
        self._decoder.close()

    def _cut(self, what: str) -> None:
        self.notes.append(f"cut: {what}; record or send it again")


def flac_pipe(name: str, stream: PipeBytes) -> AudioReader:
    """Open a FLAC that arrives through a pipe.

    Raises
    ------
    HeaderError
        Its header is no FLAC's.
    """
    head = stream.peek(INFO_BYTES)
    if len(head) < INFO_BYTES:
        raise HeaderError("it ends within its header")
    decoder = FlacPipe(stream, head)
    rate = checked_rate(name, decoder.rate)
    return AudioReader(name, rate, decoder.channels, decoder, owned=[stream])


def spooled(stream: PipeBytes, name: str) -> FileBytes:
    """All of a pipe, in a temporary file without a name.

    Raises
    ------
    AudioError
        There is no room for it.
    """
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the reader
        while content := stream.read(1 << 20):
            file.write(content)
        file.flush()
    except OSError as error:
        raise AudioError(f"cannot keep {name} while it arrives: {error.strerror}; write it to a file first") from error
    stream.close()
    return FileBytes(file)
