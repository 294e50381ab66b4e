"""A source played through a bundle into a live view, plain lines or JSON lines, and a recording."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.cli.messages import emit_json, note_line
from edge_sdk.cli.runtime.watchdog import ServiceNotifier
from edge_sdk.events import Health
from edge_sdk.protocols import HealthSink
from edge_sdk.screening.recordings import summary_labels

if TYPE_CHECKING:
    from edge_sdk.protocols import Sink, Source
    from edge_sdk.runtime.bundle.load import Bundle
    from edge_sdk.sinks.truth import Truth


def play(
    source: Source,
    bundle: Bundle,
    *,
    json: bool,
    metadata: dict[str, str | float],
    record: Path | None = None,
    truth: Truth | None = None,
) -> None:
    """Play until the source ends or the person presses Ctrl-C; the summary comes last either way."""
    from edge_sdk.runtime.session import Session

    view = _view(bundle, json=json, truth=truth)
    sinks = [view]
    if record is not None:
        sinks.append(_recorder(record, source, bundle, metadata))

    def show_health(change: Health) -> None:
        if change.state == "failed" or change.engine is not None:
            return  # a failure has a line of its own, and an engine that takes over a warning
        if json or not isinstance(view, HealthSink):
            note_line(change.detail)

    service = ServiceNotifier()
    session = Session(source, bundle, sinks, metadata=metadata or None, on_health=show_health, on_alive=service.alive)
    # A service manager's stop is a person's Ctrl-C; the session has closed its sinks by then: the summary is out.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            session.run()
    finally:
        service.stopping()
        signal.signal(signal.SIGTERM, before)


def _recorder(folder: Path, source: Source, bundle: Bundle, metadata: dict[str, str | float]) -> Sink:
    from edge_sdk._version import __version__
    from edge_sdk.notices import RESEARCH_USE
    from edge_sdk.runtime.background import BackgroundSink
    from edge_sdk.sinks.recorder import RecorderSink

    manifest = bundle.manifest
    about = {
        "sdk_version": __version__,
        "bundle": {"name": manifest.name, "version": manifest.version, "artefact": bundle.artefact.format},
        "metadata": {**getattr(source, "metadata", {}), **metadata},
        "notice": RESEARCH_USE,
    }
    live = bool(getattr(source, "live", False))
    return BackgroundSink(RecorderSink(folder, summary_labels(bundle), about=about), wait=not live)


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
