"""The gate before the application: host, origin, token, size and pace of every request; headers of every response."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any

from edge_sdk.numbers import whole_number
from edge_sdk.server.audit import ServerAudit
from edge_sdk.server.metrics import ServerMetrics
from edge_sdk.server.security.access import Access
from edge_sdk.server.settings import RequestError, ServerLimits

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

FREE_PATHS = frozenset({"/healthz", "/login", "/static/style.css", "/static/login.js", "/static/theme.js"})
"""Served without a token."""

UPLOAD_PATH = "/api/recordings"

_UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"microphone=(self), camera=(), geolocation=()"),
)


class Gate:
    """Wraps an ASGI application.

    Parameters
    ----------
    app
        What is protected.
    access
        Token and sessions.
    audit
        Refusals are written there.
    metrics
        Responses and refusals are counted there.
    limits
        Size and pace of bodies.
    hosts
        Names under which clients may address the server, beside IP addresses; in lower case, without port.
    cookie
        Name of the session's cookie.
    """

    def __init__(
        self,
        app: AsgiApp,
        access: Access,
        audit: ServerAudit,
        metrics: ServerMetrics,
        limits: ServerLimits,
        *,
        hosts: Iterable[str],
        loopback_only: bool,
        cookie: str,
    ) -> None:
        self._app, self._access, self._audit, self._metrics = app, access, audit, metrics
        self._limits, self._cookie = limits, cookie
        self._hosts = frozenset(hosts)
        self._loopback_only = loopback_only

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        guarded = self._guarded_send(scope, headers, send)
        try:
            self._check(scope, headers)
        except RequestError as error:
            await self._refuse(scope, headers, guarded, error)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, guarded)
            return
        body = _BoundedBody(receive, self._body_limit(scope), self._limits)
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await guarded(message)

        try:
            body.check_length(headers.get(b"content-length"))
            await self._app(scope, body, sending)
        except RequestError as error:
            if started:
                raise
            await self._refuse(scope, headers, guarded, error)

    # -- checks --------------------------------------------------------------------------------------------------------

    def _check(self, scope: Message, headers: dict[bytes, str]) -> None:
        host = headers.get(b"host", "")
        if not self._host_is_known(host):
            raise RequestError(421, f"this server does not answer to the host name {host[:80]!r}; see --allow-host")
        origin = headers.get(b"origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise RequestError(403, f"requests from pages of {origin[:80]!r} are refused")
        changing = scope["type"] == "websocket" or scope["method"] in _UNSAFE
        site = headers.get(b"sec-fetch-site", "same-origin")
        if site not in ("same-origin", "none") and (changing or scope["path"].startswith("/api/")):
            raise RequestError(403, "requests from other sites are refused")
        if self._access.open_to_all or scope["path"] in FREE_PATHS or self._is_link(scope):
            return
        kind, _, token = headers.get(b"authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._access.token_is_right(token.strip()):
            return
        if self._access.session_is_valid(cookie_of(headers.get(b"cookie", ""), self._cookie)):
            return
        raise RequestError(401, "a token is needed: log in, or send it as 'Authorization: Bearer TOKEN'")

    def _host_is_known(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.strip("[]").lower()
        if name in self._hosts:
            return True
        try:  # an attacker's page reaches us under a name of his (DNS rebinding), never under an address
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._loopback_only

    @staticmethod
    def _is_link(scope: Message) -> bool:
        return bool(scope["type"] == "http" and scope["path"] == "/" and scope["query_string"].startswith(b"token="))

    def _body_limit(self, scope: Message) -> float:
        uploads = scope["path"] == UPLOAD_PATH and scope["method"] == "POST"
        return self._limits.upload_mb * (1 << 20) if uploads else self._limits.body_kb * 1024

    # -- responses -----------------------------------------------------------------------------------------------------

    async def _refuse(self, scope: Message, headers: dict[bytes, str], send: Send, error: RequestError) -> None:
        client = client_of(scope)
        self._metrics.refused.labels(str(error.status)).inc()
        self._audit.refused(str(error.status), client=client, path=scope["path"][:200], message=str(error))
        if scope["type"] == "websocket":
            start: Message = {"type": "websocket.http.response.start", "status": error.status, "headers": []}
            body: Message = {"type": "websocket.http.response.body", "body": _error_body(error)}
        else:
            if error.status == 401 and scope["method"] == "GET" and "text/html" in headers.get(b"accept", ""):
                start = {"type": "http.response.start", "status": 303, "headers": [(b"location", b"/login")]}
                await send(start)
                await send({"type": "http.response.body", "body": b""})
                return
            kind = [(b"content-type", b"application/json"), (b"connection", b"close")]
            if error.status == 401:
                kind.append((b"www-authenticate", b"Bearer"))
            start = {"type": "http.response.start", "status": error.status, "headers": kind}
            body = {"type": "http.response.body", "body": _error_body(error)}
        await send(start)
        await send(body)

    def _guarded_send(self, scope: Message, headers: dict[bytes, str], send: Send) -> Send:
        host = headers.get(b"host", "")
        host = host if self._host_is_known(host) and not set(host) & set("; ,'\"") else "localhost"
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
            f"media-src 'self' blob:; connect-src 'self' ws://{host} wss://{host}; worker-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        began = time.perf_counter()

        async def guarded(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                own = [(b"content-security-policy", policy.encode("latin-1", "replace")), *_HEADERS]
                if scope.get("scheme") in ("https", "wss"):
                    own.append((b"strict-transport-security", b"max-age=31536000"))
                given = list(message.get("headers", []))
                names = {name for name, _ in given}
                if b"cache-control" not in names:
                    own.append((b"cache-control", b"no-store"))
                message = {**message, "headers": [*given, *((n, v) for n, v in own if n not in names)]}
                self._metrics.requests.labels(str(message["status"])).inc()
                self._metrics.request_s.observe(time.perf_counter() - began)
            await send(message)

        return guarded


class _BoundedBody:
    """Passes a request's body on while it stays within size and pace."""

    def __init__(self, receive: Receive, most: float, limits: ServerLimits) -> None:
        self._receive, self._most, self._limits = receive, most, limits
        self._size = 0
        self._began: float | None = None
        self._complete = False

    def check_length(self, stated: str | None) -> None:
        """Refuse a body whose head says that it is too large."""
        if stated is None:
            return
        size = whole_number(stated)
        if (size is None and stated.isdecimal()) or (size is not None and size > self._most):
            self._too_large()

    async def __call__(self) -> Message:
        """Next message of the body."""
        if self._complete:  # what follows is the client's leaving, which may take as long as the response
            return await self._receive()
        if self._began is None:
            self._began = time.monotonic()
        allowed = self._limits.patience_s + self._size / self._limits.slowest_body_bps
        try:
            message = await asyncio.wait_for(self._receive(), max(0.01, self._began + allowed - time.monotonic()))
        except asyncio.TimeoutError:
            raise RequestError(408, "the body of the request arrives too slowly") from None
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._size > self._most:
                self._too_large()
        return message

    def _too_large(self) -> None:
        raise RequestError(413, f"the body may have {self._most / (1 << 20):.4g} MiB at most")


def known_hosts(host: str | None, more: Iterable[str]) -> set[str]:
    """Names under which this machine may be addressed: its own, those given, and ``host`` if it is a name."""
    names = {"localhost", *(name.lower() for name in more)}
    if host is not None:
        own = socket.gethostname().lower()
        names |= {host.lower(), own, f"{own}.local"}
    return names


def cookie_of(header: str, name: str) -> str:
    """Value of a cookie; empty where there is none."""
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value


def client_of(scope: Message) -> str:
    """Address of the client, without its port."""
    return str((scope.get("client") or ("",))[0])


def _error_body(error: RequestError) -> bytes:
    return json.dumps({"type": "error", "message": str(error)}).encode()
