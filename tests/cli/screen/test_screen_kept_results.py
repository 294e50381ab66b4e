"""``stetho screen --results``: results are kept for content and settings, and a stopped run resumes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_sdk.errors import ResultsError
from edge_sdk.runtime.bundle.load import load_bundle
from edge_sdk.screening.recordings import ScreenedRecords, ScreenOptions
from edge_sdk.screening.results import FORMAT, KeptResults, run_identity
from tests.cli.conftest import RATE, Stetho

RUN = {"format": FORMAT, "bundle": "default", "channel": 0}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two recordings."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode() * 10)
    return tmp_path


def screened(name: str, breaths: int = 2) -> ScreenedRecords:
    cycles = tuple({"type": "cycle", "source": name, "start_s": float(k)} for k in range(breaths))
    return ScreenedRecords(name, (*cycles, {"type": "summary", "source": name, "cycles": breaths}))


def write(path: Path, *items: ScreenedRecords) -> None:
    kept = KeptResults(path, RUN)
    for item in items:
        kept.add(item)
    kept.close()


def found(path: Path, *names: str) -> list[str]:
    """Names whose results are in the file; the others are taken out where they are others now."""
    kept = KeptResults(path, RUN)
    known = [name for name in names if kept.find(Path(name)) is not None]
    kept.forget_replaced()
    kept.close()
    return known


def summaries(path: Path) -> list[str]:
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [line["source"] for line in lines if line["type"] == "summary"]


def test_finished_recordings_are_read_back(tmp_path: Path) -> None:
    write(tmp_path / "r", screened("a"), screened("b", 0))
    again = KeptResults(tmp_path / "r", RUN)
    assert again.find(Path("a")) == screened("a")
    assert again.find(Path("b")) == screened("b", 0)
    again.close()


@pytest.mark.parametrize("cut", [1, 20, 60, 100, 300])
def test_a_recording_cut_short_by_a_kill_is_done_again(tmp_path: Path, cut: int) -> None:
    write(tmp_path / "r", screened("a"), screened("b"))
    whole = (tmp_path / "r").read_bytes()
    (tmp_path / "r").write_bytes(whole[:-cut])
    again = KeptResults(tmp_path / "r", RUN)
    assert [name for name in "ab" if again.find(Path(name))] == ["a"]
    again.add(screened("b"))
    again.close()
    assert (tmp_path / "r").read_bytes() == whole


@pytest.mark.parametrize("cut", [0, 5])
def test_a_byte_order_mark_of_an_editor_is_taken_out(tmp_path: Path, cut: int) -> None:
    write(tmp_path / "r", screened("a"), screened("b"))
    whole = (tmp_path / "r").read_bytes()
    (tmp_path / "r").write_bytes(b"\xef\xbb\xbf" + whole[: len(whole) - cut])
    assert found(tmp_path / "r", "a", "b") == (["a"] if cut else ["a", "b"])
    assert summaries(tmp_path / "r") == (["a"] if cut else ["a", "b"])


def test_a_failed_recording_is_tried_again_and_its_line_does_not_pile_up(tmp_path: Path) -> None:
    for _ in range(3):
        write(tmp_path / "r", ScreenedRecords("bad", error="no audio"))
    write(tmp_path / "r", screened("a"))
    assert found(tmp_path / "r", "a", "bad") == ["a"]
    assert b"no audio" not in (tmp_path / "r").read_bytes()


@pytest.mark.parametrize("changed", ["content", "content of the same size and time", "size"])
def test_a_recording_that_was_replaced_under_its_name_is_another(tmp_path: Path, changed: str) -> None:
    write(tmp_path / "r", screened("a"), screened("b"))
    before = Path("a").stat()
    Path("a").write_bytes(b"x" * (11 if changed == "size" else 10))
    if changed.endswith("time"):
        os.utime("a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert found(tmp_path / "r", "a", "b") == ["b"]
    assert summaries(tmp_path / "r") == ["b"]  # the file never holds the answer of another patient


def test_a_copy_with_another_time_is_the_same(tmp_path: Path) -> None:
    write(tmp_path / "r", screened("a"))
    os.utime("a", (1, 1))
    assert found(tmp_path / "r", "a") == ["a"]


def test_the_same_name_in_another_folder_is_another_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "r", screened("a"))
    (tmp_path / "ward").mkdir()
    (tmp_path / "ward" / "a").write_bytes(b"other")
    monkeypatch.chdir(tmp_path / "ward")
    assert found(tmp_path / "r", "a") == []
    shutil.copy(tmp_path / "a", tmp_path / "ward" / "a")
    assert found(tmp_path / "r", "a") == []
    assert summaries(tmp_path / "r") == ["a"]


@pytest.mark.parametrize("spelling", ["./a", "absolute", "sub/../a", "link", "linked folder/a"])
def test_one_file_under_another_spelling_is_recognised(tmp_path: Path, spelling: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "linked folder").symlink_to(tmp_path, target_is_directory=True)
    path = tmp_path / "a" if spelling == "absolute" else Path(spelling)
    write(tmp_path / "r", screened("a"))
    kept = KeptResults(tmp_path / "r", RUN)
    again = kept.find(path)
    kept.close()
    assert again is not None
    assert {record["source"] for record in again.records} == {str(path)}


def test_a_recording_that_is_away_keeps_its_results(tmp_path: Path) -> None:
    write(tmp_path / "r", screened("a"))
    Path("a").rename("moved")
    assert found(tmp_path / "r", "a") == []
    Path("moved").rename("a")
    assert found(tmp_path / "r", "a") == ["a"]


def test_a_recording_that_changes_while_it_is_screened_is_not_kept(tmp_path: Path) -> None:
    kept = KeptResults(tmp_path / "r", RUN)
    assert kept.find(Path("a")) is None
    Path("a").write_bytes(b"the recorder goes on")
    kept.add(screened("a"))
    kept.close()
    assert found(tmp_path / "r", "a") == []


def test_results_of_another_run_are_refused_and_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "r", screened("a"))
    before = (tmp_path / "r").read_bytes()
    with pytest.raises(ResultsError, match="channel"):
        KeptResults(tmp_path / "r", {**RUN, "channel": 1})
    assert (tmp_path / "r").read_bytes() == before


def test_the_run_depends_on_all_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    import edge_sdk.screening.results as module

    bundle = load_bundle("default")
    base = run_identity(bundle, ScreenOptions())
    assert {"sdk_version", "bundle_sha256", "version", "sha256", "engine", "segmenter"} <= set(base)
    assert run_identity(bundle, ScreenOptions(channel="mix")) != base
    assert run_identity(bundle, ScreenOptions(metadata={"sex": "male"})) != base
    assert run_identity(load_bundle("default", artefact="onnx-fp32"), ScreenOptions()) != base
    monkeypatch.setattr(module, "__version__", "9.9")
    assert run_identity(bundle, ScreenOptions()) != base


def test_results_of_an_older_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r").write_text(json.dumps({"type": "run", "bundle": "default", "channel": 0}) + "\n")
    with pytest.raises(ResultsError, match=r"another version of the SDK.*name another file"):
        KeptResults(tmp_path / "r", RUN)


@pytest.mark.parametrize(
    "content", [b"hello\n", b"{}\n", b"\xff\xfe", b'{"type": "cycle"}\n', b"\x00" * 40, b"[" * 9999]
)
def test_a_file_of_something_else_is_never_overwritten(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r").write_bytes(content)
    with pytest.raises(ResultsError, match="no results"):
        KeptResults(tmp_path / "r", RUN)
    assert (tmp_path / "r").read_bytes() == content


FOREIGN = {
    "no type": b'{"a": 1}\n',
    "no object": b"7\n",
    "no JSON": b"see the other file\n",
    "of another source": b'{"type": "summary", "source": "z", "cycles": 1}\n',
    "summary alone": b'{"type": "summary", "source": "a", "cycles": 1}\n',
    "bytes": b"\xff\xfe\x00\n",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_line_is_named_and_the_file_left_alone(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "r", screened("a"), screened("b"))
    lines = (tmp_path / "r").read_bytes().splitlines(keepends=True)
    place = 5 if kind != "of another source" else 3
    content = b"".join([*lines[:place], FOREIGN[kind], *lines[place:]])
    (tmp_path / "r").write_bytes(content)
    with pytest.raises(ResultsError, match=f"line {place + 1} "):
        KeptResults(tmp_path / "r", RUN)
    assert (tmp_path / "r").read_bytes() == content


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    first = KeptResults(tmp_path / "r", RUN)
    with pytest.raises(ResultsError, match="in use"):
        KeptResults(tmp_path / "r", RUN)
    first.add(screened("a"))
    Path("a").write_bytes(b"other")
    first.find(Path("a"))
    first.close()
    again = KeptResults(tmp_path / "r", RUN)
    again.find(Path("a"))
    again.forget_replaced()  # writes the file anew: the lock moves with it
    with pytest.raises(ResultsError, match="in use"):
        KeptResults(tmp_path / "r", RUN)
    again.add(screened("b"))
    again.close()
    assert found(tmp_path / "r", "a", "b") == ["b"]


def test_names_that_are_not_utf_8_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    Path(name).write_bytes(b"audio")
    write(tmp_path / "r", screened(name))
    assert found(tmp_path / "r", name) == [name]


def test_lines_are_those_that_json_output_shows(tmp_path: Path) -> None:
    Path("ä").write_bytes(b"audio")
    write(tmp_path / "r", screened("ä"))
    first, identity, *rest = [json.loads(line) for line in (tmp_path / "r").read_text("utf-8").splitlines()]
    assert first["type"] == "run" and rest == list(screened("ä").records)
    assert (identity["type"], identity["path"], identity["bytes"]) == ("recording", str(tmp_path / "ä"), 5)


def test_a_recording_replaced_under_its_name_is_screened_again(
    stetho: Stetho, data_root: Path, breathing: np.ndarray
) -> None:
    soundfile.write("other.wav", breathing, RATE)
    shutil.copy(data_root / "cases" / "reference_10s.wav", "bed.wav")
    command = ("screen", "bed.wav", "other.wav", "--json", "--results", "kept.jsonl")
    first = stetho(*command)
    assert stetho(*command).out == first.out
    soundfile.write("bed.wav", breathing[: 8 * RATE], RATE)
    second = [r for r in stetho(*command).records if r["type"] == "summary"]
    assert {r["source"]: r["duration_s"] for r in second} == {"other.wav": 12.0, "bed.wav": 8.0}
    assert sorted(summaries(Path("kept.jsonl"))) == ["bed.wav", "other.wav"]


def test_two_commands_on_one_file(stetho: Stetho, data_root: Path) -> None:
    shutil.copy(data_root / "cases" / "reference_10s.wav", "bed.wav")
    hold = "import sys, fcntl; f = open('kept.jsonl', 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-uc", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None and holder.stdout is not None
    try:
        holder.stdout.readline()
        refused = stetho("screen", "bed.wav", "--results", "kept.jsonl")
        assert refused.status == 1
        assert "in use by another" in refused.error
    finally:
        holder.stdin.close()
        holder.wait(10)
        holder.stdout.close()
    assert stetho("screen", "bed.wav", "--results", "kept.jsonl").status == 0
