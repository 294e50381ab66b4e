"""``edge_sdk.evaluate``: a model scored on a corpus, with the figures of ``stetho evaluate --json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from edge_sdk.corpora import load_corpus
from edge_sdk.corpora.splits import check_disjoint
from edge_sdk.errors import CorpusError
from edge_sdk.evaluation.model import ModelUnderTest, load_model, shown_name
from edge_sdk.evaluation.overlap import training_overlap
from edge_sdk.evaluation.predict import MetadataMode, Predictions, Progress, predict, relabelled
from edge_sdk.evaluation.verdict_report import evaluate_recordings
from edge_sdk.extras import from_train_side
from edge_sdk.files import whole_file
from edge_sdk.json_lines import json_line
from edge_sdk.metrics import (
    ModelPredictions,
    age_band,
    auroc_within,
    compare_predictions,
    evaluate_groups,
    evaluate_predictions,
)

if TYPE_CHECKING:
    from edge_sdk.corpora import Corpus
    from edge_sdk.runtime.bundle.load import Bundle

Group: TypeAlias = Literal["device", "site", "age", "sex"]
Control: TypeAlias = Literal["metadata-only"]

_METADATA_ONLY = "edge_sdk.training.classification.controls:metadata_only"


@dataclass(frozen=True)
class _Evaluation:
    """One model on one corpus, and what it predicted."""

    shown: str  # the model as the caller named it
    model: ModelUnderTest
    corpus: Corpus
    split: str
    predicted: Predictions
    resamples: int
    seed: int

    @property
    def scoring(self) -> dict[str, Any]:
        """Arguments that all metrics of this model share."""
        return {
            "labels": self.predicted.labels,
            "normal_label": self.model.classifier.normal_label,
            "predictions": self.predicted.predictions,
            "classified": self.predicted.classified,
            "resamples": self.resamples,
            "seed": self.seed,
        }


def evaluate(
    model: str | Path | Bundle | ModelUnderTest,
    corpus: str,
    root: str | Path,
    *,
    split: str = "all",
    partial: bool = False,
    artefact: str | None = None,
    labels: str | None = None,
    by: Sequence[Group] = (),
    against: str | Path | Bundle | ModelUnderTest | None = None,
    metadata: MetadataMode = "given",
    control: Control | None = None,
    recordings: bool = False,
    train_split: str = "train",
    train_root: str | Path | None = None,
    predictions: Path | None = None,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a model: Se, Sp and Score (strict and 2-class), AUROC, calibration, with patient-bootstrap intervals.

    Cycles are taken as annotated. Where a corpus annotates no cycles, each recording goes through the model's own
    stream and the probabilities of its cycles are averaged.

    Parameters
    ----------
    model
        Folder of a bundle, ``"default"``, a loaded one, or a checkpoint (``.pt``, needs the extra ``train``).
    corpus, root, split
        Name of the corpus, the publisher's folder (or the generic CSV), and which part; ``all`` always works.
    partial
        Leave out files that cannot be used.
    artefact
        Format of the bundle's classifier; absent: its default one.
    labels
        Label scheme of the truth; absent: the model's.
    by
        Figures per ``device``, ``site``, ``age`` or ``sex`` too.
    against
        Second model: paired differences on the same items.
    metadata
        See :func:`~edge_sdk.evaluation.predict.predict`.
    control
        ``metadata-only``: what metadata alone predicts, fitted on ``train_split``.
    recordings
        Score the verdicts of whole recordings instead, see
        :func:`~edge_sdk.evaluation.verdict_report.evaluate_recordings`; goes with neither ``labels``, ``by``,
        ``against``, ``metadata``, ``control`` nor ``train_root``.
    train_root
        The corpus the model was trained on: anything on both sides gives a warning.
    predictions
        File for one JSON line per item.
    resamples, seed
        Of the bootstrap; the seed also shuffles metadata.
    progress
        Callback ``(what, done, total)``.

    Returns
    -------
    dict
        The JSON object of ``stetho evaluate --json``: ``n``, ``counts``, ``confusion`` (rows truth, columns
        prediction), ``sensitivity``, ``specificity``, ``score``, ``auroc``, ``ece``, ``score_ci``, ``auroc_ci``, ...

    Raises
    ------
    CorpusError
        Not a usable corpus, or no labelled item.
    BundleError, CheckpointError
        Not a usable model.
    AudioError
        A recording that cannot be read.
    """
    if recordings:
        if labels or by or against is not None or metadata != "given" or control or train_root is not None:
            raise CorpusError(
                "verdicts of recordings are scored by themselves; leave labels, by, against, metadata, control and "
                "train_root out, or recordings"
            )
        return evaluate_recordings(
            model,
            corpus,
            root,
            split=split,
            partial=partial,
            artefact=artefact,
            predictions=predictions,
            resamples=resamples,
            seed=seed,
            progress=progress,
        )
    if predictions is not None and not predictions.absolute().parent.is_dir():
        raise CorpusError(f"{predictions.parent} does not exist; make it, or name another file for --predictions")
    loaded = load_corpus(corpus, Path(root), split=split, partial=partial)
    tested = load_model(model, artefact)
    other = load_model(against) if against is not None else None
    loaded = relabelled(loaded, tested, labels)
    predicted = predict(tested, loaded, progress, metadata=metadata, seed=seed)
    evaluation = _Evaluation(shown_name(model), tested, loaded, split, predicted, resamples, seed)
    report = _figures(evaluation)
    if metadata != "given":
        report["metadata"] = metadata
    if by:
        report["groups"] = {name: _groups(evaluation, name) for name in dict.fromkeys(by)}
    if other is not None and against is not None:
        report["against"] = _against(evaluation, shown_name(against), other, predict(other, loaded, progress))
    if control is not None:
        train = load_corpus(corpus, Path(root), split=train_split, partial=partial)
        report["controls"] = {control: _control(evaluation, relabelled(train, tested, labels))}
    if warnings := training_overlap(tested.training, loaded, split, train_root):
        report["warnings"] = warnings
    if predictions is not None:
        _write_lines(predictions, predicted)
    return report


