"""The interface to kept recordings over HTTP."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from edge_sdk.audit import ENVIRONMENT as AUDIT_VARIABLE
from edge_sdk.numbers import whole_number
from edge_sdk.server.context import ServerContext, context_of, json_body, session_fields
from edge_sdk.server.settings import RequestError, patient_code
from edge_sdk.server.store.corpus import choose, write_corpus
from edge_sdk.server.store.multipart import MultipartFiles
from edge_sdk.server.store.recordings import StoredRecording, recording_row

_MOST_ROWS = 500
_REPORT_S = 180.0
_REPORTS = asyncio.Semaphore(1)  # a report takes a core and much memory


async def list_recordings(request: Request) -> Response:
    """GET: rows, newest first; ``?patient=``, ``verdict=``, ``examination=``, ``offset=``, ``limit=``."""
    context = context_of(request)
    rows = await run_in_threadpool(context.store.rows)
    for key in ("patient", "verdict", "examination"):
        if key in request.query_params:
            rows = [row for row in rows if row[key] == request.query_params[key]]
    offset, limit = (_count(request, key, default) for key, default in (("offset", 0), ("limit", 200)))
    page = rows[offset : offset + min(limit, _MOST_ROWS)]
    return JSONResponse({"total": len(rows), "recordings": page})


async def upload(request: Request) -> Response:
    """POST: one file as the body (``?name=``), or many as ``multipart/form-data``; ``?wait=1`` waits for the result."""
    context = context_of(request)
    kind = request.headers.get("content-type", "")
    states = []
    if kind.lower().startswith("multipart/form-data"):
        files = MultipartFiles(kind, request.stream())
        async for name, content in files:
            given = {**request.query_params, **files.fields}
            states.append(await _take(context, request, name, content, given))
    else:
        name = request.query_params.get("name", "recording")
        states.append(await _take(context, request, name, request.stream(), dict(request.query_params)))
    if not states:
        raise RequestError(422, "the form holds no file")
    if request.query_params.get("wait"):
        states = [s if s["state"] == "refused" else await context.uploads.wait(s["id"]) for s in states]
    refused = next((s["status"] for s in states if s["state"] == "refused"), None)
    status = refused if refused is not None and all(s["state"] == "refused" for s in states) else 202
    return JSONResponse({"uploads": states}, status)


async def _take(
    context: ServerContext, request: Request, name: str, content: AsyncIterator[bytes], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Take one file in; one that cannot be taken is named, and the others of the form go on."""
    name = Path(name.replace("\\", "/")).name[:200] or "file"
    try:
        fields = session_fields({**given, "patient": given.get("patient") or _code_of(name, given)})
        state = await context.uploads.take(name, content, fields)
    except RequestError as error:
        if error.status in (408, 413) and not request.headers.get("content-type", "").startswith("multipart/"):
            raise
        return {"name": name, "state": "refused", "status": error.status, "message": f"{name}: {error}"}
    context.log(request, "upload", upload=state["id"])
    return state


def _code_of(name: str, given: Mapping[str, Any]) -> str | None:
    """The file's name as patient code, only where that was asked for: file names may hold names of persons."""
    if not given.get("code_from_name"):
        return None
    return patient_code(re.sub(r"[^A-Za-z0-9._-]", "-", Path(name).stem)[:32].strip("._-"))


async def list_uploads(request: Request) -> Response:
    """GET: uploads of this run, newest first."""
    return JSONResponse({"uploads": context_of(request).uploads.rows()})


async def get_upload(request: Request) -> Response:
    """GET: state and progress of one upload."""
    return JSONResponse(context_of(request).uploads.row(request.path_params["id"]))


async def get_recording(request: Request) -> Response:
    """GET: everything about one recording: session, summary, events, cycles as corrected, history."""
    context = context_of(request)
    recording = context.store.get(request.path_params["id"])
    context.log(request, "view", recording=recording.id)
    return JSONResponse(await run_in_threadpool(_details, recording))


