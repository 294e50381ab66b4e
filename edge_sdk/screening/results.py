"""Results of a long screening on disk: one recording a write, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_sdk.errors import ResultsError
from edge_sdk.json_lines import json_line, jsonable
from edge_sdk.screening.recordings import Screened


class KeptResults:
    """A file of JSON lines: the run it belongs to, then all lines of one recording after another.

    Parameters
    ----------
    path
        Made if missing; read if there.
    run
        What must be the same for results to count: bundle, artefact, channel, metadata.

    Raises
    ------
    ResultsError
        The file is of another run, no such file of ours, or cannot be written.
    """

    def __init__(self, path: Path, run: dict[str, Any]) -> None:
        self.path = path
        self._run = json.loads(json.dumps(jsonable(run)))
        self.done: dict[str, Screened] = {}
        try:
            kept = self._read() if path.exists() and path.stat().st_size else 0
            self._file = path.open("r+b" if kept else "w+b")
        except OSError as error:
            raise ResultsError(
                f"{path} cannot be written ({error.strerror}); name another file for --results"
            ) from error
        self._file.truncate(kept)  # what a kill cut short
        self._file.seek(kept)
        if not kept:
            self._write([{"type": "run", **self._run}])

    def add(self, item: Screened) -> None:
        """Keep one recording's answers; after the return they survive a kill."""
        error = {"type": "error", "source": item.source, "message": item.error}
        self._write([error] if item.error is not None else item.records)

    def keeping(self, items: Iterator[Screened]) -> Iterator[Screened]:
        """Passes items on after they were kept."""
        for item in items:
            self.add(item)
            yield item

    def close(self) -> None:
        self._file.close()

    def _write(self, records: Sequence[dict[str, Any]]) -> None:
        lines = [json_line(record) for record in records]
        try:
            self._file.write("".join(lines).encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise ResultsError(
                f"{self.path}: cannot be written ({error.strerror}); what is in it is kept: make room and run again"
            ) from error

    def _read(self) -> int:
        """Bytes up to the end of the last complete recording; failed recordings are tried again."""
        content = self.path.read_bytes()
        end = content.find(b"\n") + 1
        try:
            head = json.loads(content[:end] or b"null")
        except ValueError:
            head = None
        if not isinstance(head, dict) or head.pop("type", None) != "run":
            raise ResultsError(f"{self.path} holds no results of 'stetho screen'; name another file for --results")
        if head != self._run:
            other = sorted(key for key in head.keys() | self._run.keys() if head.get(key) != self._run.get(key))
            raise ResultsError(
                f"{self.path} holds results of another run ({', '.join(other)} differ); name another file for --results"
            )
        kept, waiting = end, []
        for line in content[end:].splitlines(keepends=True):
            try:
                record = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                record = None
            if not isinstance(record, dict):
                break
            end += len(line)
            waiting.append(record)
            if record["type"] == "summary":
                self.done[record["source"]] = Screened(record["source"], tuple(waiting))
            if record["type"] in ("summary", "error"):
                waiting, kept = [], end
        return kept
