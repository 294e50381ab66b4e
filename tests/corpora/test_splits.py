"""Patients stay on one side: split files, grouped folds, and the check for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.corpora import load_corpus
from edge_sdk.corpora.splits import check_disjoint, grouped_folds, patients_by_split, shared_patients
from edge_sdk.errors import CorpusError

Add = Callable[..., str]

items = st.lists(st.tuples(st.integers(0, 11), st.sampled_from("abc")), min_size=12, max_size=80).map(
    lambda drawn: [(str(i), "a") for i in range(12)] + [(str(p), label) for p, label in drawn]
)


@given(items, st.integers(2, 6), st.integers(0, 3))
def test_folds_keep_patients_whole_and_use_every_fold(data: list[tuple[str, str]], folds: int, seed: int) -> None:
    patients, labels = [p for p, _ in data], [label for _, label in data]
    fold = grouped_folds(labels, patients, folds, seed)
    of_patient = {p: {int(f) for q, f in zip(patients, fold, strict=True) if q == p} for p in set(patients)}
    assert all(len(found) == 1 for found in of_patient.values())
    assert set(fold.tolist()) == set(range(folds))


@given(items, st.randoms())
def test_folds_do_not_depend_on_the_order_of_items(data: list[tuple[str, str]], random: object) -> None:
    def folds_of(rows: list[tuple[str, str]]) -> dict[str, int]:
        patients = [p for p, _ in rows]
        fold = grouped_folds([label for _, label in rows], patients, 3, seed=1)
        return dict(zip(patients, fold.tolist(), strict=True))

    shuffled = list(data)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert folds_of(shuffled) == folds_of(data)


def test_real_folds_are_balanced_in_every_class(data_root: Path) -> None:
    corpus = load_corpus("sprsound", data_root / "sprsound")
    labels = [cycle.label for cycle in corpus.cycles]
    fold = grouped_folds(labels, [cycle.patient for cycle in corpus.cycles], 5, seed=0)
    totals = Counter(labels)
    for k in range(5):
        counts = Counter(label for label, f in zip(labels, fold, strict=True) if f == k)
        for label, tolerance in (("normal", 0.25), ("crackle", 0.25), ("wheeze", 0.35)):
            assert counts[label] == pytest.approx(totals[label] / 5, rel=tolerance)
        assert counts["both"] >= 1
    assert not np.array_equal(fold, grouped_folds(labels, [c.patient for c in corpus.cycles], 5, seed=1))


def test_folds_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="2 patients cannot make 3 folds"):
        grouped_folds("aab", ["1", "2", "2"], 3)
    with pytest.raises(ValueError, match="one of each"):
        grouped_folds("aab", ["1"], 2)


def test_shared_patients_are_found_and_refused() -> None:
    sides = {"train": ["1", "2"], "val": ["3"], "test": ["2", "3"]}
    assert shared_patients(sides) == {("test", "train"): ("2",), ("test", "val"): ("3",)}
    with pytest.raises(CorpusError, match="1 patients are in both test and train: 2"):
        check_disjoint(sides)
    check_disjoint({"train": ["1"], "val": ["2"]})


def test_split_file_decides_and_unlisted_recordings_keep_other_published_splits(
    sprsound_root: Path, add_sprsound: Add
) -> None:
    add_sprsound("1_3.0_0_p1_1")
    add_sprsound("2_3.0_0_p1_2")
    add_sprsound("3_3.0_0_p1_3")
    add_sprsound("4_3.0_0_p1_4", "inter_test")
    (sprsound_root / "split.csv").write_text(
        "file,patient,split\n1_3.0_0_p1_1.wav,1,val\ntrain_wav/2_3.0_0_p1_2,2,train\n"
    )
    corpus = load_corpus("sprsound", sprsound_root)
    assert {r.id[0]: r.split for r in corpus.recordings} == {"1": "val", "2": "train", "3": None, "4": "inter_test"}
    assert corpus.splits == ("inter_test", "test", "train", "val", "all")
    assert patients_by_split(corpus) == {"inter_test": ("4",), "train": ("2",), "val": ("1",)}


def test_split_file_may_name_its_own_patients(sprsound_root: Path, add_sprsound: Add) -> None:
    add_sprsound("1_3.0_0_p1_1")
    (sprsound_root / "split.csv").write_text("file,patient,split\n1_3.0_0_p1_1,family A,val\nghost,9,val\n")
    corpus = load_corpus("sprsound", sprsound_root, split="val")
    assert corpus.patients == ("family A",)
    assert {cycle.patient for cycle in corpus.cycles} == {"family A"}
    assert corpus.problems == ("split.csv names 1 recordings that are not in the folder: ghost",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,group\na,b\n", "lacks the columns split"),
        ("file,split\na,\n", "line 2: file and split must not be empty"),
        ("file,split\na,all\n", "'all' is reserved"),
        ("file,split\na,x\na.wav,y\n", "line 3: a is listed twice"),
    ],
)
def test_a_faulty_split_file_names_the_line(sprsound_root: Path, add_sprsound: Add, text: str, message: str) -> None:
    add_sprsound("1_3.0_0_p1_1")
    (sprsound_root / "split.csv").write_text(text)
    with pytest.raises(CorpusError, match=message):
        load_corpus("sprsound", sprsound_root)
