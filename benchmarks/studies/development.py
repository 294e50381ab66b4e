"""The development protocol: a bundle, or one bundle for each fold, on all development patients of all corpora.

    python -m benchmarks.studies.development default --root $STETHO_DATA --out benchmarks/results/development.json
    python -m benchmarks.studies.development 'RUNS/seed{seed}/fold{fold}' --root $STETHO_DATA --out FILE

With ``{fold}`` in the path, every recording is scored by the bundle (or checkpoint) of the fold that holds its patient
out, and the figures are means over the seeds. ``--out`` adds the tables for people (``.md``).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import typer

from benchmarks.core.harness import Row, machine_row
from benchmarks.core.rows import cell, read_results, write_results
from edge_sdk.corpora import Corpus
from edge_sdk.corpora.audio import read_recording
from edge_sdk.evaluation.model import ModelUnderTest, load_model
from edge_sdk.evaluation.predict import Predictions, predict, stream_events
from edge_sdk.evaluation.protocol import FOLDS, SEEDS, Fold, development_corpus, device_folds, over_seeds, patient_folds
from edge_sdk.evaluation.protocol import pooled as pooled_predictions
from edge_sdk.evaluation.report import prediction_figures
from edge_sdk.evaluation.segmentation import AnnotatedCycles, score_random_phantoms
from edge_sdk.evaluation.verdicts import follow_verdict, recording_truth, verdict_reader
from edge_sdk.files import whole_file
from edge_sdk.json_lines import jsonable
from edge_sdk.metadata import metadata_of
from edge_sdk.metrics.detections import DetectedCycles
from edge_sdk.metrics.events import ScoredRecording, event_report
from edge_sdk.metrics.verdict import VerdictTrace, verdict_report
from edge_sdk.notices import RESEARCH_USE_IN_FIGURES
from edge_sdk.runtime.segmentation.factory import load_segmenter

Task = Literal["segmentation", "cycles", "verdicts"]
FoldRule = Literal["patients", "devices"]

CORPORA: Mapping[str, tuple[str, tuple[Task, ...]]] = {
    "sprsound": ("sprsound", ("segmentation", "cycles", "verdicts")),
    "icbhi": ("icbhi", ("segmentation", "cycles", "verdicts")),
    "kauh": ("kauh", ("verdicts",)),
    "hf_lung_labels": ("hf_lung_phase_clips", ("cycles",)),  # clips of 1 s: too short for a stream
}
"""Corpus → its folder under the root, and what is scored on it."""

PHANTOMS = "phantom:random"
DEVELOPMENT = "train + val"
_QUICK_PATIENTS = 3
_QUICK_PHANTOMS = 3

COLUMNS: Mapping[Task, tuple[tuple[str, str], ...]] = {
    "segmentation": (
        ("recordings", "recordings"), ("event F1", "event_f1"), ("in regions", "event_f1_regional"),
        ("audible in regions", "event_f1_audible_regional"),
        ("phase-free", "event_f1_phase_free"), ("onset F1 ± 0.2 s", "onset_f1_200ms"), ("count ratio", "count_ratio"),
        ("rate MAE", "rate_mae_bpm"), ("median", "rate_error_p50_bpm"), ("within 15 %", "rate_within_15pct"),
        ("halved", "rate_halved"), ("doubled", "rate_doubled"), ("bias > 40/min", "rate_bias_above_40_bpm"),
        ("no rate", "rate_undefined"), ("of", "rate_recordings"), ("delay P95 s", "detection_delay_p95_s"),
        ("revised", "revision_rate"), ("invented in apnoea", "cycles_in_apnoea"), ("labelled", "labelled"),
        ("their Score", "score_labelled"), ("their AUROC", "auroc_labelled"),
    ),
    "cycles": (
        ("cycles", "n"), ("Score", "score"), ("Se", "sensitivity"), ("Sp", "specificity"), ("AUROC", "auroc"),
        ("within device", "auroc_within_device"), ("crackle", "auroc_crackle"), ("wheeze", "auroc_wheeze"),
        ("ECE", "ece"),
    ),
    "verdicts": (
        ("recordings", "n"), ("AUROC", "auroc"), ("within device", "auroc_within_device"), ("3 s", "auroc_3s"),
        ("6 s", "auroc_6s"), ("9 s", "auroc_9s"), ("15 s", "auroc_15s"), ("Se", "sensitivity"), ("Sp", "specificity"),
        ("error of answered", "error_answered"), ("uncertain", "uncertain_fraction"), ("coverage", "coverage"),
        ("ECE", "ece"),
    ),
}  # fmt: skip
"""Headings and figures of the tables for people."""


@dataclass(frozen=True)
class Scored:
    """Everything that one model, or the models of all folds, gave for one corpus."""

    model: ModelUnderTest
    cycles: tuple[ScoredRecording, ...] = ()
    verdicts: tuple[VerdictTrace, ...] = ()
    predicted: Predictions | None = None

    def of_recordings(self, ids: set[str]) -> Scored:
        """The part of some recordings."""
        return replace(
            self,
            cycles=tuple(row for row in self.cycles if row.name in ids),
            verdicts=tuple(row for row in self.verdicts if row.recording in ids),
            predicted=None if self.predicted is None else self.predicted.of_recordings(ids),
        )


def score(model: ModelUnderTest, corpus: Corpus, tasks: Sequence[Task]) -> Scored:
    """Run one model over a corpus: annotated cycles by the classifier, every recording once through its stream."""
    annotated = AnnotatedCycles.of(corpus) if "segmentation" in tasks else AnnotatedCycles({}, {})
    truth = recording_truth(corpus) if "verdicts" in tasks else {}
    cycles, verdicts = [], []
    for recording in corpus.recordings:
        if recording.id not in truth and recording.id not in annotated.cycles:
            continue
        samples, rate = read_recording(recording.path)
        found, duration_s = DetectedCycles(), samples.size / rate
        events = list(stream_events(model, samples, rate, metadata_of(recording)))
        for event in events:
            found.event(event)
        if recording.id in annotated.cycles:
            cycles.append(annotated.scored(recording, duration_s, found.finish()))
        if recording.id in truth:
            verdicts.append(follow_verdict(recording, duration_s, truth[recording.id], events, verdict_reader(model)))
    return Scored(model, tuple(cycles), tuple(verdicts), predict(model, corpus) if "cycles" in tasks else None)


def score_folds(
    folds: Sequence[Fold], corpus: Corpus, tasks: Sequence[Task], model_of: Callable[[Fold], ModelUnderTest]
) -> Scored:
    """Pool the held-out parts of a corpus, each scored by the model of its fold."""
    parts = [score(model_of(fold), fold.held_out[corpus.name], tasks) for fold in folds if corpus.name in fold.held_out]
    predicted = [part.predicted for part in parts if part.predicted is not None]
    return Scored(
        parts[0].model,
        tuple(row for part in parts for row in part.cycles),
        tuple(row for part in parts for row in part.verdicts),
        pooled_predictions(predicted) if predicted else None,
    )


def figures_of(scored: Scored, task: Task, resamples: int) -> dict[str, Any]:
    """The figures of one task."""
    if task == "segmentation":
        labels, normal = scored.model.classifier.labels, scored.model.classifier.normal_label
        report = event_report(scored.cycles, labels=labels, normal_label=normal, resamples=resamples)
        return report | {name: value for name, value in report["end_to_end"].items() if name.endswith("labelled")}
    if task == "verdicts":
        report = verdict_report(scored.verdicts, resamples=resamples)
        by_seconds = [row for row in report["auroc_by_seconds"] if row["seconds"] is not None]
        return report | {f"auroc_{row['seconds']:g}s": row["auroc"] for row in by_seconds}
    assert scored.predicted is not None
    return prediction_figures(scored.model, scored.predicted, resamples=resamples)


# -- models ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Models:
    """The models that are scored: one for everything, or one for each seed and fold."""

    path: str  # with {fold} and perhaps {seed}, or of one model
    segmenter: str | None = None  # step graph instead of the model's segmenter, with the same fields

    @property
    def by_fold(self) -> bool:
        """Whether each fold has a model of its own."""
        return "{fold}" in self.path + (self.segmenter or "")

    def load(self, seed: int = 0, fold: str = "0") -> ModelUnderTest:
        """The model of one fold; ``fold`` is a number, or a device such as ``Littmann 3200`` (``littmann-3200``)."""
        fields = {"seed": seed, "fold": re.sub(r"[^a-z0-9]+", "-", fold.lower()).strip("-")}
        model = load_model(self.path.format(**fields))
        if self.segmenter is None:
            return model
        return replace(model, segmenter=load_segmenter(Path(self.segmenter.format(**fields))))


def development_rows(
    models: Models,
    root: Path,
    corpora: Sequence[str],
    *,
    fold_rule: FoldRule = "patients",
    seeds: Sequence[int] = SEEDS,
    resamples: int = 1000,
    quick: bool = False,
) -> Iterator[Row]:
    """Rows: the machine, then one per corpus, part and task, and the simulated patients."""
    yield machine_row()
    loaded = {name: development_corpus(name, root / CORPORA[name][0]) for name in corpora if name in CORPORA}
    if quick:
        loaded = {name: _few(corpus) for name, corpus in loaded.items()}
    folds_of = _folds(models, list(loaded.values()), fold_rule, seeds)
    for name, corpus in loaded.items():
        tasks = CORPORA[name][1]
        runs = [
            score_folds(folds, corpus, tasks, lambda fold, seed=seed: models.load(seed, fold.name))  # type: ignore[misc]
            if folds
            else score(models.load(seed), corpus, tasks)
            for seed, folds in folds_of.items()
        ]
        for part, ids in _parts(corpus):
            for task in tasks:
                reports = [figures_of(run.of_recordings(ids), task, resamples) for run in runs]
                yield _row(runs[0].model, models, name, part, task, reports, corpus)
    if PHANTOMS in corpora:
        yield _phantom_row(models, list(folds_of), resamples, quick)


def _folds(models: Models, corpora: Sequence[Corpus], rule: FoldRule, seeds: Sequence[int]) -> dict[int, list[Fold]]:
    """Seed → its folds; one seed without folds for a single model."""
    if not models.by_fold:
        return {0: []}
    used = seeds if "{seed}" in models.path + (models.segmenter or "") else seeds[:1]
    return {seed: device_folds(corpora) if rule == "devices" else patient_folds(corpora, FOLDS, seed) for seed in used}


def _few(corpus: Corpus) -> Corpus:
    kept = corpus.patients[:_QUICK_PATIENTS]
    return corpus.where(lambda recording: recording.patient in kept)


def _parts(corpus: Corpus) -> Iterator[tuple[str, set[str]]]:
    """Name of each part and its recordings: ``val`` where the corpus has one, and all."""
    val = {recording.id for recording in corpus.recordings if recording.split == "val"}
    everything = {recording.id for recording in corpus.recordings}
    if val and val != everything:
        yield "val", val
        yield DEVELOPMENT, everything
    else:
        yield "all", everything


def _row(
    model: ModelUnderTest,
    models: Models,
    corpus: str,
    part: str,
    task: Task,
    reports: Sequence[dict[str, Any]],
    data: Corpus | None,
) -> Row:
    learned = (model.training.get("corpus"), model.training.get("split"))
    learned_here = data is not None and learned[0] == corpus and part != "val" and not models.by_fold
    row: Row = {
        "benchmark": "development",
        "subject": {
            "model": f"{model.name} {model.version}",
            "artefact": model.artefact,
            "part": f"{task}, {corpus} {part}",
        },
        "task": task,
        "corpus": corpus,
        "split": part,
        "seen_in_training": learned[1] if learned_here else None,
        "seeds": len(reports),
        "figures": reports[0] if len(reports) == 1 else {"over_seeds": over_seeds(reports)},
    }
    return row


def _phantom_row(models: Models, seeds: Sequence[int], resamples: int, quick: bool) -> Row:
    """Simulated patients, by the first fold's model of each seed: no fold holds them out."""
    reports = []
    for seed in seeds:
        model = models.load(seed)
        count = {"count": _QUICK_PHANTOMS} if quick else {}
        scored, invented = score_random_phantoms(model, lambda what, done, total: None, **count)
        report = event_report(scored, resamples=resamples)
        # Rates count in all recordings: most of those with an apnoea have long gaps.
        reports.append(report | report["rate_any"] | {"cycles_in_apnoea": invented})
    return _row(model, models, PHANTOMS, "all", "segmentation", reports, None)


