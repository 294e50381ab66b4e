"""``stetho data check``: counts beside the published ones, every problem named, partial copies refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_sdk.cli.main import run
from edge_sdk.corpora.check import check_corpus
from edge_sdk.errors import CorpusError

Add = Callable[..., str]


def stetho(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_real_copy_differs_only_by_the_part_kept_apart(data_root: Path) -> None:
    report = check_corpus("sprsound", data_root / "sprsound")
    assert report.discrepancies == (
        "2328 of 2683 recordings",
        "251 of 292 patients",
        "7660 of 9089 events",
        "0 of 355 recordings in inter_test",
        "0 of 1429 events in inter_test",
    )
    assert report.counts["splits_published"]["train"] == {"recordings": 1949, "patients": 251, "events": 6656}
    assert report.counts["splits_published"]["intra_test"] == {"recordings": 379, "patients": 162, "events": 1004}
    assert report.counts["splits_csv"]["val"] == {"recordings": 310, "patients": 38, "events": 911}
    short, twice, shared = report.problems
    assert short == "65039232_6.4_1_p1_373: lasts 0.304 s, too short for a breath"
    assert twice == "the same audio occurs 2 times: 41279835_14.1_0_p1_2050, 41279835_14.1_0_p1_2945"
    assert "162 patients are in both intra_test and train" in shared


def test_a_partial_copy_is_refused_with_everything_named(capsys: pytest.CaptureFixture[str], data_root: Path) -> None:
    code, out, err = stetho(capsys, "data", "check", "kauh", data_root / "kauh", "--json")
    report = json.loads(out)
    assert code == 1
    assert report["complete"] is False
    assert report["discrepancies"] == ["171 of 336 recordings", "57 of 112 patients"]
    assert err.startswith("stetho: error: ")
    assert err.count("\n") == 1
    assert "--partial" in err
    assert "171 of 336 recordings" in err


def test_a_partial_copy_passes_with_partial(capsys: pytest.CaptureFixture[str], data_root: Path) -> None:
    code, out, err = stetho(capsys, "data", "check", "kauh", data_root / "kauh", "--partial")
    assert (code, err) == (0, "")
    assert "171 of 336 recordings" in out
    assert "57 of 112 patients" in out


def test_a_whole_corpus_needs_no_flag(capsys: pytest.CaptureFixture[str], data_root: Path) -> None:
    code, out, _ = stetho(capsys, "data", "check", "hls_cmds", data_root / "hls_cmds", "--json")
    assert code == 0
    assert json.loads(out)["complete"] is True


def test_every_kind_of_problem_is_named(sprsound_root: Path, add_sprsound: Add) -> None:
    good = add_sprsound("1_3.0_0_p1_1")
    copy = add_sprsound("1_3.0_0_p1_2", audio=False)
    shutil.copy(sprsound_root / f"train_wav/{good}.wav", sprsound_root / f"train_wav/{copy}.wav")
    add_sprsound("1_3.0_1_p2_3", audio=False)  # no audio; and another sex
    add_sprsound("1_3.0_0_p3_4", rate=4000)
    add_sprsound("1_3.0_0_p4_5", seconds=0.3, events=[], label="Poor Quality")
    add_sprsound("1_3.0_0_p1_6", events=[(0, 9000, "Normal")], label="Normal")
    add_sprsound(
        "1_3.0_0_p1_7", events=[(0, 1000, "Normal"), (0, 1000, "Normal"), (900, 2000, "Normal")], label="Normal"
    )
    add_sprsound("1_3.0_0_p1_8", events=[(0, 1000, "Snore"), (2000, 1000, "Normal")], label="Normal")
    add_sprsound("1_3.0_0_p1_9", label="CAS")
    add_sprsound("what", events=[(0, 1000, "Normal")], label="Normal")
    (sprsound_root / "train_json" / "5_3.0_0_p1_10.json").write_text("[]")
    extra = add_sprsound("6_3.0_0_p1_11")
    (sprsound_root / f"train_json/{extra}.json").unlink()
    (sprsound_root / "split.csv").write_text("file,split\n1_3.0_0_p1_1,train\n1_3.0_0_p1_2,val\n")
    problems = "\n".join(check_corpus("sprsound", sprsound_root).problems)
    for expected in (
        "the same audio occurs 2 times: 1_3.0_0_p1_1, 1_3.0_0_p1_2",
        "1_3.0_1_p2_3: annotated, but there is no audio file of that name",
        "patient 1 is both female and male",
        "1_3.0_0_p3_4: 4000 Hz instead of 8000 Hz",
        "1_3.0_0_p4_5: lasts 0.3 s, too short for a breath",
        "1_3.0_0_p1_6: event 0 (0 to 9 s) overruns the audio of 4 s",
        "1_3.0_0_p1_7: event 1 repeats event 0 at 0 s",
        "1_3.0_0_p1_7: events 1 and 2 overlap by 0.1 s",
        "1_3.0_0_p1_8: event 0 is of the unknown type 'Snore'",
        "1_3.0_0_p1_8: event 1 ends at 1 s, not after its start at 2 s",
        "1_3.0_0_p1_8: called Normal, yet has no events",
        "1_3.0_0_p1_9: called CAS, yet its events are crackle, normal",
        "what: file name is not patient_age_sex_site_number",
        "5_3.0_0_p1_10: annotation is not readable",
        "6_3.0_0_p1_11.wav has no annotation (.json)",
        "split.csv: 1 patients are in both train and val: 1",
    ):
        assert expected in problems


def test_annotations_without_audio_do_not_count_as_recordings(sprsound_root: Path, add_sprsound: Add) -> None:
    add_sprsound("1_3.0_0_p1_1")
    add_sprsound("1_3.0_0_p1_2", audio=False)
    report = check_corpus("sprsound", sprsound_root)
    assert (report.counts["recordings"], report.counts["events"]) == (1, 2)
    assert "1 of 2683 recordings" in report.discrepancies


def test_the_same_audio_in_wav_and_flac_is_found(sprsound_root: Path, add_sprsound: Add) -> None:
    add_sprsound("1_3.0_0_p1_1", seed=5)
    add_sprsound("1_3.0_0_p1_2", seed=5, suffix=".flac")
    assert check_corpus("sprsound", sprsound_root).problems == (
        "the same audio occurs 2 times: 1_3.0_0_p1_1, 1_3.0_0_p1_2",
    )


def test_bad_arguments_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, message in (
        (("sprsound", tmp_path / "none"), "does not exist"),
        (("sprsound", tmp_path), "holds no SPRSound annotations"),
        (("icbhy", tmp_path), "unknown corpus 'icbhy'; known are sprsound, kauh"),
    ):
        code, out, err = stetho(capsys, "data", "check", *arguments)
        assert (code, out) == (1, "")
        assert message in err
        assert err.count("\n") == 1


def test_refusal_names_the_fix(sprsound_root: Path, add_sprsound: Add) -> None:
    add_sprsound("1_3.0_0_p1_1")
    with pytest.raises(
        CorpusError, match=r"1 of 2683 recordings \(and \d+ more differences\); fetch the rest, or pass"
    ):
        check_corpus("sprsound", sprsound_root).refuse_partial()
