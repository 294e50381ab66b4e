"""ESC-50: folds as splits, categories as labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_sdk.corpora import load_corpus
from edge_sdk.corpora.check import check_corpus
from edge_sdk.corpora.labels import as_cycles, relabel
from edge_sdk.errors import CorpusError

HEADER = "filename,fold,target,category,esc10,src_file,take\n"


@pytest.fixture
def root(tmp_path: Path, make_audio: Callable[..., Path]) -> Path:
    rows = []
    for fold in range(1, 6):
        for target, category in enumerate(("dog", "rain")):
            name = f"{fold}-10{fold}{target}-A-{target}.wav"
            make_audio(tmp_path / "audio" / name, 0.5, 44100)
            rows.append(f"{name},{fold},{target},{category},True,10{fold}{target},A\n")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text(HEADER + "".join(rows))
    return tmp_path


def test_folds_are_splits_and_cross_validation(root: Path) -> None:
    corpus = load_corpus("esc50", root)
    assert {r.split for r in corpus.recordings} == {"fold1", "fold2", "fold3", "fold4", "fold5"}
    train, test = corpus.split("cv:fold3:train"), corpus.split("cv:fold3:test")
    assert {r.id for r in test.recordings} == {r.id for r in corpus.split("fold3").recordings}
    assert (len(train.recordings), len(test.recordings)) == (8, 2)
    assert not set(train.patients) & set(test.patients)


def test_categories_become_labels_and_clips_become_examples(root: Path) -> None:
    corpus = load_corpus("esc50", root)
    assert {(r.label, r.abnormal) for r in corpus.recordings} == {(None, None)}
    with pytest.raises(CorpusError, match="no labels for the scheme 'four'"):
        relabel(corpus, "four")
    with pytest.raises(CorpusError, match="relabel it first"):
        as_cycles(corpus)
    named = as_cycles(relabel(corpus, "raw"))
    assert named.labels == ("dog", "rain")
    assert [(c.start_s, c.end_s, c.label) for c in named.cycles[:2]] == [(0.0, 0.5, "dog"), (0.0, 0.5, "rain")]


def test_what_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    report = check_corpus("esc50", root)
    assert {"10 of 2000 recordings", "2 of 400 recordings in fold1", "2 of 50 recording labels"} <= set(
        report.discrepancies
    )
    (root / "audio" / "1-1010-A-0.wav").unlink()
    with pytest.raises(CorpusError, match=r"1-1010-A-0: listed in meta/esc50\.csv, but"):
        load_corpus("esc50", root)
    assert len(load_corpus("esc50", root, partial=True).recordings) == 9
    (root / "meta" / "esc50.csv").write_text(HEADER + "a.wav,6,0,dog,True,1,A\n")
    with pytest.raises(CorpusError, match="line 2: fold '6'"):
        load_corpus("esc50", root)
    with pytest.raises(CorpusError, match=r"has no meta/esc50\.csv"):
        load_corpus("esc50", root / "audio")
