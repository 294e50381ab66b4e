"""ICBHI 2017 in the exact original layout: names, the official split and its alias, metadata, counts, split rules."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_sdk.cli.main import run
from edge_sdk.corpora import load_corpus
from edge_sdk.corpora.check import check_corpus
from edge_sdk.corpora.loaders.icbhi import DEVICES, body_mass_index, parse_name
from edge_sdk.corpora.split_rules import training_sides
from edge_sdk.errors import CorpusError

MakeAudio = Callable[..., Path]
Add = Callable[..., str]
CYCLES = ("0.036\t0.579\t0\t0", "0.579\t2.45\t1\t0", "2.45\t3.893\t0\t1", "3.893\t4\t1\t1")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "ICBHI_final_database"
    folder.mkdir()
    return folder


@pytest.fixture
def add(root: Path, make_audio: MakeAudio) -> Add:
    """One recording with its annotation and its line in the official split; returns its name."""

    def one(
        stem: str,
        side: str | None = "train",
        lines: Sequence[str] = CYCLES,
        *,
        listed: str | None = None,
        audio: bool = True,
        text: bool = True,
    ) -> str:
        if audio:
            make_audio(root / f"{stem}.wav", rate=4000)
        if text:
            (root / f"{stem}.txt").write_text("\n".join(lines) + "\n")
        if side is not None:
            with (root / "ICBHI_challenge_train_test.txt").open("a", newline="") as file:
                file.write(f"{listed or stem}\t{side}\r\n")
        return stem

    return one


def test_names_have_exactly_five_known_fields() -> None:
    name = parse_name("103_2b2_Ar_mc_LittC2SE")
    assert name is not None
    assert (name.patient, name.session, name.site, name.mode, name.device) == ("103", "2b2", "Ar", "mc", "LittC2SE")
    for stem in (
        "103_2b2_Ar_mc",
        "103_2b2_Ar_mc_LittC2SE_1",
        "103_2b2_Xx_mc_LittC2SE",
        "103_2b2_Ar_xx_LittC2SE",
        "103_2b2_Ar_mc_Phone",
        "1030_2b2_Ar_mc_LittC2SE",
        "103_2_Ar_mc_LittC2SE",
    ):
        assert parse_name(stem) is None


def test_cycles_come_with_class_split_and_metadata(root: Path, add: Add) -> None:
    add("101_1b1_Al_sc_Meditron")
    add("102_1b1_Tc_mc_AKGC417L", "test", CYCLES[:1])
    add("223_1b1_Lr_sc_Litt3200", "test", CYCLES[:1])
    (root / "ICBHI_Challenge_demographic_information.txt").write_text(
        "101\t3\tF\tNA\t19\t99\r\n102\t0.75\tF\tNA\t9.8\t73\r\n223\tNA\tNA\tNA\tNA\tNA\r\n"
    )
    (root / "ICBHI_Challenge_diagnosis.txt").write_text("101\tURTI\n102\tHealthy\n")
    corpus = load_corpus("icbhi", root)
    train = corpus.split("train")
    assert [c.label for c in train.cycles] == ["normal", "crackle", "wheeze", "both"]
    assert [(c.index, c.start_s, c.end_s) for c in train.cycles][:2] == [(0, 0.036, 0.579), (1, 0.579, 2.45)]
    cycle = train.cycles[0]
    assert (cycle.site, cycle.device, cycle.age_years, cycle.sex) == (
        "left anterior",
        "Welch Allyn Meditron",
        3.0,
        "female",
    )
    assert cycle.bmi == pytest.approx(19 / 0.99**2)
    no_data = next(r for r in corpus.recordings if r.patient == "223")
    assert (no_data.age_years, no_data.sex, no_data.bmi, no_data.diagnosis) == (None,) * 4
    assert (no_data.site, no_data.device) == ("right lateral", "Littmann 3200")
    assert {r.patient: r.diagnosis for r in corpus.recordings} == {"101": "URTI", "102": "Healthy", "223": None}


def test_tables_of_the_known_copies_are_read(root: Path, add: Add) -> None:
    add("101_1b1_Al_sc_Meditron", None)
    (root / "demographic_info.txt").write_text("101 70 M 28.4 NA NA\n")
    (root / "patient_diagnosis.csv").write_text("101,COPD\n")
    (root / "official_split.txt").write_text("101_1b1_Al_sc_Meditron\ttest\n")
    recording = load_corpus("icbhi", root, split="test").recordings[0]
    assert (recording.age_years, recording.sex, recording.bmi, recording.diagnosis) == (70.0, "male", 28.4, "COPD")


def test_tables_may_lie_beside_the_archive(root: Path, add: Add) -> None:
    add("101_1b1_Al_sc_Meditron")
    (root / "ICBHI_challenge_train_test.txt").rename(root.parent / "ICBHI_challenge_train_test.txt")
    assert load_corpus("icbhi", root, split="train").patients == ("101",)
    assert load_corpus("icbhi", root.parent, split="train").patients == ("101",)


def test_body_mass_index_is_the_adults_or_follows_from_weight_and_height() -> None:
    assert body_mass_index(31.0, 20.0, 100.0) == 31.0
    assert body_mass_index(None, 20.0, 100.0) == 20.0
    assert body_mass_index(None, 20.0, 1.0) is None  # height in metres: a slip
    assert body_mass_index(None, 20.0, None) is None
    assert body_mass_index(None, 20.0, 0.0) is None


def test_the_renamed_device_is_paired_by_the_first_four_fields(root: Path, add: Add) -> None:
    add("226_1b1_Pl_sc_LittC2SE", listed="226_1b1_Pl_sc_Meditron")
    corpus = load_corpus("icbhi", root, split="train")
    assert [(r.id, r.device) for r in corpus.recordings] == [("226_1b1_Pl_sc_LittC2SE", "Littmann Classic II SE")]
    assert len(corpus.cycles) == 4
    assert corpus.problems == (
        "226_1b1_Pl_sc_LittC2SE is 226_1b1_Pl_sc_Meditron in ICBHI_challenge_train_test.txt; "
        "paired by the first four fields",
    )


@pytest.mark.parametrize(
    ("stem", "options", "message"),
    [
        ("101_1b1_Al_sc_Meditron", {"audio": False}, "annotated, but there is no audio"),
        ("101_1b1_Al_sc_Meditron", {"audio": False, "text": False}, "in ICBHI_challenge_train_test.txt, but there is"),
        ("101_1b1_Al_sc_Meditron", {"text": False}, "there is no annotation"),
        ("101_1b1_Al_sc_Meditron", {"side": None}, "not in ICBHI_challenge_train_test.txt"),
        ("101_1b1_Al_Meditron", {}, "file name is not <patient>"),
        ("101_1b1_Al_sc_Meditron", {"lines": ["0\t1\t0"]}, "line 1 has 3 fields"),
        ("101_1b1_Al_sc_Meditron", {"lines": ["0\t1\t0\t2"]}, "instead of 0 or 1"),
        ("101_1b1_Al_sc_Meditron", {"lines": ["1\t1\t0\t0"]}, "no valid times"),
        ("101_1b1_Al_sc_Meditron", {"lines": ["0\t9\t0\t0"]}, "overruns the audio"),
        ("101_1b1_Al_sc_Meditron", {"lines": [""]}, "annotation is empty"),
    ],
)
def test_what_is_not_paired_or_not_readable_is_refused(
    root: Path, add: Add, stem: str, options: dict[str, object], message: str
) -> None:
    add("102_1b1_Al_sc_Meditron")
    add(stem, **options)
    with pytest.raises(CorpusError, match=message):
        load_corpus("icbhi", root)
    kept = load_corpus("icbhi", root, partial=True)
    assert "102_1b1_Al_sc_Meditron" in {recording.id for recording in kept.recordings}


def test_a_faulty_split_file_names_the_line(root: Path, add: Add) -> None:
    add("101_1b1_Al_sc_Meditron")
    add("101_1b1_Al_sc_Meditron", "test")
    with pytest.raises(CorpusError, match="line 2: 101_1b1_Al_sc_Meditron is listed on both sides"):
        load_corpus("icbhi", root)
    (root / "ICBHI_challenge_train_test.txt").write_text("101_1b1_Al_sc_Meditron\tvalidation\n")
    with pytest.raises(CorpusError, match="line 1: need a name and train or test"):
        load_corpus("icbhi", root)


def test_without_the_split_file_there_is_no_official_split(root: Path, add: Add) -> None:
    add("101_1b1_Al_sc_Meditron", None)
    assert "no official split" in load_corpus("icbhi", root).problems[0]
    with pytest.raises(CorpusError, match="no split 'test'"):
        load_corpus("icbhi", root, split="test")
    (root / "empty").mkdir()
    with pytest.raises(CorpusError, match="holds no ICBHI recordings"):
        load_corpus("icbhi", root / "empty")


def test_a_small_overrun_is_cut_and_named(root: Path, add: Add) -> None:
    add("101_1b1_Al_sc_Meditron", lines=["0\t4.2\t0\t0"])
    corpus = load_corpus("icbhi", root)
    assert corpus.cycles[0].end_s == 4.0
    assert "overruns the audio of 4 s" in corpus.problems[0]


@pytest.fixture
def many(root: Path, add: Add) -> Path:
    """Sixteen train patients, two of them in the test too, four test patients; four devices."""
    codes = list(DEVICES)
    for k in range(16):
        add(f"{110 + k}_1b1_Al_sc_{codes[k % 4]}")
    add("110_1b2_Al_sc_Meditron")  # one patient with two devices
    for patient in ("156", "218"):
        add(f"{patient}_1b1_Al_sc_Meditron")
        add(f"{patient}_2b1_Al_sc_Meditron", "test")
    for k in range(4):
        add(f"{200 + k}_1b1_Pr_mc_AKGC417L", "test", CYCLES[:1])
    return root


def test_leak_free_sides_are_without_the_two_patients(many: Path) -> None:
    corpus = load_corpus("icbhi", many)
    train, test = corpus.split("train"), corpus.split("test")
    assert set(train.patients) & set(test.patients) == {"156", "218"}
    clean = corpus.split("train_leakfree")
    assert len(clean.recordings) == len(train.recordings) - 2
    assert not set(clean.patients) & set(test.patients)
    assert set(corpus.split("test_leakfree").patients) == {"200", "201", "202", "203"}


def test_validation_patients_lie_inside_train_and_never_change(many: Path) -> None:
    corpus = load_corpus("icbhi", many)
    val, fit = corpus.split("val"), corpus.split("fit")
    assert 2 <= len(val.patients) <= 5
    assert not {"156", "218"} & set(val.patients)
    assert set(val.patients) | set(fit.patients) == set(corpus.split("train").patients)
    assert not set(val.patients) & set(fit.patients)
    assert load_corpus("icbhi", many, split="val").patients == val.patients
    assert Counter(c.label for c in val.cycles)["both"] >= 2


def test_training_sides_take_validation_out_of_train(many: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus = load_corpus("icbhi", many)
    sides = training_sides(corpus)
    assert {r.id for r in sides.recordings} == {r.id for r in corpus.split("train").recordings}
    assert {c.recording_id for c in sides.cycles if c.split == "val"} == {r.id for r in corpus.split("val").recordings}
    with caplog.at_level(logging.WARNING):
        official = training_sides(corpus, "train", "test")
    assert len(official.recordings) == len(corpus.recordings)
    assert "patients 156, 218 are on both sides" in caplog.text
    with pytest.raises(CorpusError, match="nothing is left to train on"):
        training_sides(corpus, "val", "train")


def test_training_sides_refuse_a_leak(sprsound_root: Path, add_sprsound: Add) -> None:
    add_sprsound("1_3.0_0_p1_1")
    add_sprsound("1_3.0_0_p2_2", "intra_test")
    corpus = load_corpus("sprsound", sprsound_root)
    with pytest.raises(CorpusError, match="1 patients are in both"):
        training_sides(corpus, "train", "intra_test")
    assert {r.split for r in training_sides(corpus).recordings} == {"train"}  # no val here: nothing is held out
    with pytest.raises(CorpusError, match="no split 'nothing'"):
        training_sides(corpus, "nothing")


@pytest.mark.parametrize("code", list(DEVICES))
def test_a_device_left_out_takes_its_patients_along(many: Path, code: str) -> None:
    corpus = load_corpus("icbhi", many)
    train, test = corpus.split(f"lodo:{code}:train"), corpus.split(f"lodo:{code}:test")
    assert {r.device for r in test.recordings} == {DEVICES[code]}
    assert DEVICES[code] not in {r.device for r in train.recordings}
    assert not set(train.patients) & set(test.patients)


def test_the_leaky_shuffle_warns_whenever_it_is_used(many: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        test = load_corpus("icbhi", many, split="leaky_demo_test")
    assert "demonstrate the leak" in caplog.text
    corpus = load_corpus("icbhi", many)
    names = sorted(recording.id for recording in corpus.recordings)
    random.Random(1).shuffle(names)
    assert {r.id for r in test.recordings} == set(names[int(0.6 * len(names)) :])
    sides = training_sides(corpus, "leaky_demo_train", "leaky_demo_test")
    assert len(sides.recordings) == len(corpus.recordings)


def test_every_name_is_listed_where_a_split_is_unknown(many: Path) -> None:
    with pytest.raises(
        CorpusError, match=r"has no split 'dev'; it has test, train, fit, val, .*lodo:Meditron:test.*all"
    ):
        load_corpus("icbhi", many, split="dev")


def test_the_command_line_shows_the_leak(many: Path) -> None:
    command = ["-m", "edge_sdk.cli.main", "evaluate", "default", "icbhi", str(many), "--bootstrap", "0", "--json"]
    result = subprocess.run(
        [sys.executable, *command, "--split", "leaky_demo_test"], capture_output=True, text=True, check=True
    )
    assert "demonstrate the leak" in result.stderr
    assert json.loads(result.stdout)["split"] == "leaky_demo_test"


def test_evaluate_takes_the_split_of_a_rule(many: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(["evaluate", "default", "icbhi", str(many), "--split", "lodo:Litt3200:test", "--bootstrap", "0", "--json"])
    out = capsys.readouterr().out
    assert not stop.value.code
    report = json.loads(out)
    assert (report["split"], report["recordings"], report["n"]) == ("lodo:Litt3200:test", 4, 16)


PUBLISHED = {
    "train": (539, 79, {"normal": 2063, "crackle": 1215, "wheeze": 501, "both": 363}),
    "test": (381, 49, {"normal": 1579, "crackle": 649, "wheeze": 385, "both": 143}),
}
FLAGS = {"normal": "0\t0", "crackle": "1\t0", "wheeze": "0\t1", "both": "1\t1"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in with every count of the publication: 920 recordings of 1 s, 6898 cycles, 126 patients."""
    root = tmp_path_factory.mktemp("icbhi")
    own = {"train": [str(p) for p in range(300, 377)], "test": [str(p) for p in range(400, 447)]}
    rng = np.random.default_rng(0)
    lines = []
    for side, (recordings, patients, classes) in PUBLISHED.items():
        ids = ["156", "218", *own[side]]
        assert len(ids) == patients
        deck = [label for label, count in classes.items() for _ in range(count)]
        for k in range(recordings):
            session = f"{k // len(ids)}{'bp'[side == 'test']}1"
            stem = f"{ids[k % len(ids)]}_{session}_Al_sc_Meditron"
            labels = deck[k::recordings]
            edges = np.linspace(0, 1, len(labels) + 1)
            rows = [f"{a:.3f}\t{b:.3f}\t{FLAGS[c]}" for a, b, c in zip(edges, edges[1:], labels, strict=False)]
            (root / f"{stem}.txt").write_text("\r\n".join(rows))
            soundfile.write(root / f"{stem}.wav", rng.integers(-999, 999, 400).astype(np.int16), 400)
            lines.append(f"{stem}\t{side}\r\n")
    (root / "ICBHI_challenge_train_test.txt").write_text("".join(lines), newline="")
    return root


