"""Bytes of a file, of a pipe, and of a file whose header or damaged parts were replaced."""

from __future__ import annotations

import io
import os
import select
import threading
from collections.abc import Sequence
from typing import IO, Any, TypeAlias

from edge_sdk.errors import AudioError

FIRST_BYTES_S = 5.0
"""Seconds that a pipe may stay without any writer or byte before it is given up."""

_POLL_MS = 100


class FileBytes:
    """A regular file; ``read`` and its relatives work at any position set by :meth:`seek`."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.size: int = os.fstat(file.fileno()).st_size
        self.file.seek(0)

    def tell(self) -> int:
        """Bytes before the position."""
        return self.file.tell()

    def seek(self, position: int) -> None:
        """Continue at ``position``."""
        self.file.seek(position)

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes; fewer only at the end."""
        return self.file.read(count)

    def read_at(self, position: int, count: int) -> bytes:
        """``count`` bytes from ``position``, fewer at the end of the file."""
        self.file.seek(position)
        return self.file.read(count)

    def peek(self, count: int) -> bytes:
        """The next ``count`` bytes, which the next ``read`` gives again."""
        position = self.file.tell()
        content = self.file.read(count)
        self.file.seek(position)
        return content

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes, or to the end: a size that a damaged header states need not fit a file."""
        here = self.file.tell()
        self.file.seek(min(here + count, max(here, self.file.seek(0, os.SEEK_END))))

    def close(self) -> None:
        """Release it; a ``read`` in progress in another thread ends."""
        self.file.close()


class PipeBytes:
    """A pipe, FIFO or socket; reading waits for its writer and can be ended from another thread.

    Parameters
    ----------
    descriptor
        Open for reading; closed by :meth:`close`.
    name
        For messages.

    Raises
    ------
    AudioError
        From the first read: nothing arrives within :data:`FIRST_BYTES_S`, or the writer ends without a byte.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._held = b""
        self._position = 0
        self._received = False
        self._closed = threading.Event()
        self._marked: list[bytes] | None = None

    def tell(self) -> int:
        """Bytes before the position."""
        return self._position

    def mark(self) -> None:
        """Keep what is read from here on, for :meth:`rewind`."""
        self._marked = []

    def rewind(self) -> None:
        """Go back to the mark, if there is one; then forget it."""
        if self._marked is not None:
            self._held = b"".join(self._marked) + self._held
            self._position -= sum(map(len, self._marked))
        self._marked = None

    def forget(self) -> None:
        """Forget the mark."""
        self._marked = None

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes; fewer only at the end."""
        parts, wanted = [self._held[:count]], count - len(self._held)
        self._held = self._held[count:]
        while wanted > 0 and (part := self._receive(min(wanted, 1 << 20))):
            parts.append(part)
            wanted -= len(part)
        content = b"".join(parts)
        self._position += len(content)
        if self._marked is not None:
            self._marked.append(content)
        return content

    def peek(self, count: int) -> bytes:
        """The next ``count`` bytes, which the next ``read`` gives again."""
        marked, self._marked = self._marked, None
        position = self._position
        content = self.read(count)
        self._held, self._position, self._marked = content + self._held, position, marked
        return content

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes, or to the end."""
        while count > 0 and (part := self.read(min(count, 1 << 16))):
            count -= len(part)

    def stop(self) -> None:
        """End a read in progress: it gets no further bytes."""
        self._closed.set()

    def close(self) -> None:
        """Release it; a ``read`` in progress in another thread ends."""
        self.stop()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _receive(self, count: int) -> bytes:
        waited_ms = 0
        while not self._closed.is_set():
            if not self._poll.poll(_POLL_MS):
                waited_ms += _POLL_MS
                if not self._received and waited_ms >= 1000 * FIRST_BYTES_S:
                    raise AudioError(
                        f"{self._name} delivers nothing: no byte within {FIRST_BYTES_S:g} s; "
                        "start the program that writes into it first"
                    )
                continue
            try:
                content = os.read(self._descriptor, count)
            except BlockingIOError:
                continue
            self._received = self._received or bool(content)
            return content
        return b""


ByteStream: TypeAlias = FileBytes | PipeBytes
"""What is read forwards; a file at any position too."""

Part: TypeAlias = bytes | tuple[int, int]
"""Bytes to insert, or begin and end of a stretch of the file."""


class SplicedFile(io.RawIOBase):
    """A file as if it were made of parts: a header that was corrected, and stretches of the real file.

    Parameters
    ----------
    file
        The real file; not closed.
    parts
        In order.
    """

    def __init__(self, file: IO[bytes], parts: Sequence[Part]) -> None:
        super().__init__()
        self._file = file
        self._parts = [part for part in parts if _length(part)]
        self._starts = [0]
        for part in self._parts:
            self._starts.append(self._starts[-1] + _length(part))
        self._position = 0
        self._current = 0  # part that holds the position, where there is one

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes before the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._starts[-1]}[whence]
        self._position = max(0, base + offset)
        if self._parts and not self._starts[self._current] <= self._position:
            self._current = 0
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; return its filled bytes."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._position < self._starts[-1]:
            while self._position >= self._starts[self._current + 1]:
                self._current += 1
            part, start = self._parts[self._current], self._starts[self._current]
            count = min(len(view) - done, self._starts[self._current + 1] - self._position)
            if isinstance(part, bytes):
                content = part[self._position - start : self._position - start + count]
            else:
                self._file.seek(part[0] + self._position - start)
                content = self._file.read(count)
            if not content:
                break
            view[done : done + len(content)] = content
            done += len(content)
            self._position += len(content)
        return done


def _length(part: Part) -> int:
    return len(part) if isinstance(part, bytes) else part[1] - part[0]
