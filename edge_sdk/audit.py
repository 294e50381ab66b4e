"""Audit log: append-only JSON lines in a chain of SHA-256, so that a changed, removed or inserted line is found.

Whoever can write the file can also compute a whole new chain: keep the last hash elsewhere (``stetho verify --audit``
prints it), or the file where its writers cannot rewrite it.
"""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

from edge_sdk._version import __version__
from edge_sdk.digests import sha256_file
from edge_sdk.errors import AuditError
from edge_sdk.files import whole_file
from edge_sdk.json_lines import json_line

AuditAction: TypeAlias = Literal[
    "session-start", "session-end", "export", "correction", "bundle-written", "log-repaired",
    "server-start", "server-stop", "login", "view", "upload", "stream", "examination", "examination-finished",
    "refused",
]  # fmt: skip
"""A stream began or ended; results left as a report or in another format; a person changed a label; a bundle was
written or replaced; the last line, cut off by a crash or a power cut, was taken off. Of ``stetho serve``: who looked
at, sent or was refused what."""

ENVIRONMENT = "STETHO_AUDIT"
"""Environment variable with the path of the log; the option ``--audit`` wins."""

_START = "0" * 64  # previous hash of the first line
_LINE = re.compile(rb'(\{.*, "previous": "([0-9a-f]{64})"), "hash": "([0-9a-f]{64})"\}\n', re.DOTALL)
_BLOCK = 1 << 16


class AuditLog:
    """Appends entries to a log; any number of threads and processes may do so at the same time.

    Every line is an object with ``number``, ``time``, ``actor``, ``sdk_version``, ``action``, ``details``, ``previous``
    (the hash of the line before) and ``hash``: SHA-256 of the bytes of the line before ``, "hash"``. Beside the log,
    ``NAME.head`` keeps number and hash of the last line, which shows when lines are missing at the end.

    Parameters
    ----------
    path
        Made with its folder if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, action: AuditAction, details: Mapping[str, Any], *, to_disk: bool = True) -> int:
        """Write one entry; return its number. ``to_disk`` waits for the disk, so that a power cut does not lose it.

        Raises
        ------
        AuditError
            The file cannot be written, or its last line was changed.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "r+b") as file, _locked(file, fcntl.LOCK_EX):
                number, previous = self._repair(file, *self._last(file))
                return self._write(file, number + 1, previous, action, details, to_disk=to_disk)[0]
        except OSError as error:
            raise AuditError(
                f"cannot write the audit log {self.path}: {error.strerror or error}; name a file that can be written"
            ) from error

    def _write(
        self,
        file: BinaryIO,
        number: int,
        previous: str,
        action: AuditAction,
        details: Mapping[str, Any],
        *,
        to_disk: bool = True,
    ) -> tuple[int, str]:
        entry = {
            "number": number,
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "actor": _actor(),
            "sdk_version": __version__,
            "action": action,
            "details": details,
            "previous": previous,
        }
        body = json_line(entry).rstrip("\n").removesuffix("}").encode("utf-8")
        digest = hashlib.sha256(body).hexdigest()
        file.write(body + f', "hash": "{digest}"}}\n'.encode())
        file.flush()
        if to_disk:
            os.fsync(file.fileno())
        with whole_file(_head_of(self.path), alone=True) as draft:
            draft.write_text(json_line({"number": number, "hash": digest}), encoding="utf-8")
        return number, digest

    def _last(self, file: BinaryIO) -> tuple[int, str]:
        """Number and hash of the last complete line."""
        line, head = _last_line(file), _read_head(self.path)
        number, digest, sound = 0, _START, True
        if line:
            found = _LINE.fullmatch(line)
            sound = found is not None and hashlib.sha256(found[1]).hexdigest() == found[3].decode()
            number, digest = (int(json.loads(line)["number"]), _hash_of(line)) if sound else (0, "")
        cut = file.seek(0, os.SEEK_END) > _complete_until(file)
        if head is not None:
            sound = sound and head[0] <= number + cut and (head[0] != number or head[1] == digest)
        if not sound:
            raise AuditError(
                f"the end of the audit log {self.path} was changed or removed; keep the file as evidence "
                f"('stetho verify --audit {self.path}') and begin another one"
            )
        return number, digest

    def _repair(self, file: BinaryIO, number: int, previous: str) -> tuple[int, str]:
        """Take off a line that was cut off while it was written, and state that in an entry of its own."""
        end = file.seek(0, os.SEEK_END)
        start = _complete_until(file)
        if start == end:
            return number, previous
        file.seek(start)
        rest = file.read()
        file.truncate(start)
        digest, begin = hashlib.sha256(rest).hexdigest(), rest[:200].decode("utf-8", "replace")
        facts = {"cut_bytes": len(rest), "sha256": digest, "begin": begin}
        return self._write(file, number + 1, previous, "log-repaired", facts)


