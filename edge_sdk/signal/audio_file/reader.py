"""The reader: any recording as blocks of samples, with notes on whatever is wrong with it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import AudioError
from edge_sdk.signal.audio_file.headers.chunks import DamagedError
from edge_sdk.signal.audio_file.levels import HEADROOM
from edge_sdk.signal.audio_file.plain import Decoder

Floats = npt.NDArray[np.float32]

LEAST_HZ, MOST_HZ = 100, 768_000
"""Rates outside are those of damaged headers; what a bundle needs is far above the lowest."""

STDIN = "-"

_BLOCK = 1 << 16


class AudioReader:
    """Samples of one recording, read forwards in constant memory. Made by :func:`open_audio`.

    ``notes`` are lines for people: what is wrong with the recording although it is read. Some come only at the end.
    ``cut`` is true where audio that the recording promises is missing.
    """

    def __init__(
        self,
        name: str,
        rate: int,
        channels: int,
        decoder: Decoder,
        *,
        notes: Sequence[str] = (),
        cut: bool = False,
        scale: float = 1.0,
        clip: bool = False,
        lenient: bool = False,
        owned: Sequence[Any] = (),
    ) -> None:
        self.name = name
        self.sample_rate = rate
        self.channels = channels
        self.cut = cut
        self._decoder = decoder
        self._notes = list(notes)
        self._scale = np.float32(scale)
        self._clip = clip  # of a pipe: its floats are not known in advance
        self._clipped = 0
        self._lenient = lenient  # a decoder that gives fewer samples than promised is noted, not refused
        self._owned = list(owned)
        self._position = 0
        self._ended = False
        self._lock = threading.Lock()  # no close while another thread reads

    @property
    def frames(self) -> int | None:
        """Samples per channel; None where only the end shows it."""
        return self._decoder.frames

    @property
    def notes(self) -> tuple[str, ...]:
        """What is wrong with the recording, as far as it is known."""
        return (*self._notes, *getattr(self._decoder, "notes", ()))

    def add_note(self, note: str) -> None:
        """Add a line for people."""
        self._notes.append(note)

    def read(self, count: int) -> Floats:
        """The next ``[n, channels]`` samples, n = ``count`` except at the end.

        Raises
        ------
        AudioError
            The recording is damaged or cut in a way that does not show before.
        """
        with self._lock:
            if self._ended:
                return np.zeros((0, self.channels), np.float32)
            try:
                block = self._decoder.read(count)
            except DamagedError as error:
                block = getattr(self._decoder, "rest", _nothing)(count)
                if not len(block):
                    raise self._damaged() from error
                self._position += len(block)
                return block
            self._position += len(block)
            if len(block) < count:
                self._end()
        if self._scale != 1.0:
            block *= self._scale
        return self._within_full_scale(block) if self._clip and block.size else block

    def read_all(self) -> Floats:
        """The rest, ``[n, channels]``; errors as :meth:`read`."""
        blocks = [np.zeros((0, self.channels), np.float32)]
        while len(block := self.read(_BLOCK)):
            blocks.append(block)
        return np.concatenate(blocks)

    def close(self) -> None:
        """Release the file; a read of a pipe in another thread ends. May be called twice."""
        for owned in self._owned:
            if hasattr(owned, "stop"):
                owned.stop()
        with self._lock:
            self._ended = True
            self._decoder.close()
            for owned in self._owned:
                owned.close()

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _within_full_scale(self, block: Floats) -> Floats:
        peak = float(np.max(np.abs(block)))
        if peak > HEADROOM:
            raise AudioError(
                f"{self.name} has float samples up to {peak * float(1 / self._scale):.3g} after quiet ones: in a pipe "
                "their units cannot be known in advance; write it to a file first, or send samples in ±1"
            )
        if peak > 1.0:
            self._clipped += int(np.count_nonzero(np.abs(block) > 1.0))
            return np.clip(block, -1.0, 1.0)
        return block

    def _end(self) -> None:
        self._ended = True
        if self._clipped:
            self._notes.append(
                f"{self._clipped} float samples beyond ±1 were clipped: a pipe's level is not known in advance; "
                "write it to a file first"
            )
        missing = 0 if self.frames is None else self.frames - self._position
        if missing <= 0:
            return
        if not self._lenient:
            raise self._damaged()
        self.cut = True
        self._notes.append(
            f"damaged: {missing / self.sample_rate:.2f} s of {self._duration_s():.2f} s could not be decoded; copy it "
            "again from the original"
        )

    def _duration_s(self) -> float:
        return (self.frames or 0) / self.sample_rate

    def _damaged(self) -> AudioError:
        upto = self._position / self.sample_rate
        whole = f" of {self._duration_s():.2f} s" if self.frames is not None else ""
        missing = f" ({self._duration_s() - upto:.2f} s are missing)" if self.frames is not None else ""
        return AudioError(
            f"{self.name} is truncated or damaged: readable up to {upto:.2f} s{whole}{missing}; "
            "copy it again from the original"
        )


def checked_rate(name: str, rate: int, byte_rate: int = 0, frame_bytes: int = 0) -> int:
    """The rate itself.

    Raises
    ------
    AudioError
        No recorder writes such a rate.
    """
    if LEAST_HZ <= rate <= MOST_HZ:
        return rate
    meant = byte_rate // frame_bytes if frame_bytes else 0
    hint = f" (its other fields belong to {meant} Hz)" if meant != rate and LEAST_HZ <= meant <= MOST_HZ else ""
    raise AudioError(
        f"{name} has a damaged header: a sample rate of {rate} Hz is none of audio{hint}; "
        "write the true rate into its header, or record it again"
    )


def _nothing(_: int) -> Floats:
    return np.zeros((0, 0), np.float32)
