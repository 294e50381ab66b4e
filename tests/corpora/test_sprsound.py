"""SPRSound: the counts of the real copy, the publisher's layout and splits, and refusal of broken files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_sdk.corpora import Corpus, load_corpus
from edge_sdk.errors import CorpusError

Add = Callable[..., str]


@pytest.fixture(scope="module")
def real(data_root: Path) -> Corpus:
    return load_corpus("sprsound", data_root / "sprsound")


def test_real_copy_has_the_documented_counts(real: Corpus) -> None:
    assert (len(real.recordings), len(real.cycles), len(real.patients)) == (2328, 7660, 251)
    assert Counter(cycle.raw_label for cycle in real.cycles) == {
        "Normal": 5847,
        "Fine Crackle": 1087,
        "Wheeze": 560,
        "Coarse Crackle": 63,
        "Rhonchi": 53,
        "Wheeze+Crackle": 33,
        "Stridor": 17,
    }
    assert Counter(cycle.label for cycle in real.cycles) == {"normal": 5847, "crackle": 1150, "wheeze": 630, "both": 33}
    assert sum(recording.quality_poor for recording in real.recordings) == 179
    assert real.problems == ()
    assert real.unit == "cycle"


def test_real_split_file_keeps_patients_apart(real: Corpus) -> None:
    train, val = real.split("train"), real.split("val")
    assert (len(train.recordings), len(val.recordings)) == (2018, 310)
    assert len(val.patients) == 38
    assert not set(train.patients) & set(val.patients)
    assert sum(cycle.label != "normal" for cycle in val.cycles) == 103
    assert real.splits == ("train", "val", "all")


def test_metadata_come_from_the_file_name(real: Corpus) -> None:
    recording = next(r for r in real.recordings if r.id == "40138127_14.7_0_p3_139")
    assert (recording.patient, recording.age_years, recording.sex) == ("40138127", 14.7, "male")
    assert (recording.site, recording.device, recording.bmi) == ("right posterior", "Yunting II", None)
    assert (recording.sample_rate, recording.duration_s) == (8000, 9.216)
    cycle = next(c for c in real.cycles if c.recording_id == recording.id)
    assert (cycle.patient, cycle.age_years, cycle.sex, cycle.site) == ("40138127", 14.7, "male", "right posterior")


def test_every_real_event_lies_inside_its_audio(real: Corpus) -> None:
    duration = {recording.id: recording.duration_s or 0.0 for recording in real.recordings}
    assert all(0 <= cycle.start_s < cycle.end_s <= duration[cycle.recording_id] for cycle in real.cycles)


def test_publishers_split_holds_where_there_is_no_split_file(sprsound_root: Path, add_sprsound: Add) -> None:
    add_sprsound("1_3.0_0_p1_1")
    add_sprsound("1_3.0_0_p2_2", "intra_test")
    add_sprsound("2_4.0_1_p3_3", "inter_test")
    corpus = load_corpus("sprsound", sprsound_root)
    assert corpus.splits == ("inter_test", "intra_test", "test", "train", "all")
    assert [r.id for r in corpus.split("test").recordings] == ["1_3.0_0_p2_2", "2_4.0_1_p3_3"]
    assert [r.id for r in corpus.split("train").recordings] == ["1_3.0_0_p1_1"]
    assert {c.split for c in corpus.split("inter_test").cycles} == {"inter_test"}


def test_validation_patients_are_taken_from_train_where_no_split_file_names_them(
    sprsound_root: Path, add_sprsound: Add
) -> None:
    for k in range(1, 11):
        add_sprsound(f"{k}_3.0_0_p1_{k}")
    corpus = load_corpus("sprsound", sprsound_root)
    val, fit = corpus.split("val"), corpus.split("fit")
    assert (len(val.patients), len(fit.patients)) == (2, 8)
    assert not set(val.patients) & set(fit.patients)


@pytest.mark.parametrize("split", ["inter_test", "test", "all"])
def test_the_inter_patient_test_alone_is_a_root(sprsound_root: Path, add_sprsound: Add, split: str) -> None:
    add_sprsound("2_4.0_1_p3_3", "inter_test", suffix=".flac")
    corpus = load_corpus("sprsound", sprsound_root, split=split)
    assert len(corpus.cycles) == 2
    assert corpus.cycles[1].label == "crackle"


def test_an_unknown_split_is_refused_with_the_list_of_splits(sprsound_root: Path, add_sprsound: Add) -> None:
    add_sprsound("2_4.0_1_p3_3", "inter_test")
    with pytest.raises(CorpusError, match="no split 'val'; it has inter_test, test, all"):
        load_corpus("sprsound", sprsound_root, split="val")


def test_publishers_own_folder_names_and_number_times_are_read(tmp_path: Path, make_audio: Callable[..., Path]) -> None:
    make_audio(tmp_path / "BioCAS2022/train2022_wav/7_0.4_1_p4_1.wav")
    folder = tmp_path / "BioCAS2022/train2022_json"
    folder.mkdir()
    content = {"recording_annotation": "Normal", "event_annotation": [{"start": 342, "end": 2515, "type": "Normal"}]}
    (folder / "7_0.4_1_p4_1.json").write_text(json.dumps(content))
    corpus = load_corpus("sprsound", tmp_path, split="train")
    assert (corpus.cycles[0].start_s, corpus.cycles[0].end_s) == (0.342, 2.515)
    assert corpus.recordings[0].label == "normal"


def test_a_missing_audio_file_is_refused_unless_partial(sprsound_root: Path, add_sprsound: Add) -> None:
    add_sprsound("1_3.0_0_p1_1")
    add_sprsound("1_3.0_0_p2_2", audio=False)
    with pytest.raises(CorpusError, match=r"1_3\.0_0_p2_2: annotated, but there is no audio.*--partial"):
        load_corpus("sprsound", sprsound_root)
    corpus = load_corpus("sprsound", sprsound_root, partial=True)
    assert [r.id for r in corpus.recordings] == ["1_3.0_0_p1_1"]
    assert len(corpus.problems) == 1


def test_a_fault_in_another_split_does_no_harm(sprsound_root: Path, add_sprsound: Add) -> None:
    add_sprsound("1_3.0_0_p1_1", audio=False)
    add_sprsound("2_3.0_0_p2_2", "inter_test")
    assert len(load_corpus("sprsound", sprsound_root, split="inter_test").recordings) == 1


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([(0, 4500, "Normal")], "overruns the audio of 4 s"),
        ([(9000, 9500, "Normal")], "overruns the audio of 4 s"),
        ([(900, 900, "Normal")], "not after its start"),
        ([(-5, 900, "Normal")], "no valid times"),
        ([("soon", "later", "Normal")], "no valid times"),
        ([(0, 900, "Squawk")], "unknown type 'Squawk'"),
    ],
)
def test_an_event_that_cannot_be_is_refused(
    sprsound_root: Path, add_sprsound: Add, events: list[tuple[object, object, str]], message: str
) -> None:
    add_sprsound("1_3.0_0_p1_1", events=[(0, 1000, "Normal"), *events])
    with pytest.raises(CorpusError, match=message):
        load_corpus("sprsound", sprsound_root)
    kept = load_corpus("sprsound", sprsound_root, partial=True).cycles
    assert kept[0].end_s == 1.0
    assert all(cycle.end_s <= 4.0 for cycle in kept)
    assert len(kept) == 1  # what overruns is left out too: its true end is not known


def test_rounding_to_milliseconds_is_no_overrun(sprsound_root: Path, add_sprsound: Add) -> None:
    add_sprsound("1_3.0_0_p1_1", events=[(0, 4001, "Normal")])
    assert load_corpus("sprsound", sprsound_root).cycles[0].end_s == 4.0


def test_unreadable_files_are_named(sprsound_root: Path, add_sprsound: Add) -> None:
    add_sprsound("1_3.0_0_p1_1")
    (sprsound_root / "train_json/1_3.0_0_p1_1.json").write_text("{")
    with pytest.raises(CorpusError, match="annotation is not readable"):
        load_corpus("sprsound", sprsound_root)
    add_sprsound("1_3.0_0_p1_1")
    (sprsound_root / "train_wav/1_3.0_0_p1_1.wav").write_text("not audio")
    with pytest.raises(CorpusError, match="cannot be read as audio"):
        load_corpus("sprsound", sprsound_root)


def test_a_name_outside_the_grammar_is_refused(sprsound_root: Path, add_sprsound: Add) -> None:
    add_sprsound("patient1")
    with pytest.raises(CorpusError, match="file name is not patient_age_sex_site_number"):
        load_corpus("sprsound", sprsound_root)


def test_a_folder_without_annotations_is_refused_with_the_expected_layout(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"expected train_json"):
        load_corpus("sprsound", tmp_path)
    with pytest.raises(CorpusError, match="does not exist"):
        load_corpus("sprsound", tmp_path / "nowhere")
    with pytest.raises(CorpusError, match="unknown corpus 'spr'; known are sprsound, kauh"):
        load_corpus("spr", tmp_path)
