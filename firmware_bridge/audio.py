"""Samples to AUDIO payloads and back; full scale is ±1, exact for 16 and 24 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from firmware_bridge import adpcm
from firmware_bridge.errors import ProtocolError
from firmware_bridge.framing import Audio, Codec

Samples = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]

BITS = {Codec.S16: 16, Codec.S24: 24, Codec.ADPCM: 16}


def to_integers(samples: npt.NDArray[np.floating[Any]], codec: Codec) -> Integers:
    """Round ±1 to the codec's integers, saturating; the inverse of :func:`to_float`."""
    full = 1 << BITS[codec] - 1
    return np.clip(np.rint(samples.astype(np.float64) * full), -full, full - 1).astype(np.int32)


def to_float(integers: Integers, codec: Codec) -> Samples:
    """``x / 2**(bits - 1)``: exact in float32."""
    return (integers / np.float32(1 << BITS[codec] - 1)).astype(np.float32)


def encode(integers: Integers, codec: Codec, state: adpcm.State) -> Audio:
    """Pack one channel; ``state`` is used and moved on by ADPCM only."""
    if codec is Codec.S16:
        data = integers.astype("<i2").tobytes()
    elif codec is Codec.S24:
        data = integers.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    else:
        data = adpcm.encode(integers.tolist(), state)
    return Audio(codec, integers.size, data)


def decode(audio: Audio, channels: int = 1) -> Integers:
    """Integers ``[count, channels]``.

    Raises
    ------
    ProtocolError
        If the codec is unknown or the data are shorter than ``count`` says.
    """
    wanted = audio.count * channels
    if audio.codec == Codec.S16:
        values = _whole(audio, 2 * wanted).view("<i2").astype(np.int32)
    elif audio.codec == Codec.S24:
        wide = np.zeros((wanted, 4), np.uint8)
        wide[:, 1:] = _whole(audio, 3 * wanted).reshape(-1, 3)
        values = wide.reshape(-1).view("<i4") >> 8  # arithmetic: brings the sign down
    elif audio.codec == Codec.ADPCM and channels == 1:
        values = np.array(adpcm.decode(audio.data, audio.count), np.int32)
    else:
        raise ProtocolError(f"AUDIO codec {audio.codec} with {channels} channels")
    return np.asarray(values, np.int32).reshape(audio.count, channels)


def _whole(audio: Audio, size: int) -> npt.NDArray[np.uint8]:
    if len(audio.data) < size:
        raise ProtocolError(f"AUDIO payload holds {len(audio.data)} of {size} bytes")
    return np.frombuffer(audio.data, np.uint8, size)
