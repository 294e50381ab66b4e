"""Progress goes to stderr where a person watches, and nothing of it anywhere else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_sdk.cli.progress import progress_bar, tracked

PROGRAM = """
import sys
from edge_sdk.cli.progress import tracked
for item in tracked(iter("abc"), 3, "counting", quiet="quiet" in sys.argv):
    sys.stdout.write('{"item": "' + item * 200 + '"}\\n')
"""


def on_a_terminal(*arguments: str, out: Path | None) -> tuple[str, str]:
    """Output in the file, and on the terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    stdout = theirs if out is None else out.open("wb")
    command = [sys.executable, "-c", PROGRAM, *arguments]
    running = subprocess.Popen(command, stdout=stdout, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            received = os.read(ours, 65_536)
        except OSError:  # the other end is closed
            break
        if not received:
            break
        shown += received
    os.close(ours)
    assert running.wait(timeout=10) == 0
    return "" if out is None else out.read_text("utf-8"), shown.decode("utf-8", "replace")


def test_a_bar_on_the_terminal_leaves_the_lines_of_a_file_alone(tmp_path: Path) -> None:
    lines, shown = on_a_terminal(out=tmp_path / "lines.jsonl")
    assert lines.splitlines() == ['{"item": "' + item * 200 + '"}' for item in "abc"]
    assert "counting" in shown and "3/3" in shown and "item" not in shown


def test_lines_and_bar_share_a_terminal() -> None:
    _, shown = on_a_terminal(out=None)
    assert "counting" in shown and all(item * 50 in shown for item in "abc")


def test_quiet_shows_no_bar(tmp_path: Path) -> None:
    lines, shown = on_a_terminal("quiet", out=tmp_path / "lines.jsonl")
    assert len(lines.splitlines()) == 3 and shown == ""


def test_without_a_terminal_there_is_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with progress_bar("title") as report:
        report("a step")
        report("counted", 1, 2)
    assert list(tracked(iter([1, 2]), 2, "counting")) == [1, 2]
    assert capfd.readouterr() == ("", "")


def test_an_error_in_the_work_comes_through_and_ends_the_bar() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(tracked(broken(), 2, "counting"))
