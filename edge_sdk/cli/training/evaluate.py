"""``stetho evaluate``: a model's answers on a corpus, scored with the field's own metric."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from edge_sdk.cli.options import JsonOption, emit_json, note_line
from edge_sdk.corpora.registry import corpus_names
from edge_sdk.errors import CorpusError
from edge_sdk.files import whole_file
from edge_sdk.json_lines import json_line

if TYPE_CHECKING:
    from edge_sdk.corpora import Corpus
    from edge_sdk.evaluation.predict import MetadataMode, Predictions
    from edge_sdk.metrics import Answers
    from edge_sdk.runtime.bundle.load import Bundle

_GROUPS = ("device", "site", "age", "sex")
_METADATA = ("given", "unknown", "shuffled")
_CONTROLS = ("metadata-only",)


@dataclass(frozen=True)
class _Asked:
    """One evaluation: what was asked for and what answered."""

    model: str
    bundle: Bundle
    corpus: Corpus
    split: str
    answers: Predictions
    resamples: int
    seed: int

    @property
    def scoring(self) -> dict[str, Any]:
        """Arguments that all metrics of this model share."""
        return {
            "labels": self.answers.labels,
            "normal_label": self.bundle.manifest.decoder.normal_label,
            "predictions": self.answers.predictions,
            "answered": self.answers.answered,
        }


def evaluate(
    model: Annotated[str, typer.Argument(help="Bundle directory, 'default', or a checkpoint (.pt).", metavar="MODEL")],
    corpus: Annotated[str, typer.Argument(help=f"{corpus_names()}.", metavar="CORPUS")],
    root: Annotated[Path, typer.Argument(help="The publisher's folder, or the generic CSV.", metavar="ROOT")],
    split: Annotated[str, typer.Option("--split", help="Which part; 'all' always works.")] = "all",
    partial: Annotated[bool, typer.Option("--partial", help="Leave out files that cannot be used.")] = False,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Write one JSON line per item here.", metavar="FILE")
    ] = None,
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
        str, typer.Option("--metadata", help="What a model that reads metadata is told: given, unknown or shuffled.")
    ] = "given",
    control: Annotated[
        str | None, typer.Option("--control", help="metadata-only: what can be told without listening.")
    ] = None,
    train_split: Annotated[str, typer.Option("--train-split", help="What the control learns from.")] = "train",
    train_root: Annotated[
        Path | None,
        typer.Option("--train-root", help="The corpus the model was trained on: warn of anything on both sides."),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, help="Resamples of the intervals.", metavar="N")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap and of shuffled metadata.")] = 0,
    json: JsonOption = False,
) -> None:
    """Score a model: Se, Sp and Score (strict and 2-class), AUROC, calibration, with patient-bootstrap intervals.

    Breaths are taken as annotated. Where a corpus marks no breaths, each recording goes through the bundle's own
    stream and its breaths' probabilities are averaged.
    """
    from edge_sdk.corpora import load_corpus
    from edge_sdk.evaluation.predict import load_model, predict, progress_bar, relabelled

    _check(by or [], metadata, control)
    if predictions is not None and not predictions.absolute().parent.is_dir():
        raise CorpusError(f"{predictions.parent} does not exist; make it, or name another file for --predictions")
    loaded = load_corpus(corpus, root, split=split, partial=partial)
    bundle = load_model(model, artefact)
    other = load_model(against, None) if against is not None else None
    loaded = relabelled(loaded, bundle, labels)
    mode = cast("MetadataMode", metadata)
    with progress_bar() as progress:
        asked = _Asked(
            model, bundle, loaded, split, predict(bundle, loaded, progress, metadata=mode, seed=seed), bootstrap, seed
        )
        report = _report(asked)
        if metadata != "given":
            report["metadata"] = metadata
        if by:
            report["groups"] = {name: _groups(asked, name) for name in dict.fromkeys(by)}
        if other is not None and against is not None:
            report["against"] = _against(asked, against, other, predict(other, loaded, progress))
        if control is not None:
            train = load_corpus(corpus, root, split=train_split, partial=partial)
            report["controls"] = {control: _control(asked, relabelled(train, bundle, labels))}
    if warnings := _warnings(bundle, loaded, split, train_root):
        report["warnings"] = warnings
    if predictions is not None:
        _write_lines(predictions, asked.answers)
    for warning in report.get("warnings", ()):
        note_line(f"warning: {warning}")
    if json:
        emit_json(report)
        return
    from edge_sdk.evaluation.tables import show

    show(report)


def _check(by: list[str], metadata: str, control: str | None) -> None:
    for option, values, known in (
        ("--by", by, _GROUPS),
        ("--metadata", [metadata], _METADATA),
        ("--control", [control] if control else [], _CONTROLS),
    ):
        for value in values:
            if value not in known:
                raise typer.BadParameter(f"{value!r} is none of {', '.join(known)}", param_hint=option)


def _report(asked: _Asked) -> dict[str, Any]:
    from edge_sdk.metrics import evaluate_predictions

    answers, bundle, corpus = asked.answers, asked.bundle, asked.corpus
    try:
        figures = evaluate_predictions(
            answers.truth,
            answers.probabilities,
            answers.patients,
            resamples=asked.resamples,
            seed=asked.seed,
            **asked.scoring,
        )
    except ValueError as error:
        raise CorpusError(f"{asked.model} cannot be scored on {corpus.name}: {error}") from error
    head = {
        "model": asked.model,
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "artefact": bundle.artefact.format,
        "corpus": corpus.name,
        "root": str(corpus.root),
        "split": asked.split,
        "unit": answers.unit,
        "recordings": len(corpus.recordings),
    }
    if answers.unlabelled:
        head["unlabelled"] = answers.unlabelled
    return head | figures


def _groups(asked: _Asked, name: str) -> list[dict[str, Any]]:
    from edge_sdk.metrics import age_band, evaluate_groups

    answers = asked.answers
    groups = [age_band(known["age_years"]) if name == "age" else known[name] for known in answers.known]
    return evaluate_groups(
        groups,
        answers.truth,
        answers.probabilities,
        answers.patients,
        resamples=asked.resamples,
        seed=asked.seed,
        **asked.scoring,
    )


def _against(asked: _Asked, name: str, other: Bundle, answers: Predictions) -> dict[str, Any]:
    """Paired differences, positive where the model is above the other one."""
    from edge_sdk.metrics import compare_predictions

    own = asked.answers
    try:
        found = compare_predictions(
            own.truth, own.patients, _answers(other, answers), _answers(asked.bundle, own),
            resamples=asked.resamples, seed=asked.seed,
        )  # fmt: skip
    except ValueError as error:
        raise CorpusError(f"{asked.model} and {name} cannot be compared on {asked.corpus.name}: {error}") from error
    metrics = {
        metric: row and {"value": row["b"], "against": row["a"], **{k: v for k, v in row.items() if k not in "ab"}}
        for metric, row in found["metrics"].items()
    }
    head = {"model": name, "name": other.manifest.name, "artefact": other.artefact.format}
    return head | found | {"metrics": metrics}


def _answers(bundle: Bundle, predictions: Predictions) -> Answers:
    from edge_sdk.metrics import Answers

    return Answers(
        predictions.probabilities,
        predictions.labels,
        bundle.manifest.decoder.normal_label,
        predictions.predictions,
        predictions.answered,
    )


def _control(asked: _Asked, train: Corpus) -> dict[str, Any]:
    from edge_sdk.cli.needs import need_torch
    from edge_sdk.corpora.splits import check_disjoint
    from edge_sdk.metrics import evaluate_predictions

    need_torch()
    from edge_sdk.training.classification.controls import metadata_only

    if not asked.corpus.cycles or not train.cycles:
        raise CorpusError(f"the metadata-only control is for annotated breaths; {train.name} marks none")
    check_disjoint(
        {f"the control's {name}": part.patients for name, part in (("train", train), ("test", asked.corpus))}
    )
    probabilities = metadata_only(train.cycles, asked.corpus.cycles, train.labels)
    answers = asked.answers
    figures = evaluate_predictions(
        answers.truth,
        probabilities,
        answers.patients,
        labels=train.labels,
        normal_label=train.labels[0],
        resamples=asked.resamples,
        seed=asked.seed,
    )
    return {"model": "logistic regression", "trained_on": len(train.cycles)} | figures


def _warnings(bundle: Bundle, corpus: Corpus, split: str, train_root: Path | None) -> list[str]:
    """What makes the figures worth less than they look."""
    from edge_sdk.corpora import load_corpus
    from edge_sdk.corpora.transfer import check_transfer

    source = getattr(bundle.manifest, "training", {})
    name, learned = source.get("corpus"), source.get("split")
    if name is None or learned is None:
        return []
    if name == corpus.name and name != "csv" and split in (learned, "all"):
        return [f"the model was trained on {name} {learned}, which is scored here"]
    if train_root is None:
        return []
    try:
        check_transfer(load_corpus(name, train_root, split=learned, partial=True), corpus)
    except CorpusError as error:
        return [str(error)]
    return []


def _write_lines(path: Path, answers: Predictions) -> None:
    """All of the file or nothing."""
    with whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        for line in answers.lines():
            file.write(json_line(line))
