"""A file is there whole or not at all, and what was there before stays until then."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from edge_sdk.files import whole_file


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("to_disk", [False, True])
def test_the_file_takes_its_name_when_it_is_whole(tmp_path: Path, alone: bool, to_disk: bool) -> None:
    path = tmp_path / "kept.json"
    path.write_text("old")
    with whole_file(path, alone=alone, to_disk=to_disk) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.json"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_was_there_stays_when_the_writing_fails(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "kept.json"
    path.write_text("old")

    def write() -> None:
        with whole_file(path) as draft:
            draft.write_text("ne")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.json"]


def test_a_draft_that_a_kill_left_behind_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    with whole_file(path, alone=True) as draft:
        left = draft
        draft.write_text("whole")
    left.write_text("a part of what was to be")
    with whole_file(path, alone=True) as draft:
        draft.write_text("again")
    assert path.read_text() == "again"
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_two_writers_at_once_both_succeed(tmp_path: Path) -> None:
    path = tmp_path / "cache.npy"
    both = threading.Barrier(2, timeout=10)
    problems: list[BaseException] = []

    def write(content: str) -> None:
        try:
            with whole_file(path) as draft:
                draft.write_text(content)
                both.wait()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(text * 1000,)) for text in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert path.read_text() in ("a" * 1000, "b" * 1000)
    assert [p.name for p in tmp_path.iterdir()] == ["cache.npy"]


def test_others_may_read_what_they_could_read_before(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("x")
    with whole_file(tmp_path / "whole") as draft:
        draft.write_text("x")
    assert stat.S_IMODE((tmp_path / "whole").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
