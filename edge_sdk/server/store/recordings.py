"""The kept recordings of a folder: flac, events and session of each, as ``stetho listen --record`` writes them."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_sdk.exchange.spans import first_sample_s, from_first_sample
from edge_sdk.server.settings import RequestError
from edge_sdk.server.store.corrections import Corrections, read_lines

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_SESSION = ".session.json"
_TAIL_BYTES = 1 << 16  # the summary is the last line of the events


@dataclass(frozen=True, slots=True)
class StoredRecording:
    """The files of one recording."""

    id: str
    folder: Path

    @property
    def session_file(self) -> Path:
        """Description: source, rate, metadata, whether it is complete."""
        return self.folder / f"{self.id}{_SESSION}"

    @property
    def events_file(self) -> Path:
        """JSON lines."""
        return self.folder / f"{self.id}.events.jsonl"

    @property
    def audio_file(self) -> Path:
        """The flac."""
        return self.folder / f"{self.id}.flac"

    @property
    def corrections_file(self) -> Path:
        """Corrections, append-only."""
        return self.folder / f"{self.id}.corrections.jsonl"

    def session(self) -> dict[str, Any]:
        """Content of the session file.

        Raises
        ------
        RequestError
            It is gone or no JSON object.
        """
        try:
            found = json.loads(self.session_file.read_text("utf-8"))
        except (OSError, ValueError):
            raise RequestError(404, f"{self.id} cannot be read; its session file is missing or damaged") from None
        if not isinstance(found, dict):
            raise RequestError(404, f"{self.id} has a damaged session file")
        return found

    def events(self) -> list[dict[str, Any]]:
        """All event lines, with times from the first sample of the flac; each cycle has an ``id``."""
        shift_s = first_sample_s(self.session())
        found = []
        cycles = 0
        for record in read_lines(self.events_file):
            if record.get("type") == "cycle":
                record["id"] = f"c{cycles}"
                cycles += 1
            found.append(from_first_sample(record, shift_s))
        return found

    def summary(self) -> dict[str, Any] | None:
        """The summary line; None while the recording is being made, or after a crash."""
        try:
            with self.events_file.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                lines = file.read().splitlines()
        except OSError:
            return None
        for line in reversed(lines[-3:]):
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and record.get("type") == "summary":
                return record
        return None

    def corrections(self) -> Corrections:
        """The corrections of its cycles."""
        cycles = [record for record in self.events() if record.get("type") == "cycle"]
        return Corrections(self.corrections_file, cycles, self.duration_s())

    def duration_s(self) -> float:
        """Seconds of audio that can be read."""
        import soundfile

        try:
            return float(soundfile.info(str(self.audio_file)).duration)
        except (RuntimeError, OSError):
            raise RequestError(404, f"the audio of {self.id} cannot be read; it may just have begun") from None


class RecordingStore:
    """Finds recordings; rows of the list are kept until a file changes. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.locks: dict[str, threading.Lock] = {}
        self._rows: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def get(self, recording_id: str) -> StoredRecording:
        """The recording of this id.

        Raises
        ------
        RequestError
            There is none (404); the id is no plain name (404), whatever path it states.
        """
        found = StoredRecording(recording_id, self.folder)
        if not _ID.fullmatch(recording_id) or ".." in recording_id or not found.session_file.is_file():
            raise RequestError(404, "no such recording")
        return found

    def lock(self, recording_id: str) -> threading.Lock:
        """Held while the corrections of a recording change."""
        with self._lock:
            return self.locks.setdefault(recording_id, threading.Lock())

    def rows(self) -> list[dict[str, Any]]:
        """One row a recording, newest first."""
        found = [self._row(StoredRecording(name, self.folder)) for name in self._ids()]
        rows = [row for row in found if row is not None]
        rows.sort(key=lambda row: str(row["started"]), reverse=True)
        return rows

    def _ids(self) -> Iterator[str]:
        for entry in os.scandir(self.folder):
            name = entry.name
            if name.endswith(_SESSION) and _ID.fullmatch(name.removesuffix(_SESSION)):
                yield name.removesuffix(_SESSION)

    def _row(self, recording: StoredRecording) -> dict[str, Any] | None:
        stamp = tuple(
            _stamp(path) for path in (recording.session_file, recording.events_file, recording.corrections_file)
        )
        with self._lock:
            kept = self._rows.get(recording.id)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        try:
            row = recording_row(recording)
        except RequestError:
            return None
        with self._lock:
            self._rows[recording.id] = (stamp, row)
        return row


def recording_row(recording: StoredRecording) -> dict[str, Any]:
    """What the list shows of a recording."""
    session = recording.session()
    summary: Mapping[str, Any] = recording.summary() or {}
    metadata = session.get("metadata") or {}
    corrected = locked = 0
    if recording.corrections_file.exists():
        state = Corrections(recording.corrections_file, [], 0.0)
        corrected, locked = state.active, state.locked
    return {
        "id": recording.id,
        "source": session.get("source"),
        "started": session.get("started"),
        "complete": bool(session.get("complete")),
        "patient": session.get("patient"),
        "site": metadata.get("site"),
        "metadata": metadata,
        "point": session.get("point"),
        "examination": session.get("examination"),
        "sample_rate": session.get("sample_rate"),
        "duration_s": summary.get("duration_s"),
        "cycles": summary.get("cycles"),
        "respiratory_rate_bpm": summary.get("respiratory_rate_bpm"),
        "verdict": summary.get("verdict"),
        "p_abnormal": summary.get("p_abnormal"),
        "verdict_reason": summary.get("verdict_reason"),
        "quality": worst_quality(summary.get("quality_s") or {}),
        "lost_samples": summary.get("lost_samples"),
        "corrections": corrected,
        "locked": bool(locked),
    }


def worst_quality(seconds: Mapping[str, float]) -> str | None:
    """``ok`` where at least four fifths of the audio is; else the most frequent other state."""
    total = sum(seconds.values())
    if not total:
        return None
    if seconds.get("ok", 0.0) >= 0.8 * total:
        return "ok"
    return max((state for state in seconds if state != "ok"), key=lambda state: seconds[state])


def _stamp(path: Path) -> int:
    try:
        found = path.stat()
    except OSError:
        return 0
    return found.st_mtime_ns ^ found.st_size