# -- tables for people -------------------------------------------------------------------------------------------------


def markdown_page(rows: Sequence[Mapping[str, Any]], command: str) -> str:
    """The rows as a Markdown page, a table per task."""
    measured = [row for row in rows if row["benchmark"] == "development"]
    lines = ["# Development protocol", ""]
    lines += [f"{measured[0]['subject']['model']}, {measured[0]['subject']['artefact']}."] if measured else []
    for task in get_args(Task):
        mine = [row for row in measured if row["task"] == task]
        if not mine:
            continue
        headings = [heading for heading, _ in COLUMNS[task]]
        lines += ["", f"## {task.capitalize()}", "", f"| corpus, part | {' | '.join(headings)} |"]
        lines.append("|---|" + "---:|" * len(headings))
        lines += [f"| {_place(row)} | {' | '.join(_cell(row, key) for _, key in COLUMNS[task])} |" for row in mine]
        lines += _devices(mine)
    commands = list(dict.fromkeys(row.get("command", command) for row in measured))
    lines += ["", _NOTE, "", *(f"* `{each}`" for each in commands), "", RESEARCH_USE_IN_FIGURES, ""]
    return "\n".join(lines)


_NOTE = (
    "\\* holds patients that the model was trained on. Rates count recordings with at least four annotated cycles and "
    "no long gap (simulated patients: all); a recording without a rate counts as 0/min in the errors. *In regions*: "
    "found cycles outside the annotated regions are not counted. *Phase-free*: after the best constant shift of each "
    "recording. *Audible*: the audible spans of the found cycles. *Labelled*: annotated breaths of which a found cycle "
    "with a label covers at least half, and the scores of these labels. *3 s … 15 s*: AUROC of the running verdict "
    "after so much audio, without a cycle yet it is undecided "
    "(0.5). *Within device*: mean over the devices, weighted by their items."
)


