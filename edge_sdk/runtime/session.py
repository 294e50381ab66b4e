"""A session: source → stream → sinks; one thread reads the source, the caller's thread does the rest."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import DeviceChangedError, SourceLostError, StethoError
from edge_sdk.events import (
    Adventitious,
    AudioBlock,
    BreathCycle,
    CycleResult,
    DeviceChange,
    Event,
    Health,
    HealthState,
    StreamStats,
)
from edge_sdk.metadata import known_metadata
from edge_sdk.protocols import HealthSink
from edge_sdk.runtime.engines.failover import EngineChanges
from edge_sdk.runtime.inbox import Inbox
from edge_sdk.runtime.supervisor import Supervisor
from edge_sdk.signal.blocks import BEYOND_FULL_SCALE, on_grid

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


def event_latency_ms(event: Event, block: AudioBlock, now_ns: int) -> float | None:
    """Milliseconds since the capture of the last sample that the event needed.

    Parameters
    ----------
    event
        Emitted when ``block`` was accepted.
    block
        The newest block; None is returned where its source has no clock.
    now_ns
        Monotonic host clock.
    """
    if block.host_ns == 0:
        return None
    cycle = event.cycle if isinstance(event, CycleResult) else event
    end = block.first_sample + block.samples.size
    needed = cycle.emitted_at if isinstance(cycle, BreathCycle | Adventitious) else end
    captured_ns = block.host_ns - max(0, end - needed) * 1_000_000_000 // block.sample_rate
    return max(0.0, (now_ns - captured_ns) / 1e6)


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
    keep_session
        Whether the session goes on when another device takes the place of the source's (same rate only). By default it
        ends there, with a ``DeviceChangedError`` after everything is closed but the source: another patient may be
        next. :func:`~edge_sdk.runtime.device_sessions.run_device_sessions` begins a new one.
    full_scale
        Steps of the recording that the sinks keep, for example 1 << 23: samples are rounded to it and clipped before
        anything sees them, so that a replay gives the same events. None: samples are used as they come.
    on_note
        Called once with every note, before the sinks are opened or after they are closed; the summary has all of them.
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
        keep_session: bool = False,
        full_scale: int | None = None,
        on_note: Callable[[str], None] | None = None,
        on_alive: Callable[[], None] | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._source = source
        self._sinks = list(sinks)
        self._metadata = dict(metadata or {})
        self._device_metadata: Mapping[str, Any] = dict(getattr(source, "metadata", {}))
        self._schema = bundle.classifier.metadata_schema
        reported = self._usable(self._device_metadata)
        self._stream: Stream = bundle.stream(source.sample_rate, {**reported, **self._metadata})
        self._metadata = {name: value for name, value in self._stream.metadata.items() if name in self._metadata}
        self._live = bool(getattr(source, "live", False))
        self._inbox = Inbox(round(queue_s * source.sample_rate), drop_oldest=self._live)
        self._supervisor = Supervisor(source, give_up_s=give_up_s, clock_ns=clock_ns, keep_session=keep_session)
        self._on_health, self._on_note, self._on_alive = on_health, on_note, on_alive
        self._full_scale = full_scale
        self._clips = False  # whether that was noted
        self._own_notes: list[str] = []
        self._reported: set[str] = set()  # of the notes
        self._joining = self._dropping = False
        self._dropped = 0  # samples, as last seen
        self._behind_ns: int | None = None  # time since which the queue is half full
        self._clock_ns = clock_ns
        self._error: BaseException | None = None
        self._last: AudioBlock | None = None
        self._engine_changes = EngineChanges(bundle.engine)
        self._opened: list[Sink] = []

    @property
    def stats(self) -> StreamStats:
        """Counters and notes so far."""
        return replace(self._stream.stats, notes=self.notes)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is wrong with the source although it is processed, as far as it is known."""
        return (*getattr(self._source, "notes", ()), *self._stream.notes, *self._own_notes)

    def note(self, text: str) -> None:
        """Add a note, a line for people, to the summary; from any thread."""
        self._own_notes.append(text)

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
        DeviceChangedError
            Another device took the place of the source's; the source is still open.
        StethoError
            From the source, the stream or a sink. Any other exception of the source becomes a ``SourceLostError``.
        KeyboardInterrupt
            After everything is closed.
        """
        reader = threading.Thread(target=self._read, name="stetho-source", daemon=True)
        self._report_notes()
        try:
            for sink in self._sinks:
                self._opened.append(sink)
                sink.open(self._source.name, self._source.sample_rate)
            reader.start()
            self._process()
        except BaseException:
            self._stop(reader)
            self._close_sinks(quietly=True)
            self._report_notes()
            raise
        self._stop(reader)
        self._close_sinks(quietly=False)
        self._report_notes()
        if self._error is not None:
            raise self._as_source_error(self._error)
        return self.stats

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
            changes = self._supervisor.device_changes
            if changes and block.first_sample + block.samples.size > changes[0].at:
                self._emit([self._device_change(changes.popleft(), same_session=True)])
            if not changes:
                self._update_metadata()
            if self._full_scale is not None:
                block = self._as_recorded(block, self._full_scale)
            events = self._stream.accept(block)
            self._last = block
            for sink in self._sinks:
                sink.audio(block)
            self._emit(events)
            self._report_engine()

    def _report_engine(self) -> None:
        """Report once that another engine goes on where one has failed."""
        self._report(self._engine_changes.take(self._supervisor.state, self._clock_ns()))

    def _as_recorded(self, block: AudioBlock, full_scale: int) -> AudioBlock:
        samples, clips = on_grid(block.samples, full_scale)
        if clips and not self._clips:
            self._clips = True
            self.note(BEYOND_FULL_SCALE)
        return replace(block, samples=samples)

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

    def _report_notes(self) -> None:
        for note in self.notes:
            if self._on_note is not None and note not in self._reported:
                self._on_note(note)
            self._reported.add(note)

    def _update_metadata(self) -> None:
        """The device may report new metadata at any time; the user's values still override them."""
        found = getattr(self._source, "metadata", self._device_metadata)
        if found != self._device_metadata:
            self._device_metadata = dict(found)
            self._stream.metadata = {**self._usable(self._device_metadata), **self._metadata}

    def _usable(self, reported: Mapping[str, Any]) -> dict[str, Any]:
        """What a device reports, without the values that no model knows; each is a warning, and audio goes on."""
        found, problems = known_metadata(reported, self._schema)
        for problem in problems:
            _log.warning("%s reports metadata that is left out: %s", self._source.name, problem)
        return found

    def _device_change(self, change: DeviceChangedError, *, same_session: bool) -> DeviceChange:
        rate = self._stream.sample_rate
        return DeviceChange(change.at, rate, change.reason, change.previous, change.device, same_session)

    def _emit(self, events: Sequence[Event]) -> None:
        for event in events:
            latency_ms = self._latency_ms(event)
            for sink in self._sinks:
                sink.event(event, latency_ms)

    def _latency_ms(self, event: Event) -> float | None:
        return None if self._last is None else event_latency_ms(event, self._last, self._clock_ns())

    def _stop(self, reader: threading.Thread) -> None:
        self._supervisor.stop()
        self._inbox.close()
        if not isinstance(self._error, DeviceChangedError):
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
            self._report_engine()  # it classifies the last cycle
            if isinstance(self._error, DeviceChangedError):
                self._emit([self._device_change(self._error, same_session=False)])
        except BaseException as error:
            problem = error
        for sink in self._opened:
            try:
                sink.close(self.stats)
            except BaseException as error:
                problem = problem or error
        self._opened = []
        if problem is not None:
            if not quietly:
                raise problem
            _log.debug("while closing after an error", exc_info=problem)
