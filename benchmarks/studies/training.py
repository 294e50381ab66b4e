"""Compares trained networks: one row per run with figures on one split, size, training cost and speed.

``python -m benchmarks.studies.training RUN... --corpus sprsound --root ROOT --split val --against default --out FILE``
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
import typer
import yaml
from msgspec.structs import replace

from benchmarks.core.harness import interleave, machine_row, percentiles
from edge_sdk.corpora import load_corpus
from edge_sdk.corpora.splits import grouped_folds
from edge_sdk.corpora.table import Cycle
from edge_sdk.metrics import evaluate_predictions
from edge_sdk.metrics.compare import ModelPredictions, compare_predictions
from edge_sdk.metrics.icbhi import encode_labels
from edge_sdk.models import count_parameters
from edge_sdk.models.conditioning import Metadata
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.training.calibration import cross_fitted_probabilities
from edge_sdk.training.checkpoint import Checkpoint, load_checkpoint
from edge_sdk.training.classification.inference import annotated_logits
from edge_sdk.training.figures.table import ResultRow, add_rows
from edge_sdk.training.run_folder import CHECKPOINT_FILE, LOG_FILE, METRICS_FILE, RECIPE_FILE

FOLDS = 5
PROTOCOL = (
    "{corpus} {train}→{split}, strict, settings and epochs fixed before, temperature and bias cross-fitted by patient"
)


@dataclass(frozen=True)
class ScoredRun:
    """Figures and predictions of one run."""

    name: str
    row: ResultRow
    probabilities: Any  # [n, C]
    predictions: list[str]
    checkpoint: Checkpoint


def score_run(run: Path, cycles: Sequence[Cycle], corpus: str, split: str) -> ScoredRun:
    """Figures of one run on annotated cycles.

    For every network, the decision (temperature, bias) of each fold is fitted on the other patients of the split,
    because a new network has none and the Score depends on it more than on the network.
    """
    checkpoint = load_checkpoint(run / CHECKPOINT_FILE)
    model = checkpoint.build()
    logits = annotated_logits(model, checkpoint.front_end, cycles, checkpoint.metadata_schema)
    truth = [cycle.label for cycle in cycles]
    patients = [cycle.patient for cycle in cycles]
    classes = np.asarray(encode_labels(truth, list(checkpoint.labels)), dtype=np.int64)
    fold = grouped_folds(classes.tolist(), patients, FOLDS, seed=0)
    probabilities, decisions = cross_fitted_probabilities(logits, classes, fold)
    decided = np.zeros(len(cycles), dtype=np.int64)
    for number, decision in zip(np.unique(fold), decisions, strict=True):
        decided[fold == number] = decision.classes(probabilities[fold == number])
    predictions = [checkpoint.labels[index] for index in decided]
    figures = evaluate_predictions(truth, probabilities, patients, labels=checkpoint.labels, predictions=predictions)
    trained_on = str(checkpoint.provenance.get("split", "train"))
    row = ResultRow(
        recipe=str(checkpoint.recipe.get("name", checkpoint.model)),
        size=checkpoint.size,
        corpus=corpus,
        protocol=PROTOCOL.format(corpus=corpus, train=trained_on, split=split),
        score=figures["score"],
        score_ci=_pair(figures["score_ci"]),
        auroc=figures["auroc"],
        auroc_ci=_pair(figures["auroc_ci"]),
        ece=figures["ece"],
        parameters=count_parameters(model),
        minutes=minutes_of(run),
        command=command_of(run),
        seed=checkpoint.provenance.get("seed", 0),
        note="distilled" if (checkpoint.recipe.get("objective") or {}).get("distill") else "",
    )
    return ScoredRun(run.name, row, probabilities, predictions, checkpoint)


def _pair(bounds: Sequence[float] | None) -> tuple[float, float] | None:
    return None if bounds is None else (bounds[0], bounds[1])


def minutes_of(run: Path) -> float | None:
    """CPU minutes of training on one core, from the log of the run."""
    try:
        with (run / LOG_FILE).open(newline="", encoding="utf-8") as file:
            return round(sum(float(line["cpu_s"]) for line in csv.DictReader(file)) / 60.0, 2)
    except (OSError, KeyError, ValueError):
        return None


def command_of(run: Path) -> str:
    """The command that trains it again."""
    recipe = yaml.safe_load((run / RECIPE_FILE).read_text(encoding="utf-8"))
    text = f"stetho train {recipe['name']} --size {recipe['model']['size']} --corpus sprsound --root ROOT --out RUN"
    if recipe["model"].get("pretrained"):
        text += " --set model.pretrained=AST_RUN/checkpoint.pt"
    if (recipe.get("objective") or {}).get("distill"):
        text += " --set objective.distill.teacher=TEACHER_RUN/checkpoint.pt"
    seed = json.loads((run / METRICS_FILE).read_text(encoding="utf-8")).get("seed")
    return text + (f" --seed {seed}" if seed else "")


def latencies(scored: Sequence[ScoredRun], rounds: int) -> list[float]:
    """Median ms per cycle in torch eager, one thread, PCM in, logits out; all networks in the same rounds."""
    torch.set_num_threads(1)
    calls = {}
    for item in scored:
        spec = item.checkpoint.front_end
        front_end, model = FoldedFrontEnd(spec), item.checkpoint.build()
        pcm = torch.from_numpy(np.random.default_rng(0).normal(0, 0.05, (1, spec.window_samples)).astype(np.float32))
        schema = item.checkpoint.metadata_schema
        metadata = None if schema is None else Metadata.unknown(schema, 1)

        def call(
            index: int, front_end: Any = front_end, model: Any = model, pcm: Any = pcm, metadata: Any = metadata
        ) -> None:
            with torch.inference_mode():
                model(front_end(pcm), metadata)

        calls[item.name] = call
    timed = interleave(calls, rounds=rounds, warm_up=3)
    return [float(percentiles(timed[item.name]["seconds"])["p50_ms"]) for item in scored]


def against_bundle(scored: Sequence[ScoredRun], name: str, cycles: Sequence[Cycle]) -> list[ResultRow]:
    """The rows with a paired patient bootstrap against the predictions of a bundle: run minus bundle."""
    from edge_sdk.corpora.audio import cycle_pcm
    from edge_sdk.runtime.bundle.load import load_bundle

    bundle = load_bundle(name)
    windows = np.stack([pcm for _, pcm in cycle_pcm(cycles, bundle.front_end)])
    own = np.concatenate([bundle.classifier.classify(windows[i : i + 64]) for i in range(0, len(windows), 64)])
    base = ModelPredictions(
        own, bundle.labels, predictions=[bundle.labels[index] for index in bundle.classifier.decide(own)]
    )
    truth, patients = [cycle.label for cycle in cycles], [cycle.patient for cycle in cycles]
    rows = []
    for item in scored:
        predictions = ModelPredictions(item.probabilities, item.checkpoint.labels, predictions=item.predictions)
        found = compare_predictions(truth, patients, base, predictions)["metrics"]
        score, auroc = ((found[key]["difference"], found[key]["low"], found[key]["high"]) for key in ("score", "auroc"))
        rows.append(replace(item.row, against=name, score_difference=score, auroc_difference=auroc))
    return rows


def main(
    runs: Annotated[list[Path], typer.Argument(help="Folders that 'stetho train --out' wrote.")],
    root: Annotated[Path, typer.Option("--root", help="Folder of the corpus.")],
    corpus: Annotated[str, typer.Option("--corpus")] = "sprsound",
    split: Annotated[
        str, typer.Option("--split", help="Part of the corpus; none of its patients may be in the training data.")
    ] = "val",
    against: Annotated[str | None, typer.Option("--against", help="Bundle for a paired comparison.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Timed calls of each network.")] = 50,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="JSON file that 'stetho figures table' renders."),
    ] = None,
) -> None:
    """Score, size, cost and speed of trained networks; JSON lines on stdout."""
    cycles = load_corpus(corpus, root, split=split).cycles
    scored = [score_run(run, cycles, corpus, split) for run in runs]
    speeds = latencies(scored, rounds)
    rows = against_bundle(scored, against, cycles) if against else [item.row for item in scored]
    rows = [replace(row, ms=round(ms, 3)) for row, ms in zip(rows, speeds, strict=True)]
    for row in rows:
        typer.echo(msgspec.json.encode(row).decode())
    if out is not None:
        add_rows(out, rows, machine_row())


if __name__ == "__main__":
    typer.run(main)