@dataclass(frozen=True, slots=True)
class AuditState:
    """Result of a verification."""

    entries: int  # in the unbroken part
    head: str  # hash of the last of them
    repaired: int = 0  # of them, those that state that a cut line was taken off
    broken_line: int | None = None  # the first one, from 1
    problem: str | None = None  # what is wrong with it


def verify_audit(path: Path) -> AuditState:
    """Check the chain of a log from its first line to its last, byte by byte.

    Raises
    ------
    AuditError
        The file cannot be read.
    """
    try:
        with path.open("rb") as file, _locked(file, fcntl.LOCK_SH):
            return _verify(file, _read_head(path))
    except OSError as error:
        raise AuditError(f"cannot read the audit log {path}: {error.strerror or error}") from error


def _verify(file: BinaryIO, head: tuple[int, str] | None) -> AuditState:
    number, previous, repaired = 0, _START, 0
    for number, line in enumerate(file, 1):
        problem = _problem(line, number, previous)
        if problem is None and head is not None and number == head[0] and _hash_of(line) != head[1]:
            problem = "is another one than was last written: the end of the log was replaced"
        if problem is not None:
            return AuditState(number - 1, previous, repaired, number, problem)
        previous = _hash_of(line)
        repaired += json.loads(line)["action"] == "log-repaired"
    if head is not None and head[0] > number:
        return AuditState(number, previous, repaired, number + 1, f"is missing, like all up to line {head[0]}")
    return AuditState(number, previous, repaired)


def _problem(line: bytes, number: int, previous: str) -> str | None:
    if not line.endswith(b"\n"):
        return "is cut off: a crash or a power cut while it was written, or a change; the next entry takes it off"
    found = _LINE.fullmatch(line)
    if found is None:
        return "is no entry of an audit log"
    if hashlib.sha256(found[1]).hexdigest() != found[3].decode():
        return "was changed: its hash is another one"
    if found[2].decode() != previous:
        return "does not follow the line before it: a line was removed, inserted or replaced"
    entry = json.loads(line)
    return None if entry.get("number") == number else f"has the number {entry.get('number')}"


def audit_log(path: Path | None = None) -> AuditLog | None:
    """The log at ``path``, else the one that ``$STETHO_AUDIT`` names; None where neither is given."""
    given = path or os.environ.get(ENVIRONMENT)
    return AuditLog(Path(given)) if given else None


def record_export(
    log: AuditLog | None, command: str, inputs: Iterable[Path], outputs: Iterable[Path], **more: Any
) -> None:
    """Write what was made of what, both with their hashes; nothing without a log. Errors as :meth:`AuditLog.append`."""
    if log is not None:
        facts = {"inputs": file_facts(inputs), "outputs": file_facts(outputs)}
        log.append("export", {"command": command, **more, **facts})


def file_facts(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of files, for the details of an entry; a folder stands for all files in it, each once."""
    files = dict.fromkeys(file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path]))
    return [{"file": str(f), "bytes": f.stat().st_size, "sha256": sha256_file(f)} for f in files if f.is_file()]


@contextmanager
def _locked(file: BinaryIO, kind: int) -> Iterator[None]:
    fcntl.flock(file.fileno(), kind)
    try:
        yield
    finally:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)


def _hash_of(line: bytes) -> str:
    return line[-67:-3].decode()  # …"hash": "HASH"}\n


def _complete_until(file: BinaryIO) -> int:
    """Position after the last line end."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        begin = max(0, position - _BLOCK)
        file.seek(begin)
        at = file.read(position - begin).rfind(b"\n")
        if at >= 0:
            return begin + at + 1
        position = begin
    return 0


def _last_line(file: BinaryIO) -> bytes:
    """The last complete line with its line end; empty where there is none."""
    end = _complete_until(file)
    position, line = end, b""
    while position > 0:
        begin = max(0, position - _BLOCK)
        file.seek(begin)
        line = file.read(position - begin) + line
        at = line.rfind(b"\n", 0, len(line) - 1)
        if at >= 0:
            return line[at + 1 :]
        position = begin
    return line


def _head_of(path: Path) -> Path:
    return path.with_name(path.name + ".head")


def _read_head(path: Path) -> tuple[int, str] | None:
    try:
        head = json.loads(_head_of(path).read_text("utf-8"))
        return int(head["number"]), str(head["hash"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AuditError(f"{_head_of(path)} is damaged ({error}); the end of the log cannot be checked") from None


def _actor() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
