"""``stetho train``: fit a recipe on a corpus, once or many times over, or list the recipes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_sdk.cli.messages import emit_json
from edge_sdk.cli.options import JsonOption
from edge_sdk.cli.progress import Report, progress_bar
from edge_sdk.cli.tables import Column, print_table

if TYPE_CHECKING:
    from edge_sdk.training.loop.fit import Step
    from edge_sdk.training.recipes.recipe import Recipe
    from edge_sdk.training.run_folder import RunOptions
    from edge_sdk.training.sweep import PlannedRun

_FIGURES = (
    "n", "score", "sensitivity", "specificity", "score_2class", "auroc", "ece",
    "n_true", "n_predicted", "event_f1", "event_f1_regional", "event_f1_iou70", "onset_f1_200ms",
    "detection_delay_p95_s", "revision_rate", "rate_mae_bpm", "rate_within_15pct", "error_answered",
    "uncertain_fraction",
)  # fmt: skip


def train_command(
    recipe: Annotated[str | None, typer.Argument(help="Packaged recipe, or a .yaml file.", metavar="RECIPE")] = None,
    corpus: Annotated[str, typer.Option("--corpus", help="Corpus: the publisher's layout of --root.")] = "sprsound",
    root: Annotated[Path | None, typer.Option("--root", help="Folder of the corpus.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run; one that was interrupted resumes.")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="tiny, small or base; the recipe's own by default.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a setting: fit.epochs=10, or short epochs=10.", metavar="KEY=VALUE"),
    ] = None,
    sweeps: Annotated[
        list[str] | None,
        typer.Option("--sweep", help="Run each value: sam.rho=0.01,0.02; repeat for a grid.", metavar="KEY=V,V"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")] = 0,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of trainings, with seeds from --seed on.")] = 1,
    folds: Annotated[
        int, typer.Option("--cv", min=0, help="Cross-validate over this many patient folds instead of training once.")
    ] = 0,
    split: Annotated[str, typer.Option("--split", help="Split to train on.")] = "train",
    val_split: Annotated[str, typer.Option("--val-split", help="Split to report on.")] = "val",
    device: Annotated[str, typer.Option("--device", help="Device: cpu, cuda or auto.")] = "cpu",
    logs: Annotated[
        list[str] | None,
        typer.Option("--log", help="Logger: csv, tensorboard or mlflow; csv and what is installed by default."),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="CPU threads; the same number gives the same bits.")
    ] = 1,
    partial: Annotated[bool, typer.Option("--partial", help="Accept an incomplete copy of the corpus.")] = False,
    list_recipes: Annotated[bool, typer.Option("--list", help="List recipes and sizes, and exit.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a recipe into a self-contained checkpoint; resumable after Ctrl-C by the same command.

    Several processes: torchrun --nproc-per-node N -m edge_sdk.cli.main train ...
    """
    from edge_sdk.extras import require_torch

    if not list_recipes and (recipe is None or root is None or out is None):
        raise typer.BadParameter("give RECIPE, --root and --out, or --list")
    if folds == 1:
        raise typer.BadParameter("--cv needs at least 2 folds")
    if folds and sweeps:
        raise typer.BadParameter("--cv does not go with --sweep")
    if device not in ("cpu", "cuda", "auto"):
        raise typer.BadParameter(f"--device is {device!r}, must be cpu, cuda or auto")
    require_torch()
    if list_recipes:
        _list(as_json)
        return
    assert recipe is not None and root is not None and out is not None
    from edge_sdk.training.run_folder import RunOptions
    from edge_sdk.training.sweep import plan_runs

    runs = plan_runs(
        recipe, out, size=size, overrides=settings or (), sweeps=sweeps or (), seeds=seeds, first_seed=seed
    )
    options = RunOptions(
        corpus=corpus,
        root=root,
        out=out,
        seed=seed,
        train_split=split,
        val_split=val_split,
        partial=partial,
        threads=threads,
        device=device,
        logs=tuple(logs) if logs else None,
    )
    try:
        if folds and seeds > 1:
            _cross_validate_seeds(runs[0].recipe, options, folds, seeds, as_json=as_json)
        else:
            _dispatch(runs, options, folds, many=bool(sweeps) or seeds > 1, as_json=as_json)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; the same command resumes from the last epoch in {out}") from None


def _dispatch(runs: list[PlannedRun], options: RunOptions, folds: int, *, many: bool, as_json: bool) -> None:
    recipe = runs[0].recipe
    identity = {"recipe": recipe.name, "size": recipe.model.size}
    if many:
        rows = _run_many(runs, options, quiet=as_json)
        if as_json:
            for row in rows:
                emit_json({"type": "train_runs", **identity, **row})
        else:
            _print_runs(rows)
        return
    result = _run(recipe, options, folds, quiet=as_json)
    if "checkpoint" not in result and not folds:
        return  # a process after the first
    if as_json:
        emit_json({"type": "cv" if folds else "train", **identity, **result})
    else:
        _print_result(result, folds)


