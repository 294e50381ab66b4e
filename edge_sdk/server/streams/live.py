"""The live source: one session in a thread of its own; its audio and events for every page that watches."""

from __future__ import annotations

import asyncio
import logging
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.websockets import WebSocket

from edge_sdk.errors import DeviceChangedError, StethoError, describe
from edge_sdk.events import AudioBlock, BreathCycle, CycleResult, Event, Gap, Health, StreamStats
from edge_sdk.runtime.background import BackgroundSink
from edge_sdk.runtime.device_sessions import run_device_sessions
from edge_sdk.runtime.session import Session
from edge_sdk.screening.recordings import summary_labels
from edge_sdk.server.context import ServerContext
from edge_sdk.server.streams.feed import StreamFeed
from edge_sdk.server.streams.outbox import Outbox
from edge_sdk.signal.breathing_rate import PRESENT_CYCLES, RateMeter
from edge_sdk.sinks.flac import FULL_SCALE
from edge_sdk.sinks.jsonl import JsonlSink
from edge_sdk.sinks.recorder import RecorderSink
from edge_sdk.sinks.summary import SummaryBuilder

if TYPE_CHECKING:
    from edge_sdk.protocols import Sink, Source

_log = logging.getLogger(__name__)

LOOK_BACK_S = 60.0
"""Audio and events that a page gets when it opens."""

_STATE_S = 0.5  # between two lines about the state
_NUMBER = struct.Struct("<Q")


@dataclass
class _Attached:
    feed: StreamFeed
    most_s: float
    base: int | None = None  # source index of its first sample


