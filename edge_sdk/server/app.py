"""The application: routes, errors, start and end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from edge_sdk._version import __version__
from edge_sdk.audit import AuditLog
from edge_sdk.errors import StethoError, describe
from edge_sdk.metadata import FIELDS
from edge_sdk.notices import RESEARCH_USE
from edge_sdk.screening.recordings import metrics_about
from edge_sdk.server import api, pages
from edge_sdk.server.about import POINTS
from edge_sdk.server.audit import AUDIT_FILE, ServerAudit
from edge_sdk.server.context import ServerContext, ServerOptions, context_of
from edge_sdk.server.guided import Examinations
from edge_sdk.server.metrics import ServerMetrics
from edge_sdk.server.security.access import Access
from edge_sdk.server.security.gate import AsgiApp, Gate, known_hosts
from edge_sdk.server.settings import RequestError
from edge_sdk.server.store.audio import RenderedAudio
from edge_sdk.server.store.corrections import CORRECTED_LABELS
from edge_sdk.server.store.recordings import RecordingStore
from edge_sdk.server.store.uploads import Uploads
from edge_sdk.server.streams.clients import StreamServer
from edge_sdk.server.streams.live import LiveHub
from edge_sdk.server.streams.pool import StreamPool
from edge_sdk.signal.listening import LISTENING_FILTERS
from edge_sdk.sinks.metrics import CONTENT_TYPE
from edge_sdk.sinks.recorder import session_about

_WORKER_THREADS = 4  # for files and filters; each costs memory


def make_app(
    options: ServerOptions, *, metrics: ServerMetrics | None = None, port: int = 0
) -> tuple[AsgiApp, Starlette]:
    """The application behind its gate, and the one inside (for its state).

    Parameters
    ----------
    options
        How the server is to run; its folder is made if it does not exist.
    metrics
        Shared with the connections.
    port
        Part of the cookie's name: browsers do not tell servers of one host apart by their port.
    """
    options.recordings.mkdir(parents=True, exist_ok=True)
    metrics = metrics or ServerMetrics(lambda: metrics_about(options.bundle))
    limits = options.limits
    about = session_about(options.bundle.identity)
    store = RecordingStore(options.recordings)
    context = ServerContext(
        options=options,
        about=about,
        access=Access(options.token, limits.logins_per_minute),
        audit=ServerAudit(options.audit or AuditLog(options.recordings / AUDIT_FILE)),
        metrics=metrics,
        store=store,
        examinations=Examinations(options.recordings, store),
        rendered=RenderedAudio(),
        uploads=Uploads(options.recordings, about, options.bundle_name, options.artefact, limits, metrics),
    )
    routes = [
        *pages.ROUTES,
        *api.ROUTES,
        Route("/api/info", info),
        WebSocketRoute("/api/streams", _streams),
        WebSocketRoute("/api/live", _live),
        Route("/healthz", healthz),
        Route("/metrics", metrics_page),
    ]
    handlers: dict[Any, Any] = {StethoError: _stetho_error, HTTPException: _http_error, Exception: _unexpected}
    app = Starlette(routes=routes, lifespan=_lifespan, exception_handlers=handlers)
    app.state.context = context
    app.state.cookie = f"stetho_{port}"
    gate = Gate(
        app,
        context.access,
        context.audit,
        metrics,
        limits,
        hosts=known_hosts(options.host, options.allowed_hosts),
        loopback_only=options.host is None,
        cookie=app.state.cookie,
    )
    return gate, app


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    context: ServerContext = app.state.context
    anyio.to_thread.current_default_thread_limiter().total_tokens = _WORKER_THREADS
    options = context.options
    context.audit.write("server-start", version=__version__)
    context.uploads.start()
    pool = StreamPool(options.threads)
    pool.start()
    hub = None if options.source is None else LiveHub(options.source, context)
    app.state.hub = hub
    app.state.streams = StreamServer(context, pool, context.examinations, hub)
    if hub is not None:
        hub.start()
    try:
        yield
    finally:
        await end_streams(app)
        pool.close()
        await context.uploads.close()
        context.rendered.close()
        context.audit.write("server-stop")


async def end_streams(app: Starlette) -> None:
    """End all streams and the live session, summaries included. May be called twice."""
    await app.state.streams.close()
    if app.state.hub is not None:
        await anyio.to_thread.run_sync(app.state.hub.stop)


async def _streams(socket: WebSocket) -> None:
    await socket.app.state.streams.serve(socket)


async def _live(socket: WebSocket) -> None:
    hub: LiveHub | None = socket.app.state.hub
    if hub is None:
        await socket.accept()
        await socket.send_json({"type": "error", "message": "no live source; start the server with --source"})
        await socket.close(4004, "no live source")
        return
    await hub.serve(socket)


async def info(request: Request) -> Response:
    """GET: what the page needs to know once."""
    context = context_of(request)
    options = context.options
    source = options.source
    live = None if source is None else {"name": source.name, "sample_rate": source.sample_rate}
    return JSONResponse(
        {
            "version": __version__,
            "notice": RESEARCH_USE,
            "bundle": context.about["bundle"],
            "labels": options.bundle.labels,
            "normal": options.bundle.classifier.normal_label,
            "corrected_labels": CORRECTED_LABELS,
            "filters": LISTENING_FILTERS,
            "metadata": FIELDS,
            "points": POINTS,
            "live": live,
            "token_needed": not context.access.open_to_all,
            "upload_mb": options.limits.upload_mb,
        }
    )


async def healthz(request: Request) -> Response:
    """GET: 200 while everything works; needs no token and says nothing about recordings."""
    hub: LiveHub | None = request.app.state.hub
    if hub is not None and hub.problem is not None:
        return JSONResponse({"status": "failed", "message": "the live source failed"}, 503)
    live = "none" if hub is None else "running" if hub.running else "ended"
    return JSONResponse({"status": "ok", "live": live})


async def metrics_page(request: Request) -> Response:
    """GET: counters in Prometheus' text format."""
    return Response(context_of(request).metrics.text(), media_type=CONTENT_TYPE)


def _stetho_error(connection: HTTPConnection, error: Exception) -> Response:
    status = error.status if isinstance(error, RequestError) else 422
    if status in (404, 409, 422, 429):
        context_of(connection).metrics.refused.labels(str(status)).inc()
    headers = {"retry-after": "20"} if status == 429 else None
    return JSONResponse({"type": "error", "message": str(error)}, status, headers)


def _http_error(connection: HTTPConnection, error: HTTPException) -> Response:
    return JSONResponse({"type": "error", "message": str(error.detail)}, error.status_code, error.headers)


def _unexpected(connection: HTTPConnection, error: Exception) -> Response:
    message = describe(error).removesuffix(" (--debug shows where)")
    return JSONResponse({"type": "error", "message": message}, 500)
