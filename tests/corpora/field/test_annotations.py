"""Annotations from the field: each fault is named, and one bad annotation stops nothing with ``partial``."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_sdk.corpora import Corpus, load_corpus
from edge_sdk.corpora.check import check_corpus
from edge_sdk.errors import CorpusError

SECONDS, RATE = 4.0, 4000
GOOD = "0.2\t1.6\t0\t0\n1.6\t3.2\t1\t0\n"


def audio(path: Path, seed: int = 0, seconds: float = SECONDS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.05, round(seconds * RATE))
    soundfile.write(path, noise, RATE, subtype="PCM_16")


def partial(name: str, root: Path) -> Corpus:
    """Refused as it is, loaded as a partial copy."""
    with pytest.raises(CorpusError) as refused:
        load_corpus(name, root)
    assert "\n" not in str(refused.value)
    return load_corpus(name, root, partial=True)


@pytest.fixture
def icbhi(tmp_path: Path) -> Path:
    """Two recordings with annotations and an official split."""
    root = tmp_path / "icbhi"
    for number, name in enumerate(("101_1b1_Al_sc_Meditron", "102_1b1_Ar_sc_Meditron")):
        audio(root / f"{name}.wav", number)
        (root / f"{name}.txt").write_text(GOOD)
    split = "101_1b1_Al_sc_Meditron\ttrain\n102_1b1_Ar_sc_Meditron\ttest\n"
    (root / "ICBHI_challenge_train_test.txt").write_text(split)
    return root


@pytest.fixture
def sprsound(tmp_path: Path) -> Path:
    """Two recordings with an annotation each."""
    root = tmp_path / "sprsound"
    for number in (1, 2):
        audio(root / "train_wav" / f"{number}_3.0_0_p1_{number}.wav", number)
        write_json(root / "train_json" / f"{number}_3.0_0_p1_{number}.json")
    return root


def write_json(path: Path, *events: tuple[object, object, str], label: str = "Normal") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"start": str(a), "end": str(b), "type": kind} for a, b, kind in events or ((100, 1500, "Normal"),)]
    path.write_text(json.dumps({"record_annotation": label, "event_annotation": rows}))


def test_the_given_utf_16_annotation_stops_nothing(data_root: Path) -> None:
    corpus = partial("icbhi", data_root / "cases" / "icbhi_one_utf16_annotation")
    assert {cycle.patient for cycle in corpus.cycles} == {"102"}
    assert any("UTF-16" in problem and "save it as UTF-8" in problem for problem in corpus.problems)


def test_the_given_json_with_a_mark_is_read(data_root: Path) -> None:
    (cycle,) = load_corpus("sprsound", data_root / "cases" / "sprsound_json_bom").cycles
    assert (cycle.start_s, cycle.end_s, cycle.label) == (0.1, 1.5, "normal")


BAD_TEXT: dict[str, tuple[bytes, str]] = {
    "utf-16": (GOOD.encode("utf-16"), "UTF-16"),
    "utf-16 without a mark": (GOOD.encode("utf-16-le"), "UTF-16"),
    "latin-1": (GOOD.encode() + b"# caf\xe9\n", "not a text in UTF-8"),
    "binary": (bytes(range(256)), "UTF-8"),
    "empty": (b"", "empty"),
    "word": (b"soon\tlater\t0\t0\n", "no valid times"),
    "negative": (b"-0.5\t1.0\t0\t0\n", "no valid times"),
    "backwards": (b"1.6\t0.2\t0\t0\n", "no valid times"),
    "underscore": (b"0.1_0\t1_0\t0\t0\n", "no valid times"),
    "decimal commas": (b"0,2\t1,6\t0\t0\n", "6 fields instead of"),
    "missing column": (b"0.2\t1.6\t0\n", "3 fields"),
    "behind the end": (b"7.0\t9.0\t0\t0\n", "overruns the audio"),
    "over the end": (b"0.2\t9.0\t0\t0\n", "overruns the audio"),
}


@pytest.mark.parametrize("kind", BAD_TEXT)
def test_one_bad_text_is_named_and_left_out_whole(icbhi: Path, kind: str) -> None:
    content, message = BAD_TEXT[kind]
    (icbhi / "101_1b1_Al_sc_Meditron.txt").write_bytes(content)
    corpus = partial("icbhi", icbhi)
    assert {recording.patient for recording in corpus.recordings} == {"102"}  # no recording without cycles is made
    assert {cycle.patient for cycle in corpus.cycles} == {"102"}
    assert any("101_1b1_Al_sc_Meditron" in problem and message in problem for problem in corpus.problems)
    assert any(message in problem for problem in check_corpus("icbhi", icbhi).problems)


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf"])
def test_a_mark_is_no_part_of_a_text(icbhi: Path, mark: bytes) -> None:
    for path in icbhi.glob("*.txt"):
        path.write_bytes(mark + path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(load_corpus("icbhi", icbhi, partial=True).cycles) == 4


@pytest.mark.parametrize("table", ["demographic_info.txt", "patient_diagnosis.csv", "ICBHI_challenge_train_test.txt"])
def test_one_bad_line_of_a_table_stops_nothing(icbhi: Path, table: str) -> None:
    path = icbhi / table
    path.write_text((path.read_text() if path.exists() else "") + "103\n")
    corpus = partial("icbhi", icbhi)
    assert len(corpus.cycles) == 4
    assert any(f"{table} line" in problem for problem in corpus.problems)


@pytest.mark.parametrize("other", ["annotation", "audio", "same"])
def test_one_name_in_two_folders_of_icbhi(icbhi: Path, other: str) -> None:
    name = "101_1b1_Al_sc_Meditron"
    (icbhi / "second").mkdir()
    for suffix in ("wav", "txt"):
        shutil.copy(icbhi / f"{name}.{suffix}", icbhi / "second")
    if other == "same":
        corpus = load_corpus("icbhi", icbhi, partial=True)
        assert len(corpus.cycles) == 4
    else:
        if other == "annotation":
            (icbhi / "second" / f"{name}.txt").write_text(GOOD.replace("1\t0\n", "0\t1\n"))
        else:
            audio(icbhi / "second" / f"{name}.wav", seed=9)
        corpus = partial("icbhi", icbhi)
        assert {cycle.patient for cycle in corpus.cycles} == {"102"}  # never the first of the two
    assert any(name in problem and "second" in problem for problem in corpus.problems)


BAD_JSON: dict[str, tuple[Callable[[Path], object], str]] = {
    "utf-16": (lambda p: p.write_bytes(p.read_text().encode("utf-16")), "UTF-16"),
    "latin-1": (lambda p: p.write_bytes(p.read_bytes().replace(b"Normal", b"caf\xe9")), "UTF-8"),
    "broken": (lambda p: p.write_text(p.read_text()[:40]), "not readable"),
    "missing field": (lambda p: p.write_text('{"record_annotation": "Normal"}'), "event_annotation"),
    "a list": (lambda p: p.write_text("[]"), "not readable"),
    "deep": (lambda p: p.write_text("[" * 100_000), "not readable"),
    "negative": (lambda p: write_json(p, (-5, 900, "Normal")), "no valid times"),
    "backwards": (lambda p: write_json(p, (900, 5, "Normal")), "not after its start"),
    "underscore": (lambda p: write_json(p, ("1_0", "9_00", "Normal")), "no valid times"),
    "over the end": (lambda p: write_json(p, (100, 4300, "Normal")), "overruns the audio"),
    "behind the end": (lambda p: write_json(p, (7000, 9000, "Normal")), "overruns the audio"),
}


@pytest.mark.parametrize("kind", BAD_JSON)
def test_one_bad_json_is_named_and_left_out_whole(sprsound: Path, kind: str) -> None:
    spoil, message = BAD_JSON[kind]
    spoil(sprsound / "train_json" / "1_3.0_0_p1_1.json")
    corpus = partial("sprsound", sprsound)
    assert {recording.patient for recording in corpus.recordings} == {"2"}
    assert any("1_3.0_0_p1_1" in problem and message in problem for problem in corpus.problems)


def test_the_other_events_of_an_annotation_stay(sprsound: Path) -> None:
    write_json(sprsound / "train_json" / "1_3.0_0_p1_1.json", (100, 1500, "Normal"), (3000, 9000, "Normal"))
    kept = partial("sprsound", sprsound).cycles
    assert [(cycle.patient, cycle.end_s) for cycle in kept] == [("1", 1.5), ("2", 1.5)]


@pytest.mark.parametrize("split", ["train", "inter_test"])
def test_one_name_annotated_in_two_folders_of_sprsound(sprsound: Path, split: str) -> None:
    folder = "BioCAS2022/train2022_json" if split == "train" else "inter_test_json"
    write_json(sprsound / folder / "1_3.0_0_p1_1.json", (100, 1500, "Wheeze"), label="CAS")
    corpus = partial("sprsound", sprsound)
    assert {cycle.patient for cycle in corpus.cycles} == {"2"}
    assert any("1_3.0_0_p1_1" in problem and "keep the right one" in problem for problem in corpus.problems)


@pytest.mark.parametrize("same", [True, False])
def test_one_name_in_two_folders_of_kauh(tmp_path: Path, same: bool) -> None:
    for folder in ("a", "b"):
        audio(tmp_path / folder / "BP1_N,N,P R U,70,M.wav", seed=0 if same else ord(folder))
    audio(tmp_path / "a" / "BP2_N,N,P R U,70,M.wav")
    corpus = load_corpus("kauh", tmp_path) if same else partial("kauh", tmp_path)
    assert len(corpus.recordings) == (2 if same else 1)
    assert any("BP1_N" in problem for problem in corpus.problems)


def test_marks_of_hf_lung_over_the_end_are_named(tmp_path: Path) -> None:
    for name in ("steth_20190101_10_00_00", "steth_20190102_10_00_00"):
        audio(tmp_path / "train" / f"{name}.wav")
        lines = "I 0:00:00.5 0:00:01.5\nE 0:00:01.5 0:00:02.5\n"
        if name.startswith("steth_20190101"):
            lines += "D 0:00:03.5 0:00:05.0\nW 0:00:06.0 0:00:07.0\n"
        (tmp_path / "train" / f"{name}_label.txt").write_text(lines)
    corpus = partial("hf_lung_v1", tmp_path)
    assert [sound.end_s for sound in corpus.sounds] == [SECONDS]
    assert any("crackle" in p and "cut there" in p for p in corpus.problems)
    assert any("wheeze" in p and "left out" in p for p in corpus.problems)


def test_every_fault_that_is_passed_over_has_a_line(icbhi: Path, caplog: pytest.LogCaptureFixture) -> None:
    (icbhi / "101_1b1_Al_sc_Meditron.txt").write_text("".join(f"{k}\t0\t0\t0\n" for k in range(1, 9)))
    with caplog.at_level(logging.WARNING):
        load_corpus("icbhi", icbhi, partial=True)
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("loading")]
    assert len(lines) == 6
    assert "annotation line 1 " in lines[0] and "3 more faults" in lines[-1]


def test_folders_called_like_recordings_are_none(sprsound: Path, icbhi: Path) -> None:
    (sprsound / "train_wav" / "3_3.0_0_p1_3.wav").mkdir()
    (icbhi / "103_1b1_Ar_sc_Meditron.wav").mkdir()
    assert len(load_corpus("sprsound", sprsound).recordings) == 2
    assert len(load_corpus("icbhi", icbhi, partial=True).recordings) == 2