class LiveHub:
    """A sink of the live session: keeps the last minute and publishes everything to the pages. Made in the event loop.

    Binary messages are the index of their first sample (8 bytes, little-endian) and 16-bit PCM; text messages are the
    lines of ``listen`` and, beside them, ``open`` (a cycle while it grows), ``state`` and ``health``.
    """

    def __init__(self, source: Source, context: ServerContext) -> None:
        self.sample_rate = source.sample_rate
        self.running = False
        self.summary: dict[str, Any] | None = None
        self.problem: BaseException | None = None
        self._source, self._context = source, context
        self._loop = asyncio.get_running_loop()
        self._begin()
        self._audio: deque[tuple[int, bytes]] = deque()  # first sample, message
        self._lines: deque[tuple[float, dict[str, Any]]] = deque()  # end in seconds of audio
        self._viewers: dict[Outbox, int] = {}  # → number of the last message that it has
        self._published = 0
        self._attached: list[_Attached] = []
        self._lock = threading.Lock()
        self._health: dict[str, Any] = {"type": "health", "state": "healthy", "detail": ""}
        self._session: Session | None = None
        self._thread = threading.Thread(target=self._run, name="stetho-live", daemon=True)

    # -- the session ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Play the source."""
        self.running = True
        self._thread.start()

    def stop(self) -> None:
        """End the session as Ctrl-C ends ``listen``; returns when the summary is there."""
        self._source.close()
        if self._thread.ident is not None:
            self._thread.join(10.0)

    def _begin(self) -> None:
        """State of one session."""
        labels = summary_labels(self._context.options.bundle)
        self._jsonl = JsonlSink(self._line, labels, running=True)
        self._counts = SummaryBuilder(labels)
        self._rate = RateMeter(keep=PRESENT_CYCLES)
        self._next_state_s = 0.0
        self._end_sample = 0
        self._latency_ms: float | None = None
        self._quality: dict[str, Any] | None = None

    def _run(self) -> None:
        try:
            run_device_sessions(self._source, self._new_session)
        except StethoError as error:
            self.problem = error
            self.health(Health("failed", describe(error), time.monotonic_ns()))
        except Exception as error:
            _log.exception("the live session failed")
            self.problem = error
            self.health(Health("failed", describe(error), time.monotonic_ns()))
        finally:
            self._source.close()  # it stays open where another device cannot go on with it
            self.running = False

    def _new_session(self, change: DeviceChangedError | None) -> Session:
        """The session of a device: another one has none of the patient's data, and a recording of its own."""
        options = self._context.options
        given = dict(options.source_metadata) if change is None else {}
        sinks: list[Sink] = [self, self._context.metrics.of_streams.sink("live")]
        if options.record_live:
            about = {
                **self._context.about,
                "metadata": {**getattr(self._source, "metadata", {}), **given},
                "device": dict(getattr(self._source, "device", {})),
            }
            if options.patient is not None and change is None:
                about["patient"] = options.patient
            recorder = RecorderSink(options.recordings, summary_labels(options.bundle), about=about)
            sinks.append(BackgroundSink(recorder, wait=not getattr(self._source, "live", False)))
        full_scale = FULL_SCALE if options.record_live else None
        self._session = Session(self._source, options.bundle, sinks, metadata=given or None, full_scale=full_scale)
        if change is not None:
            self._restart(self._source.sample_rate)
        return self._session

    def _restart(self, sample_rate: int) -> None:
        """Begin the time line of another device: pages start afresh, and streams of the old audio end."""
        with self._lock:
            self._audio.clear()
            self._lines.clear()
            attached, self._attached = self._attached, []
        for one in attached:
            one.feed.end()
        self.sample_rate, self.summary = sample_rate, None
        self._health = {"type": "health", "state": "healthy", "detail": ""}
        self._begin()
        self._publish(self._hello())

    # -- the session's thread ------------------------------------------------------------------------------------------

    def open(self, source: str, sample_rate: int) -> None:
        """Start."""
        self._jsonl.open(source, sample_rate)
        self._counts.open(source, sample_rate)

    def audio(self, block: AudioBlock) -> None:
        """Publish a block, and the state from time to time."""
        self._jsonl.audio(block)
        self._counts.audio(block)
        pcm = np.clip(np.rint(block.samples * 32768.0), -32768, 32767).astype("<i2").tobytes()
        message = _NUMBER.pack(block.first_sample) + pcm
        self._end_sample = block.first_sample + block.samples.size
        with self._lock:
            oldest = self._end_sample - LOOK_BACK_S * self.sample_rate
            while self._audio and self._audio[0][0] < oldest:
                self._audio.popleft()
            while self._lines and self._lines[0][0] < oldest / self.sample_rate:
                self._lines.popleft()
            attached = list(self._attached)
        self._publish(message, lambda: self._audio.append((block.first_sample, message)))
        for one in attached:
            self._forward(one, block)
        now_s = time.monotonic()
        if now_s >= self._next_state_s:
            self._next_state_s = now_s + _STATE_S
            self._publish(self._state())

    def event(self, event: Event, latency_ms: float | None) -> None:
        """Publish an event."""
        self._counts.event(event)
        if isinstance(event, CycleResult):
            self._rate.result(event)
            self._latency_ms = latency_ms
        elif isinstance(event, Gap):
            self._rate.restart()
        if isinstance(event, BreathCycle):
            if not event.final:
                self._publish(_open_line(event))
            return
        self._jsonl.event(event, latency_ms)

    def health(self, change: Health) -> None:
        """Publish a change of the source's health, or the line of an engine that took over."""
        if change.engine is not None:
            self._jsonl.health(change)
            return
        self._health = {"type": "health", "state": change.state, "detail": change.detail}
        self._publish(self._health)

    def close(self, stats: StreamStats) -> None:
        """Publish the summary."""
        self._jsonl.close(stats)

    def _line(self, record: dict[str, Any]) -> None:
        if record["type"] == "summary":
            self.summary = record
        if record["type"] == "quality":
            self._quality = record
        record = {**record, "emitted_ms": round(time.time() * 1000, 1)}
        until_s = float(record.get("end_s") or record.get("start_s") or self._end_s)
        self._publish(record, lambda: self._lines.append((until_s, record)))

    @property
    def _end_s(self) -> float:
        return self._end_sample / self.sample_rate

    def _state(self) -> dict[str, Any]:
        found = self._counts.record()
        session = self._session
        return {
            "type": "state",
            "at_s": round(self._end_s, 4),
            "at_ms": round(time.time() * 1000, 1),
            "rate_bpm": self._rate.breaths_per_minute,
            "rate_confident": self._rate.confident,
            "quality": None if self._quality is None else self._quality["quality"],
            "latency_ms": self._latency_ms,
            "overloaded": False if session is None else bool(session.overload.skipped or session.overload.dropped),
            **{key: found[key] for key in ("cycles", "counts", "unclassified", "lost_samples", "gaps")},
            **{key: found[key] for key in ("verdict", "p_abnormal", "verdict_reason", "usable_s")},
        }

    def _publish(self, message: dict[str, Any] | bytes, keep: Callable[[], None] | None = None) -> None:
        """Send to all pages; ``keep`` stores it for pages that open later, at once with its number."""
        with self._lock:
            self._published += 1
            number = self._published
            if keep is not None:
                keep()
        try:
            self._loop.call_soon_threadsafe(self._put_all, number, message)
        except RuntimeError:  # the loop has ended
            _log.debug("a message came after the end")

    # -- other streams of the same audio -------------------------------------------------------------------------------

    def attach(self, feed: StreamFeed, most_s: float) -> _Attached:
        """Forward the audio from now on; its clock begins at 0."""
        one = _Attached(feed, most_s)
        with self._lock:
            self._attached.append(one)
        return one

    def detach(self, one: _Attached) -> None:
        """Forward no more."""
        with self._lock:
            if one in self._attached:
                self._attached.remove(one)

    @staticmethod
    def _forward(one: _Attached, block: AudioBlock) -> None:
        if one.base is None:
            one.base = block.first_sample
            block = replace(block, lost_before=0)
        one.feed.put_live(replace(block, first_sample=block.first_sample - one.base), one.most_s)

    # -- the event loop ------------------------------------------------------------------------------------------------

    def _put_all(self, number: int, message: dict[str, Any] | bytes) -> None:
        for viewer, has in list(self._viewers.items()):
            if number > has:
                viewer.put(message)

    async def serve(self, socket: WebSocket) -> None:
        """Serve one page until it leaves: first the last minute, then everything as it comes."""
        await socket.accept()
        context = self._context
        outbox = Outbox(socket, 8 * context.options.limits.outbox, context.metrics, context.audit)
        if len(self._viewers) >= context.options.limits.viewers:
            outbox.put({"type": "error", "message": f"{len(self._viewers)} pages are open, as many as are allowed"})
            await outbox.close(4029, "too many pages")
            return
        context.log(socket, "view", recording="live")
        outbox.put(self._hello())
        with self._lock:
            kept = [message for _, message in self._audio], [record for _, record in self._lines]
            has = self._published
        for message in _joined(kept[0]):
            outbox.put(message)
        for record in kept[1]:
            outbox.put({**record, "past": True})
        self._viewers[outbox] = has
        context.metrics.viewers.set(len(self._viewers))
        try:
            while not outbox.dropped.is_set():
                received = await socket.receive()
                if received["type"] == "websocket.disconnect":
                    break
                if received.get("text") == "ping":  # so that the page can map the server's clock to its own
                    outbox.put({"type": "pong", "at_ms": round(time.time() * 1000, 1)})
        finally:
            self._viewers.pop(outbox, None)
            context.metrics.viewers.set(len(self._viewers))
            await outbox.close()

    def _hello(self) -> dict[str, Any]:
        return {
            "type": "live",
            "source": self._source.name,
            "sample_rate": self.sample_rate,
            "running": self.running,
            "quality": self._quality,
            "health": self._health,
            "summary": self.summary,
        }


def _open_line(cycle: BreathCycle) -> dict[str, Any]:
    change = cycle.phase_change
    return {
        "type": "open",
        "index": cycle.index,
        "start_s": round(cycle.start_s, 4),
        "end_s": round(cycle.end_s, 4),
        "phase_change_s": None if change is None else round(change / cycle.sample_rate, 4),
        "confidence": round(cycle.confidence, 3),
    }


def _joined(messages: list[bytes], most: int = 1 << 16) -> list[bytes]:
    """Consecutive audio messages joined up to ``most`` bytes."""
    found: list[bytearray] = []
    due = -1
    for message in messages:
        first = _NUMBER.unpack_from(message)[0]
        if first == due and len(found[-1]) < most:
            found[-1] += message[_NUMBER.size :]
        else:
            found.append(bytearray(message))
        due = first + (len(message) - _NUMBER.size) // 2
    return [bytes(joined) for joined in found]
