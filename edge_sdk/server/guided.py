"""Guided examinations: points of the chest that record until the quality gate is content; one verdict for all."""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_sdk.files import whole_file
from edge_sdk.json_lines import json_line
from edge_sdk.server.about import POINTS
from edge_sdk.server.audit import now_text
from edge_sdk.server.settings import RequestError
from edge_sdk.server.store.recordings import RecordingStore, recording_row

NEEDED_S = 12.0
"""Usable audio, in seconds, that a point needs: twice what a first verdict needs, three cycles at 15 a minute."""

NEEDED_CYCLES = 2
LEAST_POINTS = 6
"""Points without which "normal" for the whole examination would say too much."""

_ENDING = ".examination.json"
_ID = re.compile(r"exam-[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")


class PointGate:
    """Decides by the lines of a stream when a point has been recorded long and well enough."""

    def __init__(self, *, verdicts: bool) -> None:
        self._verdicts = verdicts  # else usable audio is that of labelled cycles
        self._quality = "none"
        self._usable_s = 0.0
        self._cycles = 0

    def take(self, line: Mapping[str, Any]) -> None:
        """Take one line of the stream."""
        if line["type"] == "quality":
            self._quality = str(line["quality"])
        elif line["type"] == "verdict":
            self._usable_s = float(line["usable_s"])
        elif line["type"] == "cycle" and line["label"] is not None:
            self._cycles += 1
            if not self._verdicts:
                self._usable_s += float(line["end_s"]) - float(line["start_s"])

    def state(self, point: str, received_s: float) -> dict[str, Any]:
        """The line that clients get each second; ``reason`` says why it goes on, null once content."""
        reason: str | None = None
        if self._quality == "none":
            reason = "waiting for audio"
        elif self._quality != "ok":
            reason = self._quality
        elif self._usable_s < NEEDED_S:
            reason = "too-little-audio"
        elif self._cycles < NEEDED_CYCLES:
            reason = "too-few-cycles"
        return {
            "type": "point",
            "point": point,
            "received_s": round(received_s, 2),
            "usable_s": round(self._usable_s, 2),
            "needed_s": NEEDED_S,
            "cycles": self._cycles,
            "needed_cycles": NEEDED_CYCLES,
            "quality": self._quality,
            "reason": reason,
            "content": reason is None,
        }


class Examinations:
    """Kept beside the recordings, one JSON file each. Thread-safe."""

    def __init__(self, folder: Path, store: RecordingStore) -> None:
        self._folder, self._store = folder, store
        self._lock = threading.Lock()

    def begin(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Begin one; ``fields``: patient code and metadata, checked."""
        exam_id = f"exam-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        record = {
            "type": "examination",
            "id": exam_id,
            "started": now_text(),
            **fields,
            "points": {},
            "complete": False,
        }
        with self._lock:
            self._write(record)
        return self.get(exam_id)

    def get(self, exam_id: str) -> dict[str, Any]:
        """The examination with a verdict for each point and for all.

        Raises
        ------
        RequestError
            There is none of this id.
        """
        record = self._read(exam_id)
        points = {}
        for point, recording_id in record["points"].items():
            try:
                row = recording_row(self._store.get(recording_id))
            except RequestError:
                continue
            keys = ("verdict", "p_abnormal", "verdict_reason", "quality", "duration_s", "cycles", "complete")
            points[point] = {"recording": recording_id, **{key: row[key] for key in keys}}
        missing = [point for point in POINTS if point not in points]
        verdict, reason = overall([row["verdict"] for row in points.values()])
        return {**record, "points": points, "missing": missing, "verdict": verdict, "verdict_reason": reason}

    def rows(self) -> list[dict[str, Any]]:
        """All of them, newest first."""
        names = (path.name.removesuffix(_ENDING) for path in self._folder.glob(f"*{_ENDING}"))
        return [self.get(name) for name in sorted((n for n in names if _ID.fullmatch(n)), reverse=True)]

    def check_open(self, exam_id: str, point: str) -> None:
        """Check that a point may be recorded.

        Raises
        ------
        RequestError
            No such examination or point, or it is finished.
        """
        if point not in POINTS:
            raise RequestError(422, f"no point {point[:40]!r}; the points are {', '.join(POINTS)}")
        if self._read(exam_id)["complete"]:
            raise RequestError(409, "the examination is finished; begin another one")

    def add(self, exam_id: str, point: str, recording_id: str) -> None:
        """Attach the recording of a point; a repeated point replaces the one before."""
        with self._lock:
            record = self._read(exam_id)
            record["points"][point] = recording_id
            self._write(record)

    def finish(self, exam_id: str) -> dict[str, Any]:
        """Close it: no point is added any more."""
        with self._lock:
            self._write({**self._read(exam_id), "complete": True, "finished": now_text()})
        return self.get(exam_id)

    def _read(self, exam_id: str) -> dict[str, Any]:
        try:
            if not _ID.fullmatch(exam_id):
                raise ValueError
            found = json.loads((self._folder / f"{exam_id}{_ENDING}").read_text("utf-8"))
        except (OSError, ValueError):
            raise RequestError(404, "no such examination") from None
        return dict(found)

    def _write(self, record: Mapping[str, Any]) -> None:
        with whole_file(self._folder / f"{record['id']}{_ENDING}", to_disk=True) as draft:
            draft.write_text(json_line(record), "utf-8")


def overall(verdicts: Sequence[str | None]) -> tuple[str, str | None]:
    """One verdict for all points, and the reason of ``uncertain``.

    ``abnormal`` where any point is; ``normal`` where all are and there are enough of them. A plain rule, not
    calibrated: with more points, more false alarms.
    """
    if "abnormal" in verdicts:
        return "abnormal", None
    if len(verdicts) < LEAST_POINTS:
        return "uncertain", "too-few-points"
    if all(verdict == "normal" for verdict in verdicts):
        return "normal", None
    return "uncertain", "uncertain-points"
