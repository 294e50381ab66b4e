"""Results of a long screening on disk, one recording per write, so that a run that was stopped resumes.

A result is kept for the content of a file and for the settings of the run, never for a name: the file is found by its
real path and compared by its checksum, so a recording that was replaced under its name is screened again.
"""

from __future__ import annotations

import codecs
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edge_sdk._version import __version__
from edge_sdk.digests import sha256_file
from edge_sdk.errors import ResultsError
from edge_sdk.files import lock, whole_file
from edge_sdk.json_lines import json_line, jsonable, readable
from edge_sdk.screening.recordings import ScreenedRecords, ScreenOptions

if TYPE_CHECKING:
    from edge_sdk.runtime.bundle.load import Bundle

_log = logging.getLogger(__name__)

FORMAT = 2
"""Of the file; the first one kept results by name and is refused."""

_ELSEWHERE = "name another file for --results"


def run_identity(bundle: Bundle, options: ScreenOptions) -> dict[str, Any]:
    """Everything that kept results depend on beside the recordings."""
    from edge_sdk.runtime.bundle.schema import MANIFEST

    return {
        "format": FORMAT,
        "sdk_version": __version__,
        "bundle": bundle.manifest.name,
        "version": bundle.manifest.version,
        "bundle_sha256": sha256_file(bundle.path / MANIFEST),  # with the checksums of all its files
        "artefact": bundle.artefact.format,
        "sha256": bundle.artefact.sha256,
        "engine": bundle.engine.name,
        "segmenter": [bundle.segmenter.kind, bundle.segmenter_params.to_dict()],
        "channel": options.channel,
        "metadata": dict(options.metadata),
    }