def prediction_figures(
    model: ModelUnderTest, predicted: Predictions, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Figures of :func:`edge_sdk.metrics.evaluate_predictions` and, by device, :func:`edge_sdk.metrics.auroc_within`.

    Raises
    ------
    ValueError
        The labels of the corpus do not fit the model's.
    """
    normal_label = model.classifier.normal_label
    figures = evaluate_predictions(
        predicted.truth,
        predicted.probabilities,
        predicted.patients,
        labels=predicted.labels,
        normal_label=normal_label,
        predictions=predicted.predictions,
        classified=predicted.classified,
        resamples=resamples,
        seed=seed,
    )
    return figures | auroc_within(
        [row["device"] for row in predicted.metadata],
        [label != normal_label for label in predicted.truth],
        1.0 - predicted.probabilities[:, model.classifier.normal_index],
        predicted.patients,
        resamples=resamples,
        seed=seed,
    )


def _figures(evaluation: _Evaluation) -> dict[str, Any]:
    predicted, model, corpus = evaluation.predicted, evaluation.model, evaluation.corpus
    try:
        figures = prediction_figures(model, predicted, resamples=evaluation.resamples, seed=evaluation.seed)
    except ValueError as error:
        raise CorpusError(f"{evaluation.shown} cannot be scored on {corpus.name}: {error}") from error
    head = {
        "model": evaluation.shown,
        "name": model.name,
        "version": model.version,
        "artefact": model.artefact,
        "corpus": corpus.name,
        "root": str(corpus.root),
        "split": evaluation.split,
        "unit": predicted.unit,
        "recordings": len(corpus.recordings),
    }
    if predicted.unlabelled:
        head["unlabelled"] = predicted.unlabelled
    return head | figures


def _groups(evaluation: _Evaluation, name: str) -> list[dict[str, Any]]:
    predicted = evaluation.predicted
    groups = [age_band(row["age_years"]) if name == "age" else row[name] for row in predicted.metadata]
    return evaluate_groups(
        groups, predicted.truth, predicted.probabilities, predicted.patients, **evaluation.scoring
    )  # fmt: skip


def _against(evaluation: _Evaluation, shown: str, other: ModelUnderTest, predicted: Predictions) -> dict[str, Any]:
    """Paired differences, positive where the model is above the other one."""
    own = evaluation.predicted
    try:
        found = compare_predictions(
            own.truth,
            own.patients,
            _of_one(other, predicted),
            _of_one(evaluation.model, own),
            resamples=evaluation.resamples,
            seed=evaluation.seed,
        )
    except ValueError as error:
        raise CorpusError(
            f"{evaluation.shown} and {shown} cannot be compared on {evaluation.corpus.name}: {error}"
        ) from error
    metrics = {
        metric: row and {"value": row["b"], "against": row["a"], **{k: v for k, v in row.items() if k not in "ab"}}
        for metric, row in found["metrics"].items()
    }
    head = {"model": shown, "name": other.name, "artefact": other.artefact}
    return head | found | {"metrics": metrics}


def _of_one(model: ModelUnderTest, predicted: Predictions) -> ModelPredictions:
    return ModelPredictions(
        predicted.probabilities,
        predicted.labels,
        model.classifier.normal_label,
        predicted.predictions,
        predicted.classified,
    )


def _control(evaluation: _Evaluation, train: Corpus) -> dict[str, Any]:
    metadata_only = from_train_side(_METADATA_ONLY)
    corpus, predicted = evaluation.corpus, evaluation.predicted
    if not corpus.cycles or not train.cycles:
        raise CorpusError(f"the metadata-only control is for annotated breaths; {train.name} marks none")
    check_disjoint({f"the control's {name}": part.patients for name, part in (("train", train), ("test", corpus))})
    figures = evaluate_predictions(
        predicted.truth,
        metadata_only(train.cycles, corpus.cycles, train.labels),
        predicted.patients,
        labels=train.labels,
        normal_label=train.labels[0],
        resamples=evaluation.resamples,
        seed=evaluation.seed,
    )
    return {"model": "logistic regression", "trained_on": len(train.cycles)} | figures


def _write_lines(path: Path, predicted: Predictions) -> None:
    """All of the file or nothing."""
    with whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        for line in predicted.lines():
            file.write(json_line(line))
