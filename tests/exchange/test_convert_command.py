"""``stetho convert`` as a person calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_sdk.cli.main import run
from edge_sdk.exchange.convert import convert
from edge_sdk.exchange.examination import Examination


def call(*arguments: object, status: int = 0) -> None:
    with pytest.raises(SystemExit) as left:
        run(["convert", *map(str, arguments)])
    assert left.value.code == status


@pytest.fixture
def recording(kauh_file: Path, tmp_path: Path) -> Path:
    path = tmp_path / "visit-7.flac"
    path.write_bytes(kauh_file.read_bytes())
    return path


def test_a_recording_is_screened_and_written_into_a_folder(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    call(recording, "--to", "csv", "--out", out, "--site", "trachea")
    printed = capsys.readouterr()
    assert printed.out == f"{out / recording.stem}.csv\n"
    assert (out / f"{recording.stem}.csv").read_text("utf-8").count("\n") > 2
    call(out / f"{recording.stem}.csv", "--from", "csv", "--to", "icbhi", "--out", tmp_path / "a.txt", "--json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["type"] for line in lines][-1] == "file"
    assert lines[-1] == {
        "type": "file",
        "file": str(tmp_path / "a.txt"),
        "format": "icbhi",
        "bytes": (tmp_path / "a.txt").stat().st_size,
    }
    assert any("probabilities" in line.get("message", "") for line in lines)


def test_records_are_deidentified_unless_the_user_decides_otherwise(
    examination: Examination, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = examination.recordings[1:]
    recording = convert(Examination((found,)), "jsonl", tmp_path / "screened.jsonl").files[0]
    call(recording, "--to", "fhir-r4", "--out", tmp_path / "a.json")
    assert "no key" in capsys.readouterr().err
    assert found.name not in (tmp_path / "a.json").read_text("utf-8")
    call(recording, "--to", "fhir-r4", "--out", tmp_path / "b.json", "--no-deidentify", "--content", "none")
    assert found.name not in (tmp_path / "b.json").read_text("utf-8")  # the name stands with the audio alone
    call(recording, "--to", "fhir-r4", "--out", tmp_path / "c.json", "--keep", "sources")
    assert found.name in (tmp_path / "c.json").read_text("utf-8")


def test_a_folder_of_annotations_passes_over_a_faulty_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "good.txt").write_text("0\t1.5\tcrackle\n", "utf-8")
    (source / "bad.txt").write_text("no label\n", "utf-8")
    call(source, "--from", "audacity", "--to", "textgrid", "--out", tmp_path / "out", status=1)
    printed = capsys.readouterr()
    assert "bad.txt: line 1 is no label of Audacity" in printed.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.TextGrid"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["none.wav", "--to", "csv", "--out", "x.csv"], 1, "no such file"),
        (["a.txt", "--from", "audacity", "--to", "csv", "--out", "a.txt"], 2, "replace an input"),
        (["a.txt", "--from", "audacity", "--to", "excel", "--out", "x"], 2, "none of fhir-r4"),
        (["a.txt", "--from", "fhir-r4", "--to", "csv", "--out", "x"], 2, "none of audacity"),
        (["a.txt", "--from", "audacity", "--to", "dicom", "--out", "x.dcm"], 1, "audio of a is not at hand"),
        (["a.txt", "--from", "audacity", "--to", "fhir-r5", "--out", "x.json"], 1, "no bare annotation"),
        (["a.txt", "a.txt", "--from", "audacity", "--to", "icbhi", "--out", "x.txt"], 1, "name a folder"),
        (["a.txt", "--from", "audacity", "--to", "dicom", "--out", "x", "--keep", "names"], 1, "not names"),
        (["a.txt", "--from", "audacity", "--to", "dicom", "--out", "x", "--uid-root", "x"], 1, "no root of UIDs"),
        (["a.txt", "--from", "audacity", "--to", "csv", "--out", "a.txt/x.csv"], 1, "cannot be written"),
        (["empty", "--from", "raven", "--to", "csv", "--out", "x"], 1, r"no .selections.txt file in"),
    ],
)
def test_wrong_calls_end_in_one_line(
    arguments: list[str],
    status: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("0\t1.5\tcrackle\n", "utf-8")
    (tmp_path / "empty").mkdir()
    call(*arguments, status=status)
    printed = capsys.readouterr()
    assert message in " ".join(printed.err.replace("│", " ").split())
    assert printed.out == ""
