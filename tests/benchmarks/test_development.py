"""The study of the development protocol: rows per corpus and task, models by fold, tables for people."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

import benchmarks.studies.development as study
from benchmarks.core.rows import read_results
from benchmarks.studies.development import Models, markdown_page, score, score_folds
from edge_sdk.corpora import Corpus
from edge_sdk.evaluation.model import ModelUnderTest, load_model
from edge_sdk.evaluation.protocol import development_corpus, fold_of_patient, patient_folds


@pytest.fixture(scope="module")
def few(data_root: Path) -> Corpus:
    """The first two ICBHI patients."""
    whole = development_corpus("icbhi", data_root / "icbhi")
    return whole.where(lambda recording: recording.patient in whole.patients[:2])


def test_one_pass_gives_what_the_commands_give(few: Corpus) -> None:
    from edge_sdk.evaluation.segmentation import score_corpus
    from edge_sdk.evaluation.verdicts import read_verdicts
    from edge_sdk.runtime.bundle.load import load_bundle

    model = load_model("default")
    found = score(model, few, ("segmentation", "cycles", "verdicts"))
    expected = score_corpus(load_bundle(), few, lambda what, done, total: None)
    assert [row.found.tolist() for row in found.cycles] == [row.found.tolist() for row in expected]
    assert [row.announcements for row in found.cycles] == [row.announcements for row in expected]
    assert list(found.verdicts) == read_verdicts(model, few)
    assert found.predicted is not None and len(found.predicted.truth) == len(few.cycles)
    only = {few.recordings[0].id}
    part = found.of_recordings(only)
    assert {row.name for row in part.cycles} == {row.recording for row in part.verdicts} == only
    assert part.predicted is not None and {item["recording"] for item in part.predicted.items} == only


def test_every_recording_is_scored_by_the_model_of_its_fold(few: Corpus) -> None:
    folds = patient_folds([few], 2, seed=4)
    asked: list[str] = []

    def model_of(fold: Any) -> ModelUnderTest:
        asked.append(fold.name)
        return replace(load_model("default"), name=f"fold {fold.name}")

    pooled = score_folds(folds, few, ("cycles",), model_of)
    assert asked == ["0", "1"] and pooled.predicted is not None
    assert sorted(item["recording"] for item in pooled.predicted.items) == sorted(c.recording_id for c in few.cycles)
    first = next(fold for fold in folds if fold.name == "0")
    fold_of = fold_of_patient(few, 2, seed=4)
    assert {p for p, k in fold_of.items() if k == 0} == set(first.held_out["icbhi"].patients)


def test_models_by_fold_are_found_by_seed_and_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(study, "load_model", lambda path: loaded.append(path))
    Models("runs/seed{seed}/fold{fold}").load(2, "3")
    Models("runs/{fold}").load(0, "Littmann Classic II SE")
    Models("default").load(1, "4")
    assert loaded == ["runs/seed2/fold3", "runs/littmann-classic-ii-se", "default"]
    assert Models("a/{fold}").by_fold and Models("default", "s/{fold}.onnx").by_fold and not Models("default").by_fold


def test_the_command_writes_rows_and_tables(data_root: Path, tmp_path: Path) -> None:
    app = Typer()
    app.command()(study.main)
    out = tmp_path / "development.json"
    arguments = ["--root", str(data_root), "--corpus", "kauh", "--corpus", "icbhi", "--quick", "--bootstrap", "0"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert list(read_results(out).rows) == rows
    assert [(row["corpus"], row["task"]) for row in rows[1:]] == [
        ("kauh", "verdicts"), ("icbhi", "segmentation"), ("icbhi", "cycles"), ("icbhi", "verdicts"),
    ]  # fmt: skip
    assert rows[1]["figures"]["n"] == 9 and rows[1]["seen_in_training"] is None
    assert rows[4]["figures"]["auroc_3s"] == rows[4]["figures"]["auroc_by_seconds"][0]["auroc"]
    page = out.with_suffix(".md").read_text()
    assert "## Segmentation" in page and "| kauh, all | 9 |" in page and str(data_root) not in page
    wrong = CliRunner().invoke(app, ["--corpus", "elsewhere"])
    assert wrong.exit_code == 2 and "elsewhere" in wrong.output


def test_rows_of_other_corpora_can_be_kept(data_root: Path, tmp_path: Path) -> None:
    app = Typer()
    app.command()(study.main)
    out = tmp_path / "development.json"

    def run(*corpora: str) -> list[dict[str, Any]]:
        words = [word for name in corpora for word in ("--corpus", name)]
        arguments = ["--root", str(data_root), *words, "--quick", "--bootstrap", "0", "--out", str(out), "--add"]
        assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
        return [row for row in read_results(out).rows if row["benchmark"] == "development"]

    (first,) = run("kauh")
    rows = run("hf_lung_labels")
    assert [row["corpus"] for row in rows] == ["kauh", "hf_lung_labels"] and rows[0] == first
    assert "--corpus kauh" in rows[0]["command"] and "--corpus hf_lung_labels" in rows[1]["command"]
    assert [row["corpus"] for row in run("kauh")] == ["hf_lung_labels", "kauh"]  # scored again, not twice
    page = out.with_suffix(".md").read_text()
    assert page.count("`python -m benchmarks.studies.development") == 2


def test_figures_over_seeds_are_shown_with_their_deviation() -> None:
    row = {
        "benchmark": "development", "subject": {"model": "m 1", "artefact": "onnx"}, "task": "cycles",
        "corpus": "icbhi", "split": "val", "seen_in_training": None,
        "figures": {"over_seeds": {"auroc": {"mean": 0.8, "sd": 0.012, "n": 3}, "n": {"mean": 10, "sd": None, "n": 1}}},
    }  # fmt: skip
    (line,) = [line for line in markdown_page([row], "c").splitlines() if line.startswith("| icbhi, val |")]
    assert "| 10 |" in line and "| 0.800 ± 0.012 |" in line and "| – |" in line
    trained = markdown_page([row | {"seen_in_training": "train"}], "c")
    assert "| icbhi, val\\* |" in trained
