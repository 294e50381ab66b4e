"""Promises of the audit log: a changed byte, a removed, inserted or moved line is found; writers never mix lines."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.audit import AuditLog, file_facts, verify_audit
from edge_sdk.errors import AuditError


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of six entries."""
    path = tmp_path / "audit" / "log.jsonl"
    writer = AuditLog(path)
    for number in range(1, 7):
        details = {"source": f"bed {number}", "text": 'a "quoted", ünïcode\nline ' * number, "p": float("nan")}
        assert writer.append("session-start", details) == number
    return path


def test_every_entry_can_be_checked_without_this_sdk(log: Path) -> None:
    previous = "0" * 64
    for number, line in enumerate(log.read_bytes().splitlines(), 1):
        entry = json.loads(line)
        assert list(entry) == ["number", "time", "actor", "sdk_version", "action", "details", "previous", "hash"]
        assert (entry["number"], entry["previous"]) == (number, previous)
        body, _, _ = line.partition(b', "hash": ') if line.count(b', "hash": ') == 1 else line.rpartition(b', "hash": ')
        previous = hashlib.sha256(body).hexdigest()
        assert entry["hash"] == previous
    state = verify_audit(log)
    assert (state.entries, state.head, state.repaired, state.broken_line) == (6, previous, 0, None)


@pytest.mark.requirement("AUT-1")
def test_any_changed_byte_is_found_in_its_line(log: Path) -> None:
    good = log.read_bytes()
    starts = [0, *(k + 1 for k, byte in enumerate(good[:-1]) if byte == 10)]
    chance = random.Random(18)
    positions = [*chance.sample(range(len(good)), 120), *starts, len(good) - 1, *(start - 1 for start in starts[1:])]
    for position in positions:
        for changed in {good[position] ^ 1, 10, 32} - {good[position]}:
            log.write_bytes(good[:position] + bytes([changed]) + good[position + 1 :])
            state = verify_audit(log)
            line = sum(start <= position for start in starts)
            assert state.broken_line == line, (position, changed)
            assert state.problem and state.entries == line - 1
    log.write_bytes(good)
    assert verify_audit(log).broken_line is None


@pytest.mark.parametrize(
    ("kept", "broken"),
    [
        ([1, 2, 4, 5, 6], 3),  # removed
        ([2, 3, 4, 5, 6], 1),
        ([1, 2, 3, 3, 4, 5, 6], 4),  # inserted
        ([1, 3, 2, 4, 5, 6], 2),  # moved
        ([1, 2, 3, 4], 5),  # cut at the end
        ([1, 2, 3, 4, 5], 6),
        ([], 1),
    ],
)
@pytest.mark.requirement("AUT-1")
def test_removed_inserted_and_moved_lines_are_found(log: Path, kept: list[int], broken: int) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[number - 1] for number in kept))
    assert verify_audit(log).broken_line == broken
    if broken > len(kept) or kept[-1] != 6:
        with pytest.raises(AuditError, match="was changed or removed"):
            AuditLog(log).append("export", {})


def test_an_end_that_was_written_anew_is_found_by_the_head(log: Path, tmp_path: Path) -> None:
    other = AuditLog(tmp_path / "other")
    for number in range(1, 7):
        other.append("session-start", {"source": f"bed {number}"})
    log.write_bytes(other.path.read_bytes())  # a whole new chain, sound in itself
    state = verify_audit(log)
    assert state.broken_line == 6 and "replaced" in str(state.problem)
    with pytest.raises(AuditError, match="begin another one"):
        AuditLog(log).append("export", {})


@pytest.mark.parametrize("left", [1, 40, -2, -1])
@pytest.mark.requirement("AUT-2")
def test_a_line_that_was_cut_off_is_named_then_taken_off_and_stated(log: Path, left: int) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:5]) + lines[5][:left])
    state = verify_audit(log)
    assert (state.entries, state.broken_line) == (5, 6)
    assert "cut off" in str(state.problem)
    assert AuditLog(log).append("export", {"file": "a"}) == 7
    state = verify_audit(log)
    assert (state.entries, state.repaired, state.broken_line) == (7, 1, None)
    repaired = json.loads(log.read_bytes().splitlines()[5])
    cut = lines[5][:left]
    assert repaired["action"] == "log-repaired"
    assert repaired["details"]["cut_bytes"] == len(cut)
    assert repaired["details"]["sha256"] == hashlib.sha256(cut).hexdigest()


def _append(path: Path, writer: int, count: int) -> None:
    log = AuditLog(path)
    for number in range(count):
        log.append("correction", {"writer": writer, "count": number, "filler": "x" * 70_000 * (number == 3)})


@pytest.mark.requirement("AUT-2")
def test_processes_and_threads_write_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append, args=(path, writer, 12)) for writer in range(2)]
    threads = [threading.Thread(target=_append, args=(path, writer, 12)) for writer in (2, 3)]
    writers: list[Any] = [*processes, *threads]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert verify_audit(path) == verify_audit(path)
    assert (verify_audit(path).entries, verify_audit(path).broken_line) == (48, None)
    written = [json.loads(line)["details"] for line in path.read_text("utf-8").splitlines()]
    for writer in range(4):
        assert [d["count"] for d in written if d["writer"] == writer] == list(range(12))


def test_a_log_that_cannot_be_written_or_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(AuditError, match=r"cannot write the audit log .*name a file that can be written"):
        AuditLog(tmp_path / "file" / "log").append("export", {})
    with pytest.raises(AuditError, match=r"cannot read the audit log .*No such file"):
        verify_audit(tmp_path / "absent")
    (tmp_path / "text").write_text("Dear doctor\n")
    assert verify_audit(tmp_path / "text").problem == "is no entry of an audit log"
    with pytest.raises(AuditError, match="was changed"):
        AuditLog(tmp_path / "text").append("export", {})
    empty = tmp_path / "empty"
    empty.touch()
    assert verify_audit(empty).entries == 0
    assert AuditLog(empty).append("export", {}) == 1


def test_a_log_without_its_head_is_still_checked(log: Path) -> None:
    log.with_name("log.jsonl.head").unlink()
    assert verify_audit(log).broken_line is None
    log.with_name("log.jsonl.head").write_text("{")
    with pytest.raises(AuditError, match="is damaged"):
        verify_audit(log)


def test_facts_of_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.flac").write_bytes(b"123")
    (fact,) = file_facts([tmp_path])
    assert (fact["bytes"], fact["sha256"]) == (3, hashlib.sha256(b"123").hexdigest())
