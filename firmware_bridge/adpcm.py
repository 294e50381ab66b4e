"""IMA-ADPCM, 4 bits a sample. Each block begins with the codec state, so a lost block does not affect the next one.

IMA Digital Audio Focus and Technical Working Groups, "Recommended Practices for Enhancing Digital Audio
Compatibility in Multimedia Systems", revision 3.00 (1992).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from firmware_bridge.errors import ProtocolError

# fmt: off
STEPS = (
    7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 19, 21, 23, 25, 28, 31, 34, 37, 41, 45, 50, 55, 60, 66, 73, 80, 88, 97, 107,
    118, 130, 143, 157, 173, 190, 209, 230, 253, 279, 307, 337, 371, 408, 449, 494, 544, 598, 658, 724, 796, 876, 963,
    1060, 1166, 1282, 1411, 1552, 1707, 1878, 2066, 2272, 2499, 2749, 3024, 3327, 3660, 4026, 4428, 4871, 5358, 5894,
    6484, 7132, 7845, 8630, 9493, 10442, 11487, 12635, 13899, 15289, 16818, 18500, 20350, 22385, 24623, 27086, 29794,
    32767,
)
# fmt: on
_INDEX_CHANGE = (-1, -1, -1, -1, 2, 4, 6, 8) * 2
_BLOCK_HEADER = struct.Struct("<hBx")


def _step_tables() -> tuple[list[list[int]], list[list[int]]]:
    change = [[0] * 16 for _ in STEPS]
    following = [[0] * 16 for _ in STEPS]
    for index, step in enumerate(STEPS):
        for code in range(16):
            size = (
                (step >> 3)
                + (step if code & 4 else 0)
                + (step >> 1 if code & 2 else 0)
                + (step >> 2 if code & 1 else 0)
            )
            change[index][code] = -size if code & 8 else size
            following[index][code] = min(max(index + _INDEX_CHANGE[code], 0), len(STEPS) - 1)
    return change, following


_CHANGE, _FOLLOWING = _step_tables()


@dataclass(slots=True)
class AdpcmState:
    """State of encoder and decoder: the last value and the index of the step size."""

    predictor: int = 0
    index: int = 0


def encode_adpcm(samples: Iterable[int], state: AdpcmState) -> bytes:
    """Encode 16-bit samples as one block: a header with the state before it, then two samples a byte.

    Updates ``state``.
    """
    predictor, index = state.predictor, state.index
    block = bytearray(_BLOCK_HEADER.pack(predictor, index))
    low: int | None = None
    for sample in samples:
        step = STEPS[index]
        difference = sample - predictor
        code = 0
        if difference < 0:
            code, difference = 8, -difference
        if difference >= step:
            code |= 4
            difference -= step
        step >>= 1
        if difference >= step:
            code |= 2
            difference -= step
        if difference >= step >> 1:
            code |= 1
        predictor = min(max(predictor + _CHANGE[index][code], -32768), 32767)
        index = _FOLLOWING[index][code]
        if low is None:
            low = code
        else:
            block.append(low | code << 4)
            low = None
    if low is not None:
        block.append(low)
    state.predictor, state.index = predictor, index
    return bytes(block)


def decode_adpcm(block: bytes, count: int) -> list[int]:
    """Decode ``count`` samples of one block.

    Raises
    ------
    ProtocolError
        If the block is too short or its step index is out of range.
    """
    if len(block) < _BLOCK_HEADER.size + (count + 1) // 2:
        raise ProtocolError(f"ADPCM block of {len(block)} bytes for {count} samples")
    predictor, index = _BLOCK_HEADER.unpack_from(block)
    if index >= len(STEPS):
        raise ProtocolError(f"ADPCM step index {index}")
    samples: list[int] = []
    for position in range(count):
        byte = block[_BLOCK_HEADER.size + position // 2]
        code = byte >> 4 if position & 1 else byte & 15
        predictor = min(max(predictor + _CHANGE[index][code], -32768), 32767)
        index = _FOLLOWING[index][code]
        samples.append(predictor)
    return samples
