"""``stetho evaluate``: a model's answers on a corpus, scored with the field's own metric."""

from __future__ import annotations

import json as json_module
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_sdk.cli._common import JsonOption, emit_json, jsonable
from edge_sdk.errors import CorpusError

if TYPE_CHECKING:
    from edge_sdk.cli._evaluation import Predictions
    from edge_sdk.corpora import Corpus
    from edge_sdk.runtime.bundle import Bundle


def evaluate(
    model: Annotated[str, typer.Argument(help="Bundle directory, 'default', or a checkpoint (.pt).", metavar="MODEL")],
    corpus: Annotated[str, typer.Argument(help="sprsound, kauh, hls_cmds or csv.", metavar="CORPUS")],
    root: Annotated[Path, typer.Argument(help="The publisher's folder, or the generic CSV.", metavar="ROOT")],
    split: Annotated[str, typer.Option("--split", help="Which part; 'all' always works.")] = "all",
    partial: Annotated[bool, typer.Option("--partial", help="Leave out files that cannot be used.")] = False,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Write one JSON line per item here.", metavar="FILE")
    ] = None,
    artefact: Annotated[
        str | None, typer.Option("--artefact", help="Format to run instead of the default one.")
    ] = None,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, help="Resamples of the intervals.", metavar="N")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap.")] = 0,
    json: JsonOption = False,
) -> None:
    """Score a model: Se, Sp and Score (strict and 2-class), AUROC, calibration, with patient-bootstrap intervals.

    Breaths are taken as annotated. Where a corpus marks no breaths, each recording goes through the bundle's own
    stream and its breaths' probabilities are averaged.
    """
    from edge_sdk.cli._evaluation import load_model, predict, progress_bar
    from edge_sdk.corpora import load_corpus

    if predictions is not None and not predictions.absolute().parent.is_dir():
        raise CorpusError(f"{predictions.parent} does not exist; make it, or name another file for --predictions")
    loaded = load_corpus(corpus, root, split=split, partial=partial)
    bundle = load_model(model, artefact)
    with progress_bar() as progress:
        answers = predict(bundle, loaded, progress)
    report = _report(model, bundle, loaded, split, answers, bootstrap, seed)
    if predictions is not None:
        _write_lines(predictions, answers)
    if json:
        emit_json(report)
    else:
        _show(report)


def _report(
    model: str, bundle: Bundle, corpus: Corpus, split: str, answers: Predictions, resamples: int, seed: int
) -> dict[str, Any]:
    from edge_sdk.metrics import evaluate_predictions

    try:
        figures = evaluate_predictions(
            answers.truth,
            answers.probabilities,
            answers.patients,
            labels=answers.labels,
            normal_label=bundle.manifest.decoder.normal_label,
            answered=answers.answered,
            resamples=resamples,
            seed=seed,
        )
    except ValueError as error:
        raise CorpusError(f"{model} cannot be scored on {corpus.name}: {error}") from error
    head = {
        "model": model,
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "artefact": bundle.artefact.format,
        "corpus": corpus.name,
        "root": str(corpus.root),
        "split": split,
        "unit": answers.unit,
        "recordings": len(corpus.recordings),
    }
    if answers.unlabelled:
        head["unlabelled"] = answers.unlabelled
    return head | figures


def _write_lines(path: Path, answers: Predictions) -> None:
    """All of the file or nothing."""
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with staging.open("w", encoding="utf-8") as file:
            for line in answers.lines():
                file.write(json_module.dumps(jsonable(line), ensure_ascii=False, allow_nan=False) + "\n")
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = 160  # a file or a pipe has no edge to fold at
    console.print(
        f"{report['name']} ({report['artefact']}) on {report['corpus']}, split {report['split']}: {report['n']} "
        f"{report['unit']}s of {report['patients']} patients",
        style="bold",
        highlight=False,
    )
    confusion = Table(box=None, pad_edge=False, header_style="bold")
    confusion.add_column("truth ↓  prediction →")
    for label in (*report["labels"], "total"):
        confusion.add_column(label, justify="right")
    for label, row in zip(report["labels"], report["confusion"], strict=True):
        confusion.add_row(label, *(str(count or "·") for count in row), str(sum(row)))
    console.print(confusion)
    for name, text in (
        ("other", "abnormal without a class: in the AUROC only"),
        ("unclassified", "without any labelled breath: in the AUROC as undecided"),
        ("unlabelled", "left out: the publisher does not say what they are"),
    ):
        count = report["counts"].get(name) or report.get(name)
        if count:
            console.print(f"{count} {text}", highlight=False)
    console.print()
    console.print(_figures(report))


def _figures(report: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "value", "95 % interval (patients)"):
        table.add_column(title, justify="left" if not title else "right")
    for title, key in (
        ("specificity", "specificity"),
        ("sensitivity, exact class", "sensitivity"),
        ("Score (strict)", "score"),
        ("sensitivity, 2-class", "sensitivity_2class"),
        ("Score (2-class)", "score_2class"),
        ("AUROC, abnormal", "auroc"),
        ("calibration error (ECE)", "ece"),
    ):
        value, bounds = report[key], report.get(f"{key}_ci")
        table.add_row(
            title,
            "–" if value is None else f"{value:.3f}",
            "–" if bounds is None else f"{bounds[0]:.3f} … {bounds[1]:.3f}",
        )
    return table
