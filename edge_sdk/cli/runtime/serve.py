"""``stetho serve``: the web page and the interface over HTTP and WebSocket."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_sdk.cli.options import (
    AgeOption,
    ArtefactOption,
    AuditOption,
    BmiOption,
    BundleOption,
    ChannelOption,
    DeviceModelOption,
    JsonOption,
    SexOption,
    SiteOption,
    SpeedOption,
    channel_of,
    given_metadata,
)

if TYPE_CHECKING:
    from edge_sdk.protocols import Source

PACKAGES = ("starlette", "uvicorn", "websockets", "prometheus_client", "python_multipart")
TOKEN_VARIABLE = "STETHO_TOKEN"
_SHORTEST_TOKEN = 16


def serve_command(
    source: Annotated[
        str | None,
        typer.Option("--source", help="Source to play live; as for 'stetho listen'.", metavar="SOURCE"),
    ] = None,
    recordings: Annotated[
        Path | None,
        typer.Option("--recordings", help="Folder to keep and show recordings in.", metavar="DIR"),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option("--host", help="Address to listen on; a token is then needed. Default: this machine only."),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="TCP port; 0: any that is free.")] = 8000,
    certificate: Annotated[
        Path | None, typer.Option("--cert", help="Certificate for TLS, PEM.", metavar="FILE")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Its private key, PEM.", metavar="FILE")] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="Another name under which clients reach the server.", metavar="NAME"),
    ] = None,
    patient: Annotated[
        str | None, typer.Option("--patient", help="Code of the live source's patient; never a name.", metavar="CODE")
    ] = None,
    keep_live: Annotated[
        bool, typer.Option("--record-live/--no-record-live", help="Whether the live source is recorded.")
    ] = True,
    max_upload: Annotated[
        float, typer.Option("--max-upload", min=0.1, help="Largest upload, MiB.", metavar="MIB")
    ] = 256.0,
    max_streams: Annotated[int, typer.Option("--max-streams", min=1, help="Most streams at once.", metavar="N")] = 96,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads that compute streams.", metavar="N")] = 2,
    bundle: BundleOption = "default",
    artefact: ArtefactOption = None,
    speed: SpeedOption = 1.0,
    channel: ChannelOption = "0",
    site: SiteOption = None,
    age: AgeOption = None,
    sex: SexOption = None,
    bmi: BmiOption = None,
    device_model: DeviceModelOption = None,
    audit: AuditOption = None,
    json: JsonOption = False,
) -> None:
    """Serve a page to look at, listen to and correct breath sounds, until Ctrl-C.

    A token in the environment variable STETHO_TOKEN is required of every client; with --host and without one, a token
    is made and printed.
    """
    from edge_sdk.audit import audit_log
    from edge_sdk.extras import require_extra
    from edge_sdk.files import own_folder

    require_extra("serve", "stetho serve", *PACKAGES)
    from edge_sdk.runtime.bundle.load import load_bundle
    from edge_sdk.server.context import ServerOptions
    from edge_sdk.server.run import Address, serve
    from edge_sdk.server.settings import ServerLimits, patient_code

    options = ServerOptions(
        recordings=recordings or own_folder("state") / "recordings",
        bundle=load_bundle(bundle, artefact=artefact),
        bundle_name=bundle,
        artefact=artefact,
        source=None if source is None else _open(source, channel, speed),
        source_metadata=given_metadata(site, age, sex, bmi, device_model),
        patient=None if patient is None else patient_code(patient),
        record_live=keep_live,
        limits=ServerLimits(upload_mb=max_upload, streams=max_streams),
        allowed_hosts=tuple(allow_host or ()),
        token=_given_token(),
        threads=threads,
        audit=audit_log(audit),
    )
    serve(options, Address(host, port, certificate, key), _announcer(json))


def _open(spec: str, channel: str, speed: float) -> Source:
    from edge_sdk.sources import open_source

    return open_source(spec, paced=True, channel=channel_of(channel), speed=speed)


def _given_token() -> str | None:
    token = os.environ.get(TOKEN_VARIABLE)
    if token is not None and (len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise typer.BadParameter(f"{TOKEN_VARIABLE} must have at least {_SHORTEST_TOKEN} printable ASCII letters")
    return token


def _announcer(json: bool) -> Any:
    from edge_sdk.cli.messages import emit_json, note_line

    def announce(record: dict[str, Any]) -> None:
        if record["type"] != "serving":
            if json:
                emit_json(record)
            else:
                from edge_sdk.sinks.console import summary_lines

                typer.echo("\n".join(summary_lines(record)))
            return
        exposed = (
            record["token"] is not None and record["url"].startswith("http:") and "//127.0.0.1:" not in record["url"]
        )
        if exposed:
            note_line("warning: without --cert and --key, audio and token travel unencrypted")
        if json:
            emit_json(record)
            return
        link = record["url"] + ("" if record["token"] is None else f"?token={record['token']}")
        typer.echo(f"{link}\nrecordings in {record['recordings']}; Ctrl-C ends")

    return announce
