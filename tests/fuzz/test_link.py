"""Any bytes and any frames with a valid CRC: the receiver raises errors of the link only, and holds a bounded queue.

The C library has its own: ``firmware_bridge/c/test/fuzz_stetho_link.c``, run by ``tests/firmware_bridge``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from firmware_bridge.adpcm import AdpcmState
from firmware_bridge.audio import encode_audio, to_integers
from firmware_bridge.constants import MAX_ENCODED, MAX_PAYLOAD, Codec, MessageType
from firmware_bridge.errors import LinkError
from firmware_bridge.framing import Frame, encode_frame, encode_message
from firmware_bridge.messages import End, Info, Log, Message, Status, StreamFormat
from firmware_bridge.receiver import Callbacks, Receiver
from tests.fuzz.mutations import DURATIONS, bounded, damaged, edits, fuzz

RATE = 4000


def audio(size: int, codec: Codec = Codec.S16) -> Message:
    return encode_audio(to_integers(np.full(size, 0.25, np.float32), codec), codec, AdpcmState())


def conversation() -> list[tuple[Message, int]]:
    """Messages of a device with their sample indices."""
    blocks: list[tuple[Message, int]] = [(audio(40), 40 * k) for k in range(20)]
    start: list[tuple[Message, int]] = [(Info("A", "m", boot_id=1), 0), (StreamFormat(RATE, clock_id=7), 0)]
    rest: list[tuple[Message, int]] = [
        (audio(40, Codec.ADPCM), 800),
        (Status(5), 840),
        (Log(20, "text"), 840),
        (End(840), 840),
    ]
    return [*start, *blocks, *rest]


def receive(wires: list[bytes]) -> None:
    """Feed the receiver of a link whose audio is on; what it delivers has its place in an ascending order."""
    receiver = Receiver("port", callbacks=Callbacks(), resume=None, channel=0, max_queued_s=0.05)
    receiver.streaming = True
    at: dict[int, int] = {}
    for k, wire in enumerate(wires):
        try:
            receiver.take(wire, 1_000_000 * k)
        except LinkError:
            return
        longest = max((block.samples.size for block in receiver.blocks), default=0)
        rate = RATE if receiver.format is None else receiver.format.rate_hz
        assert receiver._queued <= max(longest, 0.05 * rate) and receiver._decoder.pending_bytes <= MAX_ENCODED
        assert len(receiver._early) <= 256
        if k % 3 == 0 and receiver.blocks:
            block = receiver.next_block()
            assert block.samples.dtype == np.float32 and np.isfinite(block.samples).all()
            assert 0 <= block.lost_before < 1 << 46, "no gap is longer than the firmware's highest rate allows"
            assert block.sample_index >= at.get(block.clock_id, 0) or not block.lost_exact
            at[block.clock_id] = block.sample_index + block.samples.size
    receiver.stats, receiver.clock, receiver.resume_point  # noqa: B018 - they may be read at any time


@pytest.mark.parametrize("duration_s", DURATIONS)
def test_any_bytes(duration_s: float) -> None:
    wire = b"".join(encode_message(message, seq=k, sample_index=at) for k, (message, at) in enumerate(conversation()))

    def check(changes: Any, size: int) -> None:
        content = damaged(wire, changes)
        with bounded():
            receive([content[k : k + size] for k in range(0, len(content), size)])

    fuzz(check, edits, st.sampled_from((7, 64, 333, 5000)), duration_s=duration_s, examples=60)


_frame = st.builds(
    Frame,
    type=st.one_of(st.sampled_from(MessageType), st.integers(0, 255)),
    seq=st.integers(0, 0xFFFF),
    sample_index=st.one_of(st.integers(0, 2000), st.integers(0, (1 << 64) - 1)),
    payload=st.binary(max_size=80),
    flags=st.integers(0, 255),
    stream=st.sampled_from((0, 0, 0, 1, 255)),
    version=st.sampled_from((0x10, 0x10, 0x10, 0x1F, 0x20)),
)


@pytest.mark.parametrize("duration_s", DURATIONS)
def test_any_frames_with_a_valid_crc(duration_s: float) -> None:
    """Firmware that is wrong, not a cable: payloads of known messages with edits, and anything else."""
    messages = conversation()

    def check(parts: list[Any]) -> None:
        wires = []
        for part in parts:
            if isinstance(part, Frame):
                wires.append(encode_frame(part))
            else:
                which, changes = part
                message, at = messages[which]
                payload = damaged(message.pack(), changes)[:MAX_PAYLOAD] if changes else message.pack()
                wires.append(encode_frame(Frame(message.TYPE, 0, at, payload)))
        with bounded():
            receive(wires)

    known = st.tuples(st.integers(0, len(messages) - 1), st.one_of(st.just([]), edits))
    fuzz(check, st.lists(st.one_of(known, _frame), min_size=1, max_size=40), duration_s=duration_s, examples=60)
