"""``stetho train``: fit a recipe on a corpus, or list the recipes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_sdk.cli._common import JsonOption, emit_json

if TYPE_CHECKING:
    from edge_sdk.training.recipe import Recipe
    from edge_sdk.training.run import RunOptions

_FIGURES = ("n", "score", "sensitivity", "specificity", "score_2class", "auroc", "ece")


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
        list[str] | None, typer.Option("--set", help="Override a setting, e.g. fit.epochs=10.", metavar="KEY=VALUE")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Everything random follows from it.")] = 0,
    folds: Annotated[
        int, typer.Option("--cv", min=0, help="Cross-validate over this many patient folds instead of training once.")
    ] = 0,
    threads: Annotated[int, typer.Option("--threads", min=1, help="The same number gives the same bits.")] = 1,
    partial: Annotated[bool, typer.Option("--partial", help="Accept an incomplete copy of the corpus.")] = False,
    list_recipes: Annotated[bool, typer.Option("--list", help="List recipes and sizes, and exit.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a recipe into a self-contained checkpoint; resumable after Ctrl-C by the same command."""
    from edge_sdk.cli._needs import need_torch

    if not list_recipes and (recipe is None or root is None or out is None):
        raise typer.BadParameter("give RECIPE, --root and --out, or --list")
    if folds == 1:
        raise typer.BadParameter("--cv needs at least 2 folds")
    need_torch()
    if list_recipes:
        _list(as_json)
        return
    assert recipe is not None and root is not None and out is not None
    from edge_sdk.training.recipe import load_recipe
    from edge_sdk.training.run import RunOptions

    loaded = load_recipe(recipe, size=size, overrides=settings or ())
    options = RunOptions(corpus=corpus, root=root, out=out, seed=seed, partial=partial, threads=threads)
    try:
        result = _run(loaded, options, folds, quiet=as_json)
    except KeyboardInterrupt:
        typer.echo(f"stetho: stopped; the same command goes on from the last epoch in {out}", err=True)
        raise
    if as_json:
        emit_json({"type": "cv" if folds else "train", "recipe": loaded.name, "size": loaded.model.size, **result})
    else:
        _show(result, folds)


def _run(recipe: Recipe, options: RunOptions, folds: int, *, quiet: bool) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from edge_sdk.training.run import run_cross_validation, train

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    terminal = Console(stderr=True)  # stdout is for results
    hidden = quiet or not terminal.is_terminal
    with Progress(*columns, console=terminal, transient=True, disable=hidden) as display:
        task = display.add_task("reading recordings", total=None)

        def on_read(what: str, done: int, total: int) -> None:
            display.update(task, description=what, completed=done, total=total)

        def on_step(step: Any) -> None:
            what = f"epoch {step.epoch + 1}/{step.epochs} loss {step.loss:.3f}"
            display.update(
                task, description=what, completed=step.epoch * step.steps + step.step, total=step.epochs * step.steps
            )

        def on_fold_step(fold: int, step: Any) -> None:
            on_step(step)
            display.update(task, description=f"fold {fold + 1}/{folds} epoch {step.epoch + 1}/{step.epochs}")

        if folds:
            return run_cross_validation(recipe, options, folds, on_read=on_read, on_step=on_fold_step)
        return train(recipe, options, on_read=on_read, on_step=on_step)


def _list(as_json: bool) -> None:
    from edge_sdk.training.run import recipe_table

    rows = recipe_table()
    if as_json:
        for row in rows:
            emit_json(row)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("recipe", "size", "model", "parameters", "protocol", "paper", box=None)
    for row in rows:
        mark = " (default)" if row["default"] else ""
        table.add_row(
            row["name"],
            row["size"] + mark,
            row["model"],
            f"{row['parameters']:,}",
            row["protocol"],
            row["paper"] or "-",
        )
    Console().print(table)


def _show(result: dict[str, Any], folds: int) -> None:
    from rich.console import Console

    console = Console()
    figures = result["metrics"] if folds else result
    if "score" not in figures:
        console.print("no validation cycles: nothing measured")
    for name in _FIGURES:
        if figures.get(name) is not None:
            interval = figures.get(f"{name}_ci")
            span = f"  [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
            value = figures[name]
            console.print(f"{name:>14} {value:.3f}{span}" if isinstance(value, float) else f"{name:>14} {value}")
    if folds:
        decision = result["decision"]
        console.print(f"{'decision':>14} temperature {decision['temperature']}, bias {decision['bias']}")
    else:
        console.print(f"{'checkpoint':>14} {result['checkpoint']}")
