"""A source played through a bundle into a live view, plain lines or JSON lines, and a recording."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.cli.messages import emit_json, note_line
from edge_sdk.cli.runtime.watchdog import ServiceNotifier
from edge_sdk.events import Health
from edge_sdk.protocols import HealthSink
from edge_sdk.screening.recordings import summary_labels

if TYPE_CHECKING:
    from edge_sdk.audit import AuditLog
    from edge_sdk.errors import DeviceChangedError
    from edge_sdk.protocols import Sink, Source
    from edge_sdk.runtime.bundle.load import Bundle
    from edge_sdk.runtime.session import Session
    from edge_sdk.sinks.recorder import RecorderSink
    from edge_sdk.sinks.truth import Truth


def play(
    source: Source,
    bundle: Bundle,
    *,
    json: bool,
    metadata: dict[str, str | float],
    record: Path | None = None,
    truth: Truth | None = None,
    keep_session: bool = False,
    outputs: Callable[[], Sequence[Sink]] = tuple,
    audit: AuditLog | None = None,
) -> None:
    """Play until the source ends or the person presses Ctrl-C; the summary comes last either way.

    A device that takes the place of another one begins a session of its own: another view and summary, another
    recording, and no metadata of the patient, who may be another one too. ``keep_session``: all of it goes on.
    """
    from edge_sdk.runtime.device_sessions import run_device_sessions
    from edge_sdk.runtime.session import Session

    full_scale = None
    if record is not None:
        from edge_sdk.sinks.flac import FULL_SCALE

        full_scale = FULL_SCALE

    service = ServiceNotifier()

    def new_session(change: DeviceChangedError | None) -> Session:
        given = metadata
        if change is not None:
            note_line(_new_session_text(change, source, metadata))
            given = {}
        view = _view(bundle, json=json, truth=truth)
        recorder: RecorderSink | None = None
        sinks = [view, *outputs()]
        about = {
            "metadata": {**getattr(source, "metadata", {}), **given},
            "device": dict(getattr(source, "device", {})),
        }
        if record is not None:
            from edge_sdk.sinks.recorder import RecorderSink, session_about

            recorder = RecorderSink(record, summary_labels(bundle), about=session_about(bundle.identity, **about))
            sinks.append(_in_background(recorder, source))
        if audit is not None:
            sinks.append(_audit_sink(audit, bundle, {"bundle": bundle.identity, **about}, recorder))  # closed last

        def show_health(health: Health) -> None:
            # A failure and a replaced device have lines of their own, an engine that takes over is a warning.
            if health.state in ("failed", "replaced") or health.engine is not None:
                return
            if json or not isinstance(view, HealthSink):
                note_line(health.detail)

        return Session(
            source,
            bundle,
            sinks,
            metadata=given or None,
            full_scale=full_scale,
            on_health=show_health,
            on_note=note_line,
            on_alive=service.alive,
            keep_session=keep_session,
        )

    try:
        with suppress(KeyboardInterrupt):  # Ctrl-C or a service manager's stop; the session has closed its sinks then
            run_device_sessions(source, new_session)
    finally:
        service.stopping()


def _new_session_text(change: DeviceChangedError, source: Source, metadata: dict[str, str | float]) -> str:
    text = f"{change}; the session ends and a new one begins: {source.name}, {source.sample_rate} Hz"
    if metadata:
        text += f"; {', '.join(metadata)} of the command line applied to the first one only"
    return text


def _audit_sink(log: AuditLog, bundle: Bundle, about: dict[str, Any], recorder: RecorderSink | None) -> Sink:
    from edge_sdk.sinks.audit import AuditSink

    recorded = (lambda: recorder.files) if recorder is not None else tuple
    return AuditSink(log, summary_labels(bundle), about=about, recorded=recorded)


def _in_background(recorder: RecorderSink, source: Source) -> Sink:
    from edge_sdk.runtime.background import BackgroundSink

    return BackgroundSink(recorder, wait=not getattr(source, "live", False))


def _view(bundle: Bundle, *, json: bool, truth: Truth | None) -> Sink:
    labels = summary_labels(bundle)
    if json:
        from edge_sdk.sinks.jsonl import JsonlSink

        return JsonlSink(emit_json, labels, truth=truth, running=True)
    if sys.stdout.isatty():
        from rich.console import Console

        from edge_sdk.sinks.live import LiveSink

        title = f"{bundle.manifest.name} {bundle.manifest.version}"
        return LiveSink(Console(), labels, title=title, truth=truth)
    from edge_sdk.sinks.console import ConsoleSink

    return ConsoleSink(sys.stdout, labels, truth=truth)