def test_the_whole_corpus_passes_every_published_count(whole: Path) -> None:
    report = check_corpus("icbhi", whole)
    assert report.discrepancies == ()
    assert report.published["split_classes"]["test"]["both"] == 143
    assert report.counts["patients_in_train_and_test"] == ["156", "218"]
    assert any("2 patients are in both test and train (known" in problem for problem in report.problems)
    corpus = load_corpus("icbhi", whole)
    assert (len(corpus.recordings), len(corpus.cycles), len(corpus.patients)) == (920, 6898, 126)
    demo = [len(corpus.split(f"leaky_demo_{side}").recordings) for side in ("train", "test")]
    assert demo == [552, 368]


def test_one_edited_label_of_the_whole_corpus_is_refused(whole: Path) -> None:
    text = next(iter(sorted(whole.glob("*_Meditron.txt"))))
    original = text.read_text()
    try:
        text.write_text(original.replace("\t0\t0", "\t1\t0", 1))
        assert len(check_corpus("icbhi", whole).discrepancies) == 2  # one normal too few, one crackle too many
        with pytest.raises(CorpusError, match=r"is not as published: \d+ of \d+ normal in"):
            load_corpus("icbhi", whole)
        assert len(load_corpus("icbhi", whole, partial=True).cycles) == 6898
    finally:
        text.write_text(original)


