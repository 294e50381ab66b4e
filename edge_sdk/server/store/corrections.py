"""Corrections of a recording's cycles: append-only lines beside the original; what holds is computed from them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_sdk.corpora.table import LABELS, OTHER
from edge_sdk.json_lines import json_line
from edge_sdk.server.audit import now_text
from edge_sdk.server.settings import RequestError, reviewer_code

ACTIONS = ("bounds", "label", "add", "delete", "lock", "unlock", "undo")

CORRECTED_LABELS = (*LABELS, OTHER)
"""Labels that a reviewer may give: those that a CSV corpus may have."""

_SHORTEST_S = 0.1
_MOST_BYTES = 4 << 20  # of one file of corrections


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON objects of a file of lines; empty without the file. A line that a killed process cut is left out."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    found = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found.append(record)
    return found


class Corrections:
    """The cycles of a recording as corrected so far.

    Parameters
    ----------
    path
        File of the corrections; need not exist.
    original
        Cycle lines of the events, each with its ``id``.
    duration_s
        Length of the audio: bounds lie within it.
    """

    def __init__(self, path: Path, original: Sequence[Mapping[str, Any]], duration_s: float) -> None:
        self._path = path
        self._original = original
        self._duration_s = duration_s
        self.history = [record for record in read_lines(path) if record.get("type") == "correction"]

    @property
    def _undone(self) -> set[int]:
        undone: set[int] = set()
        for record in reversed(self.history):  # an undone "undo" has no effect
            if record["action"] == "undo" and record["seq"] not in undone:
                undone.add(record["of"])
        return undone

    @property
    def active(self) -> int:
        """Number of corrections in force."""
        return len(self._in_force())

    @property
    def locked(self) -> bool:
        """Whether the recording as a whole is locked."""
        locked = False
        for record in self._in_force(locks=True):
            if record["cycle"] is None and record["action"] in ("lock", "unlock"):
                locked = record["action"] == "lock"
        return locked

    @property
    def undoable(self) -> int | None:
        """Number of the newest correction in force; None without one."""
        records = self._in_force(locks=True)
        return records[-1]["seq"] if records else None

    def _in_force(self, *, locks: bool = False) -> list[dict[str, Any]]:
        undone = self._undone
        passed_over = ("undo",) if locks else ("undo", "lock", "unlock")
        return [r for r in self.history if r["action"] not in passed_over and r["seq"] not in undone]

    def cycles(self) -> list[dict[str, Any]]:
        """Cycles in order of time; ``corrected`` says which fields differ, ``locked`` which must not change."""
        found = {
            str(cycle["id"]): {**cycle, "corrected": [], "locked": False} for cycle in self._original if "id" in cycle
        }
        for record in self._in_force(locks=True):
            action, cycle_id = record["action"], record["cycle"]
            if action == "add":
                found[cycle_id] = {
                    "type": "cycle",
                    "id": cycle_id,
                    "start_s": record["start_s"],
                    "end_s": record["end_s"],
                    "label": record["label"],
                    "probabilities": {},
                    "quality": "ok",
                    "corrected": ["added"],
                    "locked": False,
                }
            elif cycle_id in found and action == "delete":
                del found[cycle_id]
            elif cycle_id in found and action in ("lock", "unlock"):
                found[cycle_id]["locked"] = action == "lock"
            elif cycle_id in found and action == "bounds":
                found[cycle_id] |= {"start_s": record["start_s"], "end_s": record["end_s"]}
                _mark(found[cycle_id], "bounds")
            elif cycle_id in found and action == "label":
                found[cycle_id]["label"] = record["label"]
                _mark(found[cycle_id], "label")
        return sorted(found.values(), key=lambda cycle: (cycle["start_s"], cycle["end_s"]))

    def append(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Check one correction, write it to the disk and return it.

        Parameters
        ----------
        request
            ``action``, ``who``, and by action ``cycle``, ``start_s``, ``end_s``, ``label``, ``of``; with ``expected``
            (the number of corrections that the reviewer has seen) it is refused where another one came between.

        Raises
        ------
        RequestError
            422: it says nothing valid; 404: no such cycle; 409: another reviewer was faster; 423: locked.
        """
        action = request.get("action")
        if action not in ACTIONS:
            raise RequestError(422, f"the action is one of {', '.join(ACTIONS)}, got {str(action)[:40]!r}")
        expected = request.get("expected")
        if expected is not None and expected != len(self.history):
            raise RequestError(409, "the recording was corrected meanwhile; load it again")
        seq = 1 + max((int(r["seq"]) for r in self.history), default=0)
        record: dict[str, Any] = {
            "type": "correction",
            "seq": seq,
            "at": now_text(),
            "who": reviewer_code(str(request.get("who", ""))),
            "action": action,
            "cycle": None,
        }
        record |= self._undo(request) if action == "undo" else self._change(str(action), request, seq)
        self._write(record)
        self.history.append(record)
        return record

    def _undo(self, request: Mapping[str, Any]) -> dict[str, Any]:
        of = request.get("of", self.undoable)
        redo = [r["seq"] for r in self.history if r["action"] == "undo" and r["seq"] not in self._undone]
        targets = {r["seq"]: r for r in self._in_force(locks=True)}
        if of in redo:
            return {"of": of}
        if of not in targets:
            raise RequestError(422, "there is nothing to undo")
        if self.locked and targets[of]["action"] != "lock":
            raise RequestError(423, "the recording is locked; unlock it first")
        return {"of": of, "cycle": targets[of]["cycle"]}

    def _change(self, action: str, request: Mapping[str, Any], seq: int) -> dict[str, Any]:
        cycle_id = request.get("cycle")
        if self.locked and not (action == "unlock" and cycle_id is None):
            raise RequestError(423, "the recording is locked; unlock it first")
        record: dict[str, Any] = {"cycle": f"a{seq}" if action == "add" else cycle_id}
        if action in ("lock", "unlock") and cycle_id is None:
            return record
        if action != "add":
            cycle = next((c for c in self.cycles() if c["id"] == cycle_id), None)
            if cycle is None:
                raise RequestError(404, f"no cycle {str(cycle_id)[:40]!r} in this recording")
            if cycle["locked"] and action != "unlock":
                raise RequestError(423, "the cycle is locked; unlock it first")
        if action in ("bounds", "add"):
            record |= self._bounds(request)
        if action in ("label", "add"):
            if request.get("label") not in CORRECTED_LABELS:
                raise RequestError(422, f"the label is one of {', '.join(CORRECTED_LABELS)}")
            record["label"] = request["label"]
        return record

    def _bounds(self, request: Mapping[str, Any]) -> dict[str, float]:
        bounds = [request.get(key) for key in ("start_s", "end_s")]
        if not all(isinstance(b, (int, float)) and not isinstance(b, bool) for b in bounds):
            raise RequestError(422, "start_s and end_s are numbers, in seconds")
        start, end = (float(b) for b in bounds if b is not None)
        if not 0 <= start < end <= self._duration_s + 1e-3 or end - start < _SHORTEST_S:
            raise RequestError(
                422, f"a cycle lies within 0 and {self._duration_s:.2f} s and lasts at least {_SHORTEST_S} s"
            )
        return {"start_s": round(start, 4), "end_s": round(min(end, self._duration_s), 4)}

    def _write(self, record: Mapping[str, Any]) -> None:
        """Append one line with one call, so that a kill leaves it whole or absent, and wait for the disk."""
        line = json_line(record).encode()
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            size = os.fstat(file).st_size
            if size > _MOST_BYTES:
                raise RequestError(413, "too many corrections of one recording")
            if size and os.pread(file, 1, size - 1) != b"\n":  # a power cut left half a line
                line = b"\n" + line
            os.write(file, line)
            os.fsync(file)
        finally:
            os.close(file)


def _mark(cycle: dict[str, Any], field: str) -> None:
    if field not in cycle["corrected"]:
        cycle["corrected"] = [*cycle["corrected"], field]
