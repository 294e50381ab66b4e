"""The same cycles under other label schemes; items without a label are refused by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_sdk.corpora import LABELS, load_corpus
from edge_sdk.corpora.labels import SPRSOUND_7, as_cycles, disease_name, labels_for, relabel
from edge_sdk.errors import CorpusError

Add = Callable[..., str]
EVENTS = ((0, 900, "Normal"), (900, 1800, "Rhonchi"), (1800, 2700, "Fine Crackle"), (2700, 3500, "Wheeze+Crackle"))


@pytest.fixture
def sprsound(sprsound_root: Path, add_sprsound: Add) -> Path:
    add_sprsound("1_3.0_0_p1_1", events=EVENTS, label="CAS & DAS")
    add_sprsound("2_3.0_0_p1_2", events=((0, 900, "Normal"),), label="Normal")
    add_sprsound("3_3.0_0_p1_3", events=(), label="Poor Quality")
    return sprsound_root


@pytest.mark.parametrize(
    ("scheme", "labels", "found"),
    [
        ("four", LABELS, ["normal", "wheeze", "crackle", "both", "normal"]),
        ("binary", ("normal", "abnormal"), ["normal", "abnormal", "abnormal", "abnormal", "normal"]),
        ("sprsound7", SPRSOUND_7, ["Normal", "Rhonchi", "Fine Crackle", "Wheeze+Crackle", "Normal"]),
    ],
)
def test_cycles_have_the_labels_of_the_scheme(
    sprsound: Path, scheme: str, labels: tuple[str, ...], found: list[str]
) -> None:
    corpus = load_corpus("sprsound", sprsound)
    named = relabel(corpus, scheme)
    assert named.labels == labels_for(corpus, scheme) == labels
    assert [cycle.label for cycle in named.cycles] == found
    assert named.unit == "cycle"


@pytest.mark.parametrize(
    ("scheme", "found"),
    [("sprsound5", ["CAS & DAS", "Normal", "Poor Quality"]), ("sprsound3", ["Adventitious", "Normal", "Poor Quality"])],
)
def test_schemes_of_recordings_remove_the_cycles(sprsound: Path, scheme: str, found: list[str]) -> None:
    named = relabel(load_corpus("sprsound", sprsound), scheme)
    assert named.unit == "recording"
    assert [recording.label for recording in named.recordings] == found
    assert [cycle.label for cycle in as_cycles(named).cycles] == found


def test_missing_labels_are_refused_or_left_out(sprsound: Path, tmp_path: Path, data_root: Path) -> None:
    corpus = load_corpus("sprsound", sprsound)
    with pytest.raises(CorpusError, match="no labels for the scheme 'disease': no item has a diagnosis"):
        relabel(corpus, "disease")
    with pytest.raises(CorpusError, match="unknown label scheme 'five'; known are four, binary"):
        relabel(corpus, "five")
    (tmp_path / "one.csv").write_text(
        f"file,start_s,end_s,label\n{sprsound}/train_wav/1_3.0_0_p1_1,0,1,normal\n"
        f"{sprsound}/train_wav/1_3.0_0_p1_1,1,2,other\n"
    )
    generic = load_corpus("csv", tmp_path / "one.csv")
    with pytest.raises(CorpusError, match="1 of 2 have no label of the scheme 'four'"):
        relabel(generic, "four")
    assert len(relabel(generic, "four", drop_unlabelled=True).cycles) == 1
    assert [c.label for c in relabel(generic, "binary").cycles] == ["normal", "abnormal"]


def test_a_disease_has_one_spelling() -> None:
    assert disease_name("N") == disease_name("Healthy") == "healthy"
    assert disease_name("Asthma and lung fibrosis") == "asthma + lung fibrosis"
    assert disease_name("Heart Failure + Lung Fibrosis ") == "heart failure + lung fibrosis"
    assert disease_name(" ") is None


def test_real_adults_by_disease(data_root: Path) -> None:
    corpus = relabel(load_corpus("kauh", data_root / "kauh"), "disease")
    assert Counter(r.label for r in corpus.recordings).most_common(3) == [
        ("healthy", 51),
        ("asthma", 42),
        ("heart failure", 24),
    ]
    assert len(as_cycles(corpus).cycles) == 171
