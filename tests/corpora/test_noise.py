"""The noise beside breath: kinds as labels, sources and their licences, every fault named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_sdk.corpora import load_corpus
from edge_sdk.corpora.check import check_corpus
from edge_sdk.corpora.loaders.noise import SOURCES
from edge_sdk.corpora.registry import entry_of
from edge_sdk.errors import CorpusError

HEADER = "file,kind,source,seconds\n"
ROWS = {
    "baby_cry/cry000.flac": "baby_cry,donateacry-corpus,1.5",
    "baby_cry/1-22694-A.flac": "baby_cry,ESC-10,1.5",
    "rain/1-17367-A.flac": "rain,ESC-10,1.5",
    "rain/1-17367-B.flac": "rain,ESC-10,1.5",
    "speech/digits00.flac": "speech,free-spoken-digit-dataset,1.5",
}


def write_table(root: Path, rows: dict[str, str]) -> None:
    (root / "clips.csv").write_text(HEADER + "".join(f"{file},{rest}\n" for file, rest in rows.items()))


@pytest.fixture
def root(tmp_path: Path, make_audio: Callable[..., Path]) -> Path:
    for file in ROWS:
        make_audio(tmp_path / file, 1.5)
    write_table(tmp_path, ROWS)
    return tmp_path


def test_the_real_clips_are_complete(data_root: Path) -> None:
    report = check_corpus("noise", data_root / "noise")
    assert (report.discrepancies, report.problems) == ((), ())
    assert report.counts["recording_labels"] == {"baby_cry": 260, "speech": 60} | dict.fromkeys(
        (
            "dog_bark",
            "rain",
            "sea_waves",
            "clock_tick",
            "person_sneeze",
            "helicopter",
            "chainsaw",
            "rooster",
            "fire_crackling",
        ),
        40,
    )
    corpus = load_corpus("noise", data_root / "noise")
    assert Counter(r.patient.split("/")[0] for r in corpus.recordings) == {
        "ESC-10": 400,
        "donateacry-corpus": 220,
        "free-spoken-digit-dataset": 60,
    }


def test_kinds_are_raw_labels_without_class_or_cycle(root: Path) -> None:
    corpus = load_corpus("noise", root)
    assert [(r.id, r.raw_label) for r in corpus.recordings] == [
        (file.removesuffix(".flac"), rest.split(",")[0]) for file, rest in ROWS.items()
    ]
    assert corpus.cycles == ()
    assert {(r.label, r.abnormal, r.split, r.device, r.quality_poor) for r in corpus.recordings} == {
        (None, None, None, None, False)
    }
    assert {(r.sample_rate, r.duration_s) for r in corpus.recordings} == {(8000, 1.5)}
    assert corpus.splits == ("all",)
    assert corpus.problems == ()


def test_clips_of_one_original_are_one_patient(root: Path) -> None:
    patient = {r.id: r.patient for r in load_corpus("noise", root).recordings}
    assert patient["rain/1-17367-A"] == patient["rain/1-17367-B"] == "ESC-10/17367"
    assert len(set(patient.values())) == 4


def test_each_source_has_a_licence(root: Path) -> None:
    licence = check_corpus("noise", root).to_dict()["licence"]
    assert all(source in licence for source in SOURCES)
    assert licence == entry_of("noise").licence


def test_wav_files_load_too(root: Path, make_audio: Callable[..., Path]) -> None:
    (root / "speech" / "digits00.flac").unlink()
    make_audio(root / "speech" / "digits00.wav", 1.5)
    assert load_corpus("noise", root).recordings[-1].path.suffix == ".wav"


def test_check_names_every_fault(root: Path, make_audio: Callable[..., Path]) -> None:
    make_audio(root / "rain" / "1-50060-A.flac", 1.5)  # no row
    make_audio(root / "rain" / "1-17367-B.flac", 1.2)  # not 1.5 s
    make_audio(root / "speech" / "digits00.flac", 1.5, rate=4000)
    damaged = root / "baby_cry" / "cry000.flac"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    (root / "baby_cry" / "1-22694-A.flac").write_bytes(b"no audio")
    rows = ROWS | {
        "rooster/1-1-A.flac": "rooster,ESC-10,1.5",  # no file
        "rain/1-17367-A.flac": "rain,somewhere,long",
    }
    write_table(root, rows)
    with (root / "clips.csv").open("a") as table:
        table.write("rain/1-17367-B.flac,rain,ESC-10,1.5\n,rain,ESC-10,1.5\n")
    report = check_corpus("noise", root)
    problems = "\n".join(report.problems)
    for expected in (
        "rooster/1-1-A: listed in clips.csv, but there is no audio file of that name",
        f"rain/1-17367-A: source 'somewhere' is none of {', '.join(SOURCES)}, so its licence is unknown",
        "rain/1-17367-A: clips.csv gives 'long' instead of a length in seconds",
        "clips.csv line 8: rain/1-17367-B is listed twice",
        "clips.csv line 9: file is empty",
        "rain/1-50060-A is not listed in clips.csv",
        "rain/1-17367-B: lasts 1.2 s instead of the 1.5 s listed",
        "baby_cry/1-22694-A: ",
        "cannot be read as audio",
        "baby_cry/cry000: the audio cannot be decoded",
        "speech/digits00: 4000 Hz instead of 8000 Hz",
    ):
        assert expected in problems
    assert "4 of 680 recordings" in report.discrepancies  # neither the absent nor the unreadable one
    assert "0 of 40 recordings of rooster" in report.discrepancies
    with pytest.raises(CorpusError, match="is not the whole of noise beside breath: 4 of 680 recordings"):
        report.refuse_partial()


@pytest.mark.parametrize("name", ["9" * 5000, "x/" * 3000])
def test_a_name_that_no_file_can_have_is_a_fault_as_any_other(
    root: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_table(root, ROWS | {f"rain/{name}.flac": "rain,ESC-10,1.5"})
    corpus = load_corpus("noise", root, partial=True)
    assert len(corpus.recordings) == len(ROWS)
    line = caplog.records[0].getMessage()
    assert "passed over: rain/" in line and len(line) < 400
    with pytest.raises(CorpusError, match="rain/"):
        load_corpus("noise", root)


def test_audio_that_is_not_that_of_its_checksum_is_named(root: Path) -> None:
    one, other = (root / f"rain/1-17367-{take}.flac" for take in "AB")
    audio = bytearray(one.read_bytes())
    audio[26:42] = other.read_bytes()[26:42]  # the checksum of other samples
    one.write_bytes(audio)
    problems = "\n".join(check_corpus("noise", root).problems)
    assert "rain/1-17367-A: the audio cannot be decoded (its samples do not match the checksum" in problems
    assert "rain/1-17367-B" not in problems  # not called a duplicate by the false checksum


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,kind,seconds\n", "lacks the columns source; it has file, kind, seconds"),
        (HEADER, "has no rows"),
        (HEADER + "rain/none.flac,rain,ESC-10,1.5\n", "rain/none: listed in clips.csv, but"),
        (HEADER + "rain/1-17367-A.flac,,ESC-10,1.5\n", "rain/1-17367-A: clips.csv gives no kind"),
        (HEADER + "rain/1-17367-A.flac,rain,,1.5\n", "source '' is none of"),
        (HEADER + "rain/1-17367-A.flac,rain,ESC-10,-1\n", "gives '-1' instead of a length"),
    ],
)
def test_a_faulty_table_is_refused(root: Path, text: str, message: str) -> None:
    (root / "clips.csv").write_text(text)
    with pytest.raises(CorpusError, match=message):
        load_corpus("noise", root)


def test_a_folder_without_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"has no clips\.csv \(file, kind, source, seconds\)"):
        load_corpus("noise", tmp_path)
