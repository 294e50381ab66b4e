"""Everything that libsndfile decodes: FLAC, Ogg, MP3, compressed WAV and rare containers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from edge_sdk.signal.audio_file.headers.chunks import DamagedError, HeaderError

Floats = npt.NDArray[np.float32]

_LOSSY = ("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III")
"""Their decoders overshoot; samples are kept within ±1, as every player does."""

UNKNOWN_LENGTH = 1 << 60
"""From here on libsndfile's number of frames means that a header leaves the length open."""


class _Forwards(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A file that is read without a seek after each block, which corrupts MP3 and slows down FLAC."""

    def seekable(self) -> bool:
        return False


class LibraryDecoder:
    """A file decoded by libsndfile.

    Parameters
    ----------
    source
        Descriptor of a regular file, or an object with ``read``, ``seek`` and ``tell``.
    unit
        Samples that are decoded at once, so that an error loses no valid samples; 0: as many as are asked for.

    Raises
    ------
    HeaderError
        libsndfile cannot open it.
    """

    def __init__(self, source: Any, *, unit: int = 0) -> None:
        try:
            with quiet_stderr():
                self._file = _Forwards(source, closefd=False)
        except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
            raise HeaderError(str(getattr(error, "error_string", error)).strip().rstrip(".")) from error
        self.rate, self.channels = int(self._file.samplerate), int(self._file.channels)
        self.format, self.subtype = str(self._file.format), str(self._file.subtype)
        stated = int(self._file.frames)
        self.frames: int | None = None if stated >= UNKNOWN_LENGTH else stated
        self._lossy = self.subtype in _LOSSY
        self.notes: list[str] = []
        self._unit = unit
        self._done = 0
        self._held = np.zeros((0, self.channels), np.float32)

    def read(self, count: int) -> Floats:
        """``[n, channels]`` with n <= ``count``, fewer only at the end."""
        if self._unit == 0:
            return self._decode(count)
        while len(self._held) < count:
            part = self._decode(self._unit)
            self._held = np.concatenate((self._held, part)) if len(self._held) else part
            if len(part) < self._unit:
                break
        return self.rest(count)

    def rest(self, count: int) -> Floats:
        """Up to ``count`` samples that are decoded already: what is left after an error."""
        block, self._held = self._held[:count], self._held[count:]
        return block

    def close(self) -> None:
        """Release it."""
        self._file.close()

    def _decode(self, count: int) -> Floats:
        if self.frames is not None:  # what follows the last one is no audio
            count = min(count, self.frames - self._done)
        try:
            if self._lossy:
                with quiet_stderr() as complaints:
                    block: Floats = self._file.read(count, dtype="float32", always_2d=True)  # [n, channels]
                np.clip(block, -1.0, 1.0, out=block)
                if not self.notes and any(b"error" in line for line in complaints):
                    self.notes.append(f"damaged: faulty frames near {self._done / self.rate:.1f} s were passed over")
            else:
                block = np.asarray(self._file.read(count, dtype="float32", always_2d=True))
            self._done += len(block)
            return block
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise DamagedError(str(error)) from error


_quiet = threading.Lock()
_FOREIGN = (b"[src/lib", b"Note: ", b"Warning: ", b"\n")


@contextmanager
def quiet_stderr() -> Iterator[list[bytes]]:
    """Keep libmpg123's own messages off stderr: they are in the list afterwards. Other lines are passed on."""
    complaints: list[bytes] = []
    with _quiet:
        try:
            kept = os.dup(2)
        except OSError:  # no stderr: nothing to keep clean
            yield complaints
            return
        caught = os.memfd_create("stderr")
        try:
            os.dup2(caught, 2)
            try:
                yield complaints
            finally:
                os.dup2(kept, 2)
                if os.lseek(caught, 0, os.SEEK_CUR):
                    os.lseek(caught, 0, os.SEEK_SET)
                    lines = os.read(caught, 1 << 20).splitlines(keepends=True)
                    complaints += [line for line in lines if line.startswith(_FOREIGN)]
                    if others := b"".join(line for line in lines if not line.startswith(_FOREIGN)):
                        os.write(2, others)
        finally:
            os.close(caught)
            os.close(kept)