@dataclass(frozen=True, slots=True)
class _Kept:
    """Results of one recording in the file, and the content that they were made of."""

    size: int  # bytes of the recording
    sha256: str
    begin: int  # of its lines, in bytes of the results' file
    end: int


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A recording at one moment; equal ones mean that nobody wrote to it in between."""

    size: int
    modified_ns: int
    node: int


class KeptResults:
    """A file of JSON lines: the run, then for each recording a line of its identity and all lines of its results.

    One process at a time may hold the file.

    Parameters
    ----------
    path
        Made if missing; read if there.
    run
        What results depend on, see :func:`run_identity`; a file of another run is refused.

    Raises
    ------
    ResultsError
        The file is of another run, is in use, holds lines of something else, is no file of this command, or cannot be
        written.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self.path = path
        self._run = json.loads(json.dumps(jsonable(run)))
        self._kept: dict[str, _Kept] = {}  # real path of the recording → its newest results
        self._replaced: set[str] = set()  # recordings that are others now
        self._before: dict[str, _Snapshot | None] = {}
        self._real: dict[str, str] = {}  # name in JSON lines → real path, which need not be valid text
        try:
            self._file = self._opened()
        except OSError as error:
            raise ResultsError(f"{path} cannot be written ({error.strerror}); {_ELSEWHERE}") from error
        try:
            self._load()
        except BaseException:
            self._file.close()
            raise

    def find(self, path: Path) -> ScreenedRecords | None:
        """The results of a recording as it is now, under the name it has now; None where it must be screened."""
        source, real = readable(str(path)), os.path.realpath(path)
        self._real[source] = real
        self._before[real] = before = _snapshot(real)
        kept = self._kept.get(readable(real))
        if kept is None or before is None:
            return None
        digest = _digest(real) if before.size == kept.size else ""
        if digest is None:
            return None  # the reader names the reason
        if digest != kept.sha256:
            self._replaced.add(readable(real))
            return None
        self._file.seek(kept.begin)
        lines = self._file.read(kept.end - kept.begin).splitlines()
        records = [record for line in lines if (record := _record(line)) is not None]
        return ScreenedRecords(source, tuple({**record, "source": source} for record in records[1:]))

    def forget_replaced(self) -> None:
        """Take results out of the file whose recordings were found to be others now."""
        if self._replaced:
            self._kept = {real: kept for real, kept in self._kept.items() if real not in self._replaced}
            self._replaced.clear()
            self._rewrite()

    def add(self, item: ScreenedRecords) -> None:
        """Keep the lines of one recording; they are on disk when this returns. A failed one is tried again."""
        if item.error is not None:
            self._write([{"type": "error", "source": item.source, "message": item.error}])
            return
        real = self._real.get(item.source) or os.path.realpath(item.source)
        before = self._before.get(real) or _snapshot(real)
        digest = _digest(real)
        if before is None or digest is None or _snapshot(real) != before:
            _log.warning("%s changed while it was screened; its results are not kept", item.source)
            return
        identity = {"type": "recording", "source": item.source, "path": real, "bytes": before.size, "sha256": digest}
        self._write([identity, *item.records])

    def keeping(self, items: Iterator[ScreenedRecords]) -> Iterator[ScreenedRecords]:
        """Pass items on after they were kept."""
        for item in items:
            self.add(item)
            yield item

    def close(self) -> None:
        """Close the file, and let others have it."""
        self._file.close()

    def _opened(self) -> IO[bytes]:
        """The file, locked; another process may have replaced it between opening and locking."""
        if self.path.exists() and not self.path.is_file():
            raise ResultsError(f"{self.path} is no regular file; {_ELSEWHERE}")
        for _ in range(3):
            file = self.path.open("a+b")
            if not lock(file):
                file.close()
                break
            if os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                return file
            file.close()
        raise ResultsError(f"{self.path} is in use by another 'stetho screen'; wait until it ends, or {_ELSEWHERE}")

    def _load(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        head = content.find(b"\n") + 1
        if not content:
            self._write([{"type": "run", **self._run}])
            return
        self._check_run(content[:head])
        complete, superfluous = self._read_blocks(content, head)
        self._file.truncate(complete)  # what a kill cut short
        if superfluous or content.startswith(codecs.BOM_UTF8):  # an editor's, which other readers of JSON refuse
            self._rewrite()

    def _check_run(self, line: bytes) -> None:
        head = _record(line)
        if head is None or head.pop("type") != "run":
            raise ResultsError(f"{self.path} holds no results of 'stetho screen'; {_ELSEWHERE}")
        if head.get("format") != self._run.get("format"):
            raise ResultsError(
                f"{self.path} was written by another version of the SDK, which kept results in another way; "
                f"{_ELSEWHERE}: the recordings are screened again"
            )
        other = sorted(key for key in head.keys() | self._run.keys() if head.get(key) != self._run.get(key))
        if other:
            raise ResultsError(f"{self.path} holds results of another run ({', '.join(other)} differ); {_ELSEWHERE}")

    def _read_blocks(self, content: bytes, position: int) -> tuple[int, bool]:
        """End of the last complete recording, and whether lines before it are not needed any more."""
        complete, superfluous = position, False
        opened: dict[str, Any] | None = None
        for number, line in enumerate(content[position:].splitlines(keepends=True), 2):
            record = _record(line)
            if not line.endswith(b"\n"):
                break
            position += len(line)
            if not line.strip():
                continue
            if opened is None and record is not None and record["type"] == "error":
                complete, superfluous = position, True
            elif opened is None and record is not None and _is_identity(record):
                opened, begin = record, position - len(line)
            elif opened is None or record is None or record.get("source") != opened["source"]:
                raise ResultsError(
                    f"{self.path} line {number} is none that 'stetho screen' wrote there; delete it, or {_ELSEWHERE}"
                )
            elif record["type"] == "summary":
                superfluous = superfluous or opened["path"] in self._kept
                self._kept[opened["path"]] = _Kept(opened["bytes"], opened["sha256"], begin, position)
                opened, complete = None, position
        return complete, superfluous

    def _rewrite(self) -> None:
        """The file without what is not needed any more; whole or unchanged, whatever happens meanwhile."""
        moved: dict[str, _Kept] = {}
        try:
            with whole_file(self.path, to_disk=True) as draft:
                file = draft.open("a+b")
                lock(file)  # before the draft gets the name, so that nobody else has it first
                file.write(_encoded([{"type": "run", **self._run}]))
                for real, kept in self._kept.items():
                    self._file.seek(kept.begin)
                    begin = file.tell()
                    file.write(self._file.read(kept.end - kept.begin))
                    moved[real] = replace(kept, begin=begin, end=file.tell())
                file.flush()
        except OSError as error:
            raise self._full(error) from error
        self._file.close()
        self._file, self._kept = file, moved

    def _write(self, records: Sequence[Mapping[str, Any]]) -> None:
        try:
            self._file.write(_encoded(records))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> ResultsError:
        return ResultsError(
            f"{self.path}: cannot be written ({error.strerror}); what is in it is kept: make room and run again"
        )


def _encoded(records: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json_line(record) for record in records).encode("utf-8", "surrogateescape")


def _record(line: bytes) -> dict[str, Any] | None:
    """The object of a line; None where it is none of a JSON line of this SDK."""
    try:
        record = json.loads(line.decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("type"), str) else None


def _is_identity(record: Mapping[str, Any]) -> bool:
    kinds = {"source": str, "path": str, "bytes": int, "sha256": str}
    return record["type"] == "recording" and all(isinstance(record.get(key), kind) for key, kind in kinds.items())


def _snapshot(path: str) -> _Snapshot | None:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return _Snapshot(stat.st_size, stat.st_mtime_ns, stat.st_ino)


def _digest(path: str) -> str | None:
    try:
        return sha256_file(Path(path))
    except OSError:
        return None
