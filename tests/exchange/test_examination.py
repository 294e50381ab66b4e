"""Examinations are read from sessions, JSON lines and audio; what is found equals the lines of ``screen``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import edge_sdk
from edge_sdk.cli.main import run
from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.examination import BundleIdentity, Screener, find_audio, load_examination
from edge_sdk.json_lines import json_line


@pytest.fixture(scope="module")
def screening(kauh_file: Path) -> edge_sdk.Screening:
    return edge_sdk.screen(kauh_file)


def no_screening() -> Screener:
    pytest.fail("screened what has results already")


def write_lines(path: Path, *groups: Any) -> Path:
    path.write_text("".join(json_line(record) for group in groups for record in group), "utf-8")
    return path


def test_json_lines_give_what_screening_found(screening: edge_sdk.Screening, tmp_path: Path, kauh_file: Path) -> None:
    failed = {"type": "error", "source": "b.wav", "message": "b.wav is empty"}
    path = write_lines(tmp_path / "screened.jsonl", screening.records, [failed])
    examination = load_examination([path], screener=no_screening, metadata={"site": "trachea"})
    (recording,) = examination.recordings
    assert examination.notes == ("b.wav was left out: b.wav is empty",)
    assert (recording.audio, recording.site, recording.bundle) == (kauh_file, "trachea", None)
    assert [(c.start_s, c.end_s, c.label, c.quality) for c in recording.cycles] == [
        (round(r.cycle.start_s, 4), round(r.cycle.end_s, 4), r.label, r.quality) for r in screening.cycles
    ]
    assert recording.cycles
    assert (recording.verdict, recording.respiratory_rate_bpm) == (screening.verdict, screening.respiratory_rate_bpm)
    assert recording.quality[0].start_s == 0
    assert recording.quality[-1].end_s == recording.duration_s


def test_audio_of_lines_is_found_by_its_name_in_another_folder(
    screening: edge_sdk.Screening, tmp_path: Path, kauh_file: Path
) -> None:
    moved = [{**record, "source": f"C:\\visits\\{kauh_file.name}"} for record in screening.records]
    path = write_lines(tmp_path / "moved.jsonl", moved)
    assert load_examination([path]).recordings[0].audio is None
    assert load_examination([path], audio=kauh_file.parent).recordings[0].audio == kauh_file


@pytest.mark.parametrize("name", ["", "x/", "**", "[", "a" * 5000, "a\0b"])
def test_a_source_that_names_no_file_has_no_audio(tmp_path: Path, name: str) -> None:
    (tmp_path / "other.wav").write_bytes(b"")
    assert find_audio(name, (tmp_path,), None) is None
    assert find_audio(name, (tmp_path,), tmp_path) is None


def test_a_folder_of_sessions_is_an_examination_and_a_cut_off_one_is_screened_again(
    tmp_path: Path, kauh_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for site in ("trachea", "left anterior"):
        with pytest.raises(SystemExit, match="0"):
            run(["listen", str(kauh_file), "--speed", "100", "--record", str(tmp_path), "--site", site, "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    examination = load_examination([tmp_path], screener=no_screening)
    assert sorted(str(recording.site) for recording in examination.recordings) == ["left anterior", "trachea"]
    (bundle,) = examination.bundles
    assert bundle == BundleIdentity.of(edge_sdk.load_bundle().identity)
    for recording in examination.recordings:
        cycles = [line for line in lines[: len(lines) // 2] if line["type"] == "cycle"]
        assert [cycle.start_s for cycle in recording.cycles] == [line["start_s"] for line in cycles]
        assert recording.started is not None and recording.started.tzinfo is not None
        assert recording.samples().shape == (round(recording.duration_s * recording.sample_rate),)

    session = sorted(tmp_path.glob("*.session.json"))[0]
    about = json.loads(session.read_text("utf-8"))
    session.write_text(json.dumps({**about, "complete": False}), "utf-8")
    asked: list[Mapping[str, Any]] = []

    def records(path: Path, metadata: Mapping[str, Any]) -> Any:
        asked.append(metadata)
        return edge_sdk.screen(path, metadata=metadata).records

    (again,) = load_examination([session], screener=lambda: Screener(records, bundle, "1")).recordings
    assert asked == [{"site": about["metadata"]["site"]}]
    assert [cycle.end_s for cycle in again.cycles] == [cycle.end_s for cycle in examination.recordings[0].cycles]
    assert again.source == str(kauh_file)


def test_a_stream_that_began_elsewhere_has_times_from_its_first_sample_and_corrections_are_named(
    kauh_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(["listen", str(kauh_file), "--speed", "100", "--record", str(tmp_path), "--json"])
    (session,) = tmp_path.glob("*.session.json")
    whole = load_examination([session])
    about = json.loads(session.read_text("utf-8"))
    shift = 40_000
    session.write_text(json.dumps({**about, "first_sample": shift}), "utf-8")
    events = session.with_name(about["events"])
    lines = [json.loads(line) for line in events.read_text("utf-8").splitlines()]
    later = [
        {**line, **{key: line[key] + shift / about["sample_rate"] for key in ("start_s", "end_s") if key in line}}
        for line in lines
    ]
    events.write_text("".join(json.dumps(line) + "\n" for line in later), "utf-8")
    session.with_name(session.name.replace(".session.json", ".corrections.jsonl")).write_text("{}\n", "utf-8")
    moved = load_examination([session])
    (before,), (after,) = whole.recordings, moved.recordings
    assert len(before.cycles) >= 2 and len(after.quality) == len(before.quality) >= 1
    assert [c.start_s for c in after.cycles] == pytest.approx([c.start_s for c in before.cycles], abs=1e-3)
    assert not whole.notes and any("corrections are not applied" in note for note in moved.notes)


WITHOUT_CYCLES = '{"type": "summary", "source": "a", "sample_rate": 4000, "duration_s": 1}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no results"),
        ("no json\n", "line 1 is no JSON line"),
        ('{"type": "cycle", "source": "a.wav", "start_s": 0, "end_s": 1}\n', "no summary of a.wav"),
        ('{"type": "cycle", "source": "a"}\n' + WITHOUT_CYCLES, "'start_s'"),
        ('{"type": "error", "source": "a", "message": "broken"}\n', "a was left out: broken"),
    ],
)
def test_lines_that_are_none_are_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(content, "utf-8")
    with pytest.raises(ExchangeError, match=message):
        load_examination([path])


def test_a_folder_without_a_session_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match="holds no session"):
        load_examination([tmp_path])
