"""Labelled HF_Lung clips: class from the publisher's intervals, true phase ends, every fault named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edge_sdk.corpora import load_corpus
from edge_sdk.corpora.check import check_corpus
from edge_sdk.corpora.splits import grouped_folds
from edge_sdk.corpora.transfer import patients_on_both_sides
from edge_sdk.errors import CorpusError

CLIPS_HEADER = "file,recording,date_group,phase,split\n"
LABELS_HEADER = "recording,line,tag,start_s,end_s\n"
FIRST, SECOND, BARE = "steth_20180816_11_10_18", "steth_20190624_13_31_08", "steth_20180816_11_09_13"
CLIPS = (
    (f"{FIRST}_000", FIRST, "20180816", "I", "train"),
    (f"{FIRST}_002", FIRST, "20180816", "E", "train"),
    (f"{SECOND}_003", SECOND, "20190624", "E", "val"),
    (f"{BARE}_007", BARE, "20180816", "E", "train"),
)
LABELS = (
    (FIRST, 0, "I", 1.0, 1.9),
    (FIRST, 1, "D", 1.95, 2.6),
    (FIRST, 2, "E", 2.0, 3.4),
    (FIRST, 3, "W", 2.9, 3.3),
    (SECOND, 0, "I", 12.0, 13.0),
    (SECOND, 1, "R", 13.0, 14.0),
    (SECOND, 2, "S", 14.85, 14.95),
    (SECOND, 3, "E", 14.6, 15.0),
)


def write_tables(root: Path, clips: Sequence[Sequence[object]], labels: Sequence[Sequence[object]]) -> None:
    for name, header, rows in (("clips.csv", CLIPS_HEADER, clips), ("labels.csv", LABELS_HEADER, labels)):
        (root / name).write_text(header + "".join(",".join(map(str, row)) + "\n" for row in rows))


@pytest.fixture
def root(tmp_path: Path, make_audio: Callable[..., Path]) -> Path:
    for stem, *_ in CLIPS:
        make_audio(tmp_path / f"{stem}.flac", 1.0, 4000)
    write_tables(tmp_path, CLIPS, LABELS)
    return tmp_path


def test_the_real_clips_are_complete(data_root: Path) -> None:
    report = check_corpus("hf-lung-labels", data_root / "hf_lung_phase_clips")
    assert (report.discrepancies, report.problems) == ((), ())
    assert report.counts["classes"] == {"normal": 662, "crackle": 410, "wheeze": 264, "both": 19}
    corpus = load_corpus("hf_lung_labels", data_root / "hf_lung_phase_clips", split="val")
    assert (len(corpus.recordings), len(corpus.patients)) == (206, 21)
    assert Counter(c.label for c in corpus.cycles) == {"normal": 101, "crackle": 56, "wheeze": 47, "both": 2}


def test_each_real_clip_starts_with_its_own_phase(data_root: Path) -> None:
    corpus = load_corpus("hf_lung_labels", data_root / "hf_lung_phase_clips")
    starting = {phase.recording_id: phase for phase in corpus.phases if phase.start_s == 0.0}
    names = {"I": "inspiration", "E": "expiration"}
    assert {r.id: names[r.raw_label or ""] for r in corpus.recordings} == {k: p.phase for k, p in starting.items()}
    inside = [phase for phase in starting.values() if phase.end_s < 0.999]
    assert len(inside) == 906  # the others go on after the clip, or end with the recording


def test_clips_become_cycles_with_the_publishers_sounds(root: Path) -> None:
    corpus = load_corpus("hf_lung_labels", root)
    assert [(c.recording_id, c.start_s, c.end_s, c.label, c.raw_label) for c in corpus.cycles] == [
        (f"{FIRST}_000", 0.0, 1.0, "normal", "none"),  # 0.05 s of the crackle is too little
        (f"{FIRST}_002", 0.0, 1.0, "both", "crackle+wheeze"),  # 0.1 s of the wheeze is enough
        (f"{SECOND}_003", 0.0, 0.4, "wheeze", "stridor"),  # the recording ends; the rhonchus was before
    ]
    assert {(c.device, c.patient, c.split) for c in corpus.cycles} == {
        ("Littmann 3200", "20180816", "train"),
        ("Littmann 3200", "20190624", "val"),
    }
    assert {(c.corpus, c.index) for c in corpus.cycles} == {("hf_lung_labels", 0)}
    assert corpus.problems == ()


def test_phases_and_sounds_are_in_seconds_of_the_clip(root: Path) -> None:
    corpus = load_corpus("hf_lung_labels", root)
    assert [(p.recording_id, p.start_s, p.end_s, p.phase) for p in corpus.phases] == [
        (f"{FIRST}_000", 0.0, 0.9, "inspiration"),  # the true end
        (f"{FIRST}_002", 0.0, 1.0, "expiration"),  # goes on after the clip
        (f"{SECOND}_003", 0.0, 0.4, "expiration"),
    ]
    assert [(s.recording_id, s.start_s, s.end_s, s.sound) for s in corpus.sounds] == [
        (f"{FIRST}_000", 0.95, 1.0, "crackle"),
        (f"{FIRST}_002", 0.0, 0.6, "crackle"),
        (f"{FIRST}_002", 0.9, 1.0, "wheeze"),
        (f"{SECOND}_003", 0.25, 0.35, "stridor"),
    ]


@pytest.mark.parametrize(
    ("start_s", "end_s", "label"),
    [
        (1.89, 4.0, "wheeze"),  # 0.11 s inside
        (1.91, 4.0, "normal"),  # 0.09 s inside
        (0.0, 1.11, "wheeze"),
        (0.0, 1.09, "normal"),
        (1.93, 2.07, "wheeze"),  # half of a short one
        (1.94, 2.08, "normal"),
        (1.5, 1.51, "wheeze"),
        (2.0, 3.0, "normal"),
    ],
)
def test_the_least_share_decides(root: Path, start_s: float, end_s: float, label: str) -> None:
    labels = [(FIRST, 0, "I", 1.0, 1.9), (FIRST, 1, "W", start_s, end_s), (FIRST, 2, "E", 2.0, 3.4)]
    write_tables(root, CLIPS[:1], labels)
    assert [c.label for c in load_corpus("hf_lung_labels", root).cycles] == [label]


def test_clips_without_labels_stay_with_the_phase_clips(root: Path) -> None:
    assert {r.id for r in load_corpus("hf_lung_clips", root).recordings} == {stem for stem, *_ in CLIPS}
    labelled = load_corpus("hf_lung_labels", root)
    assert {r.id for r in labelled.recordings} == {stem for stem, *_ in CLIPS[:3]}
    assert patients_on_both_sides(labelled, load_corpus("hf_lung_clips", root)) == ("20180816", "20190624")


def test_clips_of_one_date_stay_in_one_fold(data_root: Path) -> None:
    cycles = load_corpus("hf_lung_labels", data_root / "hf_lung_phase_clips").cycles
    fold = grouped_folds([c.label for c in cycles], [c.patient for c in cycles])
    assert len({(c.patient, int(f)) for c, f in zip(cycles, fold, strict=True)}) == 111


def test_check_names_every_fault(root: Path) -> None:
    (root / f"{FIRST}_000.flac").unlink()
    (root / f"{SECOND}_003.flac").write_bytes(b"no audio")
    clips = [
        *CLIPS,
        (f"{SECOND}_000", SECOND, "20190624", "E", "val"),
        (f"{FIRST}_009", FIRST, "20180816", "I", "train"),
    ]
    labels = [
        *LABELS,
        ("steth_20200101_00_00_00", 0, "I", 0.0, 1.0),
        (FIRST, 3, "D", 1.0, 2.0),
        (FIRST, 4, "X", 1.0, 2.0),
        (FIRST, "x", "D", 2.0, 1.0),
        ("", 5, "D", 1.0, 2.0),
    ]
    write_tables(root, clips, labels)
    report = check_corpus("hf_lung_labels", root)
    problems = "\n".join(report.problems)
    for expected in (
        f"{FIRST}_000: listed in clips.csv, but there is no audio file of that name",
        f"{SECOND}_003.flac cannot be read as audio",
        f"{SECOND}_000: labels.csv has tag I where clips.csv has phase E",
        f"{FIRST}_009: labels.csv has no line 9 of its recording",
        "labels.csv names steth_20200101_00_00_00, of which clips.csv has no clip",
        f"labels.csv line 11: line 3 of {FIRST} is listed twice",
        "labels.csv line 12: tag 'X' is none of I, E, D, W, R, S",
        "labels.csv line 13: line 'x' is no number from 0",
        "labels.csv line 13: needs 0 <= start_s < end_s, got '2.0' and '1.0'",
        "labels.csv line 14: recording is empty",
    ):
        assert expected in problems
    assert "1 of 1355 recordings" in report.discrepancies
    with pytest.raises(CorpusError, match="fetch the files again"):
        load_corpus("hf_lung_labels", root)
    assert [c.recording_id for c in load_corpus("hf_lung_labels", root, partial=True).cycles] == [f"{FIRST}_002"]


def test_tables_that_do_not_fit_are_refused(root: Path) -> None:
    write_tables(root, CLIPS[3:], LABELS)
    with pytest.raises(CorpusError, match="labels none of the recordings of clips"):
        load_corpus("hf_lung_labels", root)
    (root / "labels.csv").write_text("recording,line,tag,start,end\n")
    with pytest.raises(CorpusError, match="lacks the columns start_s, end_s; it has recording, line, tag, start, end"):
        load_corpus("hf_lung_labels", root)
    (root / "labels.csv").unlink()
    with pytest.raises(CorpusError, match=r"has no labels\.csv .*; without labels load hf_lung_clips"):
        load_corpus("hf_lung_labels", root)
