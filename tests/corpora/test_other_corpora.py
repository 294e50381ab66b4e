"""HLS-CMDS lung sounds, HF_Lung clips and the generic CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_sdk.corpora import SITES, load_corpus
from edge_sdk.errors import CorpusError

MakeAudio = Callable[..., Path]


def test_real_lung_sounds_of_the_manikin(data_root: Path) -> None:
    corpus = load_corpus("hls-cmds", data_root / "hls_cmds")
    assert len(corpus.recordings) == 50
    assert corpus.problems == ()  # IDs in the table abbreviate differently from the file names, and are paired
    assert Counter(r.raw_label for r in corpus.recordings) == {
        "Normal": 12,
        "Pleural Rub": 9,
        "Coarse Crackles": 9,
        "Rhonchi": 8,
        "Wheezing": 7,
        "Fine Crackles": 5,
    }
    assert Counter(r.abnormal for r in corpus.recordings) == {True: 38, False: 12}
    rub = next(r for r in corpus.recordings if r.raw_label == "Pleural Rub")
    assert (rub.label, rub.abnormal) == (None, True)
    assert {r.site for r in corpus.recordings} == {"left anterior", "right anterior"}
    assert len(corpus.patients) == 12  # one programme of the manikin per sex and type


def test_lung_sounds_that_differ_from_their_table_are_named(tmp_path: Path, make_audio: MakeAudio) -> None:
    make_audio(tmp_path / "LS" / "F_N_LUA.wav", rate=4000)
    make_audio(tmp_path / "LS" / "thing.wav", rate=4000)
    (tmp_path / "LS.csv").write_text("Gender,Lung Sound Type,Location,Lung Sound ID\nM,Rhonchi,RLA, M_R_RLA\n")
    corpus = load_corpus("hls_cmds", tmp_path)
    assert corpus.problems == (
        "thing: file name is not <F|M>_<type>_<site>; left out of scores",
        "LS.csv lists M Rhonchi RLA, but there is no such file",
        "F_N_LUA is not listed in LS.csv",
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="holds no HLS-CMDS lung sounds"):
        load_corpus("hls_cmds", tmp_path / "empty")


def test_real_clips_have_phases_and_splits(data_root: Path) -> None:
    corpus = load_corpus("hf_lung_clips", data_root / "hf_lung_phase_clips", split="val")
    assert Counter(r.raw_label for r in corpus.recordings) == {"I": 244, "E": 216}
    assert {r.abnormal for r in corpus.recordings} == {None}
    assert {r.duration_s for r in corpus.recordings} == {1.0}


def test_a_clip_that_is_listed_but_absent_is_refused(tmp_path: Path, make_audio: MakeAudio) -> None:
    make_audio(tmp_path / "a.wav", 1.0, 4000)
    (tmp_path / "clips.csv").write_text("file,recording,date_group,phase,split\na,r,1,I,train\nb,r,1,E,train\n")
    with pytest.raises(CorpusError, match=r"b: listed in clips.csv, but"):
        load_corpus("hf_lung_clips", tmp_path)
    assert len(load_corpus("hf_lung_clips", tmp_path, partial=True).recordings) == 1
    (tmp_path / "clips.csv").write_text("file,recording,date_group,phase,split\na,r,1,X,train\n")
    with pytest.raises(CorpusError, match="line 2: phase 'X'"):
        load_corpus("hf_lung_clips", tmp_path)


HEADER = "file,start_s,end_s,label,patient,split,site,device,age,sex,bmi\n"


@pytest.fixture
def csv_root(tmp_path: Path, make_audio: MakeAudio) -> Path:
    make_audio(tmp_path / "audio" / "one.wav")
    make_audio(tmp_path / "audio" / "two.flac", rate=44100)
    (tmp_path / "labels.csv").write_text(
        HEADER
        + "audio/one,0.0,1.5,Normal,p1,train,Left Posterior,Mine,63,F,24.5\n"
        + "audio/one.wav,1.5,3,crackle,p1,train,left posterior,Mine,63,F,24.5\n"
        + "audio/two.flac,0.5,2.25,abnormal,p2,test,,,,,\n"
    )
    return tmp_path


def test_generic_csv_gives_cycles_with_their_metadata(csv_root: Path) -> None:
    corpus = load_corpus("csv", csv_root)
    assert [(c.recording_id, c.index, c.start_s, c.end_s, c.label) for c in corpus.cycles] == [
        ("audio/one", 0, 0.0, 1.5, "normal"),
        ("audio/one", 1, 1.5, 3.0, "crackle"),
        ("audio/two", 0, 0.5, 2.25, "other"),
    ]
    first, last = corpus.cycles[0], corpus.cycles[2]
    assert (first.site, first.device, first.age_years, first.sex, first.bmi) == (SITES[3], "Mine", 63.0, "female", 24.5)
    assert (last.site, last.device, last.age_years, last.sex, last.bmi) == (None,) * 5
    assert corpus.splits == ("test", "train", "all")
    assert [r.sample_rate for r in corpus.recordings] == [8000, 44100]
    assert load_corpus("csv", csv_root / "labels.csv", split="test").patients == ("p2",)


def test_what_to_csv_writes_loads_again(csv_root: Path, tmp_path: Path, data_root: Path) -> None:
    corpus = load_corpus("csv", csv_root)
    corpus.to_csv(tmp_path / "again.csv")
    again = load_corpus("csv", tmp_path / "again.csv")
    keep = ("start_s", "end_s", "label", "patient", "split", "site", "device", "age_years", "sex", "bmi", "index")
    assert [[getattr(c, k) for k in keep] for c in again.cycles] == [
        [getattr(c, k) for k in keep] for c in corpus.cycles
    ]
    manikin = load_corpus("hls_cmds", data_root / "hls_cmds")
    manikin.to_csv(tmp_path / "manikin.csv")
    again = load_corpus("csv", tmp_path / "manikin.csv")
    assert again.unit == "recording"
    assert [(r.label, r.abnormal, r.patient) for r in again.recordings] == [
        (r.label, r.abnormal, r.patient) for r in manikin.recordings
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\n", "has no rows"),
        ("name,label\na,normal\n", "lacks the columns file; it has name, label"),
        ("file,start_s,end_s,label\naudio/one,0,1,rub\n", "line 2: label 'rub' is none of normal"),
        ("file,start_s,end_s,label\naudio/one,2,1,normal\n", r"line 2: need 0 <= start_s < end_s, got '2'"),
        ("file,start_s,end_s,label\naudio/one,0,9,normal\n", "overruns the audio of 4 s"),
        ("file,start_s,end_s,label\naudio/no,0,1,normal\n", "no such audio file"),
        (
            "file,start_s,end_s,label,patient\naudio/one,0,1,normal,a\naudio/one,1,2,normal,b\n",
            "line 3: .*another path",
        ),
        ("file,label\naudio/one,normal\naudio/one,normal\n", "line 3: audio/one is listed twice"),
        ("file,label,site\naudio/one,normal,elbow\n", "site 'elbow' is none of trachea"),
        ("file,label\n,normal\n", "file is empty"),
    ],
)
def test_a_faulty_csv_names_the_line(csv_root: Path, text: str, message: str) -> None:
    (csv_root / "labels.csv").write_text(text)
    with pytest.raises(CorpusError, match=message):
        load_corpus("csv", csv_root)


def test_the_csv_must_be_clear(csv_root: Path) -> None:
    (csv_root / "more.csv").write_text("file,label\n")
    with pytest.raises(CorpusError, match=r"found labels.csv, more.csv; give the file itself"):
        load_corpus("csv", csv_root)
    (csv_root / "more.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorpusError, match="not a text in UTF-8"):
        load_corpus("csv", csv_root / "more.csv")
    with pytest.raises(CorpusError, match="does not exist"):
        load_corpus("csv", csv_root / "none.csv")


def test_without_patients_each_file_is_one_with_a_note(csv_root: Path) -> None:
    (csv_root / "labels.csv").write_text("\ufefffile,label\naudio/one,normal\naudio/two,other\n")
    corpus = load_corpus("csv", csv_root)
    assert corpus.patients == ("audio/one", "audio/two")
    assert [r.abnormal for r in corpus.recordings] == [False, True]
    assert corpus.problems == ("labels.csv has no patient column: each file counts as a patient of its own",)
