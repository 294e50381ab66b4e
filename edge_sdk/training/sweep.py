"""Many runs of one recipe, over seeds and settings; each in its own folder; finished runs are not repeated."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_sdk.errors import RecipeError
from edge_sdk.training.adventitious.run import CALIBRATION
from edge_sdk.training.adventitious.run import FIGURES as CALIBRATION_FIGURES
from edge_sdk.training.audio.bank import Progress
from edge_sdk.training.loop.fit import Step
from edge_sdk.training.recipes.recipe import Recipe, load_recipe
from edge_sdk.training.recipes.values import expand_sweeps
from edge_sdk.training.run import run_cross_validation, run_training
from edge_sdk.training.run_folder import CV_SEEDS_FILE, SWEEP_FILE, RunOptions, write_json

FIGURES = (
    "score", "sensitivity", "specificity", "score_2class", "auroc", "ece", "auroc_crackle", "auroc_wheeze",
    "event_f1", "event_f1_regional", "onset_f1_200ms", "rate_mae_bpm", "rate_mae_8_to_80_bpm", "rate_within_15pct",
    "rate_bias_40_to_80_bpm", "detection_delay_p95_s", "revision_rate", "error_answered", "uncertain_fraction",
)  # fmt: skip
"""Figures of a classifier, a segmenter and a verdict that several runs are compared by."""


WHOLE = "all"
"""Part of a classifier's figures that are of all its cycles."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep."""

    settings: tuple[str, ...]  # overrides that distinguish it from the others
    seed: int
    recipe: Recipe
    folder: Path


def plan_runs(
    name: str,
    out: Path,
    *,
    size: str | None = None,
    overrides: Sequence[str] = (),
    sweeps: Iterable[str] = (),
    seeds: int = 1,
    first_seed: int = 0,
) -> list[PlannedRun]:
    """All combinations of the swept settings, each with ``seeds`` seeds; all recipes are checked first.

    Raises
    ------
    RecipeError
        As ``load_recipe``; a sweep without values.
    """
    combinations = expand_sweeps(sweeps)
    runs = []
    for settings in combinations:
        recipe = load_recipe(name, size=size, overrides=[*overrides, *settings])
        folder = out / "_".join(_folder_name(item) for item in settings) if settings else out
        for seed in range(first_seed, first_seed + seeds):
            own = folder / f"seed-{seed}" if seeds > 1 else folder
            runs.append(PlannedRun(tuple(settings), seed, recipe, own))
    folders = [run.folder for run in runs]
    if len(set(folders)) != len(folders):
        raise RecipeError("--sweep names the same setting twice; each run needs a folder of its own")
    return runs


def train_runs(
    runs: Sequence[PlannedRun],
    options: RunOptions,
    *,
    on_run: Callable[[int, PlannedRun], None] | None = None,
    on_read: Progress | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> list[dict[str, Any]]:
    """Train one after another; the same call continues an interrupted one.

    Returns
    -------
    list of dict
        One row for each combination of settings: ``settings``, ``seeds``, and each figure as its mean with ``…_sd``
        (None for one seed) and ``…_runs``; also written to ``runs.json``.
    """
    figures: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for number, run in enumerate(runs):
        if on_run is not None:
            on_run(number, run)
        own = replace(options, out=run.folder, seed=run.seed)
        metrics = run_training(run.recipe, own, on_read=on_read, on_step=on_step)  # knows a finished run by its data
        figures.setdefault(run.settings, []).append({**metrics, "seed": run.seed, "folder": str(run.folder)})
    rows = [summarise_runs(settings, results) for settings, results in figures.items()]
    write_json(options.out / SWEEP_FILE, rows)
    return rows


def cross_validate_seeds(
    recipe: Recipe,
    options: RunOptions,
    folds: int,
    seeds: int,
    *,
    on_read: Progress | None = None,
    on_step: Callable[[int, Step], None] | None = None,
) -> dict[str, Any]:
    """Cross-validate with several seeds, each with folds of its own; the same call continues an interrupted one.

    Parameters
    ----------
    recipe, options, folds, on_read, on_step
        As for :func:`~edge_sdk.training.run.run_cross_validation`; ``options.seed`` is the first seed.
    seeds
        Number of cross-validations, each in ``seed-N`` of ``options.out``.

    Returns
    -------
    dict
        ``metrics`` of a classifier, and ``by`` corpus, kind of annotation and the like: each figure as its mean with
        ``…_sd`` and ``…_runs``; also written to ``cv-seeds.json``.
    """
    reports, folders = [], []
    for seed in range(options.seed, options.seed + seeds):
        folder = options.out / f"seed-{seed}"
        own = replace(options, out=folder, seed=seed)
        reports.append(run_cross_validation(recipe, own, folds, on_read=on_read, on_step=on_step))
        folders.append(str(folder))

    def summary(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        rows = zip(figures, range(options.seed, options.seed + seeds), folders, strict=True)
        row = summarise_runs((), [{**found, "seed": seed, "folder": folder} for found, seed, folder in rows])
        return {name: value for name, value in row.items() if name != "settings"}

    parts = [figures_by_part(report) for report in reports]
    names = [name for name in parts[0] if all(name in found for found in parts)]
    by = {name: summary([found[name] for found in parts]) for name in names}
    result = {"folds": folds, "metrics": by.pop(WHOLE, {}), "by": by}
    write_json(options.out / CV_SEEDS_FILE, result)
    return result


def figures_by_part(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Figures of one cross-validation by corpus, kind of annotation and the like; a classifier's of all as ``all``."""
    metrics = report["metrics"]
    step_network = all(isinstance(figures, Mapping) for figures in metrics.values())
    parts = dict(metrics) if step_network else {WHOLE: metrics, **report.get("by", {})}
    calibrated = report.get(CALIBRATION, {}).get(CALIBRATION_FIGURES, {})
    for corpus, figures in calibrated.get("corpora", {}).items():
        parts |= {f"verdict of {corpus}": figures["end"], f"verdict of {corpus} at 6 s": figures["6s"]}
    parts |= {f"breaths of {origin}": figures for origin, figures in calibrated.get("breaths", {}).items()}
    return parts


def summarise_runs(settings: tuple[str, ...], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation (of a sample, n - 1) of each figure over seeds."""
    row: dict[str, Any] = {
        "settings": list(settings),
        "seeds": [result["seed"] for result in results],
        "folders": [result["folder"] for result in results],
    }
    for name in FIGURES:
        values = [float(result[name]) for result in results if result.get(name) is not None]
        if values:
            row[name] = statistics.fmean(values)
            row[f"{name}_sd"] = statistics.stdev(values) if len(values) > 1 else None
            row[f"{name}_runs"] = values
    return row


def _folder_name(setting: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=+-]+", "-", setting).strip("-")
