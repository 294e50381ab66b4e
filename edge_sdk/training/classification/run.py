"""Training of a classifier: a recipe, a corpus and a seed in; a checkpoint with its metrics out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edge_sdk.corpora import Corpus
from edge_sdk.errors import RecipeError
from edge_sdk.metrics import evaluate_predictions
from edge_sdk.runtime.decoding import logit_count
from edge_sdk.training.audio.bank import Progress
from edge_sdk.training.calibration import Decision
from edge_sdk.training.checkpoint import Checkpoint, save_checkpoint
from edge_sdk.training.classification.data import TrainingData, load_training_data
from edge_sdk.training.classification.inference import annotated_logits
from edge_sdk.training.classification.task import classify_trainer, schema_of, trained_data
from edge_sdk.training.corpus import load_sides, side_of
from edge_sdk.training.loop.fit import Step, Trainer
from edge_sdk.training.loop.loggers import RunLogs, flat
from edge_sdk.training.provenance import Provenance, TrainedCycle, training_provenance
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run_folder import (
    CHECKPOINT_FILE,
    METRICS_FILE,
    STATE_FILE,
    RunOptions,
    write_json,
    write_recipe,
)


def train_classifier(
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

    Raises
    ------
    RecipeError, CorpusError, TrainingError, CheckpointError
        Settings, data, the loop or a file of the run is at fault.
    """
    logs = RunLogs(options.out, options.logs, flat(recipe.to_dict()))
    corpus = load_sides(recipe, options)
    # The bank holds the training side alone: no recording of the other side can be used, not even as noise.
    training = side_of(corpus, options.train_split)
    data = load_training_data(training, recipe, cache=options.cache, progress=on_read)
    trainer = classify_trainer(recipe, data, options.seed, device=options.device)
    if trainer.machine.world > 1 and recipe.objective.distill is not None and recipe.fit.mixup_p:
        raise RecipeError("a teacher cannot follow examples that are mixed across processes; use --set fit.mixup_p=0")
    model = trainer.run(options.out / STATE_FILE, on_step, logs.epoch)
    metrics: dict[str, Any] = {"split": options.val_split, "seed": options.seed, "losses": trainer.losses}
    if trainer.validation:
        metrics |= {"validation": trainer.validation, "best_epoch": trainer.best_epoch}
    if not trainer.machine.leads:
        trainer.machine.barrier()
        return metrics
    metrics |= _evaluate(recipe, options, trainer, corpus)
    schema = schema_of(trainer)
    checkpoint = Checkpoint(
        model=recipe.model.name,
        size=recipe.model.size,
        recipe=recipe.to_dict(),
        front_end=recipe.spec,
        labels=recipe.labels,
        decoder=recipe.decoder,
        temperature=recipe.decision.temperature,
        bias=recipe.decision.bias or _no_bias(recipe),
        state=model.state_dict(),
        metrics=metrics,
        provenance=classifier_provenance(options, trained_data(trainer), recipe.labels).to_dict(),
        metadata=schema.to_dict() if schema is not None else {},
    )
    path = options.out / CHECKPOINT_FILE
    save_checkpoint(checkpoint, path)
    write_recipe(recipe, options.out)
    write_json(options.out / METRICS_FILE, metrics)
    logs.finish(metrics)
    trainer.machine.barrier()
    return {**metrics, "checkpoint": str(path)}


def classifier_provenance(options: RunOptions, data: TrainingData, labels: Sequence[str]) -> Provenance:
    """Where a classifier comes from; ``data`` holds only what the weights were fitted to."""
    events = data.events
    cycles = zip(events.patient.tolist(), events.recording.tolist(), events.bits.tolist(), strict=True)
    return training_provenance(
        options,
        [TrainedCycle(patient, str(recording), labels[index]) for patient, recording, index in cycles],
        labels,
        noise_recordings=len(data.noise),
        heart_recordings=0 if data.heart is None else len(data.heart.lengths),
    )


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
