"""Train on one corpus, test on another: patients, recordings and labels on both sides are found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_sdk.corpora import load_corpus
from edge_sdk.corpora.labels import relabel
from edge_sdk.corpora.transfer import check_transfer, recordings_on_both_sides
from edge_sdk.errors import CorpusError

Add = Callable[..., str]


def test_patients_of_one_corpus_on_both_sides_are_refused(sprsound_root: Path, add_sprsound: Add) -> None:
    add_sprsound("1_3.0_0_p1_1")
    add_sprsound("1_3.0_0_p2_2", "intra_test")
    add_sprsound("2_3.0_0_p2_3", "inter_test")
    corpus = load_corpus("sprsound", sprsound_root)
    with pytest.raises(CorpusError, match="1 patients of sprsound are in the training side sprsound too: 1"):
        check_transfer(corpus.split("train"), corpus.split("intra_test"))
    check_transfer(corpus.split("train"), corpus.split("inter_test"))
    other = replace(corpus.split("intra_test"), name="kauh")  # another publisher's patient 1 is another person
    check_transfer(corpus.split("train"), other)


def test_copied_audio_is_found_under_another_name(sprsound_root: Path, add_sprsound: Add, tmp_path: Path) -> None:
    one = add_sprsound("1_3.0_0_p1_1")
    train = load_corpus("sprsound", sprsound_root)
    shutil.copy(sprsound_root / f"train_wav/{one}.wav", tmp_path / "mine.wav")
    (tmp_path / "t.csv").write_text("file,start_s,end_s,label,patient\nmine,0,1,normal,a\n")
    test = load_corpus("csv", tmp_path / "t.csv")
    assert recordings_on_both_sides(train, test) == [("mine", one)]
    assert recordings_on_both_sides(train, test, compare_audio=False) == []
    with pytest.raises(CorpusError, match=f"mine is {one}"):
        check_transfer(train, test)


def test_labels_must_be_known_to_the_training_side(data_root: Path, sprsound_root: Path, add_sprsound: Add) -> None:
    add_sprsound("1_3.0_0_p1_1")
    train, test = load_corpus("sprsound", sprsound_root), load_corpus("kauh", data_root / "kauh")
    check_transfer(train, test)
    check_transfer(relabel(train, "binary"), relabel(test, "binary"))
    with pytest.raises(CorpusError, match="kauh has the labels both, crackle, wheeze, unknown to training"):
        check_transfer(relabel(train, "binary"), test)
