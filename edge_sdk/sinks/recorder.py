"""Records the audio as it was received and its events beside it; a crash costs at most a second."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from edge_sdk._version import __version__
from edge_sdk.errors import AudioError
from edge_sdk.events import AudioBlock, Event, Health, StreamStats
from edge_sdk.files import whole_file
from edge_sdk.json_lines import json_line
from edge_sdk.notices import RESEARCH_USE
from edge_sdk.sinks.jsonl import JsonlSink
from edge_sdk.sinks.summary import Labels

if TYPE_CHECKING:
    from edge_sdk.sinks.flac import GrowingFlac

_log = logging.getLogger(__name__)

_SILENCE_BLOCK = 65_536
_COMMIT_S = 0.25
_TO_DISK_S = 1.0


def session_about(bundle: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Fields of ``session.json`` that every recording has, and ``more``; ``bundle`` is :attr:`Bundle.identity`."""
    return {"sdk_version": __version__, "bundle": dict(bundle), "notice": RESEARCH_USE, **more}


class RecorderSink:
    """Writes ``NAME.flac``, ``NAME.events.jsonl`` and ``NAME.session.json`` into a folder.

    The flac has 24 bits at the source's rate: replaying it gives the same events. Samples that the source dropped are
    zeros in it, so that times in the events and in the flac agree, and a ``lost`` line in the events, so that the
    replay has the same gaps. All three files can be read at any moment: a killed process loses less than a second, a
    power cut about a second. ``session.json`` has ``"complete": false`` until the files are closed; then the summary is
    the last line of the events. ``"failure"`` gives the reason where a source failed, ``"ended"`` the
    change of the device that ended the session.

    Writing to a disk may take long: for a live source wrap the sink in
    :class:`~edge_sdk.runtime.background.BackgroundSink`.

    Parameters
    ----------
    folder
        Made if it does not exist.
    labels
        Labels of the bundle.
    about
        More fields of ``session.json``: bundle, patient, device.

    Raises
    ------
    AudioError
        If the folder or the files cannot be written.
    """

    def __init__(self, folder: Path, labels: Labels, *, about: Mapping[str, Any] | None = None) -> None:
        self._folder = folder
        self._about = dict(about or {})
        self._jsonl = JsonlSink(self._write, labels, running=True)
        self._flac: GrowingFlac | None = None
        self._events: IO[str] | None = None
        self._session: dict[str, Any] = {}
        self._base = folder
        self._rate = 1
        self._due = 0
        self._next_sync_s = 0.0

    @property
    def name(self) -> str:
        """Name of the three files without their endings; the folder's before :meth:`open`."""
        return self._base.name

    def open(self, source: str, sample_rate: int) -> None:
        """Create the three files."""
        from edge_sdk.sinks.flac import GrowingFlac

        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source).stem if Path(source).suffix else source).strip("-.")
        name = f"{stem or 'source'}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1_000_000:06d}"
        self._rate = sample_rate
        self._base = self._folder / name
        self._session = {
            "type": "session",
            "source": source,
            "sample_rate": sample_rate,
            "started": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "sound": f"{name}.flac",
            "events": f"{name}.events.jsonl",
            **self._about,
            "complete": False,
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write_session()
            self._events = self._beside(".events.jsonl").open("x", encoding="utf-8")
            self._flac = GrowingFlac(self._beside(".flac"), sample_rate)
        except OSError as error:
            raise AudioError(f"cannot record into {self._folder}: {error}; name a folder that can be written") from None
        self._jsonl.open(source, sample_rate)

    def audio(self, block: AudioBlock) -> None:
        """Append the samples, dropped ones as zeros."""
        self._jsonl.audio(block)
        try:
            self._keep(block)
        except OSError as error:
            raise self._broken(error) from error

    def event(self, event: Event, latency_ms: float | None) -> None:
        """Append the line of the event."""
        self._jsonl.event(event, latency_ms)

    def health(self, change: Health) -> None:
        """Append a change of the source's health; keep the reason of a failure."""
        if change.engine is not None:
            self._jsonl.health(change)
            return
        self._write({"type": "health", "state": change.state, "detail": change.detail})
        if change.state in ("failed", "replaced"):
            self._session["failure" if change.state == "failed" else "ended"] = change.detail

    def close(self, stats: StreamStats) -> None:
        """Write the summary and close the files."""
        try:
            self._jsonl.close(stats)
        finally:
            flac, self._flac = self._flac, None
            events, self._events = self._events, None
            if events is not None:
                events.close()
            try:
                if flac is not None:
                    flac.close()
            except OSError as error:
                raise self._broken(error) from error
        if flac is not None:
            self._session |= {"complete": True, "samples": flac.samples, "lost_samples": stats.samples_lost}
            if flac.clipped:
                self._session["clipped_samples"] = flac.clipped
                _log.warning("%d samples beyond full scale are clipped in %s.flac", flac.clipped, self._base)
            self._write_session()

    def discard(self) -> None:
        """Close and delete the files: of a source that turned out not to be usable."""
        flac, self._flac = self._flac, None
        events, self._events = self._events, None
        if events is not None:
            events.close()
        with suppress(OSError):
            if flac is not None:
                flac.close()
        for ending in (".flac", ".events.jsonl", ".session.json"):
            self._beside(ending).unlink(missing_ok=True)

    def _keep(self, block: AudioBlock) -> None:
        if self._flac is None:
            return
        left = block.lost_before
        if left:
            self._write({"type": "lost", "file_sample": self._flac.samples, "samples": left})
        while left > 0:
            n = min(left, _SILENCE_BLOCK)
            self._flac.write(np.zeros(n, np.float32))
            left -= n
        self._flac.write(block.samples)
        if self._flac.samples < self._due:
            return
        self._due = self._flac.samples + round(_COMMIT_S * self._rate)
        now_s = time.monotonic()
        to_disk = now_s >= self._next_sync_s
        self._flac.commit(to_disk=to_disk)
        if to_disk:
            self._next_sync_s = now_s + _TO_DISK_S
            if self._events is not None:
                os.fsync(self._events.fileno())

    def _write(self, record: dict[str, Any]) -> None:
        if self._events is not None:
            try:
                self._events.write(json_line(record))
                self._events.flush()
            except OSError as error:
                raise self._broken(error) from error

    @property
    def files(self) -> tuple[Path, ...]:
        """The three files; empty before :meth:`open`."""
        opened = bool(self._session)
        return tuple(self._beside(ending) for ending in (".flac", ".events.jsonl", ".session.json")) if opened else ()

    def _write_session(self) -> None:
        with whole_file(self._beside(".session.json"), alone=True) as draft:
            draft.write_text(json_line(self._session), encoding="utf-8")

    def _beside(self, ending: str) -> Path:
        return self._base.with_name(self._base.name + ending)

    def _broken(self, error: OSError) -> AudioError:
        return AudioError(f"cannot go on recording into {self._folder}: {error}; what was recorded so far is kept")
