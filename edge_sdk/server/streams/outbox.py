"""Messages that wait for a client: bounded, so that one who does not read is dropped and harms nobody else."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from edge_sdk.json_lines import json_line
from edge_sdk.server.audit import ServerAudit
from edge_sdk.server.metrics import ServerMetrics
from edge_sdk.server.security.gate import client_of

_log = logging.getLogger(__name__)


class Outbox:
    """Sends messages to one WebSocket in order. Lives in the server's event loop.

    Parameters
    ----------
    socket
        Accepted.
    most
        Messages that may wait; with one more the client is dropped with a notice.
    """

    def __init__(self, socket: WebSocket, most: int, metrics: ServerMetrics, audit: ServerAudit) -> None:
        self._socket, self._most, self._metrics, self._audit = socket, most, metrics, audit
        self._waiting: deque[str | bytes] = deque()
        self._changed = asyncio.Event()
        self._ended = False
        self.dropped = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._send_all())

    def put(self, message: dict[str, Any] | bytes) -> None:
        """Queue an object (as one text message) or bytes; drop the client where too much waits already."""
        if self.dropped.is_set() or self._ended:
            return
        if len(self._waiting) >= self._most:
            self._drop()
            return
        self._waiting.append(message if isinstance(message, bytes) else json_line(message).rstrip("\n"))
        self._changed.set()

    async def close(self, code: int = 1000, reason: str = "", timeout_s: float = 5.0) -> None:
        """Send what waits, at most for ``timeout_s``, then close the connection."""
        self._ended = True
        self._changed.set()
        with suppress(asyncio.TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(self._task), timeout_s)
        self._task.cancel()
        if not self.dropped.is_set():
            with suppress(RuntimeError, WebSocketDisconnect, asyncio.TimeoutError):
                await asyncio.wait_for(self._socket.close(code, reason), 1.0)

    def _drop(self) -> None:
        self.dropped.set()
        self._changed.set()
        self._waiting.clear()
        self._metrics.dropped.inc()
        self._audit.refused("slow-reader", client=client_of(dict(self._socket.scope)), path=self._socket.url.path)
        connection = self._socket.scope.get("state", {}).get("connection")
        if connection is not None:
            connection.drop(f"dropped: {self._most} messages wait and none is read; read faster and connect again")

    async def _send_all(self) -> None:
        try:
            while not self.dropped.is_set():
                while self._waiting:
                    message = self._waiting.popleft()
                    if isinstance(message, bytes):
                        await self._socket.send_bytes(message)
                    else:
                        await self._socket.send_text(message)
                if self._ended:
                    return
                self._changed.clear()
                await self._changed.wait()
        except (RuntimeError, WebSocketDisconnect):  # the client has left
            self._ended = True
        except Exception:
            self._ended = True
            _log.debug("sending failed", exc_info=True)
