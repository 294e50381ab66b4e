"""The decoder finds every undamaged frame however the bytes are split, and survives any other input."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.constants import MAX_ENCODED
from firmware_bridge.decoder import FrameDecoder, FrameFault
from firmware_bridge.framing import Frame, encode_frame, encode_message
from firmware_bridge.messages import Audio, Log, Status


def _stream(count: int, seed: int = 0) -> tuple[bytes, list[int]]:
    """Frames in a row and where each one ends."""
    rng = random.Random(seed)
    wire, ends = bytearray(), []
    for seq in range(count):
        data = bytes(rng.choice([0, 0, 1, 255, rng.randrange(256)]) for _ in range(rng.choice([0, 40, 320, 900])))
        wire += encode_message(Audio(1, len(data) // 2, data), seq=seq, sample_index=seq * 160)
        ends.append(len(wire))
    return bytes(wire), ends


_WIRE, _ENDS = _stream(30)
_WHOLE = FrameDecoder().feed(_WIRE)


@given(st.lists(st.integers(0, len(_WIRE)), max_size=40))
def test_any_split_gives_the_same_frames(splits: list[int]) -> None:
    edges = [0, *sorted(splits), len(_WIRE)]
    decoder = FrameDecoder()
    found = [item for begin, end in pairwise(edges) for item in decoder.feed(_WIRE[begin:end])]
    assert found == _WHOLE
    assert len(found) == 30 and decoder.faults == 0


def test_byte_by_byte_too() -> None:
    decoder = FrameDecoder()
    assert [item for byte in _WIRE for item in decoder.feed(bytes([byte]))] == _WHOLE


@given(st.integers(0, len(_WIRE) - 1), st.integers(1, 255))
@pytest.mark.requirement("AUD-4")
def test_one_changed_byte_costs_at_most_one_frame(at: int, change: int) -> None:
    wire = bytearray(_WIRE)
    wire[at] ^= change
    frames = [item for item in FrameDecoder().feed(wire) if isinstance(item, Frame)]
    missing = [frame for frame in _WHOLE if frame not in frames]
    assert len(missing) <= 1
    assert all(frame in _WHOLE for frame in frames)


def test_a_host_that_joins_late_counts_no_fault_for_the_frame_that_began_before() -> None:
    decoder = FrameDecoder()
    found = decoder.feed(_WIRE[_ENDS[0] - 3 :])
    assert found == _WHOLE[1:]
    assert decoder.skipped_bytes == 2 and decoder.faults == 0


def test_noise_without_an_end_is_not_kept() -> None:
    decoder = FrameDecoder()
    decoder.feed(b"\0")
    for _ in range(200):
        assert decoder.feed(b"\x55" * 1000) == []
        assert decoder.pending_bytes <= MAX_ENCODED
    assert decoder.feed(b"\0") == [FrameFault("oversize", 200_000)]
    assert decoder.feed(encode_message(Log(20, "alive"), seq=1))


def test_every_kind_of_fault_is_named() -> None:
    good = encode_message(Status(5), seq=1)
    decoder = FrameDecoder()
    decoder.feed(b"\0")
    wires = {
        "cobs": b"\xfe\x01\0",
        "length": b"\x02\x01\0",
        "crc": good[1:-2] + bytes([good[-2] ^ 1 or 2]) + b"\0",
        "version": encode_frame(Frame(3, version=0x25)),
    }
    for reason, wire in wires.items():
        (fault,) = decoder.feed(wire)
        assert isinstance(fault, FrameFault) and fault.reason == reason
    assert decoder.faults == 4
    assert fault.version == 2
    assert isinstance(decoder.feed(encode_frame(Frame(3, version=0x1F)))[0], Frame)  # a later minor version


def _fuzz(total: int, seed: int) -> None:
    rng = random.Random(seed)
    wire, _ = _stream(200, seed)
    decoder = FrameDecoder()
    fed = frames = 0
    while fed < total:
        kind = rng.randrange(3)
        if kind == 0:
            data = rng.randbytes(rng.choice([1, 50, 5000]))
        elif kind == 1:
            data = bytes(rng.choices([0, 1, 2, 254, 255], k=rng.randrange(1, 3000)))
        else:
            begin = rng.randrange(len(wire))
            mutated = bytearray(wire[begin : begin + rng.randrange(1, 6000)])
            for _ in range(rng.randrange(8)):
                mutated[rng.randrange(len(mutated))] = rng.randrange(256)
            data = bytes(mutated)
        found = decoder.feed(data)
        frames += sum(isinstance(item, Frame) for item in found)
        assert decoder.pending_bytes <= MAX_ENCODED
        fed += len(data)
    assert frames > total / 5000  # the undamaged ones among them were found
    assert decoder.faults > total / 5000


def test_a_million_random_and_mutated_bytes_do_no_harm() -> None:
    _fuzz(1_000_000, 1)


@pytest.mark.long
def test_ten_million_random_and_mutated_bytes_do_no_harm() -> None:
    _fuzz(10_000_000, 2)
