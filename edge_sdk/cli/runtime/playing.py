"""A source played through a bundle into what the person or program in front of it wants to see."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.cli.options import Metadata, emit_json, note_line
from edge_sdk.events import AudioBlock, Health
from edge_sdk.protocols import HealthListener, Reopenable
from edge_sdk.screening.recordings import labels_of

if TYPE_CHECKING:
    from edge_sdk.protocols import Sink, Source
    from edge_sdk.runtime.bundle.load import Bundle
    from edge_sdk.sinks.truth import Truth


class Shortened:
    """A source that ends after ``duration_s`` seconds of its own time."""

    def __init__(self, source: Source, duration_s: float) -> None:
        self.live = bool(getattr(source, "live", False))
        if isinstance(source, Reopenable):
            self.reopen = source.reopen
        self._source = source
        self._samples = round(duration_s * source.sample_rate)

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def sample_rate(self) -> int:
        return self._source.sample_rate

    @property
    def metadata(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = getattr(self._source, "metadata", {})
        return found

    def __iter__(self) -> Iterator[AudioBlock]:
        for block in self._source:
            left = self._samples - block.first_sample
            if left > 0:
                yield block if len(block.samples) <= left else _head(block, left)
            if len(block.samples) >= left:
                break
        self.close()

    def close(self) -> None:
        self._source.close()


def _head(block: AudioBlock, n: int) -> AudioBlock:
    return AudioBlock(block.samples[:n], block.sample_rate, block.first_sample, block.host_ns, block.lost_before)


def play(
    source: Source,
    bundle: Bundle,
    *,
    json: bool,
    metadata: Metadata,
    record: Path | None = None,
    truth: Truth | None = None,
) -> None:
    """Until the source ends or the person presses Ctrl-C; either way the summary comes last."""
    from edge_sdk.runtime.session import Session

    view = _view(bundle, json=json, truth=truth)
    sinks = [view]
    if record is not None:
        sinks.append(_recorder(record, source, bundle, metadata))

    def tell(change: Health) -> None:
        if change.state != "failed" and not isinstance(view, HealthListener):  # a failure gets its own line
            note_line(change.detail)

    session = Session(source, bundle, sinks, metadata=metadata or None, on_health=tell)
    # A service manager's stop is a person's Ctrl-C; the session has closed its sinks by then: the summary is out.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            session.run()
    finally:
        signal.signal(signal.SIGTERM, before)


def _recorder(folder: Path, source: Source, bundle: Bundle, metadata: Metadata) -> Sink:
    from edge_sdk._version import __version__
    from edge_sdk.runtime.background import BackgroundSink
    from edge_sdk.sinks.console import RESEARCH_USE
    from edge_sdk.sinks.recorder import RecorderSink

    manifest = bundle.manifest
    about = {
        "sdk_version": __version__,
        "bundle": {"name": manifest.name, "version": manifest.version, "artefact": bundle.artefact.format},
        "metadata": {**getattr(source, "metadata", {}), **metadata},
        "notice": RESEARCH_USE,
    }
    live = bool(getattr(source, "live", False))
    return BackgroundSink(RecorderSink(folder, labels_of(bundle), about=about), patient=not live)


def _view(bundle: Bundle, *, json: bool, truth: Truth | None) -> Sink:
    labels = labels_of(bundle)
    if json:
        from edge_sdk.sinks.jsonl import JsonlSink

        return JsonlSink(emit_json, labels, truth=truth)
    if sys.stdout.isatty():
        from rich.console import Console

        from edge_sdk.sinks.live import LiveSink

        title = f"{bundle.manifest.name} {bundle.manifest.version}"
        return LiveSink(Console(), labels, title=title, truth=truth)
    from edge_sdk.sinks.console import ConsoleSink

    return ConsoleSink(sys.stdout, labels, truth=truth)
