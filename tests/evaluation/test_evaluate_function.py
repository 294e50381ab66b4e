"""``edge_sdk.evaluate`` gives the figures of the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import edge_sdk
from edge_sdk.cli.main import run
from edge_sdk.corpora import load_corpus
from edge_sdk.evaluation.segmentation_report import evaluate_segmenter


@pytest.fixture(scope="module")
def few(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotated cycles of three children."""
    corpus = load_corpus("sprsound", data_root / "sprsound", split="val")
    path = tmp_path_factory.mktemp("few") / "few.csv"
    corpus.where(lambda recording: recording.patient in corpus.patients[:3]).to_csv(path)
    return path


def command(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    with pytest.raises(SystemExit) as ended:
        run([str(word) for word in (*words, "--json")])
    assert ended.value.code in (0, None)
    return dict(json.loads(capsys.readouterr().out))


def test_figures_are_those_of_the_command(few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = command(capsys, "evaluate", "default", "csv", few, "--split", "val", "--bootstrap", "50", "--by", "sex")
    found = edge_sdk.evaluate("default", "csv", few, split="val", resamples=50, by=["sex"])
    assert json.loads(json.dumps(found)) == expected
    again = edge_sdk.evaluate(edge_sdk.load_bundle(), "csv", str(few), split="val", resamples=50)
    assert again["auroc"] == expected["auroc"]


def test_segmenter_figures_are_those_of_the_command(few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = command(capsys, "segment-eval", "default", "csv", few, "--split", "val", "--bootstrap", "20")
    found = evaluate_segmenter("default", "csv", few, split="val", resamples=20)
    assert json.loads(json.dumps(found)) == expected


def test_what_cannot_be_evaluated_raises_the_typed_error(few: Path, tmp_path: Path) -> None:
    with pytest.raises(edge_sdk.CorpusError, match="unknown corpus"):
        edge_sdk.evaluate("default", "elsewhere", few)
    with pytest.raises(edge_sdk.BundleError, match="does not exist"):
        edge_sdk.evaluate(tmp_path / "none", "csv", few)
    with pytest.raises(edge_sdk.CheckpointError, match="does not exist"):
        edge_sdk.evaluate(tmp_path / "none.pt", "csv", few)
    with pytest.raises(edge_sdk.CorpusError, match=r"has no split 'test'"):
        evaluate_segmenter("default", "csv", few, split="test")
