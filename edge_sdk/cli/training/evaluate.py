"""``stetho evaluate``: a model scored on a corpus with the field's own metric."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from edge_sdk.cli.messages import emit_json, note_line
from edge_sdk.cli.options import JsonOption
from edge_sdk.cli.progress import progress_bar
from edge_sdk.corpora.registry import corpus_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_sdk.evaluation.predict import MetadataMode
    from edge_sdk.evaluation.report import Control, Group


def evaluate(
    model: Annotated[str, typer.Argument(help="Bundle directory, 'default', or a checkpoint (.pt).", metavar="MODEL")],
    corpus: Annotated[str, typer.Argument(help=f"{corpus_names()}.", metavar="CORPUS")],
    root: Annotated[Path, typer.Argument(help="The publisher's folder, or the generic CSV.", metavar="ROOT")],
    split: Annotated[str, typer.Option("--split", help="Which part; 'all' always works.")] = "all",
    partial: Annotated[bool, typer.Option("--partial", help="Leave out files that cannot be used.")] = False,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Write one JSON line per item here.", metavar="FILE")
    ] = None,
    recordings: Annotated[
        bool,
        typer.Option("--recordings", help="Score the verdicts of whole recordings, also by seconds of audio."),
    ] = False,
    artefact: Annotated[
        str | None, typer.Option("--artefact", help="Format to run instead of the default one.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="Label scheme of the truth; the model's by default.", metavar="SCHEME"),
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option("--by", help="Figures per device, site, age or sex; may be repeated.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="Second model: paired differences on the same items.", metavar="MODEL"),
    ] = None,
    metadata: Annotated[
        str, typer.Option("--metadata", help="Input of a model that reads metadata: given, unknown or shuffled.")
    ] = "given",
    control: Annotated[
        str | None, typer.Option("--control", help="metadata-only: what metadata alone predict.")
    ] = None,
    train_split: Annotated[str, typer.Option("--train-split", help="Split that the control is fitted on.")] = "train",
    train_root: Annotated[
        Path | None,
        typer.Option("--train-root", help="The corpus the model was trained on: warn of anything on both sides."),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, help="Bootstrap resamples of the intervals.", metavar="N")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap and of shuffled metadata.")] = 0,
    json: JsonOption = False,
) -> None:
    """Score a model: Se, Sp and Score (strict and 2-class), AUROC, calibration, with patient-bootstrap intervals.

    Breaths are taken as annotated. Where a corpus marks no breaths, each recording goes through the bundle's own
    stream and its breaths' probabilities are averaged. With --recordings every labelled recording goes through the
    stream, and its verdict is scored after 3, 6, 9 and 15 s and at the end.
    """
    from edge_sdk.evaluation.report import evaluate as evaluate_model

    _check(by or [], metadata, control)
    with progress_bar() as progress:
        report = evaluate_model(
            model,
            corpus,
            root,
            split=split,
            partial=partial,
            artefact=artefact,
            labels=labels,
            by=cast("Sequence[Group]", by or ()),
            against=against,
            metadata=cast("MetadataMode", metadata),
            control=cast("Control | None", control),
            recordings=recordings,
            train_split=train_split,
            train_root=train_root,
            predictions=predictions,
            resamples=bootstrap,
            seed=seed,
            progress=progress,
        )
    for warning in report.get("warnings", ()):
        note_line(f"warning: {warning}")
    if json:
        emit_json(report)
        return
    from edge_sdk.cli.training.evaluation_tables import show, show_verdicts

    show_verdicts(report) if recordings else show(report)


def _check(by: list[str], metadata: str, control: str | None) -> None:
    from edge_sdk.evaluation.predict import MetadataMode
    from edge_sdk.evaluation.report import Control, Group

    for option, values, choices in (
        ("--by", by, get_args(Group)),
        ("--metadata", [metadata], get_args(MetadataMode)),
        ("--control", [control] if control else [], get_args(Control)),
    ):
        for value in values:
            if value not in choices:
                raise typer.BadParameter(f"{value!r} is none of {', '.join(choices)}", param_hint=option)
