"""``WS /api/streams``: audio of a client in, the JSON lines of ``listen`` back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect

from edge_sdk.errors import StethoError
from edge_sdk.metadata import FIELDS
from edge_sdk.runtime.background import BackgroundSink
from edge_sdk.screening.recordings import summary_labels
from edge_sdk.server.context import ServerContext, session_fields
from edge_sdk.server.guided import Examinations, PointGate
from edge_sdk.server.security.gate import client_of
from edge_sdk.server.settings import RequestError
from edge_sdk.server.streams.feed import StreamFeed
from edge_sdk.server.streams.frames import FrameReader, StreamHeader, read_header
from edge_sdk.server.streams.live import LiveHub
from edge_sdk.server.streams.outbox import Outbox
from edge_sdk.server.streams.pool import StreamPool
from edge_sdk.sinks.flac import FULL_SCALE
from edge_sdk.sinks.recorder import RecorderSink

TOO_MANY, BAD_DATA, IDLE, GOING_AWAY = 4029, 4022, 4008, 1001
"""Close codes: no stream is free; the header or a frame is wrong; no audio in time; the server ends."""

_POINT_S = 0.5  # between two lines about a point
_SUMMARY_S = 30.0  # to compute what waits at the end


class StreamServer:
    """Serves the streams of all clients."""

    def __init__(self, context: ServerContext, pool: StreamPool, exams: Examinations, hub: LiveHub | None) -> None:
        self._context, self._pool, self._exams, self._hub = context, pool, exams, hub
        self._open: set[_ClientStream] = set()

    async def serve(self, socket: WebSocket) -> None:
        """Serve one client until it ends its stream or leaves."""
        await socket.accept()
        context = self._context
        outbox = Outbox(socket, context.options.limits.outbox, context.metrics, context.audit)
        if len(self._open) >= context.options.limits.streams:
            context.metrics.refused.labels("streams").inc()
            context.audit.refused("streams", client=client_of(dict(socket.scope)))
            outbox.put({"type": "error", "message": f"{len(self._open)} streams are open, as many as are allowed"})
            await outbox.close(TOO_MANY, "too many streams")
            return
        stream = _ClientStream(socket, outbox, context, self._pool, self._exams, self._hub)
        self._open.add(stream)
        try:
            await stream.run()
        finally:
            self._open.discard(stream)

    async def close(self) -> None:
        """End all streams as if their clients had: the summary comes last."""
        for stream in list(self._open):
            stream.stop()
        end = time.monotonic() + 3.0
        while self._open and time.monotonic() < end:
            await asyncio.sleep(0.02)


class _ClientStream:
    def __init__(
        self,
        socket: WebSocket,
        outbox: Outbox,
        context: ServerContext,
        pool: StreamPool,
        exams: Examinations,
        hub: LiveHub | None,
    ) -> None:
        self._socket, self._outbox, self._context, self._pool, self._exams = socket, outbox, context, pool, exams
        self._hub = hub
        self._limits = context.options.limits
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._waits_for_room = False
        self._stopping = asyncio.Event()
        self._finished = asyncio.Event()
        self._gate: PointGate | None = None
        self._feed: StreamFeed | None = None
        self._last = 0.0  # time of the last audio, on the loop's clock

    def stop(self) -> None:
        """The server ends: so does the stream."""
        self._stopping.set()

    async def run(self) -> None:
        """From the header to the close frame."""
        code, reason = 1000, ""
        try:
            header = await self._header()
            recorder = await run_in_threadpool(self._make_feed, header)
            assert self._feed is not None
            name = None if recorder is None else recorder.name
            self._outbox.put({"type": "stream", "recording": name, "sample_rate": self._feed.sample_rate})
            self._context.log(self._socket, "stream", recording=name, examination=header.examination)
            try:
                code, reason = await self._receive(header)
            finally:
                await self._end(header, recorder)
        except (WebSocketDisconnect, asyncio.TimeoutError):
            code, reason = IDLE, "nothing was sent in time"
        except StethoError as error:
            code, reason = BAD_DATA, str(error)
            self._context.audit.refused("stream", client=client_of(dict(self._socket.scope)), message=reason)
        if code not in (1000, GOING_AWAY):
            self._outbox.put({"type": "error", "message": reason})
        await self._outbox.close(code, reason[:120])

    async def _header(self) -> StreamHeader:
        message = await asyncio.wait_for(self._socket.receive(), self._limits.patience_s)
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        header = read_header(message.get("text") or "")
        if header.examination is not None:
            self._exams.check_open(header.examination, str(header.point))
        if header.source == "live" and (self._hub is None or not self._hub.running):
            raise RequestError(409, "the server plays no live source; start it with --source, or send audio")
        return header

    def _make_feed(self, header: StreamHeader) -> RecorderSink | None:
        options = self._context.options
        fields = session_fields({**header.metadata, "patient": header.patient})
        unknown = sorted(set(header.metadata) - set(FIELDS))
        if unknown:
            raise RequestError(422, f"unknown metadata {', '.join(unknown)[:80]}")
        if header.point is not None:
            fields |= {"examination": header.examination, "point": header.point}
        if header.first_sample:
            fields["first_sample"] = header.first_sample
        if header.until is not None:
            self._gate = PointGate(verdicts=options.bundle.verdict is not None)
        recorder = None
        if header.record or header.point is not None:
            recorder = RecorderSink(
                options.recordings, summary_labels(options.bundle), about={**self._context.about, **fields}
            )
        rate = header.rate
        if header.source == "live":
            assert self._hub is not None
            rate = self._hub.sample_rate
        assert rate is not None
        self._feed = StreamFeed(
            options.bundle,
            rate,
            fields["metadata"],
            "live" if header.source == "live" else "stream",
            [] if recorder is None else [BackgroundSink(recorder)],
            self._pool,
            self._context.metrics,
            self._deliver,
            full_scale=None if recorder is None else FULL_SCALE,
        )
        return recorder

    # -- lines, from the pool's threads --------------------------------------------------------------------------------

    def _deliver(self, lines: list[dict[str, Any]]) -> None:
        if lines or self._waits_for_room:
            self._loop.call_soon_threadsafe(self._take, lines)

    def _take(self, lines: list[dict[str, Any]]) -> None:
        self._room.set()
        for line in lines:
            if self._gate is not None:
                self._gate.take(line)
            self._outbox.put(line)
            if line["type"] == "summary":
                self._finished.set()

    # -- audio ---------------------------------------------------------------------------------------------------------

    async def _receive(self, header: StreamHeader) -> tuple[int, str]:
        """Take audio until the stream ends; the close code and its reason."""
        assert self._feed is not None
        feed = self._feed
        frames = None if header.source == "live" else FrameReader(header, self._limits.longest_gap_s)
        attached = None
        if self._hub is not None and frames is None:
            attached = self._hub.attach(feed, self._limits.stream_queue_s)
        self._last = self._loop.time()
        tasks = [
            self._loop.create_task(self._read(feed, frames)),
            self._loop.create_task(self._watch(feed, header, idle=frames is not None)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in tasks if task in done).result()
        finally:
            for task in tasks:
                task.cancel()
            if attached is not None and self._hub is not None:
                self._hub.detach(attached)

    async def _read(self, feed: StreamFeed, frames: FrameReader | None) -> tuple[int, str]:
        """Take messages until the client ends or leaves; one await a message, as there are hundreds a second."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect" or _is_end(message):
                return 1000, ""
            data = message.get("bytes")
            if frames is None or data is None:
                raise RequestError(422, 'after the header come binary messages, and {"type": "end"} at last')
            block = frames.block(data)
            if block is not None:
                self._last = self._loop.time()
                feed.put(block)
            while feed.held_s > self._limits.stream_queue_s:  # the client waits: TCP holds it back
                await self._wait_for_room()

    async def _watch(self, feed: StreamFeed, header: StreamHeader, *, idle: bool) -> tuple[int, str]:
        """Return when the stream has to end for another reason than its client's will."""
        ends = [self._loop.create_task(event.wait()) for event in (self._stopping, self._outbox.dropped)]
        try:
            while True:
                if self._gate is not None:
                    state = self._gate.state(str(header.point or ""), feed.received_s)
                    self._outbox.put(state)
                    if state["content"]:
                        return 1000, ""
                await asyncio.wait(ends, timeout=_POINT_S, return_when=asyncio.FIRST_COMPLETED)
                if self._outbox.dropped.is_set():
                    return 1000, ""
                if self._stopping.is_set():
                    return GOING_AWAY, "the server ends"
                if self._finished.is_set():  # the live source has another device
                    return 1000, ""
                if idle and self._loop.time() - self._last > self._limits.idle_s:
                    return IDLE, f"no audio for {self._limits.idle_s:g} s"
        finally:
            for task in ends:
                task.cancel()

    async def _wait_for_room(self) -> None:
        self._room.clear()
        self._waits_for_room = True
        try:
            await asyncio.wait_for(self._room.wait(), 0.2)
        except asyncio.TimeoutError:
            pass
        finally:
            self._waits_for_room = False

    async def _end(self, header: StreamHeader, recorder: RecorderSink | None) -> None:
        assert self._feed is not None
        self._feed.end()
        try:
            await asyncio.wait_for(self._finished.wait(), _SUMMARY_S)
        except asyncio.TimeoutError:
            self._outbox.put({"type": "error", "message": "the summary was not computed in time"})
        if header.examination is not None and recorder is not None and self._feed.received_s > 0:
            await run_in_threadpool(self._exams.add, header.examination, str(header.point), recorder.name)


def _is_end(message: Mapping[str, Any]) -> bool:
    text = message.get("text")
    if text is None:
        return False
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if found == "end" or (isinstance(found, dict) and found.get("type") == "end"):
        return True
    raise RequestError(422, 'after the header the only text is {"type": "end"}')
