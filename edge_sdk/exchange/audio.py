"""Audio on the way out: the exact samples as integers, in a file without tags, talking muted where it was found."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile

from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.examination import ExaminedRecording

Samples: TypeAlias = npt.NDArray[np.int16] | npt.NDArray[np.int32]

_SHORT = {"PCM_S8", "PCM_U8", "PCM_16", "ULAW", "ALAW"}  # 16 bits hold each of their values
_LONG = {"PCM_24", "PCM_32"}


@dataclass(frozen=True, slots=True)
class ExactAudio:
    """Samples of one channel as integers at full scale."""

    samples: Samples  # [n]; int16 where 16 bits hold every value, else int32
    sample_rate: int  # Hz
    bits: int  # 16, 24 (in the upper bits of int32) or 32
    exact: bool = True  # False: the file has floats between the steps of 32 bits, or channels were averaged
    muted: tuple[tuple[float, float], ...] = ()  # stretches in seconds that were set to zero

    @property
    def content_type(self) -> str:
        """MIME type of :meth:`file`."""
        return "audio/flac" if self.bits <= 24 else "audio/wav"

    @property
    def suffix(self) -> str:
        """Suffix of a file of it."""
        return ".flac" if self.bits <= 24 else ".wav"

    def file(self) -> bytes:
        """Encode a lossless file without tags: FLAC, or WAV where FLAC has too few bits."""
        buffer = io.BytesIO()
        kind = "FLAC" if self.bits <= 24 else "WAV"
        soundfile.write(buffer, self.samples, self.sample_rate, format=kind, subtype=f"PCM_{self.bits}")
        return buffer.getvalue()

    def mute(self, stretches: Sequence[tuple[float, float]]) -> ExactAudio:
        """Set stretches ``(start_s, end_s)`` to zero; the number of samples stays."""
        samples = self.samples.copy()
        for start_s, end_s in stretches:
            samples[int(start_s * self.sample_rate) : int(np.ceil(end_s * self.sample_rate))] = 0
        return replace(self, samples=samples, muted=(*self.muted, *stretches))


def exact_audio(recording: ExaminedRecording) -> ExactAudio:
    """Read the channel that was screened.

    Raises
    ------
    ExchangeError
        The audio is not at hand.
    AudioError
        It cannot be read.
    """
    from edge_sdk.sources.file import open_recording

    if recording.audio is None:
        raise ExchangeError(f"the audio of {recording.source} is not at hand; name its folder (--audio-dir DIR)")
    with open_recording(recording.audio) as file:
        subtype, rate = str(file.subtype), int(file.samplerate)
        kind = "int16" if subtype in _SHORT else "int32" if subtype in _LONG else "float64"
        frames: npt.NDArray[Any] = file.read(dtype=kind, always_2d=True)  # [n, channels]
    if recording.channel == "mix" and frames.shape[1] > 1:
        full = 1 if kind == "float64" else 1 << (8 * frames.dtype.itemsize - 1)
        return replace(_from_floats(frames.astype(np.float64).mean(axis=1) / full, rate), exact=False)
    samples = np.ascontiguousarray(frames[:, 0 if recording.channel == "mix" else recording.channel])
    if kind == "float64":
        return _from_floats(samples, rate)
    return _fewest_bits(samples, rate)


def _from_floats(samples: npt.NDArray[np.float64], rate: int) -> ExactAudio:
    scaled = samples * 2.0**31
    whole = np.clip(np.rint(scaled), -(2.0**31), 2.0**31 - 1)
    return replace(_fewest_bits(whole.astype(np.int32), rate), exact=bool(np.array_equal(whole, scaled)))


def _fewest_bits(samples: npt.NDArray[Any], rate: int) -> ExactAudio:
    if samples.dtype == np.int16:
        return ExactAudio(samples, rate, 16)
    if not np.any(samples & 0xFFFF):
        return ExactAudio((samples >> 16).astype(np.int16), rate, 16)
    return ExactAudio(samples, rate, 32 if np.any(samples & 0xFF) else 24)
