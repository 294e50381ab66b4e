"""The session: what the source delivers reaches the sinks, whole or with every loss counted, and it always ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from edge_sdk.errors import AudioError, EngineError, SourceLostError
from edge_sdk.events import AudioBlock, CycleResult, Event, Gap, StreamStats
from edge_sdk.runtime.bundle.load import Bundle
from edge_sdk.runtime.inbox import Inbox
from edge_sdk.runtime.session import Session
from edge_sdk.sources.phantom import PhantomSource
from tests.runtime.conftest import phantom

RATE = 4000


@dataclass
class ListSink:
    """A sink that keeps everything."""

    delay_s: float = 0.0
    fail_on_event: BaseException | None = None
    opened: list[tuple[str, int]] = field(default_factory=list)
    blocks: list[AudioBlock] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    latencies_ms: list[float | None] = field(default_factory=list)
    closed: list[StreamStats] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def open(self, source: str, sample_rate: int) -> None:
        self.opened.append((source, sample_rate))

    def audio(self, block: AudioBlock) -> None:
        self.threads.add(threading.get_ident())
        self.blocks.append(block)
        time.sleep(self.delay_s)

    def event(self, event: Event, latency_ms: float | None) -> None:
        if self.fail_on_event is not None:
            raise self.fail_on_event
        self.events.append(event)
        self.latencies_ms.append(latency_ms)

    def close(self, stats: StreamStats) -> None:
        self.closed.append(stats)


class ListSource:
    """Blocks of a recording, then perhaps an error."""

    name = "list"
    sample_rate = RATE

    def __init__(self, samples: np.ndarray, *, step: int = 400, live: bool = False, error: BaseException | None = None,
                 endless: bool = False) -> None:  # fmt: skip
        self.live = live
        self._samples, self._step, self._error, self._endless = samples, step, error, endless
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[AudioBlock]:
        for begin in range(0, self._samples.size, self._step):
            if self.closed.is_set():
                return
            yield AudioBlock(self._samples[begin : begin + self._step], RATE, begin)
        if self._error is not None:
            raise self._error
        if self._endless:
            self.closed.wait(20)

    def close(self) -> None:
        self.closed.set()


def direct(bundle: Bundle, samples: np.ndarray) -> list[Event]:
    stream = bundle.stream(RATE)
    return stream.accept(samples) + stream.finish()


def alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "stetho-source"]


def test_a_session_gives_what_the_stream_gives(bundle: Bundle) -> None:
    sink, other = ListSink(), ListSink()
    stats = Session(ListSource(phantom()), bundle, [sink, other]).run()
    assert sink.events == other.events == direct(bundle, phantom())
    assert sink.opened == [("list", RATE)]
    assert sink.closed == [stats]
    assert stats.samples_in == phantom().size and stats.samples_lost == 0
    assert sink.threads == {threading.get_ident()}
    assert set(sink.latencies_ms) == {None}
    assert alive() == []


def test_a_slow_sink_makes_a_recording_wait_and_loses_nothing(bundle: Bundle) -> None:
    sink = ListSink(delay_s=0.002)
    stats = Session(ListSource(phantom()), bundle, [sink], queue_s=0.2).run()
    assert stats.samples_lost == 0
    assert sink.events == direct(bundle, phantom())


@pytest.mark.requirement("AUD-1")
def test_a_slow_sink_on_a_live_source_drops_exactly_what_is_counted(bundle: Bundle) -> None:
    audio, sink = phantom("healthy", 30.0), ListSink(delay_s=0.004)
    session = Session(ListSource(audio, live=True), bundle, [sink], queue_s=1.0)
    stats = session.run()
    assert stats.samples_lost > 0
    assert stats.samples_in + stats.samples_lost == audio.size
    assert session.dropped == stats.samples_lost
    gaps = [e for e in sink.events if isinstance(e, Gap)]
    assert sum(gap.count for gap in gaps) == stats.samples_lost and len(gaps) == stats.gaps
    received = np.concatenate([block.samples for block in sink.blocks])
    kept = np.concatenate([audio[b.first_sample : b.first_sample + b.samples.size] for b in sink.blocks])
    assert np.array_equal(received, kept), "each block keeps its own index"


def test_paced_audio_has_a_latency(bundle: Bundle) -> None:
    sink = ListSink()
    source = PhantomSource("asthma", seed=1_000_010, duration_s=6.0, sample_rate=RATE, paced=True, speed=20.0)
    Session(source, bundle, [sink]).run()
    cycles = [ms for e, ms in zip(sink.events, sink.latencies_ms, strict=True) if isinstance(e, CycleResult)]
    assert len(cycles) >= 2
    assert all(ms is not None and ms >= 0 for ms in cycles)


def test_an_error_of_the_source_arrives_in_the_users_thread_after_what_came_before(bundle: Bundle) -> None:
    sink = ListSink()
    with pytest.raises(AudioError, match="NaN at 3 s"):
        Session(ListSource(phantom(), error=AudioError("NaN at 3 s")), bundle, [sink]).run()
    assert sink.events == direct(bundle, phantom())
    assert len(sink.closed) == 1
    assert alive() == []


def test_a_source_that_dies_is_a_lost_source(bundle: Bundle) -> None:
    sink = ListSink()
    with pytest.raises(SourceLostError, match="list stopped delivering audio") as raised:
        Session(ListSource(phantom(), error=ZeroDivisionError("driver")), bundle, [sink]).run()
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert len(sink.closed) == 1


def test_nan_in_a_block_of_the_source_ends_the_session_cleanly(bundle: Bundle) -> None:
    broken = phantom().copy()
    broken[20_000] = np.nan
    sink, source = ListSink(), ListSource(broken)
    with pytest.raises(AudioError, match="sample 20000"):
        Session(source, bundle, [sink]).run()
    assert source.closed.is_set() and len(sink.closed) == 1 and alive() == []


def test_a_sink_that_fails_stops_everything_and_the_others_are_closed(bundle: Bundle) -> None:
    good, bad = ListSink(), ListSink(fail_on_event=OSError("disk full"))
    source = ListSource(phantom(), endless=True)
    with pytest.raises(OSError, match="disk full"):
        Session(source, bundle, [good, bad]).run()
    assert source.closed.is_set()
    assert len(good.closed) == len(bad.closed) == 1
    assert alive() == []


def test_ctrl_c_closes_everything_and_passes_on_the_last_breath(bundle: Bundle) -> None:
    class InterruptingSink(ListSink):
        def audio(self, block: AudioBlock) -> None:
            super().audio(block)
            if block.first_sample >= 28_000:
                raise KeyboardInterrupt

    sink, source = InterruptingSink(), ListSource(phantom(), endless=True)
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Session(source, bundle, [sink]).run()
    assert time.monotonic() - before < 5
    assert len(sink.closed) == 1 and source.closed.is_set() and alive() == []
    assert [e for e in sink.events if isinstance(e, CycleResult)][-1].cycle.end >= 20_000


def test_a_source_that_waits_can_be_interrupted(bundle: Bundle) -> None:
    source = ListSource(phantom(), endless=True)
    session = Session(source, bundle, [ListSink()])

    def close_once_all_is_received() -> None:
        give_up = time.monotonic() + 60
        while session.stats.samples_in < phantom().size and time.monotonic() < give_up:
            time.sleep(0.01)
        source.close()

    closer = threading.Thread(target=close_once_all_is_received)
    closer.start()
    assert session.run().samples_in == phantom().size
    closer.join()


def test_an_engine_that_fails_raises_in_the_users_thread(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise EngineError("out of memory")

    monkeypatch.setattr(type(bundle.engine), "run", lambda self, inputs: fail(inputs))
    with pytest.raises(EngineError, match="out of memory"):
        Session(ListSource(phantom()), bundle, [ListSink()]).run()
    assert alive() == []


def test_a_full_inbox_drops_the_oldest_and_counts_it() -> None:
    inbox = Inbox(1000, drop_oldest=True)
    for i in range(10):
        assert inbox.put(AudioBlock(np.zeros(300, np.float32), RATE, i * 300))
    inbox.end()
    blocks = []
    while (block := inbox.get(0.0)) is not None:
        blocks.append(block)
    assert [b.first_sample for b in blocks] == [2100, 2400, 2700]
    assert [b.lost_before for b in blocks] == [2100, 0, 0]
    assert inbox.dropped == 2100 and inbox.exhausted


def test_what_a_stall_held_back_is_worked_off_not_dropped() -> None:
    """Three times what the queue holds, all at once, and a reader that takes a millisecond for each block."""
    inbox = Inbox(1000, drop_oldest=True)
    read: list[AudioBlock] = []

    def work() -> None:
        while not inbox.exhausted:
            block = inbox.get(0.1)
            if block is not None:
                read.append(block)
                time.sleep(0.001)

    reader = threading.Thread(target=work)
    reader.start()
    for i in range(30):
        inbox.put(AudioBlock(np.zeros(100, np.float32), RATE, i * 100))
    inbox.end()
    reader.join(5)
    assert inbox.dropped == 0 and [b.first_sample for b in read] == list(range(0, 3000, 100))


def test_a_reader_that_does_not_read_costs_patience_once() -> None:
    inbox = Inbox(100, drop_oldest=True)
    begin = time.monotonic()
    for i in range(50):
        inbox.put(AudioBlock(np.zeros(100, np.float32), RATE, i * 100))
    assert inbox.dropped == 4900
    assert time.monotonic() - begin < 5.0, "a quarter of a second, not for each of them"


def test_losses_of_the_source_survive_a_drop() -> None:
    inbox = Inbox(500, drop_oldest=True)
    inbox.put(AudioBlock(np.zeros(400, np.float32), RATE, 50, lost_before=50))
    inbox.put(AudioBlock(np.zeros(400, np.float32), RATE, 460, lost_before=10))
    block = inbox.get(0.0)
    assert block is not None and block.first_sample == 460 and block.lost_before == 460


def test_a_block_longer_than_the_queue_still_passes() -> None:
    inbox = Inbox(100, drop_oldest=False)
    assert inbox.put(AudioBlock(np.zeros(5000, np.float32), RATE))
    block = inbox.get(0.0)
    assert block is not None and block.samples.size == 5000


def test_a_writer_is_released_when_the_reader_goes() -> None:
    inbox = Inbox(100, drop_oldest=False)
    inbox.put(AudioBlock(np.zeros(100, np.float32), RATE))
    classified: list[bool] = []
    writer = threading.Thread(
        target=lambda: classified.append(inbox.put(AudioBlock(np.zeros(100, np.float32), RATE, 100)))
    )
    writer.start()
    time.sleep(0.05)
    assert classified == []
    inbox.close()
    writer.join(2)
    assert classified == [False]
