"""The audit log: who looked at, corrected, exported or was refused what, and when; append-only JSON lines."""

from __future__ import annotations

import logging
import os
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge_sdk.json_lines import json_line

_log = logging.getLogger(__name__)

AUDIT_FILE = "audit.jsonl"
_LARGEST_BYTES = 16 << 20  # of one file; then a new one begins
_REFUSALS_PER_MINUTE = 60  # of one kind; the rest is only counted, so that an attacker cannot fill the disk


def now_text() -> str:
    """The time now in UTC, ISO 8601 to a millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class AuditLog:
    """Appends lines to ``audit.jsonl`` in a folder. Thread-safe; a failing disk is logged, not raised.

    Parameters
    ----------
    folder
        Exists.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / AUDIT_FILE
        self._lock = threading.Lock()
        self._refused: dict[str, tuple[float, int]] = {}  # kind → begin of the minute, lines of it

    def write(self, action: str, *, client: str = "", who: str = "", **details: Any) -> None:
        """Append one line: what was done, from which address, by whom as far as given."""
        entry = {"type": "audit", "at": now_text(), "action": action, "client": client, "who": who, **details}
        line = json_line(entry).encode()
        with self._lock:
            try:
                self._rotate()
                file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                try:
                    os.write(file, line)
                finally:
                    os.close(file)
            except OSError as error:
                _log.error("the audit log cannot be written: %s", error)

    def refused(self, kind: str, *, client: str = "", **details: Any) -> None:
        """Append a refusal, at most sixty of one kind a minute; the first line after a flood counts the others."""
        now = time.monotonic()
        with self._lock:
            began, count = self._refused.get(kind, (now, 0))
            left_out = max(0, count - _REFUSALS_PER_MINUTE)
            fresh = now - began > 60
            self._refused[kind] = (now, 1) if fresh else (began, count + 1)
        if fresh and left_out:
            details["not_logged_before"] = left_out
        if fresh or count < _REFUSALS_PER_MINUTE:
            self.write("refused", client=client, reason=kind, **details)

    def _rotate(self) -> None:
        if self._path.exists() and self._path.stat().st_size > _LARGEST_BYTES:
            stamp = time.strftime("%Y%m%d-%H%M%S")
            self._path.replace(self._path.with_name(f"audit-{stamp}.jsonl"))
