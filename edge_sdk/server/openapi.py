"""The interface as an OpenAPI 3.1 document, served at ``/openapi.json``."""

from __future__ import annotations

from typing import Any

from edge_sdk._version import __version__
from edge_sdk.server.about import POINTS
from edge_sdk.server.store.corpus import CHOICES
from edge_sdk.server.store.corrections import ACTIONS, CORRECTED_LABELS
from edge_sdk.signal.listening import LISTENING_FILTERS

_OBJECT = {"type": "object"}
_SECONDS = {"type": "number", "minimum": 0, "description": "Seconds from the first sample of the audio."}
_HEADER = {
    "type": "object",
    "description": "First message of a stream.",
    "required": ["format"],
    "properties": {
        "rate": {"type": "integer", "minimum": 1000, "maximum": 192000, "description": "Hz"},
        "format": {"enum": ["s16le", "f32le"]},
        "channels": {"type": "integer", "minimum": 1, "maximum": 8, "default": 1},
        "channel": {"type": "integer", "default": 0, "description": "Which one is analysed."},
        "metadata": {"type": "object", "description": "site, device, age_years, sex, bmi; each optional."},
        "patient": {"type": "string", "description": "A code, never a name."},
        "first_sample": {"type": "integer", "minimum": 0, "default": 0},
        "numbered": {
            "type": "boolean",
            "default": False,
            "description": "Each binary message begins with 8 bytes: the index of its first sample, unsigned, "
            "little-endian. Missing samples become a gap, counted exactly; repeated ones are left out.",
        },
        "record": {"type": "boolean", "default": True},
        "source": {"enum": ["live"], "description": "Instead of rate and format: the server's own live source."},
        "examination": {"type": "string", "description": "Id of the guided examination."},
        "point": {"enum": list(POINTS)},
        "until": {"enum": ["content"], "description": "End by itself when the quality gate is content."},
    },
}
_CORRECTION = {
    "type": "object",
    "required": ["action", "who"],
    "properties": {
        "action": {"enum": list(ACTIONS)},
        "who": {"type": "string", "description": "Initials of the reviewer."},
        "cycle": {"type": ["string", "null"], "description": "Id of the cycle; null locks the whole recording."},
        "start_s": _SECONDS,
        "end_s": _SECONDS,
        "label": {"enum": list(CORRECTED_LABELS)},
        "of": {"type": "integer", "description": "undo: number of the correction; the newest one without it."},
        "expected": {"type": "integer", "description": "Corrections seen; another number is refused with 409."},
    },
}


def description() -> dict[str, Any]:
    """The document."""
    by_id = [_parameter("id", "path")]
    paths: dict[str, Any] = {
        "/api/recordings": {
            "get": _operation(
                "Recordings, newest first",
                [_parameter(n, "query") for n in ("patient", "verdict", "examination", "offset", "limit")],
            ),
            "post": _operation(
                "Upload recordings: one as the body, or many as a form; screened in the background",
                [_parameter(n, "query") for n in ("name", "patient", "site", "device", "code_from_name", "wait")],
                status="202",
                body={
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                    "multipart/form-data": {"schema": _OBJECT},
                },
            ),
        },
        "/api/recordings/{id}": {"get": _operation("One recording: session, events, cycles, history", by_id)},
        "/api/recordings/{id}/audio": {
            "get": _operation(
                "Audio as 16-bit WAV, or as recorded (format=flac)",
                [
                    *by_id,
                    _parameter("filter", "query", {"enum": list(LISTENING_FILTERS)}),
                    _parameter("format", "query", {"enum": ["wav", "flac"]}),
                ],
                kind="audio/wav",
            )
        },
        "/api/recordings/{id}/events": {
            "get": _operation("The JSON lines as recorded", by_id, kind="application/x-ndjson")
        },
        "/api/recordings/{id}/corrections": {
            "get": _operation("Cycles as corrected, and the history", by_id),
            "post": _operation(
                "Append a correction", by_id, status="201", body={"application/json": {"schema": _CORRECTION}}
            ),
        },
        "/api/recordings/{id}/report": {"get": _operation("The recording on one page", by_id, kind="text/html")},
        "/api/uploads": {"get": _operation("Uploads of this run")},
        "/api/uploads/{id}": {"get": _operation("State and progress of an upload", by_id)},
        "/api/corpus": {
            "get": _operation(
                "Corrected recordings as a CSV corpus",
                [_parameter("which", "query", {"enum": list(CHOICES)}), _parameter("recordings", "query")],
                kind="application/zip",
            )
        },
        "/api/examinations": {
            "get": _operation("Guided examinations"),
            "post": _operation(
                "Begin one: {patient, metadata}", status="201", body={"application/json": {"schema": _OBJECT}}
            ),
        },
        "/api/examinations/{id}": {"get": _operation("Points, missing points, verdicts", by_id)},
        "/api/examinations/{id}/report": {"get": _operation("All points on one page", by_id, kind="text/html")},
        "/api/examinations/{id}/finish": {"post": _operation("Close it", by_id)},
        "/api/info": {"get": _operation("Bundle, labels, live source, filters, points")},
        "/healthz": {"get": _operation("Whether the server and its source work")},
        "/metrics": {"get": _operation("Counters for Prometheus", kind="text/plain")},
        "/api/streams": {
            "get": _operation(
                'WebSocket: a header (see StreamHeader), then PCM as binary messages, then {"type": "end"}; '
                "the JSON lines of `stetho listen` come back, the summary last",
                status="101",
            )
        },
        "/api/live": {"get": _operation("WebSocket: audio and events of the live source", status="101")},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "stetho serve", "version": __version__, "description": "For research use only."},
        "paths": paths,
        "components": {
            "schemas": {"StreamHeader": _HEADER, "Correction": _CORRECTION},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "stetho_PORT"},
            },
        },
        "security": [{"token": []}, {"cookie": []}],
    }


def _operation(
    summary: str,
    parameters: list[dict[str, Any]] | None = None,
    *,
    status: str = "200",
    kind: str = "application/json",
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    responses: dict[str, Any] = {status: {"description": summary}}
    if status != "101":
        responses[status]["content"] = {kind: {}}
    responses["default"] = {"description": "{type: error, message}", "content": {"application/json": {}}}
    found: dict[str, Any] = {"summary": summary, "parameters": parameters or [], "responses": responses}
    return found | ({"requestBody": {"content": body}} if body else {})


def _parameter(name: str, where: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": schema or {"type": "string"}}
