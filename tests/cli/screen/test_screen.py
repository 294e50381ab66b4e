"""``stetho screen``: every recording has its lines, in order, in a form a program can rely on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge_sdk.sources.phantom import SCENARIOS
from tests.cli.conftest import BAD_RECORDINGS, RATE, Stetho, make_bad

CYCLE_FIELDS = ["type", "source", "start_s", "end_s", "label", "probabilities", "quality", "latency_ms"]
LABELS = ["normal", "crackle", "wheeze", "both"]


def check_lines(records: list[dict[str, Any]], source: str) -> dict[str, Any]:
    """The rules every source's lines keep; gives back the summary."""
    summary = records[-1]
    assert [r["type"] for r in records].count("summary") == 1
    assert summary["type"] == "summary"
    assert {r["source"] for r in records} == {source}
    cycles = [r for r in records if r["type"] == "cycle"]
    assert summary["cycles"] == len(cycles)
    assert summary["counts"] == {name: sum(c["label"] == name for c in cycles) for name in LABELS}
    for cycle in cycles:
        assert list(cycle)[: len(CYCLE_FIELDS)] == CYCLE_FIELDS
        assert 0 <= cycle["start_s"] < cycle["end_s"] <= summary["duration_s"] + 1e-3
        if cycle["label"] is None:
            assert cycle["quality"] != "ok"
        else:
            assert list(cycle["probabilities"]) == LABELS
            assert sum(cycle["probabilities"].values()) == pytest.approx(1, abs=1e-4)
            assert max(cycle["probabilities"], key=cycle["probabilities"].__getitem__) == cycle["label"]
    assert [c["start_s"] for c in cycles] == sorted(c["start_s"] for c in cycles)
    return summary


def test_lines_of_one_recording(stetho: Stetho, recording: Path) -> None:
    outcome = stetho("screen", recording, "--json")
    assert outcome.status == 0
    assert outcome.err == ""
    summary = check_lines(outcome.records, str(recording))
    assert summary["duration_s"] == 12.0
    assert summary["sample_rate"] == RATE
    assert summary["lost_samples"] == 0
    assert summary["cycles"] >= 3
    assert summary["respiratory_rate_bpm"] == pytest.approx(SCENARIOS["asthma"].respiratory_rate_bpm, rel=0.2)


@pytest.mark.parametrize("corpus", ["sprsound", "kauh"])
def test_lines_of_a_real_recording(stetho: Stetho, data_root: Path, corpus: str) -> None:
    path = sorted((data_root / corpus).rglob("*.flac"))[0]
    outcome = stetho("screen", path, "--json")
    assert outcome.status == 0
    assert check_lines(outcome.records, str(path))["classified"] >= 1


def test_people_get_lines_and_a_summary(stetho: Stetho, recording: Path) -> None:
    shown = stetho("screen", recording)
    records = stetho("screen", recording, "--json").records
    lines = [line for line in shown.out.splitlines() if " s  " in line and "quality:" not in line]
    assert len([line for line in lines if " sound " not in line]) == records[-1]["cycles"]
    assert len([line for line in lines if " sound " in line]) == sum(records[-1]["adventitious"].values())
    assert f"{records[-1]['cycles']} breaths" in shown.out
    assert "{" not in shown.out


def test_a_folder_is_searched_and_goes_on_past_bad_files(
    stetho: Stetho, tmp_path: Path, recording: Path, breathing: np.ndarray
) -> None:
    folder = tmp_path / "ward"
    (folder / "bed 2").mkdir(parents=True)
    shutil.copy(recording, folder / "a.wav")
    soundfile.write(folder / "bed 2" / "b.FLAC", breathing, RATE, format="FLAC")
    (folder / "notes.txt").write_text("not a recording")
    bad = [make_bad(kind, folder, breathing) for kind in BAD_RECORDINGS if kind != "missing"]
    outcome = stetho("screen", folder, "--json")
    assert outcome.status == 1
    errors = [r for r in outcome.records if r["type"] == "error"]
    assert sorted(r["source"] for r in errors) == sorted(map(str, bad))
    assert len(outcome.err.splitlines()) == len(bad)
    good = [r["source"] for r in outcome.records if r["type"] == "summary"]
    assert good == [str(folder / "a.wav"), str(folder / "bed 2" / "b.FLAC")]
    table = stetho("screen", folder)
    assert table.status == 1
    assert table.out.count("failed") == len(bad)
    assert "b.FLAC" in table.out


def test_jobs_change_nothing_but_the_time(
    stetho: Stetho, tmp_path: Path, recording: Path, breathing: np.ndarray
) -> None:
    folder = tmp_path / "ward"
    folder.mkdir()
    for k in range(3):
        shutil.copy(recording, folder / f"{k}.wav")
    make_bad("nan", folder, breathing)
    alone, together = stetho("screen", folder, "--json"), stetho("screen", folder, "--json", "--jobs", 2)
    assert (alone.status, alone.err) == (together.status, together.err)
    assert alone.records == together.records


def test_eight_channels_at_96_khz(stetho: Stetho, tmp_path: Path, breathing: np.ndarray) -> None:
    import soxr

    high = soxr.resample(breathing, RATE, 96_000)
    many = np.zeros((len(high), 8), np.float32)
    many[:, 5] = high
    path = tmp_path / "eight.wav"
    soundfile.write(path, many, 96_000)
    fifth = stetho("screen", path, "--channel", 5, "--json")
    assert fifth.status == 0
    assert check_lines(fifth.records, str(path))["classified"] >= 3
    silent = stetho("screen", path, "--json")
    assert silent.status == 0
    assert check_lines(silent.records, str(path))["classified"] == 0
    mixed = stetho("screen", path, "--channel", "mix", "--json")
    assert mixed.status == 0
    assert check_lines(mixed.records, str(path))["classified"] >= 1
    absent = stetho("screen", path, "--channel", 8)
    assert absent.status == 1
    assert "no channel 8" in absent.error


def test_metadata_is_taken(stetho: Stetho, recording: Path) -> None:
    options = ["--site", "p1", "--age", 7.5, "--sex", "female", "--bmi", 16, "--device-model", "yunting"]
    assert stetho("screen", recording, *options, "--json").status == 0
    assert stetho("screen", recording, "--age", -3).status == 2
