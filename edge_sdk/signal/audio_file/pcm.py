"""Plain samples: integers and floats of every width, companded bytes; and the wrong byte order that shows in them."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Encoding: TypeAlias = Literal["signed", "unsigned", "float", "ulaw", "alaw"]
Floats: TypeAlias = npt.NDArray[np.float32]


class Coding(NamedTuple):
    """How one sample is written."""

    encoding: Encoding
    width: int  # bytes
    big_endian: bool = False

    @property
    def is_float(self) -> bool:
        """Whether samples may lie beyond ±1."""
        return self.encoding == "float"


def decode(raw: bytes, coding: Coding, channels: int) -> Floats:
    """Samples ``[n, channels]`` of whole frames, integers in ±1, floats as they are; a rest of a frame is ignored."""
    usable = len(raw) // (coding.width * channels) * coding.width * channels
    flat = _decode_flat(memoryview(raw)[:usable], coding)
    return flat.reshape(-1, channels)


def _decode_flat(raw: memoryview, coding: Coding) -> Floats:
    order = ">" if coding.big_endian else "<"
    if coding.encoding == "float":
        return np.frombuffer(raw, f"{order}f{coding.width}").astype(np.float32)
    if coding.encoding in ("ulaw", "alaw"):
        return _companded(coding.encoding)[np.frombuffer(raw, np.uint8)]
    if coding.width == 1:
        values = np.frombuffer(raw, np.int8 if coding.encoding == "signed" else np.uint8).astype(np.float32)
        return (values if coding.encoding == "signed" else values - np.float32(128)) * np.float32(2.0**-7)
    if coding.width == 3:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 0 if coding.big_endian else 1 :][:, :3] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        return wide.view(f"{order}i4")[:, 0].astype(np.float32) * np.float32(2.0**-31)
    scale = np.float32(2.0 ** (1 - 8 * coding.width))
    return np.frombuffer(raw, f"{order}i{coding.width}").astype(np.float32) * scale


@lru_cache(maxsize=2)
def _companded(law: str) -> Floats:
    """The 256 values of ITU-T G.711, as 16-bit samples in ±1."""
    code = np.arange(256)
    if law == "ulaw":
        code = ~code & 0xFF
        size = (((code & 0x0F) << 3) + 0x84) << (code >> 4 & 7)
        values = np.where(code & 0x80, 0x84 - size, size - 0x84)
    else:
        code = code ^ 0x55
        exponent, mantissa = code >> 4 & 7, (code & 0x0F) << 4
        size = np.where(exponent == 0, mantissa + 8, (mantissa + 0x108) << np.maximum(exponent - 1, 0))
        values = np.where(code & 0x80, size, -size)
    return (values / 32768.0).astype(np.float32)


# -- byte order --------------------------------------------------------------------------------------------------------

_PROBE_FRAMES = 1024
_WHITE = 1.0  # change between neighbours over the signal's power: 2 for white noise, far less for recorded audio
_SMOOTH = 0.25
_LOUD = 0.1  # RMS: misread samples fill the whole range


def misread(raw: bytes, coding: Coding, channels: int) -> str | None:
    """Whether integers of two bytes and more make sense only in another byte order or shifted by a byte.

    Recorded audio is smooth at its rate; misread, its lowest byte becomes the highest and the result is loud and white.
    Only where another reading is smooth is this one called wrong, so that true noise passes.

    Parameters
    ----------
    raw
        Some consecutive frames.
    coding, channels
        As the header gives them.

    Returns
    -------
    str or None
        What the samples are instead ("it holds ..."); None where they are plausible or nothing better is found.
    """
    if coding.encoding != "signed" or coding.width < 2:
        return None
    size = coding.width * channels
    raw = raw[: _PROBE_FRAMES * size]
    as_read = decode(raw, coding, channels)
    if len(as_read) < 256 or float(np.std(as_read[:, 0])) < _LOUD:
        return None
    if any(_roughness(as_read[:, channel]) < _WHITE for channel in range(channels)):  # a byte is missing in all or none
        return None
    swapped = Coding("signed", coding.width, not coding.big_endian)
    orders = {False: "little-endian", True: "big-endian"}
    if _roughness(decode(raw, swapped, channels)[:, 0]) < _SMOOTH:
        return f"{orders[swapped.big_endian]} samples in a file for {orders[coding.big_endian]} ones, or shifted ones,"
    for shift in (count for count in range(1, size) if count % coding.width):  # else channels change places
        shifted = raw[shift:]
        for other in (coding, swapped):
            samples = decode(shifted, other, channels)[:, 0]
            if _roughness(samples) < _SMOOTH and float(np.ptp(samples)) > 0:
                return f"samples shifted by {shift} byte{'s'[: shift > 1]}"
    return None


def _roughness(samples: Floats) -> float:
    """Power of the change from sample to sample over the power of the signal."""
    power = float(np.var(samples, dtype=np.float64))
    return float(np.mean(np.square(np.diff(samples), dtype=np.float64))) / power if power > 0 else 0.0
