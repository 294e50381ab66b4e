"""A sink in its own thread: the caller never waits, order and times are right, errors are raised."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from edge_sdk.events import AudioBlock, Gap, Health, StreamStats
from edge_sdk.runtime.background import BackgroundSink
from tests.runtime.test_session import ListSink

RATE = 4000


class BlockedSink(ListSink):
    """A sink that blocks until the test releases it."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()
        self.order: list[str] = []

    def audio(self, block: AudioBlock) -> None:
        self.released.wait(10)
        super().audio(block)
        self.order.append(f"audio {block.first_sample}")

    def event(self, event: Any, latency_ms: float | None) -> None:
        super().event(event, latency_ms)
        self.order.append("event")

    def health(self, change: Health) -> None:
        self.order.append(change.state)


def block(index: int, size: int = 400, lost: int = 0) -> AudioBlock:
    return AudioBlock(np.full(size, index / 1000, np.float32), RATE, index * 400, 0, lost)


def test_the_caller_never_waits_and_order_is_kept() -> None:
    slow = BlockedSink()
    sink = BackgroundSink(slow)
    sink.open("x", RATE)
    before = time.monotonic()
    for k in range(100):
        sink.audio(block(k))
        if k == 50:
            sink.event(Gap(0, 1, RATE), None)
            sink.health(Health("stalled", "", 0))
    assert time.monotonic() - before < 1.0
    slow.released.set()
    sink.close(StreamStats(samples_in=7))
    expected = [f"audio {400 * k}" for k in range(100)]
    expected[51:51] = ["event", "stalled"]
    assert slow.order == expected
    assert slow.closed == [StreamStats(samples_in=7)] and slow.threads != {threading.get_ident()}
    assert sink.left_out == 0


def test_audio_without_room_is_counted_and_times_stay_right() -> None:
    slow = BlockedSink()
    sink = BackgroundSink(slow, waiting_s=1.0)
    sink.open("x", RATE)
    for k in range(30):
        sink.audio(block(k, lost=5 if k == 20 else 0))
    assert sink.left_out == 20 * 400
    slow.released.set()
    deadline = time.monotonic() + 5
    while len(slow.blocks) < 10 and time.monotonic() < deadline:
        time.sleep(0.005)
    sink.audio(block(30))
    sink.close(StreamStats())
    assert [b.first_sample for b in slow.blocks] == [400 * k for k in [*range(10), 30]]
    assert [b.lost_before for b in slow.blocks] == [0] * 10 + [20 * 400 + 5]


def test_the_recording_of_a_source_that_can_wait_makes_it_wait() -> None:
    slow = BlockedSink()
    sink = BackgroundSink(slow, waiting_s=0.2, wait=True)
    sink.open("x", RATE)
    threading.Timer(0.2, slow.released.set).start()
    for k in range(30):
        sink.audio(block(k))
    sink.close(StreamStats())
    assert sink.left_out == 0 and len(slow.blocks) == 30


def test_what_the_sink_raises_reaches_the_caller_and_it_is_closed() -> None:
    broken = ListSink(fail_on_event=OSError("disk full"))
    sink = BackgroundSink(broken)
    sink.open("x", RATE)
    sink.event(Gap(0, 1, RATE), None)
    time.sleep(0.2)
    with pytest.raises(OSError, match="disk full"):
        sink.audio(block(0))
    sink.close(StreamStats())
    assert len(broken.closed) == 1


def test_an_error_while_closing_is_raised() -> None:
    class Stubborn(ListSink):
        def close(self, stats: StreamStats) -> None:
            raise OSError("cannot flush")

    sink = BackgroundSink(Stubborn())
    sink.open("x", RATE)
    with pytest.raises(OSError, match="cannot flush"):
        sink.close(StreamStats())
    assert not [t for t in threading.enumerate() if t.name == "stetho-sink"]