def _details(recording: StoredRecording) -> dict[str, Any]:
    events = recording.events()
    corrections = recording.corrections()
    return {
        **recording_row(recording),
        "audio_s": recording.duration_s(),
        "session": recording.session(),
        "summary": recording.summary(),
        "events": [event for event in events if event.get("type") not in ("cycle", "summary")],
        "original": [event for event in events if event.get("type") == "cycle"],
        **_corrected(corrections),
    }


def _corrected(corrections: Any) -> dict[str, Any]:
    return {
        "cycles": corrections.cycles(),
        "history": corrections.history,
        "undoable": corrections.undoable,
        "locked": corrections.locked,
    }


async def get_audio(request: Request) -> Response:
    """GET: 16-bit WAV through ``?filter=``, or the recorded flac with ``?format=flac``; ranges are served."""
    context = context_of(request)
    recording = context.store.get(request.path_params["id"])
    if request.query_params.get("format") == "flac":
        context.log(request, "export", recording=recording.id, what="flac")
        return FileResponse(recording.audio_file, media_type="audio/flac", filename=recording.audio_file.name)
    path = await run_in_threadpool(context.rendered.wav, recording, request.query_params.get("filter", "raw"))
    return FileResponse(path, media_type="audio/wav")


async def get_events(request: Request) -> Response:
    """GET: the JSON lines as recorded."""
    context = context_of(request)
    recording = context.store.get(request.path_params["id"])
    context.log(request, "export", recording=recording.id, what="events")
    return FileResponse(recording.events_file, media_type="application/x-ndjson")


async def get_corrections(request: Request) -> Response:
    """GET: cycles as corrected, and the history."""
    recording = context_of(request).store.get(request.path_params["id"])
    return JSONResponse(_corrected(await run_in_threadpool(recording.corrections)))


async def post_correction(request: Request) -> Response:
    """POST: append one correction; the answer holds the cycles that result."""
    context = context_of(request)
    recording = context.store.get(request.path_params["id"])
    body = await json_body(request)

    def append() -> tuple[dict[str, Any], dict[str, Any]]:
        with context.store.lock(recording.id):
            corrections = recording.corrections()
            record = corrections.append(body)
            return record, _corrected(corrections)

    record, state = await run_in_threadpool(append)
    context.metrics.corrections.labels(record["action"]).inc()
    context.log(request, "correction", record["who"], recording=recording.id, seq=record["seq"], what=record["action"])
    return JSONResponse({"correction": record, **state}, 201)


async def get_report(request: Request) -> Response:
    """GET: the recording on one offline page; ``?format=pdf`` for the same as a PDF."""
    recording = context_of(request).store.get(request.path_params["id"])
    return await _report(request, [recording])


async def get_examination_report(request: Request) -> Response:
    """GET: all points of an examination on one page."""
    context = context_of(request)
    record = await run_in_threadpool(context.examinations.get, request.path_params["id"])
    if not record["points"]:
        raise RequestError(404, "no point of the examination is recorded")
    return await _report(request, [context.store.get(row["recording"]) for row in record["points"].values()])


async def _report(request: Request, recordings: Sequence[StoredRecording]) -> Response:
    """Made by ``stetho report`` in a process of its own: its plots would stay in this one's memory."""
    kind = request.query_params.get("format", "html")
    if kind not in ("html", "pdf"):
        raise RequestError(422, "the format is html or pdf")
    context_of(request).log(request, "export", recording=[r.id for r in recordings], what="report")
    path = _temporary(f".{kind}")
    command = ["report", *(str(r.session_file) for r in recordings), "--out", str(path)]
    environment = {name: value for name, value in os.environ.items() if name != AUDIT_VARIABLE}  # it is logged above
    async with _REPORTS:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edge_sdk.cli.main", *command, stdout=PIPE, stderr=PIPE, env=environment
        )
        try:
            _, errors = await asyncio.wait_for(process.communicate(), _REPORT_S)
        except asyncio.TimeoutError:
            process.kill()
            errors = b"the report took too long"
    if process.returncode != 0:
        path.unlink(missing_ok=True)
        line = errors.decode("utf-8", "replace").strip().rpartition("\n")[2].removeprefix("stetho: error: ")
        raise RequestError(422, f"no report: {line[:300]}")
    media = {"html": "text/html; charset=utf-8", "pdf": "application/pdf"}[kind]
    done = BackgroundTask(path.unlink, missing_ok=True)
    return FileResponse(path, media_type=media, filename=f"{recordings[0].id}.{kind}", background=done)


