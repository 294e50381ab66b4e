"""A checkpoint is one file that can be used without any other, or is refused with the fix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_sdk.errors import CheckpointError
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.training.building import build_recipe_model
from edge_sdk.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edge_sdk.training.recipes.recipe import Recipe


@pytest.fixture
def checkpoint(recipe: Recipe) -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(
        model="compact",
        size="tiny",
        recipe=recipe.to_dict(),
        front_end=recipe.spec,
        labels=recipe.labels,
        decoder="softmax",
        temperature=1.25,
        bias=(0.5, 0.0, 0.0, 0.0),
        state=build_recipe_model(recipe).state_dict(),
        metrics={"score": 0.5, "auroc_ci": (0.1, 0.2), "confusion": [[1, 2], [3, 4]]},
        provenance={"corpus": "sprsound", "git_commit": None, "seed": 3},
    )


def test_everything_comes_back(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "run" / "checkpoint.pt"
    save_checkpoint(checkpoint, path)
    loaded = load_checkpoint(path, model="compact")
    assert loaded.front_end == checkpoint.front_end
    assert (loaded.labels, loaded.temperature, loaded.bias) == (checkpoint.labels, 1.25, (0.5, 0.0, 0.0, 0.0))
    assert Recipe.from_dict(loaded.recipe) == Recipe.from_dict(checkpoint.recipe)
    assert loaded.metrics["auroc_ci"] == [0.1, 0.2]
    assert loaded.provenance == checkpoint.provenance
    assert all(torch.equal(loaded.state[name], tensor) for name, tensor in checkpoint.state.items())
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint.pt"]


def test_pcm_goes_in_and_logits_come_out(checkpoint: Checkpoint) -> None:
    pcm = torch.randn(2, checkpoint.front_end.window_samples) * 0.1
    logits = checkpoint.build_end_to_end()(pcm)
    expected = checkpoint.build()(FoldedFrontEnd(checkpoint.front_end)(pcm))
    assert logits.shape == (2, 4)
    torch.testing.assert_close(logits, expected)


def _edited(checkpoint: Checkpoint, path: Path, **changes: Any) -> Path:
    save_checkpoint(checkpoint, path)
    content = torch.load(path, weights_only=True)
    content.update(changes)
    torch.save({key: value for key, value in content.items() if value is not ...}, path)
    return path


def test_unusable_files_are_refused_with_the_fix(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    with pytest.raises(CheckpointError, match="stetho train"):
        load_checkpoint(path)
    path.write_bytes(b"no zip")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_checkpoint(path)
    torch.save({"epoch": 1}, path)
    with pytest.raises(CheckpointError, match="not written by 'stetho train'"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"newer SDK.*upgrade"):
        load_checkpoint(_edited(checkpoint, path, schema=99))
    for schema in (0, "two", None, ...):
        with pytest.raises(CheckpointError, match=r"has schema .*, which no SDK writes"):
            load_checkpoint(_edited(checkpoint, path, schema=schema))
    for name, wrong in {"labels": ..., "recipe": 3, "size": None, "state_dict": []}.items():
        with pytest.raises(CheckpointError, match=rf"incomplete.*{name}"):
            load_checkpoint(_edited(checkpoint, path, **{name: wrong}))
    with pytest.raises(CheckpointError, match=r"incomplete \(labels is \[\]\)"):
        load_checkpoint(_edited(checkpoint, path, labels=[]))


def test_checkpoint_of_another_model_is_refused_with_the_fix(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = _edited(checkpoint, tmp_path / "c.pt", model="ast")
    with pytest.raises(CheckpointError, match=r"model 'ast', not 'compact'.*--set model.name"):
        load_checkpoint(path, model="compact")


def test_tensors_of_another_size_are_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match="does not fit model 'compact' size 'small'"):
        replace(checkpoint, size="small").build()
