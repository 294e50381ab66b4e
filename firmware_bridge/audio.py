"""Encodes samples as AUDIO payloads and decodes them; full scale is ±1, exact for 16 and 24 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from firmware_bridge.adpcm import AdpcmState, decode_adpcm, encode_adpcm
from firmware_bridge.constants import Codec
from firmware_bridge.errors import ProtocolError
from firmware_bridge.messages import Audio

Samples = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]

BITS = {Codec.S16: 16, Codec.S24: 24, Codec.ADPCM: 16}
"""Bits of a decoded sample by codec."""


def to_integers(samples: npt.NDArray[np.floating[Any]], codec: Codec) -> Integers:
    """Round floats in ±1 to the codec's integers with saturation; same shape. The inverse of :func:`to_float`."""
    full = 1 << BITS[codec] - 1
    return np.clip(np.rint(samples.astype(np.float64) * full), -full, full - 1).astype(np.int32)


def to_float(integers: Integers, codec: Codec) -> Samples:
    """Scale integers by ``2**(1 - bits)`` to floats in ±1, exact in float32; same shape."""
    return (integers / np.float32(1 << BITS[codec] - 1)).astype(np.float32)


def encode_audio(integers: Integers, codec: Codec, state: AdpcmState) -> Audio:
    """Pack ``[n]`` samples of one channel; only ADPCM uses and updates ``state``."""
    if codec is Codec.S16:
        data = integers.astype("<i2").tobytes()
    elif codec is Codec.S24:
        data = integers.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    else:
        data = encode_adpcm(integers.tolist(), state)
    return Audio(codec, integers.size, data)


def decode_audio(audio: Audio, channels: int = 1) -> Integers:
    """Decode a payload to integers ``[count, channels]``.

    Raises
    ------
    ProtocolError
        If the codec is unknown or the data are too short for ``count`` samples.
    """
    values_expected = audio.count * channels
    if audio.codec == Codec.S16:
        values = _checked_bytes(audio, 2 * values_expected).view("<i2").astype(np.int32)
    elif audio.codec == Codec.S24:
        wide = np.zeros((values_expected, 4), np.uint8)
        wide[:, 1:] = _checked_bytes(audio, 3 * values_expected).reshape(-1, 3)
        values = wide.reshape(-1).view("<i4") >> 8  # arithmetic shift: extends the sign
    elif audio.codec == Codec.ADPCM and channels == 1:
        values = np.array(decode_adpcm(audio.data, audio.count), np.int32)
    else:
        raise ProtocolError(f"AUDIO codec {audio.codec} with {channels} channels")
    return np.asarray(values, np.int32).reshape(audio.count, channels)


def _checked_bytes(audio: Audio, size: int) -> npt.NDArray[np.uint8]:
    if len(audio.data) < size:
        raise ProtocolError(f"AUDIO payload holds {len(audio.data)} of {size} bytes")
    return np.frombuffer(audio.data, np.uint8, size)
