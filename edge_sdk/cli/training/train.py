"""``stetho train``: fit a recipe on a corpus, once or many times over, or list the recipes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_sdk.cli.options import JsonOption, emit_json

if TYPE_CHECKING:
    from edge_sdk.training.recipes.recipe import Recipe
    from edge_sdk.training.run import RunOptions
    from edge_sdk.training.sweep import PlannedRun

_FIGURES = (
    "n", "score", "sensitivity", "specificity", "score_2class", "auroc", "ece",
    "n_true", "n_predicted", "event_f1", "event_f1_iou70", "detection_delay_p95_s", "revision_rate", "rate_mae_bpm",
)  # fmt: skip


def train(
    recipe: Annotated[str | None, typer.Argument(help="Packaged recipe, or a .yaml file.", metavar="RECIPE")] = None,
    corpus: Annotated[str, typer.Option("--corpus", help="Which publisher's layout.")] = "sprsound",
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
    seed: Annotated[int, typer.Option("--seed", min=0, help="Everything random follows from it.")] = 0,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Train so many times, from --seed on.")] = 1,
    folds: Annotated[
        int, typer.Option("--cv", min=0, help="Cross-validate over this many patient folds instead of training once.")
    ] = 0,
    split: Annotated[str, typer.Option("--split", help="Split to train on.")] = "train",
    val_split: Annotated[str, typer.Option("--val-split", help="Split to report on.")] = "val",
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or auto.")] = "cpu",
    logs: Annotated[
        list[str] | None,
        typer.Option("--log", help="csv, tensorboard, mlflow; csv and what is installed by default."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="The same number gives the same bits.")] = 1,
    partial: Annotated[bool, typer.Option("--partial", help="Accept an incomplete copy of the corpus.")] = False,
    list_recipes: Annotated[bool, typer.Option("--list", help="List recipes and sizes, and exit.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a recipe into a self-contained checkpoint; resumable after Ctrl-C by the same command.

    Several processes: torchrun --nproc-per-node N -m edge_sdk.cli.main train ...
    """
    from edge_sdk.cli.needs import need_torch

    if not list_recipes and (recipe is None or root is None or out is None):
        raise typer.BadParameter("give RECIPE, --root and --out, or --list")
    if folds == 1:
        raise typer.BadParameter("--cv needs at least 2 folds")
    if folds and (sweeps or seeds > 1):
        raise typer.BadParameter("--cv goes with neither --sweep nor --seeds")
    if device not in ("cpu", "cuda", "auto"):
        raise typer.BadParameter(f"--device is {device!r}, must be cpu, cuda or auto")
    need_torch()
    if list_recipes:
        _list(as_json)
        return
    assert recipe is not None and root is not None and out is not None
    from edge_sdk.training.run import RunOptions
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
        _dispatch(runs, options, folds, many=bool(sweeps) or seeds > 1, as_json=as_json)
    except KeyboardInterrupt:
        typer.echo(f"stetho: stopped; the same command goes on from the last epoch in {out}", err=True)
        raise


def _dispatch(runs: list[PlannedRun], options: RunOptions, folds: int, *, many: bool, as_json: bool) -> None:
    recipe = runs[0].recipe
    told = {"recipe": recipe.name, "size": recipe.model.size}
    if many:
        rows = _run_many(runs, options, quiet=as_json)
        if as_json:
            for row in rows:
                emit_json({"type": "train_runs", **told, **row})
        else:
            _show_runs(rows)
        return
    result = _run(recipe, options, folds, quiet=as_json)
    if "checkpoint" not in result and not folds:
        return  # a process after the first
    if as_json:
        emit_json({"type": "cv" if folds else "train", **told, **result})
    else:
        _show(result, folds)


class _Display:
    """A progress bar on stderr, which stdout's results do not share."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        terminal = Console(stderr=True)
        hidden = quiet or not terminal.is_terminal
        self._progress = Progress(*columns, console=terminal, transient=True, disable=hidden)
        self._task = self._progress.add_task("reading recordings", total=None)
        self.prefix = ""

    def shown(self) -> AbstractContextManager[Any]:
        return self._progress

    def on_read(self, what: str, done: int, total: int) -> None:
        self._progress.update(self._task, description=self.prefix + what, completed=done, total=total)

    def on_step(self, step: Any) -> None:
        what = f"{self.prefix}epoch {step.epoch + 1}/{step.epochs} loss {step.loss:.3f}"
        done, total = step.epoch * step.steps + step.step, step.epochs * step.steps
        self._progress.update(self._task, description=what, completed=done, total=total)


def _run(recipe: Recipe, options: RunOptions, folds: int, *, quiet: bool) -> dict[str, Any]:
    from edge_sdk.training.run import run_cross_validation, train

    display = _Display(quiet=quiet)

    def on_fold_step(fold: int, step: Any) -> None:
        display.prefix = f"fold {fold + 1}/{folds} "
        display.on_step(step)

    with display.shown():
        if folds:
            return run_cross_validation(recipe, options, folds, on_read=display.on_read, on_step=on_fold_step)
        return train(recipe, options, on_read=display.on_read, on_step=display.on_step)


def _run_many(runs: list[PlannedRun], options: RunOptions, *, quiet: bool) -> list[dict[str, Any]]:
    from edge_sdk.training.sweep import train_runs

    display = _Display(quiet=quiet)

    def on_run(number: int, run: PlannedRun) -> None:
        display.prefix = f"run {number + 1}/{len(runs)} {' '.join(run.settings)} seed {run.seed} "

    with display.shown():
        return train_runs(runs, options, on_run=on_run, on_read=display.on_read, on_step=display.on_step)


def _list(as_json: bool) -> None:
    from edge_sdk.training.recipes.listing import recipe_table

    rows = recipe_table()
    if as_json:
        for row in rows:
            emit_json(row)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("recipe", "size", "model", "parameters", "title", box=None)
    for row in rows:
        mark = " (default)" if row["default"] else ""
        parameters = "-" if row["parameters"] is None else f"{row['parameters']:,}"
        table.add_row(row["name"], row["size"] + mark, row["model"], parameters, row["title"])
    protocols = Table("recipe", "protocol", "paper", box=None)
    for row in rows:
        if row["default"]:
            protocols.add_row(row["name"], row["protocol"], row["paper"] or "-")
    console = Console()
    console.print(table)
    console.print()
    console.print(protocols)


def _show(result: dict[str, Any], folds: int) -> None:
    from rich.console import Console

    console = Console()
    figures = result["metrics"] if folds else result
    if not set(_FIGURES) & set(figures):
        console.print("no validation cycles: nothing measured")
    for name in _FIGURES:
        if figures.get(name) is not None:
            interval = figures.get(f"{name}_ci")
            span = f"  [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
            value = figures[name]
            console.print(f"{name:>21} {value:.3f}{span}" if isinstance(value, float) else f"{name:>21} {value}")
    if folds and "decision" in result:
        decision = result["decision"]
        console.print(f"{'decision':>21} temperature {decision['temperature']}, bias {decision['bias']}")
    elif folds:
        for name, value in result.get("decoder", {}).items():
            console.print(f"{name:>21} {value:g}")
    else:
        console.print(f"{'checkpoint':>21} {result['checkpoint']}")


def _show_runs(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    names = [name for name in _FIGURES if any(name in row for row in rows)]
    table = Table("settings", "seeds", *names, box=None)
    for row in rows:
        cells = [_mean(row.get(name), row.get(f"{name}_sd")) for name in names]
        table.add_row(" ".join(row["settings"]) or "-", str(len(row["seeds"])), *cells)
    Console().print(table)


def _mean(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "-"
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"
