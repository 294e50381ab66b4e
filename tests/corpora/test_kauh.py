"""KAUH: the grammar of the file names, the sound types, and roots with or without a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.corpora import SITES, load_corpus
from edge_sdk.corpora.loaders.kauh import NameFields, parse_name, site_of, sound_label
from edge_sdk.errors import CorpusError

MakeAudio = Callable[..., Path]


def test_real_copy_has_three_filters_of_57_patients(data_root: Path) -> None:
    corpus = load_corpus("kauh", data_root / "kauh")
    assert (len(corpus.recordings), len(corpus.patients), corpus.cycles) == (171, 57, ())
    assert corpus.unit == "recording"
    assert corpus.problems == ()
    assert Counter(r.filter for r in corpus.recordings) == {"bell": 57, "diaphragm": 57, "extended": 57}
    assert Counter(r.label for r in corpus.recordings) == {
        "wheeze": 60,
        "crackle": 54,
        "normal": 51,
        "both": 3,
        None: 3,
    }
    assert Counter(r.abnormal for r in corpus.recordings) == {True: 120, False: 51}
    assert all(r.age_years and r.sex and r.diagnosis for r in corpus.recordings)


def test_file_names_alone_give_the_same_as_the_table(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "AudioFiles").symlink_to(data_root / "kauh" / "AudioFiles")
    named = load_corpus("kauh", tmp_path).recordings
    tabled = load_corpus("kauh", data_root / "kauh").recordings
    for by_name, by_table in zip(named, tabled, strict=True):
        for field in (
            "id",
            "patient",
            "filter",
            "age_years",
            "sex",
            "site",
            "label",
            "raw_label",
            "abnormal",
            "diagnosis",
        ):
            assert getattr(by_name, field) == getattr(by_table, field)


@pytest.mark.parametrize(
    ("stem", "fields"),
    [
        ("BP103_N,N,P R U,81,F", NameFields("103", "B", "N", "N", "P R U", "81", "F")),
        ("EP4_Heart Failure + Lung Fibrosis ,I C,P L R,72,F",
         NameFields("4", "E", "Heart Failure + Lung Fibrosis", "I C", "P L R", "72", "F")),
        ("DP108_COPD,E W,P R L ,63,M", NameFields("108", "D", "COPD", "E W", "P R L", "63", "M")),
        ("bp7_Asthma, severe,E W,P,0.5,M", NameFields("7", "B", "Asthma, severe", "E W", "P", "0.5", "M")),
    ],
)  # fmt: skip
def test_file_names_are_read_from_the_right(stem: str, fields: NameFields) -> None:
    assert parse_name(stem) == fields


word = st.text("abcdefghij+ ", min_size=1, max_size=12).map(str.strip).filter(bool)


@given(st.sampled_from("BDE"), st.integers(1, 999), word, word, word, st.integers(0, 110), st.sampled_from("MF"))
def test_any_fields_survive_the_file_name(
    filt: str, patient: int, diagnosis: str, sound_type: str, place: str, age: int, sex: str
) -> None:
    stem = f"{filt}P{patient}_{diagnosis},{sound_type},{place},{age},{sex}"
    assert parse_name(stem) == NameFields(str(patient), filt, diagnosis, sound_type, place, str(age), sex)


@pytest.mark.parametrize("stem", ["", "103_N,N,P R U,81,F", "BP103_N,P R U,81,F", "XP1_N,N,P,81,F", "BPx_N,N,P,1,F"])
def test_names_outside_the_grammar_are_none(stem: str) -> None:
    assert parse_name(stem) is None


@pytest.mark.parametrize(
    ("sound_type", "expected"),
    [
        ("N", ("normal", False)),
        ("Normal", ("normal", False)),
        ("E W", ("wheeze", True)),
        ("I E W", ("wheeze", True)),
        ("Crep", ("crackle", True)),
        ("C", ("crackle", True)),
        ("I C", ("crackle", True)),
        ("I C B", ("crackle", True)),
        ("I C E W", ("both", True)),
        ("Crackles and wheezes", ("both", True)),
        ("Bronchial", (None, True)),
        ("Pleural rub", (None, True)),
        ("E", (None, None)),
        ("gurgle", (None, None)),
        ("", (None, None)),
    ],
)
def test_sound_types_map_to_classes(sound_type: str, expected: tuple[str | None, bool | None]) -> None:
    assert sound_label(sound_type) == expected


@pytest.mark.parametrize(
    ("location", "site"),
    [
        ("P R U", "right posterior"),
        ("P L L", "left posterior"),
        ("P R L", "right posterior"),
        ("A R M", "right anterior"),
        ("A U R", "right anterior"),
        ("p l m", "left posterior"),
        ("P L R", None),  # both sides
        ("P L L R", None),
        ("P", None),
        ("", None),
    ],
)
def test_locations_become_sites_where_they_name_one_side(location: str, site: str | None) -> None:
    assert site_of(location) == site
    assert site is None or site in SITES


def test_other_patients_without_a_table_are_read(tmp_path: Path, make_audio: MakeAudio) -> None:
    make_audio(tmp_path / "Audio Files" / "BP200_Asthma,E W,P R M,44,M.wav", rate=4000)
    make_audio(tmp_path / "Audio Files" / "DP201_N,N,A L U,30,F.wav", rate=4000)
    make_audio(tmp_path / "Audio Files" / "notes.wav", rate=4000)
    make_audio(tmp_path / "Audio Files" / "EP202_X,gurgle,A L U,?,F.wav", rate=4000)
    corpus = load_corpus("kauh", tmp_path)
    labels = {r.id[:5]: (r.label, r.abnormal) for r in corpus.recordings}
    assert labels == {
        "BP200": ("wheeze", True),
        "DP201": ("normal", False),
        "EP202": (None, None),
        "notes": (None, None),
    }
    assert [p.split(":")[0] for p in corpus.problems] == ["EP202_X,gurgle,A L U,?,F"] * 2 + ["notes"]


def test_a_split_file_splits_it(tmp_path: Path, make_audio: MakeAudio) -> None:
    for number in (1, 2):
        make_audio(tmp_path / f"BP{number}_N,N,P R M,44,M.wav", rate=4000)
    (tmp_path / "split.csv").write_text(
        'file,patient,split\n"BP1_N,N,P R M,44,M",1,val\n"BP2_N,N,P R M,44,M.wav",2,test\n'
    )
    assert [r.patient for r in load_corpus("kauh", tmp_path, split="test").recordings] == ["2"]
    with pytest.raises(CorpusError, match="no split 'train'; it has test, val, all"):
        load_corpus("kauh", tmp_path, split="train")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="holds no KAUH recordings"):
        load_corpus("kauh", tmp_path)
