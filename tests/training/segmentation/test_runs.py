"""Training runs of the segmenter: resumable, repeatable, with a checkpoint that holds all it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edge_sdk.errors import CheckpointError, CorpusError, RecipeError
from edge_sdk.models.segmenter import delay_frames
from edge_sdk.training.checkpoint import load_checkpoint
from edge_sdk.training.loop.fit import Step
from edge_sdk.training.run import run_training
from edge_sdk.training.run_folder import RunOptions
from edge_sdk.training.segmentation.building import LABELS, checkpoint_segmenter, decoder_params
from edge_sdk.training.segmentation.run import held_out_patients, train_segmenter
from edge_sdk.training.untrained import untrained_checkpoint
from tests.support.tiny_segmentation import tiny_recipe, write_corpus


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the corpus and its cache."""
    folder = tmp_path_factory.mktemp("segmentation")
    write_corpus(folder / "corpus")
    return folder


def _options(root: Path, out: Path) -> RunOptions:
    return RunOptions("sprsound", root / "corpus", out, cache=root / "cache", logs=(), resamples=0)


def test_tiny_run_writes_a_checkpoint_and_resumes_to_the_same_weights(root: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("fit.validation_share=0.2", "segment.window_s=4.0")

    def run(out: str, stop_in: int | None = None) -> dict[str, Any]:
        def stop(step: Step) -> None:
            if step.epoch == stop_in:
                raise KeyboardInterrupt

        return run_training(recipe, _options(root, tmp_path / out), on_step=stop)

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("parts", stop_in=1)
    resumed = run("parts")
    states = [load_checkpoint(Path(result["checkpoint"])).state for result in (whole, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert whole["losses"] == resumed["losses"] and len(whole["losses"]) == 2
    assert {"event_f1", "event_f1_regional", "rate_within_15pct", "validation", "best_epoch"} <= set(whole)
    checkpoint = load_checkpoint(Path(whole["checkpoint"]))
    model, kept = checkpoint_segmenter(checkpoint)
    assert not model.training and kept.segment == recipe.segment
    assert tuple(checkpoint.labels) == LABELS and len(LABELS) == model.head.out_features
    assert model.delay == delay_frames(recipe.spec, 0.24) == 5  # output frames of 40 ms
    assert decoder_params(kept).to_dict() == decoder_params(recipe).to_dict()


def test_another_seed_gives_other_weights(root: Path, tmp_path: Path) -> None:
    recipe, states = tiny_recipe("fit.epochs=1", "segment.window_s=4.0"), []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        options = RunOptions(
            "sprsound", root / "corpus", tmp_path / name, seed=seed, cache=root / "cache", logs=(), resamples=0
        )
        states.append(load_checkpoint(Path(train_segmenter(recipe, options)["checkpoint"])).state)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_held_out_patients_are_a_repeatable_share() -> None:
    patients = [f"p{k}" for k in range(50)]
    assert len(held_out_patients(patients, 0.1, 0)) == 5
    assert held_out_patients(patients, 0.1, 0) == held_out_patients(patients[::-1], 0.1, 0)
    assert held_out_patients(patients, 0.1, 0) != held_out_patients(patients, 0.1, 1)
    assert held_out_patients(patients, 0.0, 0) == set()
    with pytest.raises(RecipeError, match="leaves none"):
        held_out_patients(["a"], 0.5, 0)


@pytest.mark.parametrize("name", ["cycle_corpus", "clip_corpus", "noise_corpus"])
def test_a_corpus_that_is_not_there_is_named(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STETHO_DATA", raising=False)
    recipe = tiny_recipe(f"segment.{name}=nowhere")
    with pytest.raises(CorpusError, match=r"corpus nowhere for training: .*nowhere does not exist; set STETHO_DATA"):
        train_segmenter(recipe, _options(root, tmp_path / "run"))


def test_a_classifier_is_no_segmenter() -> None:
    with pytest.raises(CheckpointError, match="not of a segmenter"):
        checkpoint_segmenter(untrained_checkpoint("compact", size="tiny"))


def test_weights_of_another_network_are_refused(root: Path, tmp_path: Path) -> None:
    """As those of an older SDK, whose network had other outputs."""
    from dataclasses import replace

    result = train_segmenter(tiny_recipe("fit.epochs=1", "segment.window_s=4.0"), _options(root, tmp_path / "run"))
    checkpoint = load_checkpoint(Path(result["checkpoint"]))
    older = {name: tensor for name, tensor in checkpoint.state.items() if not name.startswith(("down", "tempo"))}
    for state in (older, older | {"head.weight": torch.zeros(6, 12)}):
        with pytest.raises(CheckpointError, match="does not fit the segmenter"):
            checkpoint_segmenter(replace(checkpoint, state=state))