def _place(row: Mapping[str, Any]) -> str:
    return f"{row['corpus']}, {row['split']}" + ("\\*" if row["seen_in_training"] else "")


def _cell(row: Mapping[str, Any], key: str) -> str:
    figures = row["figures"]
    if "over_seeds" not in figures:
        return cell(figures.get(key))
    value = figures["over_seeds"].get(key)
    if value is None:
        return "–"
    return cell(value["mean"]) if value["sd"] is None else f"{cell(value['mean'])} ± {cell(value['sd'])}"


def _devices(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """AUROC within each device, of the rows with more than one; not over seeds."""
    found = [row for row in rows if len(row["figures"].get("auroc_of_device", ())) > 1]
    lines = ["", "| within device | n | patients | abnormal | AUROC |", "|---|---:|---:|---:|---:|"] if found else []
    for row in found:
        for device in row["figures"]["auroc_of_device"]:
            numbers = (device["n"], device["patients"], device["abnormal"], device["auroc"])
            lines.append(f"| {_place(row)}: {device['device']} | {' | '.join(map(cell, numbers))} |")
    return lines


def main(
    model: Annotated[
        str, typer.Argument(help="Bundle or checkpoint; with {fold} and {seed}, one for each.")
    ] = "default",
    root: Annotated[Path | None, typer.Option("--root", help="Folder of the corpora; $STETHO_DATA if absent.")] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option("--corpus", help=f"{', '.join(CORPORA)} or {PHANTOMS}; may be repeated; all if absent."),
    ] = None,
    segmenter: Annotated[
        str | None, typer.Option("--segmenter", help="Step graph instead of the model's; {fold} and {seed} as above.")
    ] = None,
    folds: Annotated[str, typer.Option("--folds", help="Hold out patients or devices.")] = "patients",
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Seeds of {seed}; may be repeated.")] = None,
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=0, help="Resamples of the intervals.")] = 1000,
    quick: Annotated[bool, typer.Option("--quick", help="Three patients of each corpus.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="JSON file; the tables get the same name.")] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Keep the rows of the JSON file that are of other corpora.")
    ] = False,
) -> None:
    """Score a bundle on all development patients; JSON lines on stdout."""
    wanted = corpus or [*CORPORA, PHANTOMS]
    if unknown := [name for name in wanted if name not in (*CORPORA, PHANTOMS)]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(CORPORA)}, {PHANTOMS}", param_hint="--corpus")
    if folds not in get_args(FoldRule):
        raise typer.BadParameter(f"{folds!r} is none of {', '.join(get_args(FoldRule))}", param_hint="--folds")
    data = root or Path(os.environ.get("STETHO_DATA", "../shared/data"))
    options = [f"--corpus {name}" for name in corpus or ()] + (["--quick"] if quick else [])
    options += ["--folds devices"] if folds == "devices" else []
    command = " ".join(["python -m benchmarks.studies.development", _shown(model), "--root $STETHO_DATA", *options])
    kept: list[Row] = _other_rows(out, wanted) if add and out is not None and out.is_file() else []
    for row in development_rows(
        Models(model, segmenter),
        data,
        wanted,
        fold_rule=cast("FoldRule", folds),
        seeds=seeds or SEEDS,
        resamples=bootstrap,
        quick=quick,
    ):
        kept.append(row if row["benchmark"] == "machine" else {**row, "command": command})
        typer.echo(json.dumps(jsonable(kept[-1])))
        if out is not None:
            write_results(out, command, kept)  # after each row, so that Ctrl-C keeps the rows so far
            with whole_file(out.with_suffix(".md")) as draft:
                draft.write_text(markdown_page(kept, command), encoding="utf-8")


def _other_rows(path: Path, corpora: Sequence[str]) -> list[Row]:
    """Rows of an earlier run with the machine it ran on; each with the command that made it."""
    earlier = read_results(path)
    return [
        row if row["benchmark"] == "machine" else {"command": earlier.command, **row}
        for row in earlier.rows
        if row.get("corpus") not in corpora
    ]


def _shown(path: str) -> str:
    """A path without the folders of this machine."""
    return Path(path).name if Path(path).is_absolute() else path


if __name__ == "__main__":
    typer.run(main)
