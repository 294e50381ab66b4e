"""One stream of a client: audio in, the JSON lines of ``listen`` out, recorded beside; computed by the pool."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.errors import StethoError, describe
from edge_sdk.events import AudioBlock, Event, StreamStats
from edge_sdk.protocols import HealthSink
from edge_sdk.runtime.engines.failover import EngineChanges
from edge_sdk.runtime.session import event_latency_ms
from edge_sdk.screening.recordings import summary_labels
from edge_sdk.server.metrics import ServerMetrics
from edge_sdk.server.streams.pool import StreamPool
from edge_sdk.signal.blocks import BEYOND_FULL_SCALE, on_grid
from edge_sdk.sinks.jsonl import JsonlSink

if TYPE_CHECKING:
    from edge_sdk.protocols import Sink
    from edge_sdk.runtime.bundle.load import Bundle
    from edge_sdk.runtime.stream import Stream

_PIECE_S = 0.5  # audio computed in one turn at most, so that others get theirs


class StreamFeed:
    """Takes blocks in any thread, computes them in the pool's threads.

    Parameters
    ----------
    bundle
        Shared by all streams.
    sample_rate
        Hz.
    metadata
        Of patient and device.
    source
        Name in the lines.
    sinks
        More sinks, for example a recorder in the background.
    deliver
        Called in a thread of the pool with the lines of each piece of work, the summary last of all; ``room``: audio
        that waited was taken.
    full_scale
        Steps of the recording among the sinks, as of :class:`~edge_sdk.runtime.session.Session`.
    """

    def __init__(
        self,
        bundle: Bundle,
        sample_rate: int,
        metadata: Mapping[str, Any],
        source: str,
        sinks: Sequence[Sink],
        pool: StreamPool,
        metrics: ServerMetrics,
        deliver: Callable[[list[dict[str, Any]]], None],
        *,
        full_scale: int | None = None,
    ) -> None:
        self.sample_rate = sample_rate
        self._stream = bundle.stream(sample_rate, metadata or None)
        self._lines: list[dict[str, Any]] = []
        jsonl = JsonlSink(self._lines.append, summary_labels(bundle), running=True)
        self._sinks: list[Sink] = [jsonl, *sinks, metrics.of_streams.sink(source)]
        self._engine = EngineChanges(bundle.engine)
        self._full_scale = full_scale
        self._pool, self._metrics, self._deliver = pool, metrics, deliver
        self._blocks: deque[AudioBlock] = deque()
        self._held = 0  # samples waiting
        self._lock = threading.Lock()
        self._ending = self._ended = False
        self._begun: AudioBlock | None = None  # being computed
        self._computed = 0  # samples
        self._arrivals: list[int] = []  # of what is being computed, monotonic ns
        self._opened: list[Sink] = []
        for sink in self._sinks:
            sink.open(source, sample_rate)
            self._opened.append(sink)

    @property
    def held_s(self) -> float:
        """Seconds of audio that wait."""
        return self._held / self.sample_rate

    @property
    def received_s(self) -> float:
        """Seconds of audio that were computed."""
        return self._computed / self.sample_rate

    def put(self, block: AudioBlock) -> None:
        """Add a block; the caller bounds what waits by :attr:`held_s`."""
        with self._lock:
            if self._ending:
                return
            self._blocks.extend(_pieces(block, round(_PIECE_S * self.sample_rate)))
            self._held += block.samples.size
        self._pool.schedule(self)

    def put_live(self, block: AudioBlock, most_s: float) -> None:
        """Add a block of a source that cannot wait: the oldest samples are dropped and counted where too many wait."""
        with self._lock:
            lost = 0
            while self._blocks and self._held + block.samples.size > most_s * self.sample_rate:
                oldest = self._blocks.popleft()
                self._held -= oldest.samples.size
                lost += oldest.lost_before + oldest.samples.size
            if lost and self._blocks:
                self._blocks[0] = replace(self._blocks[0], lost_before=self._blocks[0].lost_before + lost)
            elif lost:
                block = replace(block, lost_before=block.lost_before + lost)
        self.put(block)

    def end(self) -> None:
        """No more blocks: compute what waits, then the summary."""
        with self._lock:
            self._ending = True
        self._pool.schedule(self)

    def begin(self) -> tuple[Stream, AudioBlock] | None:
        """The next block, up to half a second of audio; the pool calls it."""
        if self._ended:
            return None
        try:
            self._begun = self._on_grid(self._next_block())
        except Exception as error:
            self._fail(error)
            return None
        return None if self._begun is None else (self._stream, self._begun)

    def complete(self, found: list[Event] | Exception) -> bool:
        """Take the events of the block, or the stream's error; the pool calls it."""
        if self._ended:
            return False
        try:
            if isinstance(found, Exception):
                raise found
            if self._begun is not None:
                self._computed_block(self._begun, found)
        except Exception as error:
            self._fail(error)
            return False
        with self._lock:
            more, finished = bool(self._blocks), self._ending and not self._blocks
        if finished:
            self._finish()
        self._hand_over()
        return more

    def _next_block(self) -> AudioBlock | None:
        """What waits, joined up to half a second: a stream that is behind needs fewer steps to catch up."""
        taken: list[AudioBlock] = []
        size = 0
        with self._lock:
            while self._blocks and size < _PIECE_S * self.sample_rate:
                if taken and self._blocks[0].lost_before:
                    break
                taken.append(self._blocks.popleft())
                size += taken[-1].samples.size
            self._held -= size
        self._arrivals = [block.host_ns for block in taken if block.host_ns]
        if len(taken) < 2:
            return taken[0] if taken else None
        return replace(taken[0], samples=np.concatenate([b.samples for b in taken]), host_ns=taken[-1].host_ns)

    def _on_grid(self, block: AudioBlock | None) -> AudioBlock | None:
        """As it is recorded."""
        if block is None or self._full_scale is None:
            return block
        samples, clips = on_grid(block.samples, self._full_scale)
        if clips and BEYOND_FULL_SCALE not in self._stream.notes:
            self._stream.notes = (*self._stream.notes, BEYOND_FULL_SCALE)
        return replace(block, samples=samples)

    def _computed_block(self, block: AudioBlock, events: Sequence[Event]) -> None:
        for sink in self._sinks:
            sink.audio(block)
        self._emit(events, block)
        now = time.monotonic_ns()
        for arrival in self._arrivals:
            self._metrics.delay.observe((now - arrival) / 1e9)
        self._computed += block.samples.size

    def _emit(self, events: Sequence[Event], block: AudioBlock | None) -> None:
        now = time.monotonic_ns()
        for event in events:
            latency = None if block is None else event_latency_ms(event, block, now)
            for sink in self._sinks:
                sink.event(event, latency)
        for change in self._engine.take("healthy", now):
            for sink in self._sinks:
                if isinstance(sink, HealthSink):
                    sink.health(change)

    def _finish(self) -> None:
        self._ended = True
        try:
            self._emit(self._stream.finish(), None)
        finally:
            self._close(self._stream.stats)

    def _fail(self, error: Exception) -> None:
        """The summary of what was received comes last, whatever happened."""
        self._ended = True
        message = describe(error) if isinstance(error, StethoError) else "the stream failed"
        self._lines.append({"type": "error", "message": message})
        try:
            self._close(self._stream.stats)
        finally:
            self._hand_over()
            if not isinstance(error, StethoError):
                raise error

    def _close(self, stats: StreamStats) -> None:
        problem: Exception | None = None
        for sink in reversed(self._opened):  # the summary of the lines after the recording is complete
            try:
                sink.close(stats)
            except Exception as error:
                problem = problem or error
        self._opened = []
        if problem is not None:
            self._lines.append({"type": "error", "message": describe(problem)})

    def _hand_over(self) -> None:
        lines = list(self._lines)
        self._lines.clear()
        self._deliver(lines)


def _pieces(block: AudioBlock, size: int) -> list[AudioBlock]:
    """A long block cut, so that no client takes the pool for itself."""
    if block.samples.size <= size:
        return [block]
    return [
        replace(
            block,
            samples=block.samples[at : at + size],
            first_sample=block.first_sample + at,
            lost_before=0 if at else block.lost_before,
        )
        for at in range(0, block.samples.size, size)
    ]
