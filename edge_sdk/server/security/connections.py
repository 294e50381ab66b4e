"""Connections of uvicorn with bounds of their own: how many, how long the head of a request may take, who reads."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections import OrderedDict
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from edge_sdk.server.metrics import ServerMetrics

_log = logging.getLogger(__name__)

_SEND_BUFFER = 1 << 18  # bytes of the kernel a connection; the rest waits in a bounded outbox
_TIME_TO_READ_S = 5.0  # that a dropped client has for its notice
SLOW_CLIENT = 4008
"""Close code of a client that was dropped because it does not read."""


class Connections:
    """Counts the open connections; the oldest that has not sent a request makes room for a new one.

    Parameters
    ----------
    most
        Open at once.
    head_s
        Seconds for the head of a request, counted from the connection or from its first byte.
    """

    def __init__(self, metrics: ServerMetrics, *, most: int, head_s: float) -> None:
        self.metrics = metrics
        self.head_s = head_s
        self._most = most
        self._waiting: OrderedDict[asyncio.Transport, None] = OrderedDict()  # no complete request yet, oldest first
        self._open: set[asyncio.Transport] = set()

    def add(self, transport: asyncio.Transport) -> bool:
        """Take a connection in; False: there is no room, it was cut."""
        if len(self._open) >= self._most:
            if not self._waiting:
                self.cut(transport, "no-room")
                return False
            self.cut(next(iter(self._waiting)), "made-room")
        self._open.add(transport)
        self._waiting[transport] = None
        self.metrics.connections.set(len(self._open))
        return True

    def request_complete(self, transport: asyncio.Transport) -> None:
        """The head of a request has arrived."""
        self._waiting.pop(transport, None)

    def request_awaited(self, transport: asyncio.Transport) -> None:
        """A response has been sent; the next request of the connection is open."""
        if transport in self._open:
            self._waiting[transport] = None

    def remove(self, transport: asyncio.Transport) -> None:
        """A connection was closed."""
        self._waiting.pop(transport, None)
        self._open.discard(transport)
        self.metrics.connections.set(len(self._open))

    def cut(self, transport: asyncio.Transport, reason: str) -> None:
        """Close a connection without a word."""
        self.metrics.cut.labels(reason).inc()
        self.remove(transport)
        transport.abort()


def protocols(connections: Connections) -> tuple[type[H11Protocol], type[WebSocketsSansIOProtocol]]:
    """The two protocol classes of a server, for ``uvicorn.Config(http=, ws=)``."""

    class BoundedHttp(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            found = transport.get_extra_info("socket")
            if found is not None:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            if connections.add(transport):
                self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            connections.remove(self.transport)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            between = getattr(self.cycle, "response_complete", True)  # no request yet: there is no cycle
            if self._head_timer is None and between:
                self._await_head()  # of the next request on a connection that was kept
            super().data_received(data)

        def handle_events(self) -> None:
            before = self.cycle
            super().handle_events()
            if self.cycle is not before:
                self._stop_timer()
                connections.request_complete(self.transport)

        def handle_websocket_upgrade(self, event: Any) -> None:
            self._stop_timer()
            connections.request_complete(self.transport)
            super().handle_websocket_upgrade(event)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self.transport.is_closing():
                connections.request_awaited(self.transport)

        def _await_head(self) -> None:
            self._stop_timer()
            self._head_timer = self.loop.call_later(connections.head_s, self._too_late)

        def _stop_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _too_late(self) -> None:
            connections.cut(self.transport, "slow-head")

    class BoundedWebSocket(WebSocketsSansIOProtocol):
        def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
            super().__init__(config, server_state, {**app_state, "connection": self}, _loop)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.remove(self.transport)
            super().connection_lost(exc)

        def drop(self, message: str) -> None:
            """Tell the client, past all that waits for it, and close; cut the connection if it still does not read."""
            if self.close_sent or self.transport.is_closing():
                return
            notice = json.dumps({"type": "error", "message": message})
            self.conn.send_text(notice.encode())
            self.conn.send_close(SLOW_CLIENT, message[:120])
            self.close_sent = True
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.queue.put_nowait({"type": "websocket.disconnect", "code": SLOW_CLIENT, "reason": "slow"})
            self.close_timer = self.loop.call_later(_TIME_TO_READ_S, self.transport.abort)

    return BoundedHttp, BoundedWebSocket
