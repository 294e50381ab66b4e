"""Many runs from one command: every one in its own folder, a table at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.errors import RecipeError
from edge_sdk.training import sweep
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run_folder import RunOptions
from edge_sdk.training.sweep import plan_runs, summarise_runs, train_runs


def test_every_combination_and_seed_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    runs = plan_runs(
        "ast-sam", tmp_path, size="tiny", sweeps=["sam.rho=0.01,0.02", "batch=8,16"], seeds=3, first_seed=5
    )
    assert len(runs) == len({run.folder for run in runs}) == 12
    assert {run.seed for run in runs} == {5, 6, 7}
    rho = [run.recipe.optimiser.sam.rho for run in runs if run.recipe.optimiser.sam is not None]
    assert (rho[0], rho[-1]) == (0.01, 0.02)
    assert runs[0].folder == tmp_path / "sam.rho=0.01_batch=8" / "seed-5"


def test_one_plain_run_needs_no_folders(tmp_path: Path) -> None:
    (run,) = plan_runs("compact", tmp_path)
    assert (run.folder, run.settings, run.seed) == (tmp_path, (), 0)


@pytest.mark.parametrize("wrong", ["sam.rho", "sam.rho=", "=1,2", "sam.rho=[", "fit.epoch=1,2"])
def test_sweeps_without_values_are_refused_before_any_run(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        plan_runs("ast-sam", tmp_path, sweeps=[wrong])


def test_same_setting_swept_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="same setting twice"):
        plan_runs("compact", tmp_path, sweeps=["batch=8,8"])


def test_interrupted_sweep_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That a finished run is not trained twice is the promise of a run: tests/training/test_data_identity.py."""
    begun: list[tuple[str, int]] = []

    def stub(recipe: Recipe, options: RunOptions, **_: Any) -> dict[str, Any]:
        begun.append((options.out.parent.name, options.seed))
        if len(begun) == 3:
            raise KeyboardInterrupt
        return {"seed": options.seed, "score": recipe.fit.batch / 100 + options.seed / 10}

    monkeypatch.setattr(sweep, "run_training", stub)
    runs = plan_runs("compact", tmp_path, sweeps=["batch=8,16"], seeds=2)
    options = RunOptions(corpus="csv", root=tmp_path, out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train_runs(runs, options)
    rows = train_runs(runs, options)
    assert begun[3:] == [("batch=8", 0), ("batch=8", 1), ("batch=16", 0), ("batch=16", 1)]
    assert [row["settings"] for row in rows] == [["batch=8"], ["batch=16"]]
    assert rows[0]["score"] == pytest.approx(0.13) and rows[0]["score_sd"] == pytest.approx(0.0707, abs=1e-4)
    assert json.loads((tmp_path / "runs.json").read_text()) == rows


def test_one_seed_has_no_deviation_and_missing_figures_stay_away() -> None:
    row = summarise_runs((), [{"seed": 0, "folder": "x", "score": 0.5, "auroc": None}])
    assert (row["score"], row["score_sd"], row["score_runs"]) == (0.5, None, [0.5])
    assert "auroc" not in row
