"""Every packaged recipe, at its tiny size, trains, validates, resumes and evaluates on twenty real recordings."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from edge_sdk.corpora import Corpus, load_corpus
from edge_sdk.training.checkpoint import load_checkpoint
from edge_sdk.training.loop.fit import Step
from edge_sdk.training.recipes.recipe import Recipe, load_recipe, recipe_names
from edge_sdk.training.run import run_training
from edge_sdk.training.run_folder import STATE_FILE, RunOptions

_RECORDINGS = 20
_NAMES = [name for name in recipe_names() if load_recipe(name).task == "classify"]


@pytest.fixture(scope="module")
def few(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty recordings of SPRSound as a generic table: sixteen to train on, four patients' to validate on."""
    corpus = load_corpus("sprsound", data_root / "sprsound", split="train")
    chosen = _varied(corpus)
    patients = sorted({recording.patient for recording in corpus.recordings if recording.id in chosen})
    held_out = set(patients[::5])
    kept = corpus.where(lambda recording: recording.id in chosen)
    root = tmp_path_factory.mktemp("few")
    kept.to_csv(root / "cycles.csv")
    lines = (root / "cycles.csv").read_text(encoding="utf-8").splitlines()
    columns = lines[0].split(",")
    rows = [dict(zip(columns, line.split(","), strict=True)) for line in lines[1:]]
    for row in rows:
        row["split"] = "val" if row["patient"] in held_out else "train"
    text = "\n".join([",".join(columns), *(",".join(row.values()) for row in rows)])
    (root / "cycles.csv").write_text(text, encoding="utf-8")
    return root


def _varied(corpus: Corpus) -> set[str]:
    """Recordings of different patients, abnormal ones first and in turn."""
    labels: dict[str, list[tuple[str, str]]] = {}
    for cycle in corpus.cycles:
        labels.setdefault(cycle.label, []).append((cycle.recording_id, cycle.patient))
    chosen: dict[str, str] = {}  # patient → recording
    turn = 0
    while len(chosen) < _RECORDINGS:
        for label in ("both", "wheeze", "crackle", "normal"):
            candidates = labels[label]
            if turn < len(candidates) and len(chosen) < _RECORDINGS:
                recording, patient = candidates[turn]
                chosen.setdefault(patient, recording)
        turn += 1
    return set(chosen.values())


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STETHO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def _stop_in_second_epoch(step: Step) -> None:
    if step.epoch == 1:
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", _NAMES)
def test_tiny_size_trains_validates_resumes_and_evaluates(name: str, few: Path, tmp_path: Path) -> None:
    # tests/training/classification/test_joint.py has several corpora
    alone = [
        "joint.extra=[]",
        "joint.unlabelled=[]",
        "joint.shares={}",
        "joint.noise=''",
        "joint.noise_share=0",
        "joint.noise_mixed=false",
    ]
    recipe = load_recipe(name, size="tiny", overrides=["heart_corpus=null", "fit.epochs=2", "per_epoch=48", *alone])
    options = RunOptions(corpus="csv", root=few, out=tmp_path / "run", resamples=0)
    with pytest.raises(KeyboardInterrupt):
        run_training(recipe, options, on_step=_stop_in_second_epoch)
    assert (options.out / STATE_FILE).is_file()
    metrics = run_training(recipe, options)
    assert len(metrics["losses"]) == 2
    assert metrics["losses"][1] < metrics["losses"][0]
    assert metrics["n"] > 0 and metrics["score"] is not None
    _gives_probabilities(Path(metrics["checkpoint"]), recipe)


def _gives_probabilities(path: Path, recipe: Recipe) -> None:
    """The checkpoint alone is enough, also without a word about the patient."""
    checkpoint = load_checkpoint(path, model=recipe.model.name)
    model = checkpoint.build_end_to_end()
    with torch.no_grad():
        logits = model(0.1 * torch.randn(2, recipe.spec.window_samples))
    assert logits.shape == (2, len(recipe.labels))
    assert all(math.isfinite(value) for value in logits.flatten().tolist())
    assert (checkpoint.metadata_schema is None) == (recipe.metadata is None)
