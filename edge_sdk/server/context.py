"""What the parts of a running server share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection, Request

from edge_sdk.audit import AuditAction, AuditLog
from edge_sdk.metadata import FIELDS
from edge_sdk.server.audit import ServerAudit
from edge_sdk.server.guided import Examinations
from edge_sdk.server.metrics import ServerMetrics
from edge_sdk.server.security.access import Access
from edge_sdk.server.security.gate import client_of
from edge_sdk.server.settings import RequestError, ServerLimits, patient_code
from edge_sdk.server.store.audio import RenderedAudio
from edge_sdk.server.store.recordings import RecordingStore
from edge_sdk.server.store.uploads import Uploads

if TYPE_CHECKING:
    from edge_sdk.protocols import Source
    from edge_sdk.runtime.bundle.load import Bundle


@dataclass(frozen=True)
class ServerOptions:
    """How a server is to run."""

    recordings: Path
    bundle: Bundle
    bundle_name: str = "default"  # for the process that screens uploads
    artefact: str | None = None
    source: Source | None = None  # played live
    source_metadata: Mapping[str, Any] = field(default_factory=dict)
    patient: str | None = None  # code of the live source's patient
    record_live: bool = True
    limits: ServerLimits = field(default_factory=ServerLimits)
    host: str | None = None  # as given; None: loopback
    allowed_hosts: tuple[str, ...] = ()
    token: str | None = None
    secure: bool = False  # TLS
    threads: int = 2  # that compute streams
    audit: AuditLog | None = None  # absent: audit.jsonl beside the recordings


@dataclass(frozen=True)
class ServerContext:
    """Parts of a server that requests use."""

    options: ServerOptions
    about: Mapping[str, Any]
    access: Access
    audit: ServerAudit
    metrics: ServerMetrics
    store: RecordingStore
    examinations: Examinations
    rendered: RenderedAudio
    uploads: Uploads

    def log(self, connection: HTTPConnection, action: AuditAction, who: str = "", **details: Any) -> None:
        """Write a line of the audit log about a request."""
        self.audit.write(action, client=client_of(dict(connection.scope)), who=who, **details)


def context_of(connection: HTTPConnection) -> ServerContext:
    """Parts of the server that a request reached."""
    found: ServerContext = connection.app.state.context
    return found


async def json_body(request: Request) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises
    ------
    RequestError
        It is no JSON object.
    """
    try:
        found = await request.json()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RequestError(422, "the body must be one JSON object")
    return found


def session_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Patient code and metadata for a recording's session, checked.

    Parameters
    ----------
    given
        ``patient`` and the metadata fields, from a stream's header or a form; empty texts count as absent.

    Raises
    ------
    RequestError
        A patient's name instead of a code, or a value that is no text or number of its field.
    """
    metadata: dict[str, Any] = {}
    for name in FIELDS:
        value = given.get(name)
        if value in (None, ""):
            continue
        if name in ("age_years", "bmi"):
            metadata[name] = _number(name, value)
        elif isinstance(value, str) and len(value) <= 64 and value.isprintable():
            metadata[name] = value
        else:
            raise RequestError(422, f"{name} must be a text of at most 64 letters")
    fields: dict[str, Any] = {"metadata": metadata}
    if given.get("patient"):
        fields["patient"] = patient_code(str(given["patient"]))
    return fields


def _number(name: str, value: Any) -> float:
    limits = {"age_years": (0, 130), "bmi": (5, 120)}[name]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or not limits[0] <= number <= limits[1]:
        raise RequestError(422, f"{name} must be a number from {limits[0]} to {limits[1]}")
    return number
