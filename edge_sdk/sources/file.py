"""Recordings as a source: files, FIFOs and standard input, every format, rate and number of channels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import AudioError, SourceError
from edge_sdk.events import AudioBlock
from edge_sdk.signal.audio_file.levels import ChannelWatch
from edge_sdk.signal.audio_file.opening import open_audio
from edge_sdk.sources.pacing import Pacer
from edge_sdk.sources.recorded_gaps import cut_out_gaps, read_recorded_gaps

Channel: TypeAlias = int | Literal["mix"]
"""Channel to deliver: its number from 0, or the mean of all."""


class FileSource:
    """Plays a recording block by block in constant memory. Can be iterated once.

    Parameters
    ----------
    path
        The recording; ``-`` is standard input.
    paced
        Deliver in real time instead of as fast as possible.
    channel
        Number of the channel from 0, or ``"mix"`` for the mean of all.
    block_s
        Seconds per block; the last one may be shorter.
    speed
        Factor of real time for paced playback; 2 plays twice as fast.

    Raises
    ------
    AudioError
        From the constructor: see :func:`~edge_sdk.signal.audio_file.opening.open_audio`; no such channel. While
        iterating: NaN or infinite samples, a file that is truncated or damaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        paced: bool = False,
        channel: Channel = 0,
        block_s: float = 0.05,
        speed: float = 1.0,
    ) -> None:
        if not block_s > 0:
            raise ValueError(f"block_s must be positive, got {block_s}")
        self._path = Path(path)
        self._channel = channel
        self._reader = open_audio(path)
        self._started = False
        self._note: str | None = None  # about its channels, at the end
        try:
            self._check_channel()
            self._block_samples = max(1, round(block_s * self.sample_rate))
            self._pacer = Pacer(self.sample_rate, paced=paced, speed=speed)
        except Exception:
            self._reader.close()
            raise

    @property
    def name(self) -> str:
        """The path as given."""
        return str(self._path)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is wrong with the recording although it is read; complete at its end."""
        return self._reader.notes if self._note is None else (*self._reader.notes, self._note)

    @property
    def sample_rate(self) -> int:
        """Hz, from the file."""
        return self._reader.sample_rate

    @property
    def channels(self) -> int:
        """Number of channels in the file; one of them, or their mean, is delivered."""
        return self._reader.channels

    @property
    def frames(self) -> int | None:
        """Samples per channel; None where only the end shows it (a pipe)."""
        return self._reader.frames

    @property
    def duration_s(self) -> float | None:
        """Length in seconds; None where only the end shows it (a pipe)."""
        return None if self.frames is None else self.frames / self.sample_rate

    def __iter__(self) -> Iterator[AudioBlock]:
        if self._started:
            raise SourceError(f"{self._path} was already played by this source; open it again")
        self._started = True
        try:
            yield from cut_out_gaps(self._pacer.deliver(self._blocks()), read_recorded_gaps(self._path))
        finally:
            self.close()

    def close(self) -> None:
        """Stop, also during a paced wait. May be called twice and from another thread."""
        self._pacer.stop()
        self._reader.close()

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_channel(self) -> None:
        if self._channel != "mix" and not 0 <= self._channel < self.channels:
            choices = "0" if self.channels == 1 else f"0 to {self.channels - 1}, or mix"
            raise AudioError(f"{self._path} has no channel {self._channel}; choose {choices}")

    def _blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        position, watch = 0, ChannelWatch(self.channels, self._channel)
        while len(frames := self._reader.read(self._block_samples)):  # [n, channels]
            watch.add(frames)
            samples = frames.mean(axis=1) if self._channel == "mix" else np.ascontiguousarray(frames[:, self._channel])
            finite = np.isfinite(samples)
            if not finite.all():
                bad = position + int(np.argmin(finite))
                raise AudioError(
                    f"{self._path} has a NaN or infinite sample at {bad / self.sample_rate:.3f} s (sample {bad}); "
                    f"export the recording again, best as 16-bit wav"
                )
            yield np.asarray(samples, dtype=np.float32)
            position += samples.size
        self._note = watch.note()
