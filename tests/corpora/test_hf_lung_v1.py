"""HF_Lung_V1 in its original layout: phases, sounds, the cycles they make, and refusal of broken files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_sdk.corpora import load_corpus
from edge_sdk.corpora.check import check_corpus
from edge_sdk.corpora.loaders.hf_lung_v1 import parse_time
from edge_sdk.errors import CorpusError

Add = Callable[..., str]
LABELS = """I 0:00:00.500000 0:00:01.400000
E 0:00:01.600000 0:00:02.800000
D 0:00:01.000000 0:00:01.300000
I 0:00:04.000000 0:00:05.000000
E 0:00:05.100000 0:00:06.500000
Wheeze 0:00:05.200000 0:00:06.000000
I 0:00:07.000000 0:00:08.000000
I 0:00:08.500000 0:00:09.500000
E 0:00:09.600000 0:00:10.500000
I 0:00:11.000000 0:00:12.000000
E 0:00:13.500000 0:00:14.500000
"""


@pytest.fixture
def add(tmp_path: Path, make_audio: Callable[..., Path]) -> Add:
    def one(stem: str, split: str = "train", labels: str | None = LABELS, *, audio: bool = True) -> str:
        folder = tmp_path / split
        folder.mkdir(exist_ok=True)
        if audio:
            make_audio(folder / f"{stem}.wav", 15.0, 4000)
        if labels is not None:
            (folder / f"{stem}_label.txt").write_text(labels)
        return stem

    return one


def test_times_are_hours_minutes_seconds() -> None:
    assert parse_time("0:00:01.234") == 1.234
    assert parse_time("01:02:03.5") == 3723.5
    assert parse_time("12") == 12.0
    assert parse_time("1:xx") is None
    assert parse_time("-1") is None


def test_phases_and_adventitious_sounds_are_as_annotated(tmp_path: Path, add: Add) -> None:
    stem = add("steth_20180814_09_37_11")
    corpus = load_corpus("hf_lung_v1", tmp_path, split="train")
    assert [p.phase[0] for p in corpus.phases] == list("ieieiieie")
    first = corpus.phases[0]
    assert (first.recording_id, first.start_s, first.end_s, first.phase) == (stem, 0.5, 1.4, "inspiration")
    assert [(s.sound, s.start_s) for s in corpus.sounds] == [("crackle", 1.0), ("wheeze", 5.2)]


def test_cycles_are_the_pairs_that_are_certain(tmp_path: Path, add: Add) -> None:
    add("steth_20180814_09_37_11")
    cycles = load_corpus("hf_lung_v1", tmp_path).cycles
    assert [(c.start_s, c.end_s, c.label, c.raw_label) for c in cycles] == [
        (0.5, 2.8, "crackle", "crackle"),
        (4.0, 6.5, "wheeze", "wheeze"),
        (8.5, 10.5, "normal", "none"),  # the inspiration at 7 s has no expiration, the last pause is too long
    ]
    assert [c.index for c in cycles] == [0, 1, 2]


@pytest.mark.parametrize(
    ("marks", "label"),
    [
        ("Rhonchi 0:00:00.6 0:00:02.6\nD 0:00:01.0 0:00:01.1", "both"),
        ("S 0:00:02.75 0:00:04.75", "normal"),  # 50 ms of two seconds
        ("D 0:00:02.78 0:00:02.80", "crackle"),
    ],
)
def test_an_adventitious_sound_belongs_to_the_cycle_that_holds_it(
    tmp_path: Path, add: Add, marks: str, label: str
) -> None:
    add("steth_20180814_09_37_11", labels="\n".join([*LABELS.splitlines()[:2], marks]))
    assert [c.label for c in load_corpus("hf_lung_v1", tmp_path).cycles] == [label]


def test_device_site_and_date_come_from_the_name(tmp_path: Path, add: Add) -> None:
    add("steth_20180814_09_37_11")
    add("trunc_2019-07-25-11-09-11-L7_1", "test")
    corpus = load_corpus("hf_lung_v1", tmp_path)
    assert [(r.split, r.patient, r.device, r.site) for r in corpus.recordings] == [
        ("train", "20180814", "Littmann 3200", None),
        ("test", "20190725", "HF-Type-1", "left lateral"),
    ]
    assert len(corpus.split("test").phases) == 9
    assert [r.device for r in corpus.split("lodo:trunc:test").recordings] == ["HF-Type-1"]


def test_validation_dates_lie_inside_train(tmp_path: Path, add: Add) -> None:
    for day in range(10, 22):
        add(f"steth_201808{day}_09_37_11")
    corpus = load_corpus("hf_lung_v1", tmp_path)
    val, fit = corpus.split("val"), corpus.split("fit")
    assert len(val.recordings) + len(fit.recordings) == 12
    assert not set(val.patients) & set(fit.patients)
    assert {p.recording_id for p in val.phases} == {r.id for r in val.recordings}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"audio": False}, "labelled, but there is no audio"),
        ({"labels": None}, "there is no steth_2_label.txt"),
        ({"labels": "X 0:00:01 0:00:02"}, "line 1 has the unknown tag 'X'"),
        ({"labels": "I 0:00:02 0:00:01"}, "line 1 has no valid times"),
        ({"labels": "I 0:00:02"}, "line 1 has 2 fields"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, add: Add, options: dict[str, object], message: str) -> None:
    add("steth_1")
    add("steth_2", **options)
    with pytest.raises(CorpusError, match=message):
        load_corpus("hf_lung_v1", tmp_path)
    assert "steth_1" in {r.id for r in load_corpus("hf_lung_v1", tmp_path, partial=True).recordings}


def test_counts_are_compared_with_the_published_ones(tmp_path: Path, add: Add) -> None:
    add("steth_20180814_09_37_11")
    report = check_corpus("hf_lung_v1", tmp_path)
    assert {
        "1 of 9765 recordings",
        "1 of 7809 recordings in train",
        "0 of 1956 recordings in test",
        "5 of 34095 inspiration phases",
        "4 of 18349 expiration phases",
        "1 of 8457 wheeze events",
        "1 of 15606 crackle events",
    } <= set(report.discrepancies)
    (tmp_path / "none").mkdir()
    with pytest.raises(CorpusError, match="holds no HF_Lung_V1 recordings"):
        load_corpus("hf_lung_v1", tmp_path / "none")
