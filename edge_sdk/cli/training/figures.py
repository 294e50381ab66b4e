"""``stetho figures``: plots of trained models with the numbers behind them, and the table of all results."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_sdk.cli.messages import emit_json, error_line, note_line
from edge_sdk.cli.options import JsonOption
from edge_sdk.cli.progress import progress_bar
from edge_sdk.corpora.registry import corpus_names
from edge_sdk.errors import CheckpointError, StethoError

if TYPE_CHECKING:
    from edge_sdk.training.figures import FigureResult

CHECKPOINT = "checkpoint.pt"


def figures_command(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Folders of trained runs (or folders of such folders), checkpoints, 'all' for every run below here, "
            "or 'table' for the table of results.",
            metavar="RUN",
        ),
    ],
    corpus: Annotated[
        str | None, typer.Option("--corpus", help=f"{corpus_names()}; the one the run was trained on by default.")
    ] = None,
    root: Annotated[Path | None, typer.Option("--root", help="Folder of the corpus.")] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Split to evaluate; the one the run was reported on by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the figures; RUN/figures by default.")] = None,
    only: Annotated[
        str | None, typer.Option("--only", help="Names of figures, with commas.", metavar="NAME,...")
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Leave out files that cannot be used.")] = False,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, help="Resamples of the intervals.", metavar="N")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed of the bootstrap and of the map.")] = 0,
    results: Annotated[
        Path | None, typer.Option("--results", help="With 'table': rows of training results.", metavar="FILE")
    ] = None,
    into: Annotated[
        Path | None, typer.Option("--into", help="With 'table': Markdown file whose marked block is renewed.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Draw confusion, ROC, reliability, t-SNE with linear probes, attention, masks, FiLM and spectral curves.

    Each figure is a PNG with a JSON of its numbers; those that do not apply to a model are listed with the reason.
    'stetho figures table --results FILE' prints the table of results as Markdown instead.
    """
    from edge_sdk.extras import require_torch

    require_torch()
    if runs[0] == "table":
        _table(results, into)
        return
    if root is None:
        raise typer.BadParameter("give --root, the folder of the corpus")
    names = [name.strip() for name in only.split(",") if name.strip()] if only else []
    _draw_all(_checkpoints(runs), corpus, root, split, out, names, partial, bootstrap, seed, json)


def _table(results: Path | None, into: Path | None) -> None:
    from edge_sdk.training.figures.table import load_rows, renew_block, results_markdown

    if results is None:
        raise typer.BadParameter(
            "'table' needs --results FILE, which 'python -m benchmarks.studies.training RUN...' writes"
        )
    text = results_markdown(load_rows(results))
    if into is None:
        typer.echo(text, nl=False)
    else:
        renew_block(into, text)


def _checkpoints(runs: list[str]) -> list[Path]:
    """List every checkpoint that the arguments name, in order, each once."""
    found: list[Path] = []
    for run in runs:
        path = Path() if run == "all" else Path(run)
        if path.is_dir():
            below = sorted(path.rglob(CHECKPOINT))
            if not below:
                raise CheckpointError(f"no {CHECKPOINT} in or below {path}; 'stetho train RECIPE --out DIR' writes one")
            found += below
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def _draw_all(
    paths: list[Path],
    corpus: str | None,
    root: Path,
    split: str | None,
    out: Path | None,
    only: list[str],
    partial: bool,
    bootstrap: int,
    seed: int,
    json: bool,
) -> None:
    from edge_sdk.corpora import load_corpus
    from edge_sdk.training.checkpoint import load_checkpoint
    from edge_sdk.training.figures import draw_figures, load_evaluated_model
    from edge_sdk.training.figures.catalogue import need_figures

    need_figures()
    failed = False
    for path in paths:
        try:
            checkpoint = load_checkpoint(path)
            name = corpus or checkpoint.provenance.get("corpus", "sprsound")
            part = split or checkpoint.metrics.get("split", "val")
            loaded = load_corpus(name, root, split=part, partial=partial)
            with progress_bar("evaluating", quiet=json) as progress:
                model = load_evaluated_model(
                    path, loaded, part, resamples=bootstrap, seed=seed, partial=partial, progress=progress
                )
            folder = _folder(path, paths, out)
            outcomes = draw_figures(model, folder, only)
        except StethoError as error:
            if len(paths) == 1:
                raise
            failed = True
            error_line(f"{path}: {error}")
            continue
        _print_outcomes(path, outcomes, json)
    if failed:
        raise SystemExit(1)


def _folder(path: Path, paths: list[Path], out: Path | None) -> Path:
    if out is None:
        return path.parent / "figures"
    if len(paths) == 1:
        return out
    parents = [other.resolve().parent for other in paths]
    return out / path.resolve().parent.relative_to(os.path.commonpath(parents))


def _print_outcomes(path: Path, outcomes: list[FigureResult], json: bool) -> None:
    for outcome in outcomes:
        if json:
            emit_json(
                {
                    "type": "figure",
                    "run": path,
                    "figure": outcome.name,
                    "png": outcome.png,
                    "json": outcome.json,
                    "reason": outcome.reason or None,
                }
            )
        elif outcome.png is None:
            note_line(f"{outcome.name}: not drawn, {outcome.reason}")
        else:
            typer.echo(str(outcome.png))
