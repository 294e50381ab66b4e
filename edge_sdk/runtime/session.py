"""A source, a bundle and sinks at work together: one thread reads the source, the caller's thread does all the rest."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import SourceLostError, StethoError
from edge_sdk.events import AudioBlock, BreathCycle, CycleResult, Event, StreamStats

if TYPE_CHECKING:
    from edge_sdk.protocols import Sink, Source
    from edge_sdk.runtime.bundle import Bundle
    from edge_sdk.runtime.stream import Stream

_log = logging.getLogger(__name__)

QUEUE_S = 2.0
"""Sound that may wait between source and stream."""

_POLL_S = 0.1  # so that Ctrl-C is heard on every platform
_JOIN_S = 2.0


class Inbox:
    """A queue of blocks bounded in samples, between one writer and one reader.

    Full, it either makes the writer wait, or drops its oldest blocks and counts them: the block that follows a drop
    says in ``lost_before`` exactly how many samples are missing.
    """

    def __init__(self, capacity: int, *, drop_oldest: bool) -> None:
        self.dropped = 0  # samples
        self._capacity = max(1, capacity)
        self._drop_oldest = drop_oldest
        self._blocks: deque[AudioBlock] = deque()
        self._held = 0  # samples
        self._ended = False
        self._closed = False
        self._changed = threading.Condition()

    def put(self, block: AudioBlock) -> bool:
        """Add a block; False when the reader has gone."""
        with self._changed:
            while not self._closed and self._blocks and self._held + block.samples.size > self._capacity:
                if self._drop_oldest:
                    block = self._drop(block)
                else:
                    self._changed.wait()
            if self._closed:
                return False
            self._blocks.append(block)
            self._held += block.samples.size
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float) -> AudioBlock | None:
        """The next block; None after ``timeout_s`` without one, or at the end."""
        with self._changed:
            if not self._blocks and not self._ended:
                self._changed.wait(timeout_s)
            if not self._blocks:
                return None
            block = self._blocks.popleft()
            self._held -= block.samples.size
            self._changed.notify_all()
            return block

    @property
    def exhausted(self) -> bool:
        """The writer has ended and everything has been read."""
        with self._changed:
            return self._ended and not self._blocks

    def end(self) -> None:
        """Writer: nothing more will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Reader: nothing more is wanted."""
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


class Session:
    """Plays a source through a stream into sinks until it ends.

    Parameters
    ----------
    source
        Read in a thread of its own. A source with a true attribute ``live`` cannot wait: when the sinks are too slow
        its oldest sound is dropped and becomes a :class:`~edge_sdk.events.Gap`. Any other source is made to wait.
    bundle
        What labels the breaths.
    sinks
        Called in the thread that calls :meth:`run`.
    metadata
        What is known of patient and device.
    queue_s
        Seconds of sound that may wait.
    """

    def __init__(
        self,
        source: Source,
        bundle: Bundle,
        sinks: Sequence[Sink],
        *,
        metadata: Mapping[str, Any] | None = None,
        queue_s: float = QUEUE_S,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._source = source
        self._sinks = list(sinks)
        self._stream: Stream = bundle.stream(source.sample_rate, metadata)
        live = bool(getattr(source, "live", False))
        self._inbox = Inbox(round(queue_s * source.sample_rate), drop_oldest=live)
        self._clock_ns = clock_ns
        self._error: BaseException | None = None
        self._last: AudioBlock | None = None
        self._opened: list[Sink] = []

    @property
    def stats(self) -> StreamStats:
        """Counters so far."""
        return self._stream.stats

    @property
    def dropped(self) -> int:
        """Samples dropped because the sinks were too slow; part of ``stats.samples_lost`` once they are passed over."""
        return self._inbox.dropped

    def run(self) -> StreamStats:
        """Play until the source ends, fails, or Ctrl-C; the sinks are closed, with the last events, in any case.

        Raises
        ------
        StethoError
            What the source, the stream or a sink raised. A source that dies otherwise is a ``SourceLostError``.
        KeyboardInterrupt
            After everything is closed.
        """
        reader = threading.Thread(target=self._read, name="stetho-source", daemon=True)
        try:
            for sink in self._sinks:
                self._opened.append(sink)
                sink.open(self._source.name, self._source.sample_rate)
            reader.start()
            self._play()
        except BaseException:
            self._stop(reader)
            self._wind_up(quietly=True)
            raise
        self._stop(reader)
        self._wind_up(quietly=False)
        if self._error is not None:
            raise self._as_source_error(self._error)
        return self._stream.stats

    # -- the source's thread -------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            for block in self._source:
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
            f"{self._source.name} stopped delivering sound ({type(error).__name__}: {error}); check it and start again"
        )
        lost.__cause__ = error
        return lost

    # -- the user's thread ---------------------------------------------------------------------------------------------

    def _play(self) -> None:
        while not self._inbox.exhausted:
            block = self._inbox.get(_POLL_S)
            if block is None:
                continue
            events = self._stream.accept(block)
            self._last = block
            for sink in self._sinks:
                sink.audio(block)
            self._pass_on(events)

    def _pass_on(self, events: Sequence[Event]) -> None:
        for event in events:
            latency_ms = self._latency_ms(event)
            for sink in self._sinks:
                sink.event(event, latency_ms)

    def _latency_ms(self, event: Event) -> float | None:
        """Capture of the last sample the event needed → now; None where the source has no clock."""
        block = self._last
        if block is None or block.host_ns == 0:
            return None
        cycle = event.cycle if isinstance(event, CycleResult) else event
        end = block.first_sample + block.samples.size
        needed = cycle.emitted_at if isinstance(cycle, BreathCycle) else end
        captured_ns = block.host_ns - max(0, end - needed) * 1_000_000_000 // block.sample_rate
        return max(0.0, (self._clock_ns() - captured_ns) / 1e6)

    def _stop(self, reader: threading.Thread) -> None:
        self._inbox.close()
        self._source.close()
        if reader.ident is not None:
            reader.join(_JOIN_S)
            if reader.is_alive():
                _log.warning("%s did not stop within %g s", self._source.name, _JOIN_S)

    def _wind_up(self, *, quietly: bool) -> None:
        """Last events, then close every sink that was opened; ``quietly`` when an exception is already on its way."""
        problem: BaseException | None = None
        try:
            self._pass_on(self._stream.finish())
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
