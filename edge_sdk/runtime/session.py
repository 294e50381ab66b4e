"""A session: source → stream → sinks; one thread reads the source, the caller's thread does the rest."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.errors import SourceLostError, StethoError
from edge_sdk.events import Adventitious, AudioBlock, BreathCycle, CycleResult, Event, Health, HealthState, StreamStats
from edge_sdk.protocols import HealthSink
from edge_sdk.runtime.engines.failover import engine_switches
from edge_sdk.runtime.supervisor import Supervisor

if TYPE_CHECKING:
    from edge_sdk.protocols import Sink, Source
    from edge_sdk.runtime.bundle.load import Bundle
    from edge_sdk.runtime.stream import Stream

_log = logging.getLogger(__name__)

QUEUE_S = 2.0
"""Seconds of audio that may wait between source and stream."""

_POLL_S = 0.1  # so that Ctrl-C works on every platform
_JOIN_S = 2.0

# A live source is faster than its consumer: first, cycles are not classified; then, blocks are joined to save steps;
# last, when the queue is full, the oldest blocks are dropped. Shares of the queue.
_SKIP_FROM, _JOIN_FROM, _CAUGHT_UP = 0.5, 0.75, 0.1
_JOINED_S = 0.25
_BEHIND_NS = 100_000_000  # a burst after a stall is processed in less

_GRACE_S = 0.25
"""Seconds that a full queue makes a live source wait before it drops, once until it is half empty again: after a stall
the device and its driver deliver their buffers in one burst, faster than the queue is read; this absorbs it."""


class Inbox:
    """A queue of blocks bounded in samples, between one writer and one reader.

    A full queue makes the writer wait, or drops its oldest blocks and counts them: ``lost_before`` of the block after a
    drop is exactly the number of dropped samples.
    """

    def __init__(self, capacity: int, *, drop_oldest: bool) -> None:
        self.dropped = 0  # samples
        self.joined = 0  # blocks returned together with the one before
        self._capacity = max(1, capacity)
        self._drop_oldest = drop_oldest
        self._blocks: deque[AudioBlock] = deque()
        self._held = 0  # samples
        self._ended = False
        self._closed = False
        self._grace_s = _GRACE_S  # that is left
        self._changed = threading.Condition()

    def put(self, block: AudioBlock) -> bool:
        """Add a block; False after :meth:`close`."""
        with self._changed:
            while not self._closed and self._blocks and self._held + block.samples.size > self._capacity:
                if not self._drop_oldest:
                    self._changed.wait()
                elif self._grace_s > 0:
                    began = time.monotonic()
                    self._changed.wait(self._grace_s)
                    self._grace_s -= time.monotonic() - began
                else:
                    block = self._drop(block)
            if self._closed:
                return False
            self._blocks.append(block)
            self._held += block.samples.size
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float, *, join_samples: int = 0) -> AudioBlock | None:
        """Return the next block; None after ``timeout_s`` without one, or at the end.

        Consecutive blocks without dropped samples between them are joined up to ``join_samples``.
        """
        with self._changed:
            if not self._blocks and not self._ended:
                self._changed.wait(timeout_s)
            if not self._blocks:
                return None
            taken = [self._blocks.popleft()]
            size = taken[0].samples.size
            while (
                self._blocks
                and self._blocks[0].lost_before == 0
                and size + self._blocks[0].samples.size <= join_samples
            ):
                taken.append(self._blocks.popleft())
                size += taken[-1].samples.size
            self._held -= size
            if 2 * self._held <= self._capacity:
                self._grace_s = _GRACE_S
            self.joined += len(taken) - 1
            self._changed.notify_all()
        if len(taken) == 1:
            return taken[0]
        return replace(taken[0], samples=np.concatenate([b.samples for b in taken]), host_ns=taken[-1].host_ns)

    @property
    def fill(self) -> float:
        """Filled share of the capacity."""
        with self._changed:
            return self._held / self._capacity

    @property
    def exhausted(self) -> bool:
        """Whether the writer has ended and everything has been read."""
        with self._changed:
            return self._ended and not self._blocks

    def end(self) -> None:
        """Writer: no more blocks follow."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Reader: no more blocks are wanted."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _drop(self, incoming: AudioBlock) -> AudioBlock:
        oldest = self._blocks.popleft()
        self._held -= oldest.samples.size
        self.dropped += oldest.samples.size
        lost = oldest.lost_before + oldest.samples.size
        if self._blocks:
            self._blocks[0] = replace(self._blocks[0], lost_before=self._blocks[0].lost_before + lost)
            return incoming
        return replace(incoming, lost_before=incoming.lost_before + lost)