async def get_corpus(request: Request) -> Response:
    """GET: a zip of ``corpus.csv`` and audio; ``?which=corrected|locked|all``, or ``?recordings=ID,ID``."""
    context = context_of(request)
    asked = request.query_params.get("recordings")
    path = _temporary(".zip")

    def write() -> int:
        if asked:
            chosen = [context.store.get(name) for name in asked.split(",")]
        else:
            rows = {row["id"]: row for row in context.store.rows()}
            chosen = choose(map(context.store.get, rows), rows, request.query_params.get("which", "corrected"))
        return write_corpus(chosen, path)

    try:
        cycles = await run_in_threadpool(write)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    context.log(request, "export", what="corpus", cycles=cycles)
    done = BackgroundTask(path.unlink, missing_ok=True)
    return FileResponse(path, media_type="application/zip", filename="corpus.zip", background=done)


async def list_examinations(request: Request) -> Response:
    """GET: guided examinations, newest first."""
    return JSONResponse({"examinations": await run_in_threadpool(context_of(request).examinations.rows)})


async def begin_examination(request: Request) -> Response:
    """POST ``{"patient", "metadata"}``: begin a guided examination."""
    context = context_of(request)
    body = await json_body(request)
    metadata = body.get("metadata")
    fields = session_fields({**(metadata if isinstance(metadata, dict) else {}), "patient": body.get("patient")})
    record = await run_in_threadpool(context.examinations.begin, fields)
    context.log(request, "examination", examination=record["id"])
    return JSONResponse(record, 201)


async def get_examination(request: Request) -> Response:
    """GET: points with their verdicts, missing points, the verdict of all."""
    context = context_of(request)
    record = await run_in_threadpool(context.examinations.get, request.path_params["id"])
    context.log(request, "view", examination=record["id"])
    return JSONResponse(record)


async def finish_examination(request: Request) -> Response:
    """POST: close an examination."""
    context = context_of(request)
    record = await run_in_threadpool(context.examinations.finish, request.path_params["id"])
    context.log(request, "examination-finished", examination=record["id"])
    return JSONResponse(record)


def _temporary(suffix: str) -> Path:
    with tempfile.NamedTemporaryFile(prefix="stetho-", suffix=suffix, delete=False) as file:
        return Path(file.name)


def _count(request: Request, key: str, default: int) -> int:
    count = whole_number(request.query_params.get(key, str(default)))
    if count is None:
        raise RequestError(422, f"{key} must be a whole number from 0")
    return count


ROUTES = [
    Route("/api/recordings", list_recordings, methods=["GET"]),
    Route("/api/recordings", upload, methods=["POST"]),
    Route("/api/recordings/{id}", get_recording),
    Route("/api/recordings/{id}/audio", get_audio),
    Route("/api/recordings/{id}/events", get_events),
    Route("/api/recordings/{id}/corrections", get_corrections, methods=["GET"]),
    Route("/api/recordings/{id}/corrections", post_correction, methods=["POST"]),
    Route("/api/recordings/{id}/report", get_report),
    Route("/api/uploads", list_uploads),
    Route("/api/uploads/{id}", get_upload),
    Route("/api/corpus", get_corpus),
    Route("/api/examinations", list_examinations, methods=["GET"]),
    Route("/api/examinations", begin_examination, methods=["POST"]),
    Route("/api/examinations/{id}", get_examination),
    Route("/api/examinations/{id}/report", get_examination_report),
    Route("/api/examinations/{id}/finish", finish_examination, methods=["POST"]),
]
