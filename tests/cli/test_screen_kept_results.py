"""``stetho screen --results``: finished recordings are kept, and a stopped run resumes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_sdk.errors import ResultsError
from edge_sdk.screening.recordings import ScreenedRecords
from edge_sdk.screening.results import KeptResults

RUN = {"bundle": "default", "channel": 0}


def screened(name: str, breaths: int = 2) -> ScreenedRecords:
    cycles = tuple({"type": "cycle", "source": name, "start_s": float(k)} for k in range(breaths))
    return ScreenedRecords(name, (*cycles, {"type": "summary", "source": name, "cycles": breaths}))


def write(path: Path, *items: ScreenedRecords) -> None:
    kept = KeptResults(path, RUN)
    for item in items:
        kept.add(item)
    kept.close()


def test_finished_recordings_are_read_back(tmp_path: Path) -> None:
    write(tmp_path / "r", screened("a"), screened("b", 0))
    again = KeptResults(tmp_path / "r", RUN)
    assert again.done == {"a": screened("a"), "b": screened("b", 0)}


@pytest.mark.parametrize("cut", [1, 20, 60, 100])
def test_a_recording_cut_short_by_a_kill_is_done_again(tmp_path: Path, cut: int) -> None:
    write(tmp_path / "r", screened("a"), screened("b"))
    whole = (tmp_path / "r").read_bytes()
    (tmp_path / "r").write_bytes(whole[:-cut])
    again = KeptResults(tmp_path / "r", RUN)
    assert set(again.done) == {"a"}
    again.add(screened("b"))
    again.close()
    assert (tmp_path / "r").read_bytes() == whole


def test_a_failed_recording_is_tried_again(tmp_path: Path) -> None:
    write(tmp_path / "r", ScreenedRecords("bad", error="no audio"), screened("a"))
    assert set(KeptResults(tmp_path / "r", RUN).done) == {"a"}


def test_results_of_another_run_are_refused_and_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "r", screened("a"))
    before = (tmp_path / "r").read_bytes()
    with pytest.raises(ResultsError, match="channel"):
        KeptResults(tmp_path / "r", {**RUN, "channel": 1})
    assert (tmp_path / "r").read_bytes() == before


@pytest.mark.parametrize("content", [b"hello\n", b"{}\n", b"\xff\xfe", b'{"type": "cycle"}\n'])
def test_a_file_of_something_else_is_never_overwritten(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r").write_bytes(content)
    with pytest.raises(ResultsError, match="no results"):
        KeptResults(tmp_path / "r", RUN)
    assert (tmp_path / "r").read_bytes() == content


def test_lines_are_those_that_json_output_shows(tmp_path: Path) -> None:
    write(tmp_path / "r", screened("ä"))
    first, *rest = [json.loads(line) for line in (tmp_path / "r").read_text("utf-8").splitlines()]
    assert first["type"] == "run" and rest == list(screened("ä").records)
