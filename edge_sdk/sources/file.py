"""Recordings as a source: wav, flac and every other format of libsndfile, any rate and number of channels."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile

from edge_sdk.errors import AudioError, SourceError
from edge_sdk.events import AudioBlock
from edge_sdk.files import native_name
from edge_sdk.sources.pacing import Pacer
from edge_sdk.sources.recorded_gaps import cut_out_gaps, read_recorded_gaps

_log = logging.getLogger(__name__)

_UNKNOWN_LENGTH = 1 << 60  # libsndfile's value where a header leaves the length open; it cannot read these to the end

Channel: TypeAlias = int | Literal["mix"]
"""Channel to deliver: its number from 0, or the mean of all."""


class FileSource:
    """Plays a recording block by block in constant memory. Can be iterated once.

    Parameters
    ----------
    path
        The recording.
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
        From the constructor: no file, a folder, an empty file, not audio, no samples, unknown length, no such
        channel. While iterating: NaN or infinite samples, a file that is truncated or damaged.
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
        self._file = open_recording(self._path)
        self._lock = threading.Lock()  # libsndfile: no close while another thread reads
        self._started = False
        try:
            self._check()
            self._block_samples = max(1, round(block_s * self.sample_rate))
            self._pacer = Pacer(self.sample_rate, paced=paced, speed=speed)
        except Exception:
            self._file.close()
            raise

    @property
    def name(self) -> str:
        """The path as given."""
        return str(self._path)

    @property
    def sample_rate(self) -> int:
        """Hz, from the file."""
        return int(self._file.samplerate)

    @property
    def channels(self) -> int:
        """Number of channels in the file; one of them, or their mean, is delivered."""
        return int(self._file.channels)

    @property
    def frames(self) -> int:
        """Samples per channel, from the header."""
        return int(self._file.frames)

    @property
    def duration_s(self) -> float:
        """Length in seconds, from the header."""
        return self.frames / self.sample_rate

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
        with self._lock:
            self._file.close()

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        if self.frames == 0:
            raise AudioError(f"{self._path} holds no samples; record it again")
        if self.frames >= _UNKNOWN_LENGTH:
            raise AudioError(f"{self._path} has no length in its header (a streamed flac); encode it again as a file")
        if self._channel != "mix" and not 0 <= self._channel < self.channels:
            choices = "0" if self.channels == 1 else f"0 to {self.channels - 1}, or mix"
            raise AudioError(f"{self._path} has no channel {self._channel}; choose {choices}")
        if "(should be" in str(self._file.extra_info) and self._file.format == "WAV":
            _log.warning("%s is shorter than its header says; the samples that exist are used", self._path)

    def _blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        position = 0
        while (block := self._read(position)) is not None:
            yield block
            position += block.size

    def _read(self, position: int) -> npt.NDArray[np.float32] | None:
        with self._lock:
            if self._pacer.stopped:
                return None
            try:
                frames = self._file.read(self._block_samples, dtype="float32", always_2d=True)  # [n, channels]
            except (soundfile.SoundFileError, RuntimeError) as error:
                raise self._damaged(position) from error
            if len(frames) < self._block_samples and position + len(frames) < self.frames:
                raise self._damaged(position + len(frames))
        if len(frames) == 0:
            return None
        samples = frames.mean(axis=1) if self._channel == "mix" else np.ascontiguousarray(frames[:, self._channel])
        finite = np.isfinite(samples)
        if not finite.all():
            bad = position + int(np.argmin(finite))
            raise AudioError(
                f"{self._path} has a NaN or infinite sample at {bad / self.sample_rate:.3f} s (sample {bad}); "
                f"export the recording again, best as 16-bit wav"
            )
        return np.asarray(samples, dtype=np.float32)

    def _damaged(self, position: int) -> AudioError:
        return AudioError(
            f"{self._path} is truncated or damaged: readable up to {position / self.sample_rate:.2f} s of "
            f"{self.duration_s:.2f} s; copy it again from the original"
        )


def open_recording(path: Path) -> Any:
    """Open a recording as ``soundfile.SoundFile``; the caller closes it.

    Raises
    ------
    AudioError
        If the file does not exist, is empty, or cannot be read by libsndfile.
    """
    try:
        if path.is_dir():
            raise AudioError(f"{path} is a folder; name a recording inside it, or use 'stetho screen {path}'")
        if path.exists() and not path.is_file():
            raise AudioError(f"{path} is not a regular file; name a wav or flac recording")
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise AudioError(f"no such file: {path}; check the name") from error
    except OSError as error:
        raise AudioError(f"cannot read {path}: {error.strerror}; check its permissions and name") from error
    if size == 0:
        raise AudioError(f"{path} is empty (0 bytes); record or copy it again")
    try:
        return soundfile.SoundFile(native_name(path))
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise AudioError(f"{path} is not a readable recording ({reason}); use wav or flac") from error
