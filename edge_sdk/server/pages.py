"""The page's files, read once: no path of a request reaches the file system."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from edge_sdk.server.context import context_of, json_body
from edge_sdk.server.openapi import description
from edge_sdk.server.settings import RequestError

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class _StaticFile(NamedTuple):
    content: bytes
    kind: str
    tag: str


def _read_all() -> dict[str, _StaticFile]:
    found = {}
    for entry in files("edge_sdk.server").joinpath("static").iterdir():
        suffix = "." + entry.name.rpartition(".")[2]
        if suffix in _KINDS:
            content = entry.read_bytes()
            found[entry.name] = _StaticFile(content, _KINDS[suffix], f'"{hashlib.sha256(content).hexdigest()[:24]}"')
    return found


_FILES = _read_all()


def _respond(request: Request, name: str) -> Response:
    found = _FILES.get(name)
    if found is None:
        raise RequestError(404, "no such page")
    headers = {"etag": found.tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.kind, headers=headers)


async def index(request: Request) -> Response:
    """GET /: the page; with ``?token=`` (the printed link) a login that leads to it."""
    token = request.query_params.get("token")
    if token is None:
        return _respond(request, "index.html")
    if context_of(request).access.open_to_all:
        return RedirectResponse("/", 303)
    return _log_in(request, token, RedirectResponse("/", 303))


async def login_page(request: Request) -> Response:
    """GET /login: asks for the token."""
    return _respond(request, "login.html")


async def log_in(request: Request) -> Response:
    """POST /login ``{"token": ...}``: exchanges the token for a cookie."""
    body = await json_body(request)
    return _log_in(request, str(body.get("token", "")), JSONResponse({"type": "login"}))


def _log_in(request: Request, token: str, response: Response) -> Response:
    context = context_of(request)
    cookie = context.access.log_in(token)
    context.log(request, "login")
    response.set_cookie(
        request.app.state.cookie,
        cookie,
        max_age=12 * 3600,
        httponly=True,
        samesite="strict",
        secure=context.options.secure,
    )
    return response


async def log_out(request: Request) -> Response:
    """POST /logout: ends the session of the cookie."""
    name = request.app.state.cookie
    context_of(request).access.log_out(request.cookies.get(name, ""))
    response = JSONResponse({"type": "logout"})
    response.delete_cookie(name)
    return response


async def static_file(request: Request) -> Response:
    """GET /static/NAME."""
    return _respond(request, request.path_params["name"])


async def openapi(request: Request) -> Response:
    """GET /openapi.json: the interface described."""
    return JSONResponse(description())


ROUTES = [
    Route("/", index),
    Route("/login", login_page, methods=["GET"]),
    Route("/login", log_in, methods=["POST"]),
    Route("/logout", log_out, methods=["POST"]),
    Route("/static/{name}", static_file),
    Route("/openapi.json", openapi),
]
