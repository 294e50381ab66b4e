"""Streams of a cross-validated classifier over the recordings that each fold left out: evidence for a verdict.

Each fold's network runs with a bundle's segmenter over the recordings of its held-out patients; one file of JSON lines
for each corpus, as ``adventitious.cycles`` of ``stetho train adventitious --cv`` reads them. The folds come from the
states in the folder of ``stetho train RECIPE --cv N --out RUN``; none is trained again.

``python -m benchmarks.studies.fold_streams RUN compact-joint --root ROOT --out DIR``
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_sdk.corpora import Corpus
from edge_sdk.corpora.audio import read_recording
from edge_sdk.corpora.table import Recording
from edge_sdk.evaluation.model import ModelUnderTest, load_model
from edge_sdk.evaluation.predict import stream_events
from edge_sdk.events import CycleResult
from edge_sdk.files import whole_file
from edge_sdk.metadata import metadata_of
from edge_sdk.training.calibration import Decision
from edge_sdk.training.checkpoint import Checkpoint, save_checkpoint
from edge_sdk.training.classification.crossval import finished_folds
from edge_sdk.training.classification.data import load_training_data
from edge_sdk.training.classification.joint import load_classifier_sides
from edge_sdk.training.classification.task import schema_of
from edge_sdk.training.loop.fit import Trainer
from edge_sdk.training.recipes.recipe import Recipe, load_recipe
from edge_sdk.training.run_folder import RunOptions

_SHORTEST_S = 3.0  # recordings below, single phases, have no cycles to find


def fold_streams(
    recipe: Recipe, options: RunOptions, bundle_of: Callable[[int], ModelUnderTest]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Corpus and JSON line: each labelled cycle, and after those of a recording a ``summary`` that names it.

    Parameters
    ----------
    recipe, options
        Of the cross-validation.
    bundle_of
        Fold → the bundle whose segmenter finds the cycles.

    Raises
    ------
    RecipeError
        The folder holds no finished cross-validation.
    """
    corpus = load_classifier_sides(recipe, options)
    data = load_training_data(corpus, recipe, cache=options.cache)
    for number, (decision, held_out, trainer) in enumerate(finished_folds(recipe, options, data)):
        bundle = bundle_of(number)
        patients = set(data.events.patient[held_out].tolist())
        model = replace(_model(recipe, decision, trainer), segmenter=bundle.segmenter, quality=bundle.quality)
        yield from _lines(model, corpus.where(partial(_of_patients, patients)))


def _model(recipe: Recipe, decision: Decision, trainer: Trainer) -> ModelUnderTest:
    schema = schema_of(trainer)
    checkpoint = Checkpoint(
        model=recipe.model.name,
        size=recipe.model.size,
        recipe=recipe.to_dict(),
        front_end=recipe.spec,
        labels=recipe.labels,
        decoder=recipe.decoder,
        temperature=decision.temperature,
        bias=decision.bias,
        state=trainer.model.state_dict(),
        metadata={} if schema is None else schema.to_dict(),
    )
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(checkpoint, Path(folder) / "fold.pt")
        return load_model(Path(folder) / "fold.pt")


def _of_patients(patients: set[str], recording: Recording) -> bool:
    return recording.patient in patients


def _lines(model: ModelUnderTest, corpus: Corpus) -> Iterator[tuple[str, dict[str, Any]]]:
    for recording in corpus.recordings:
        samples, rate = read_recording(recording.path)
        if samples.size < _SHORTEST_S * rate:
            continue
        name = recording.id.rpartition("/")[2]  # of a joined corpus without its prefix
        for event in stream_events(model, samples, rate, metadata_of(recording)):
            if isinstance(event, CycleResult) and event.label is not None:
                span = {"start_s": round(event.cycle.start_s, 4), "end_s": round(event.cycle.end_s, 4)}
                yield recording.corpus, {"recording": name, **span, "probabilities": dict(event.probabilities)}
        yield recording.corpus, {"type": "summary", "recording": name}


def main(
    run: Annotated[Path, typer.Argument(help="Folder of the cross-validation.")],
    recipe: Annotated[str, typer.Argument(help="Its recipe.")],
    root: Annotated[Path, typer.Option(help="Folder of the main corpus.")],
    out: Annotated[Path, typer.Option(help="Folder for one file of each corpus.")],
    corpus: Annotated[str, typer.Option(help="The main corpus.")] = "sprsound",
    bundle: Annotated[
        str, typer.Option(help="Bundle whose segmenter finds the cycles; with {fold}, one for each.")
    ] = "default",
    change: Annotated[list[str] | None, typer.Option("--set", help="Settings of the cross-validation.")] = None,
) -> None:
    """Run the networks of a cross-validation over the recordings they left out; JSON lines on stdout name the files."""
    options = RunOptions(corpus, root, run, partial=True)
    lines: dict[str, list[str]] = {}
    chosen = load_recipe(recipe, overrides=change or [])
    for name, line in fold_streams(chosen, options, lambda fold: load_model(bundle.format(fold=fold))):
        lines.setdefault(name, []).append(json.dumps(line))
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in sorted(lines.items()):
        path = out / f"{name}.jsonl"
        with whole_file(path) as draft:
            draft.write_text("\n".join(rows) + "\n", encoding="utf-8")
        typer.echo(json.dumps({"corpus": name, "lines": len(rows), "path": str(path)}))


if __name__ == "__main__":
    typer.run(main)
