"""What the server writes into the audit log: who looked at, corrected, exported, sent or was refused what, and when."""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime, timezone
from typing import Any

from edge_sdk.audit import AuditAction, AuditLog
from edge_sdk.errors import AuditError

_log = logging.getLogger(__name__)

AUDIT_FILE = "audit.jsonl"
"""Beside the recordings, where no other log is named."""
_REFUSALS_PER_MINUTE = 60  # of one kind; the rest is only counted, so that an attacker cannot fill the disk


def now_text() -> str:
    """The time now in UTC, ISO 8601 to a millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class ServerAudit:
    """Appends to a log that ``stetho verify --audit`` checks.

    A failing disk is logged, not raised. Nothing waits for the disk, as audio is processed meanwhile; a killed process
    loses no line.

    Parameters
    ----------
    log
        Where; other programs may write it too.
    """

    def __init__(self, log: AuditLog) -> None:
        self._file = log
        self._lock = threading.Lock()
        self._refused: dict[str, tuple[float, int]] = {}  # kind → begin of the minute, lines of it

    def write(self, action: AuditAction, *, client: str = "", who: str = "", **details: Any) -> None:
        """Append one line: what was done, from which address, by whom as far as given."""
        try:
            self._file.append(action, {"client": client, "who": who, **details}, to_disk=False)
        except AuditError as error:
            _log.error("%s", error)

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
