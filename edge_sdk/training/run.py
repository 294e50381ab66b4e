"""What ``stetho train`` does: a recipe, a corpus and a seed in; a checkpoint, or a cross-validation report, out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from edge_sdk.corpora import Corpus, load_corpus
from edge_sdk.corpora.labels import as_cycles, relabel
from edge_sdk.corpora.protocols import training_sides
from edge_sdk.errors import CorpusError, RecipeError
from edge_sdk.metrics import evaluate_predictions
from edge_sdk.runtime.decoding import logit_count
from edge_sdk.training.audio.bank import Progress
from edge_sdk.training.calibration import Decision
from edge_sdk.training.checkpoint import Checkpoint, save_checkpoint
from edge_sdk.training.classification.crossval import cross_validate
from edge_sdk.training.classification.data import load_training_data
from edge_sdk.training.classification.inference import annotated_logits
from edge_sdk.training.classification.task import classify_trainer, schema_of
from edge_sdk.training.loop.fit import STATE_FILE, Step, Trainer
from edge_sdk.training.loop.loggers import RunLogs, flat
from edge_sdk.training.loop.storage import write_atomically
from edge_sdk.training.provenance import provenance
from edge_sdk.training.recipes.recipe import Recipe

CHECKPOINT_FILE = "checkpoint.pt"
METRICS_FILE = "metrics.json"
RECIPE_FILE = "recipe.yaml"
CV_FILE = "cv.json"
CV_LOGITS_FILE = "cv-logits.npz"


@dataclass(frozen=True)
class RunOptions:
    """Where a run reads and writes."""

    corpus: str  # registry name
    root: Path
    out: Path
    seed: int = 0
    train_split: str = "train"
    val_split: str = "val"
    partial: bool = False  # accept an incomplete copy of the corpus
    cache: Path | None = None
    threads: int = 1  # part of what makes a run reproducible to the bit: sums are taken in another order with more
    device: str = "cpu"  # cpu, cuda or auto
    logs: tuple[str, ...] | None = None  # see loggers.LOGGERS; None: what is installed
    resamples: int = 1000  # of the bootstrap behind the intervals


def train(
    recipe: Recipe,
    options: RunOptions,
    *,
    on_read: Progress | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> dict[str, Any]:
    """Train on the training split, report on the validation split, write the checkpoint. Resumes by itself.

    Returns
    -------
    dict
        The metrics written to ``metrics.json``, with ``checkpoint`` naming the file. In a parallel run the processes
        after the first return only the losses.
    """
    if recipe.task == "segment":
        from edge_sdk.training.segmentation.run import train_segmenter

        return train_segmenter(recipe, options, on_read=on_read, on_step=on_step)
    logs = RunLogs(options.out, options.logs, flat(recipe.to_dict()))
    corpus = load_sides(recipe, options)
    # The bank is of the training side alone: nobody on the other can be heard, not even as noise.
    learned = corpus.where(lambda recording: recording.split == options.train_split)
    data = load_training_data(learned, recipe, cache=options.cache, progress=on_read)
    trainer = classify_trainer(recipe, data, options.seed, device=options.device)
    if trainer.machine.world > 1 and recipe.objective.distill is not None and recipe.fit.mixup_p:
        raise RecipeError("a teacher cannot be asked about mixed examples of other processes; use --set fit.mixup_p=0")
    model = trainer.run(options.out / STATE_FILE, on_step, logs.epoch)
    metrics: dict[str, Any] = {"split": options.val_split, "seed": options.seed, "losses": trainer.losses}
    if trainer.validation:
        metrics |= {"validation": trainer.validation, "best_epoch": trainer.best_epoch}
    if not trainer.machine.leads:
        trainer.machine.barrier()
        return metrics
    metrics |= _evaluate(recipe, options, trainer, corpus)
    temperature, bias = recipe.decision.temperature, recipe.decision.bias or _no_bias(recipe)
    schema = schema_of(trainer)
    checkpoint = Checkpoint(
        model=recipe.model.name,
        size=recipe.model.size,
        recipe=recipe.to_dict(),
        front_end=recipe.spec,
        labels=recipe.labels,
        decoder=recipe.decoder,
        temperature=temperature,
        bias=bias,
        state=model.state_dict(),
        metrics=metrics,
        provenance=provenance(corpus.name, options.train_split, options.seed, data, recipe.labels),
        metadata=schema.to_dict() if schema is not None else {},
    )
    path = options.out / CHECKPOINT_FILE
    save_checkpoint(checkpoint, path)
    write_recipe(recipe, options.out)
    write_json(options.out / METRICS_FILE, metrics)
    logs.finish(metrics)
    trainer.machine.barrier()
    return {**metrics, "checkpoint": str(path)}


def run_cross_validation(
    recipe: Recipe,
    options: RunOptions,
    folds: int,
    *,
    on_read: Progress | None = None,
    on_step: Callable[[int, Step], None] | None = None,
) -> dict[str, Any]:
    """Cross-validate on the patients of the training and validation splits together and write ``cv.json``.

    Returns
    -------
    dict
        ``metrics`` pooled over held-out cycles, ``folds``, and ``decision`` to copy into the recipe. Of a segmenter:
        see :func:`~edge_sdk.training.segmentation.crossval.cross_validate_segmenter`.
    """
    if recipe.task == "segment":
        from edge_sdk.training.segmentation.crossval import cross_validate_segmenter

        return cross_validate_segmenter(recipe, options, folds, on_read=on_read, on_step=on_step)
    corpus = load_sides(recipe, options)
    both = load_training_data(corpus, recipe, cache=options.cache, progress=on_read)
    result = cross_validate(
        recipe, both, folds=folds, seed=options.seed, folder=options.out, on_step=on_step, device=options.device
    )
    report = {
        "recipe": recipe.name,
        "size": recipe.model.size,
        "seed": options.seed,
        "metrics": result.metrics,
        "folds": result.folds,
        "decision": {
            "temperature": result.decision.temperature,
            "bias": list(result.decision.bias),
            "threshold": list(result.decision.threshold),
        },
        "provenance": provenance(corpus.name, options.train_split, options.seed, both, recipe.labels),
    }
    write_json(options.out / CV_FILE, report)
    np.savez_compressed(
        options.out / CV_LOGITS_FILE,
        logits=result.logits,
        truth=both.events.bits,
        fold=result.fold,
        patient=both.events.patient,
    )
    return report


def load_sides(recipe: Recipe, options: RunOptions) -> Corpus:
    """The recordings of both splits under the recipe's labels, each marked with its side.

    Raises
    ------
    CorpusError
        No such corpus or split, patients on both sides, or other labels than the recipe's.
    """
    torch.set_num_threads(options.threads)
    corpus = load_corpus(options.corpus, options.root, split="all", partial=options.partial)
    if options.train_split not in corpus.splits:
        raise CorpusError(
            f"corpus {corpus.name} at {corpus.root} has no split {options.train_split!r}; "
            f"it has {', '.join(corpus.splits)} (--split)"
        )
    corpus = training_sides(corpus, options.train_split, options.val_split)
    if recipe.labels_scheme != "four":
        corpus = as_cycles(relabel(corpus, recipe.labels_scheme, drop_unlabelled=options.partial))
        if set(corpus.labels) != set(recipe.labels):
            raise CorpusError(
                f"scheme {recipe.labels_scheme} gives {', '.join(corpus.labels)}, the recipe says "
                f"{', '.join(recipe.labels)}; use --set labels=[{','.join(corpus.labels)}]"
            )
    return corpus


def _evaluate(recipe: Recipe, options: RunOptions, trainer: Trainer, corpus: Corpus) -> dict[str, Any]:
    held_out = [cycle for cycle in corpus.cycles if cycle.split == options.val_split]
    if not held_out or options.val_split == options.train_split:
        return {}
    settings = recipe.decision
    decision = Decision(settings.temperature, settings.bias or _no_bias(recipe), recipe.decoder, settings.threshold)
    probabilities = decision.probabilities(
        annotated_logits(trainer.model, recipe.spec, held_out, schema_of(trainer), cache=options.cache)
    )
    return evaluate_predictions(
        [cycle.label for cycle in held_out],
        probabilities,
        [cycle.patient for cycle in held_out],
        predictions=[recipe.labels[index] for index in decision.classes(probabilities)],
        labels=recipe.labels,
        normal_label=recipe.labels[0],
        resamples=options.resamples,
    )


def _no_bias(recipe: Recipe) -> tuple[float, ...]:
    return (0.0,) * logit_count(recipe.decoder, recipe.labels)


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """``recipe.yaml``: every setting spelled out, ready to be trained again."""
    text = yaml.safe_dump(recipe.to_dict(), sort_keys=False)
    write_atomically(folder / RECIPE_FILE, lambda path: _write_text(path, text))


def write_json(path: Path, content: Any) -> None:
    """Atomically."""
    text = json.dumps(content, indent=1)
    write_atomically(path, lambda partial: _write_text(partial, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