class _TrainingProgress:
    """Callbacks of training, shown by one bar."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.prefix = ""

    def on_read(self, what: str, done: int, total: int) -> None:
        self._report(self.prefix + what, done, total)

    def on_step(self, step: Step) -> None:
        what = f"{self.prefix}epoch {step.epoch + 1}/{step.epochs} loss {step.loss:.3f}"
        self._report(what, step.epoch * step.steps + step.step, step.epochs * step.steps)


def _run(recipe: Recipe, options: RunOptions, folds: int, *, quiet: bool) -> dict[str, Any]:
    from edge_sdk.training.run import run_cross_validation, run_training

    with progress_bar("reading recordings", quiet=quiet) as report:
        shown = _TrainingProgress(report)

        def on_fold_step(fold: int, step: Step) -> None:
            shown.prefix = f"fold {fold + 1}/{folds} "
            shown.on_step(step)

        if folds:
            return run_cross_validation(recipe, options, folds, on_read=shown.on_read, on_step=on_fold_step)
        return run_training(recipe, options, on_read=shown.on_read, on_step=shown.on_step)


def _cross_validate_seeds(recipe: Recipe, options: RunOptions, folds: int, seeds: int, *, as_json: bool) -> None:
    from edge_sdk.training.sweep import cross_validate_seeds

    with progress_bar("reading recordings", quiet=as_json) as report:
        shown = _TrainingProgress(report)

        def on_step(fold: int, step: Step) -> None:
            shown.prefix = f"fold {fold + 1}/{folds} "
            shown.on_step(step)

        result = cross_validate_seeds(recipe, options, folds, seeds, on_read=shown.on_read, on_step=on_step)
    if as_json:
        emit_json({"type": "cv_seeds", "recipe": recipe.name, "size": recipe.model.size, **result})
        return
    rows = {"all": result["metrics"], **result["by"]}
    _print_runs([{**row, "settings": [name]} for name, row in rows.items() if row])


def _run_many(runs: list[PlannedRun], options: RunOptions, *, quiet: bool) -> list[dict[str, Any]]:
    from edge_sdk.training.sweep import train_runs

    with progress_bar("reading recordings", quiet=quiet) as report:
        shown = _TrainingProgress(report)

        def on_run(number: int, run: PlannedRun) -> None:
            shown.prefix = f"run {number + 1}/{len(runs)} {' '.join(run.settings)} seed {run.seed} "

        return train_runs(runs, options, on_run=on_run, on_read=shown.on_read, on_step=shown.on_step)


def _list(as_json: bool) -> None:
    from edge_sdk.training.listing import recipe_table

    rows = recipe_table()
    if as_json:
        for row in rows:
            emit_json(row)
    else:
        _print_recipes(rows)


def _print_recipes(rows: list[dict[str, Any]]) -> None:
    sizes, papers = [], []
    for row in rows:
        mark = " (default)" if row["default"] else ""
        parameters = "-" if row["parameters"] is None else f"{row['parameters']:,}"
        sizes.append([row["name"], row["size"] + mark, parameters, row["model"], row["title"]])
        if row["default"]:
            papers.append([row["name"], row["protocol"], row["paper"] or "-"])
    name, size, parameters_column = Column("recipe", "name"), Column("size", "name"), Column("parameters", keep=True)
    print_table([name, size, parameters_column, Column("model", "text"), Column("title", "text")], sizes)
    typer.echo()
    print_table([name, Column("protocol", "text", keep=True), Column("paper", "text", keep=True)], papers)


def _print_result(result: dict[str, Any], folds: int) -> None:
    from edge_sdk.training.sweep import WHOLE, figures_by_part

    parts = figures_by_part(result) if folds else {WHOLE: result}
    figures = parts.pop(WHOLE, {})
    rows = []
    for name in _FIGURES:
        if figures.get(name) is not None:
            interval = figures.get(f"{name}_ci")
            span = f"  [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
            value = figures[name]
            rows.append([name, f"{value:.3f}{span}" if isinstance(value, float) else f"{value}"])
    if parts:
        _print_parts(parts)
    elif not rows:
        typer.echo("no validation cycles: nothing measured")
    if folds and "decision" in result:
        decision = result["decision"]
        rows.append(["decision", f"temperature {decision['temperature']}, bias {decision['bias']}"])
    elif folds:
        rows += [[name, f"{value:g}"] for name, value in result.get("decoder", {}).items()]
    else:
        rows.append(["checkpoint", str(result["checkpoint"])])
    if rows:
        print_table([Column("", "name"), Column("", "name")], rows, header=False)


def _print_parts(parts: Mapping[str, Mapping[str, Any]]) -> None:
    names = [name for name in _FIGURES if any(figures.get(name) is not None for figures in parts.values())]
    columns = [Column("of", "name"), *(Column(name.replace("_", " ")) for name in names)]
    print_table(columns, [[part, *(_figure(figures.get(name)) for name in names)] for part, figures in parts.items()])


def _figure(value: int | float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value}"


def _print_runs(rows: list[dict[str, Any]]) -> None:
    names = [name for name in _FIGURES if any(name in row for row in rows)]
    columns = [Column("settings", "name"), Column("seeds"), *(Column(name.replace("_", " ")) for name in names)]
    cells = []
    for row in rows:
        figures = [_mean(row.get(name), row.get(f"{name}_sd")) for name in names]
        cells.append([" ".join(row["settings"]) or "-", str(len(row["seeds"])), *figures])
    print_table(columns, cells)


def _mean(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "-"
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"
