"""Runs the server until a signal: sockets, TLS, uvicorn, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette

from edge_sdk.errors import StethoError
from edge_sdk.screening.recordings import metrics_about
from edge_sdk.server.app import end_streams, make_app
from edge_sdk.server.context import ServerOptions
from edge_sdk.server.metrics import ServerMetrics
from edge_sdk.server.security.connections import Connections, protocols

_log = logging.getLogger(__name__)

Announce = Callable[[dict[str, Any]], None]
"""Takes the objects of ``--json``."""

LOOPBACK = "127.0.0.1"
_GRACE_S = 5


@dataclass(frozen=True)
class Address:
    """Where the server listens."""

    host: str | None = None  # as given; None: loopback, and no token is needed
    port: int = 8000  # 0: any that is free
    certificate: Path | None = None
    key: Path | None = None


class _Server(uvicorn.Server):
    """Leaves signals to :func:`serve`, which ends without an error."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(frozen=True)
class Built:
    """A server that listens but does not run yet."""

    server: uvicorn.Server
    app: Starlette  # for its state
    listener: socket.socket
    record: dict[str, Any]  # the line ``serving``


def serve(options: ServerOptions, address: Address, announce: Announce) -> None:
    """Serve until SIGINT or SIGTERM.

    Parameters
    ----------
    options
        What to serve; host, token and TLS are taken from ``address``.
    address
        Where.
    announce
        Called once connections are accepted, and at the end with the summary of the live source.

    Raises
    ------
    StethoError
        As :func:`build`, or from the live source.
    """
    built = build(options, address)
    try:
        asyncio.run(_run(built, announce))
    finally:
        built.listener.close()


def build(options: ServerOptions, address: Address) -> Built:
    """Bind the address and make the server.

    Raises
    ------
    StethoError
        The address is in use or not of this machine, or the certificate cannot be used.
    """
    if (address.certificate is None) != (address.key is None):
        raise StethoError("TLS needs both --cert and --key")
    listener = _listen(address)
    host, port = listener.getsockname()[:2]
    token = options.token
    if token is None and address.host is not None:
        token = secrets.token_urlsafe(24)
    options = replace(options, host=address.host, token=token, secure=address.certificate is not None)
    metrics = ServerMetrics(lambda: metrics_about(options.bundle))
    app, inner = make_app(options, metrics=metrics, port=port)
    config = _uvicorn_config(app, options, address, metrics)
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        listener.close()
        raise StethoError(f"the certificate or key cannot be used: {error}") from None
    record = {
        "type": "serving",
        "url": _url(address, host, port),
        "token": token,
        "recordings": str(options.recordings),
    }
    return Built(_Server(config), inner, listener, record)


def _uvicorn_config(app: Any, options: ServerOptions, address: Address, metrics: ServerMetrics) -> uvicorn.Config:
    limits = options.limits
    http, ws = protocols(Connections(metrics, most=limits.connections, head_s=limits.patience_s))
    return uvicorn.Config(
        app,
        http=http,
        ws=ws,
        lifespan="on",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws_max_size=1 << 20,
        ws_per_message_deflate=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_GRACE_S,
        h11_max_incomplete_event_size=16 << 10,
        ssl_certfile=address.certificate,
        ssl_keyfile=None if address.key is None else str(address.key),
        ssl_ciphers="ECDHE+AESGCM:ECDHE+CHACHA20",
    )


async def _run(built: Built, announce: Announce) -> None:
    server = built.server
    loop = asyncio.get_running_loop()
    ending: list[asyncio.Task[None]] = []

    async def end() -> None:
        await end_streams(built.app)  # before the connections are closed: clients get their summaries
        server.should_exit = True

    def stop() -> None:
        if ending or not server.started:
            server.should_exit = True
        else:
            ending.append(loop.create_task(end()))

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)

    async def announce_when_started() -> None:
        while not server.started and not server.should_exit:
            await asyncio.sleep(0.01)
        if server.started:
            announce(built.record)

    announcing = loop.create_task(announce_when_started())
    await server.serve(sockets=[built.listener])
    await announcing
    hub = getattr(built.app.state, "hub", None)
    if hub is not None:
        if hub.summary is not None:
            announce(hub.summary)
        if hub.problem is not None:
            raise hub.problem


def _listen(address: Address) -> socket.socket:
    host = address.host or LOOPBACK
    try:
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StethoError(f"--host {host} is no address of this machine ({error.strerror})") from None
    family, kind, _, _, where = found[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(512)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise StethoError(f"cannot listen on {host}:{address.port} ({reason}); try another --port") from None
    listener.setblocking(False)
    return listener


def _url(address: Address, host: str, port: int) -> str:
    scheme = "http" if address.certificate is None else "https"
    shown = host
    with contextlib.suppress(ValueError):
        found = ipaddress.ip_address(host)
        if found.is_unspecified:  # every address of the machine: name one that other machines reach
            shown = socket.gethostname()
        elif found.version == 6:
            shown = f"[{host}]"
    return f"{scheme}://{shown}:{port}/"
