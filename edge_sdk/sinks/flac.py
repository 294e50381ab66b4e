"""A flac that can be read at any moment while it is written, and after a power cut."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from edge_sdk.files import native_name

FULL_SCALE = 1 << 23

_HEADER = 42  # "fLaC", the block's header, STREAMINFO
_BLOCK_SIZE_AT = 8
_TOTAL_AT = 18  # of the 8 bytes that hold rate, channels, bits and, in the last 36 bits, the number of samples
_TOTAL_BITS = 36


class GrowingFlac:
    """One channel of 24 bits, written block by block.

    The length of a flac is only in its header, which encoders write at the end. Here :meth:`commit` writes it at every
    call, for the frames that are complete in the file. The rest is at most one frame of 1152 samples.
    Samples on the 24-bit grid (16- and 24-bit devices and recordings) are kept exactly; others are rounded to it.

    Parameters
    ----------
    path
        Must not exist.
    sample_rate
        Hz.

    Raises
    ------
    OSError
        The file exists, cannot be written, or libsndfile refuses the format.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        self.clipped = 0  # samples beyond full scale
        self._samples = 0
        self._committed = 0
        self._header = -1
        self._file: soundfile.SoundFile | None = None
        try:
            # Level 0 has frames of 1152 samples instead of 4096: 0.29 s instead of 1 s at 4 kHz.
            self._file = soundfile.SoundFile(
                native_name(path),
                "x",
                samplerate=sample_rate,
                channels=1,
                subtype="PCM_24",
                format="FLAC",
                compression_level=0.0,
            )
        except soundfile.LibsndfileError as error:
            raise OSError(str(error)) from error
        self._header = os.open(path, os.O_RDWR)

    @property
    def samples(self) -> int:
        """Samples written so far."""
        return self._samples

    def write(self, samples: npt.NDArray[np.float32]) -> None:
        """Append ``[n]`` samples in ±1, others are clipped and counted; ``OSError`` where the disk is full."""
        steps = np.rint(samples.astype(np.float64) * FULL_SCALE)
        if samples.size and max(float(steps.max()), -float(steps.min())) > FULL_SCALE:
            self.clipped += int(np.count_nonzero(np.abs(steps) > FULL_SCALE))
        steps = np.clip(steps, -FULL_SCALE, FULL_SCALE - 1)
        try:
            assert self._file is not None
            self._file.write(steps.astype(np.int32) << 8)
        except soundfile.LibsndfileError as error:
            raise OSError(str(error)) from error
        self._samples += len(samples)

    def commit(self, *, to_disk: bool = False) -> int:
        """Make complete frames readable, with ``to_disk`` also after a power cut; return how many samples that is."""
        header = os.pread(self._header, _HEADER, 0)
        frame = int.from_bytes(header[_BLOCK_SIZE_AT : _BLOCK_SIZE_AT + 2], "big")
        if len(header) == _HEADER and frame and self._samples:
            complete = (self._samples - 1) // frame * frame  # the encoder holds a frame back until the next begins
            if complete > self._committed:
                field = int.from_bytes(header[_TOTAL_AT : _TOTAL_AT + 8], "big") >> _TOTAL_BITS << _TOTAL_BITS
                os.pwrite(self._header, (field | complete).to_bytes(8, "big"), _TOTAL_AT)
                self._committed = complete
        if to_disk:
            os.fsync(self._header)
        return self._committed

    def close(self) -> None:
        """Write the rest. May be called twice."""
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
                os.fsync(self._header)
        except soundfile.LibsndfileError as error:
            raise OSError(str(error)) from error
        finally:
            if self._header >= 0:
                os.close(self._header)
                self._header = -1
