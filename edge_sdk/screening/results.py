"""Results of a long screening on disk, one recording per write, so that a run that was stopped resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import ResultsError
from edge_sdk.json_lines import json_line, jsonable
from edge_sdk.screening.recordings import ScreenedRecords, ScreenOptions

if TYPE_CHECKING:
    from edge_sdk.runtime.bundle.load import Bundle


def run_identity(bundle: Bundle, options: ScreenOptions) -> dict[str, Any]:
    """Everything that kept results depend on beside the recordings."""
    return {
        "bundle": bundle.manifest.name,
        "version": bundle.manifest.version,
        "artefact": bundle.artefact.format,
        "sha256": bundle.artefact.sha256,
        "channel": options.channel,
        "metadata": dict(options.metadata),
    }


class KeptResults:
    """A file of JSON lines: the run it belongs to, then all lines of one recording after another.

    Parameters
    ----------
    path
        Made if missing; read if there.
    run
        What results depend on, see :func:`run_identity`; a file of another run is refused.

    Raises
    ------
    ResultsError
        The file is of another run, no file of this command, or cannot be written.
    """

    def __init__(self, path: Path, run: dict[str, Any]) -> None:
        self.path = path
        self._run = json.loads(json.dumps(jsonable(run)))
        self.done: dict[str, ScreenedRecords] = {}
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

    def add(self, item: ScreenedRecords) -> None:
        """Keep the lines of one recording; they are on disk when this returns."""
        error = {"type": "error", "source": item.source, "message": item.error}
        self._write([error] if item.error is not None else item.records)

    def keeping(self, items: Iterator[ScreenedRecords]) -> Iterator[ScreenedRecords]:
        """Pass items on after they were kept."""
        for item in items:
            self.add(item)
            yield item

    def close(self) -> None:
        """Close the file."""
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
        except (ValueError, RecursionError):
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
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict) or not isinstance(record.get("source"), str):
                break
            end += len(line)
            waiting.append(record)
            if record.get("type") == "summary":
                self.done[record["source"]] = ScreenedRecords(record["source"], tuple(waiting))
            if record.get("type") in ("summary", "error"):
                waiting, kept = [], end
        return kept
