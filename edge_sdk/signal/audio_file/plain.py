"""Plain samples of a file or a pipe as a decoder."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_sdk.signal.audio_file.byte_streams import ByteStream
from edge_sdk.signal.audio_file.headers.chunks import Header
from edge_sdk.signal.audio_file.headers.extent import is_metadata, is_recording
from edge_sdk.signal.audio_file.headers.wave import OPEN_SIZE
from edge_sdk.signal.audio_file.pcm import decode

Floats = npt.NDArray[np.float32]


class Decoder(Protocol):
    """Gives samples forwards."""

    frames: int | None
    """Samples per channel; None where only the end of the source shows it."""

    def read(self, count: int) -> Floats:
        """``[n, channels]`` with n <= ``count``, fewer only at the end.

        Raises
        ------
        DamagedError
            The audio cannot be decoded from here on.
        """

    def close(self) -> None:
        """Release what it holds."""


class PlainDecoder:
    """Samples of a file whose extent is known; the stream stands at their first byte."""

    def __init__(self, stream: ByteStream, header: Header, size: int) -> None:
        assert header.coding is not None
        self._stream, self._coding, self._channels = stream, header.coding, header.channels
        self._frame = header.frame_bytes
        self.frames: int | None = size // self._frame
        self._left = self.frames

    def read(self, count: int) -> Floats:
        """``[n, channels]`` with n <= ``count``, fewer only at the end."""
        count = min(count, self._left)
        block = decode(self._stream.read(count * self._frame), self._coding, self._channels)
        self._left -= len(block)
        return block

    def close(self) -> None:
        """Nothing is held: the stream has another owner."""


class PlainPipe:
    """Samples of a pipe, to its end: a header that is written before its audio cannot know the length.

    ``notes`` grows at the end, where the header and the audio differ.
    """

    frames: int | None = None

    def __init__(self, stream: ByteStream, header: Header) -> None:
        assert header.coding is not None
        self.notes: list[str] = []
        self._stream, self._header, self._coding = stream, header, header.coding
        stated = header.stated
        if stated == 0 or (stated is not None and (OPEN_SIZE <= stated <= 0xFFFFFFFF or stated >= 1 << 62)):
            stated = None
        self._stated, self._left, self._done = stated, stated, 0

    def read(self, count: int) -> Floats:
        """``[n, channels]`` with n <= ``count``, fewer only at the end."""
        wanted = count * self._header.frame_bytes
        content = self._take(wanted)
        if len(content) < wanted and self._left == 0 and self._goes_on():
            content += self._take(wanted - len(content))
        if len(content) < wanted and self._left:
            promised, missing = self._seconds(self._stated or 0), self._seconds(self._left)
            self.notes.append(
                f"cut: its header says {promised:.2f} s, but it ended {missing:.2f} s earlier; record or send it again"
            )
            self._left = None
        return decode(content, self._coding, self._header.channels)

    def close(self) -> None:
        """Nothing is held: the stream has another owner."""

    def _take(self, wanted: int) -> bytes:
        content = self._stream.read(wanted if self._left is None else min(wanted, self._left))
        self._done += len(content)
        if self._left is not None:
            self._left -= len(content)
        return content

    def _goes_on(self) -> bool:
        """Whether audio follows behind the length that the header gives."""
        following = self._stream.peek(8)
        if is_recording(following):
            self.notes.append(
                f"another recording follows the first one of {self._seconds(self._done):.2f} s in the same pipe and is "
                "not read; send them one by one"
            )
            return False
        if len(following) < max(2, self._header.frame_bytes) or is_metadata(following):
            return False
        self.notes.append(
            f"its header says {self._seconds(self._done):.2f} s, but more audio follows; all of it is read"
        )
        self._left = None
        return True

    def _seconds(self, count: int) -> float:
        return self._header.seconds(count)