def test_a_part_is_refused_by_data_check_with_every_difference(many: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(["data", "check", "icbhi", str(many), "--json"])
    out, err = capsys.readouterr()
    assert stop.value.code == 1
    assert "of 920 recordings" in err
    assert any("of 143 both in test" in line for line in json.loads(out)["discrepancies"])
    with pytest.raises(SystemExit) as stop:
        run(["data", "check", "icbhi", str(many), "--partial"])
    assert not stop.value.code
    assert "patients in train and test" in capsys.readouterr().out


def test_the_real_copy_is_split_by_its_split_file(data_root: Path) -> None:
    loaded = {split: load_corpus("icbhi", data_root / "icbhi", split=split) for split in ("train", "val", "all")}
    assert {split: (len(c.recordings), len(c.patients), len(c.cycles)) for split, c in loaded.items()} == {
        "train": (89, 37, 893),
        "val": (27, 12, 316),
        "all": (116, 49, 1209),
    }
    assert not set(loaded["train"].patients) & set(loaded["val"].patients)
    assert Counter(c.label for c in loaded["all"].cycles) == {"normal": 795, "crackle": 223, "wheeze": 151, "both": 40}
    assert Counter(r.device for r in loaded["all"].recordings) == {
        "Welch Allyn Meditron": 84,
        "AKG C417L": 18,
        "Littmann Classic II SE": 11,
        "Littmann 3200": 3,
    }
    assert all(r.age_years is not None and r.sex and r.diagnosis for r in loaded["all"].recordings)
    assert loaded["all"].problems == ()