@dataclass(frozen=True, slots=True)
class Overload:
    """Effects of a consumer that is too slow; a snapshot."""

    skipped: int = 0  # cycles that were not classified
    joined: int = 0  # blocks processed together with the one before
    dropped: int = 0  # samples; they became gaps


class Session:
    """Runs a source through a stream into sinks until it ends.

    Parameters
    ----------
    source
        Read in its own thread. A source with a true attribute ``live`` cannot wait: when the sinks are too slow, its
        oldest samples are dropped and become a :class:`~edge_sdk.events.Gap`. Any other source is made to wait.
    bundle
        Finds and classifies the cycles.
    sinks
        Called in the thread that calls :meth:`run`.
    metadata
        Of patient and device; overrides what the device reports.
    queue_s
        Seconds of audio that may wait.
    give_up_s
        Seconds to wait for a lost source that can be opened again (:class:`~edge_sdk.protocols.Reopenable`); None: for
        ever.
    on_health
        Called with every change of health, like the sinks that are a :class:`~edge_sdk.protocols.HealthSink`.
    on_alive
        Called in every turn of the loop that processes audio, ten times a second and more: for a watchdog.
    """

    def __init__(
        self,
        source: Source,
        bundle: Bundle,
        sinks: Sequence[Sink],
        *,
        metadata: Mapping[str, Any] | None = None,
        queue_s: float = QUEUE_S,
        give_up_s: float | None = None,
        on_health: Callable[[Health], None] | None = None,
        on_alive: Callable[[], None] | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._source = source
        self._sinks = list(sinks)
        self._metadata = dict(metadata or {})
        self._device_metadata: Mapping[str, Any] = dict(getattr(source, "metadata", {}))
        self._stream: Stream = bundle.stream(source.sample_rate, {**self._device_metadata, **self._metadata})
        self._live = bool(getattr(source, "live", False))
        self._inbox = Inbox(round(queue_s * source.sample_rate), drop_oldest=self._live)
        self._supervisor = Supervisor(source, give_up_s=give_up_s, clock_ns=clock_ns)
        self._on_health, self._on_alive = on_health, on_alive
        self._joining = self._dropping = False
        self._dropped = 0  # samples, as last seen
        self._behind_ns: int | None = None  # time since which the queue is half full
        self._clock_ns = clock_ns
        self._error: BaseException | None = None
        self._last: AudioBlock | None = None
        self._engine = bundle.engine
        self._switches = len(engine_switches(bundle.engine))  # those before this session are not its own
        self._opened: list[Sink] = []

    @property
    def stats(self) -> StreamStats:
        """Counters so far."""
        return self._stream.stats

    @property
    def dropped(self) -> int:
        """Samples dropped because the sinks were too slow; part of ``stats.samples_lost`` once their gap is emitted."""
        return self._inbox.dropped

    @property
    def overload(self) -> Overload:
        """Cycles, blocks and samples skipped, joined and dropped so far to keep up with a live source."""
        return Overload(self._stream.stats.skipped, self._inbox.joined, self._inbox.dropped)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Metadata of patient and device; the user's values override those of the device."""
        return self._stream.metadata

    @property
    def health(self) -> HealthState:
        """Health of the source."""
        return self._supervisor.state

    def run(self) -> StreamStats:
        """Run until the source ends, fails, or Ctrl-C; in any case the sinks get the last events and are closed.

        Raises
        ------
        StethoError
            From the source, the stream or a sink. Any other exception of the source becomes a ``SourceLostError``.
        KeyboardInterrupt
            After everything is closed.
        """
        reader = threading.Thread(target=self._read, name="stetho-source", daemon=True)
        try:
            for sink in self._sinks:
                self._opened.append(sink)
                sink.open(self._source.name, self._source.sample_rate)
            reader.start()
            self._process()
        except BaseException:
            self._stop(reader)
            self._close_sinks(quietly=True)
            raise
        self._stop(reader)
        self._close_sinks(quietly=False)
        if self._error is not None:
            raise self._as_source_error(self._error)
        return self._stream.stats

    # -- the source's thread -------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            for block in self._supervisor.blocks():
                if not self._inbox.put(block):
                    break
        except BaseException as error:  # delivered to the user's thread
            self._error = error
        finally:
            self._inbox.end()

    def _as_source_error(self, error: BaseException) -> BaseException:
        if isinstance(error, StethoError):
            return error
        lost = SourceLostError(
            f"{self._source.name} stopped delivering audio ({type(error).__name__}: {error}); check it and start again"
        )
        lost.__cause__ = error
        return lost

    # -- the user's thread ---------------------------------------------------------------------------------------------

    def _process(self) -> None:
        while not self._inbox.exhausted:
            if self._on_alive is not None:
                self._on_alive()
            self._report(self._supervisor.changes())
            if self._live:
                self._keep_pace()
            join = round(_JOINED_S * self._source.sample_rate) if self._joining else 0
            block = self._inbox.get(_POLL_S, join_samples=join)
            if block is None:
                continue
            self._update_metadata()
            events = self._stream.accept(block)
            self._last = block
            for sink in self._sinks:
                sink.audio(block)
            self._emit(events)
            self._report_engine()

    def _report_engine(self) -> None:
        """Report once that another engine goes on where one has failed."""
        switches = engine_switches(self._engine)
        for line in switches[self._switches :]:
            self._report([Health(self._supervisor.state, line, self._clock_ns(), engine=self._engine.name)])
        self._switches = len(switches)

    def _keep_pace(self) -> None:
        """React to overload: skip classification, then join blocks; the queue itself drops blocks."""
        fill, now_ns = self._inbox.fill, self._clock_ns()
        self._joining = fill >= _JOIN_FROM or (self._joining and fill > _CAUGHT_UP)
        if fill < _SKIP_FROM:
            self._behind_ns = None
        elif self._behind_ns is None:
            self._behind_ns = now_ns
        elif not self._stream.skip_classification and now_ns - self._behind_ns > _BEHIND_NS:
            self._stream.skip_classification = True
            self._report_pace(
                "this machine is too slow for the audio: cycles are not classified until it has caught up"
            )
        dropped = self._inbox.dropped
        if dropped > self._dropped and not self._dropping:
            self._dropping = True
            self._report_pace("this machine is too slow for the audio: the oldest samples were dropped")
        self._dropped = dropped
        if fill <= _CAUGHT_UP and (self._dropping or self._stream.skip_classification):
            self._stream.skip_classification = self._dropping = False
            skipped = self._stream.stats.skipped
            self._report_pace(f"caught up; so far {skipped} cycles not classified and {dropped} samples dropped")

    def _report_pace(self, detail: str) -> None:
        overloaded = self._dropping or self._stream.skip_classification
        self._report([Health(self._supervisor.state, detail, self._clock_ns(), overloaded)])

    def _report(self, changes: Sequence[Health]) -> None:
        for change in changes:
            if self._on_health is not None:
                self._on_health(change)
            for sink in self._opened:
                if isinstance(sink, HealthSink):
                    sink.health(change)

    def _update_metadata(self) -> None:
        """The device may report new metadata at any time; the user's values still override them."""
        found = getattr(self._source, "metadata", self._device_metadata)
        if found != self._device_metadata:
            self._device_metadata = dict(found)
            self._stream.metadata = {**self._device_metadata, **self._metadata}

    def _emit(self, events: Sequence[Event]) -> None:
        for event in events:
            latency_ms = self._latency_ms(event)
            for sink in self._sinks:
                sink.event(event, latency_ms)

    def _latency_ms(self, event: Event) -> float | None:
        """Time since the capture of the last sample that the event needed; None where the source has no clock."""
        block = self._last
        if block is None or block.host_ns == 0:
            return None
        cycle = event.cycle if isinstance(event, CycleResult) else event
        end = block.first_sample + block.samples.size
        needed = cycle.emitted_at if isinstance(cycle, BreathCycle | Adventitious) else end
        captured_ns = block.host_ns - max(0, end - needed) * 1_000_000_000 // block.sample_rate
        return max(0.0, (self._clock_ns() - captured_ns) / 1e6)

    def _stop(self, reader: threading.Thread) -> None:
        self._supervisor.stop()
        self._inbox.close()
        self._source.close()
        if reader.ident is not None:
            reader.join(_JOIN_S)
            if reader.is_alive():
                _log.warning("%s did not stop within %g s", self._source.name, _JOIN_S)

    def _close_sinks(self, *, quietly: bool) -> None:
        """Emit the last events, then close every opened sink; ``quietly``: an exception is already being raised."""
        problem: BaseException | None = None
        try:
            self._report(self._supervisor.changes())
            self._emit(self._stream.finish())
        except BaseException as error:
            problem = error
        for sink in self._opened:
            try:
                sink.close(self._stream.stats)
            except BaseException as error:
                problem = problem or error
        self._opened = []
        if problem is not None:
            if not quietly:
                raise problem
            _log.debug("while closing after an error", exc_info=problem)
