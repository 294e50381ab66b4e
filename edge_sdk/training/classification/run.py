"""Training of a classifier: a recipe, a corpus and a seed in; a checkpoint with its metrics out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from edge_sdk.corpora import Corpus
from edge_sdk.errors import RecipeError
from edge_sdk.runtime.context import in_context
from edge_sdk.runtime.decoding import logit_count
from edge_sdk.training.audio.bank import Progress
from edge_sdk.training.calibration import Decision
from edge_sdk.training.checkpoint import Checkpoint, save_checkpoint
from edge_sdk.training.classification.breakdown import ScoredCycles, figures_by_origin
from edge_sdk.training.classification.data import TrainingData, load_training_data
from edge_sdk.training.classification.inference import annotated_logits
from edge_sdk.training.classification.joint import load_classifier_sides, trained_split
from edge_sdk.training.classification.sampling import WEAK_LABELS, Origin
from edge_sdk.training.classification.task import classify_trainer, schema_of, trained_data
from edge_sdk.training.corpus import side_of
from edge_sdk.training.data_identity import finished_run, reported_identity
from edge_sdk.training.loop.fit import Step, Trainer
from edge_sdk.training.loop.loggers import RunLogs, flat
from edge_sdk.training.preflight import check_batch, check_classes, check_patients, check_reported, check_weights
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
        The metrics written to ``metrics.json``, with ``checkpoint`` naming the file; of a run that is finished already
        those in its folder. In a parallel run the processes after the first return only the losses.

    Raises
    ------
    RecipeError, CorpusError, TrainingError, CheckpointError
        Settings, data, the loop or a file of the run is at fault.
    """
    logs = RunLogs(options.out, options.logs, flat(recipe.to_dict()))
    corpus = load_classifier_sides(recipe, options, on_read)
    # The bank holds the training side alone: no recording of the other side can be used, not even as noise.
    training = side_of(corpus, options.train_split)
    data = load_training_data(training, recipe, cache=options.cache, progress=on_read)
    reported = side_of(corpus, options.val_split)
    check_examples(recipe, data, f"{corpus.name}, split {options.train_split}")
    check_reported(reported.cycles, options, corpus.name)
    trainer = classify_trainer(recipe, data, options.seed, device=options.device)
    if trainer.machine.world > 1 and recipe.objective.distill is not None and recipe.fit.mixup_p:
        raise RecipeError("a teacher cannot follow examples that are mixed across processes; use --set fit.mixup_p=0")
    trainer.reported = reported_identity(reported, options)
    if (finished := finished_run(recipe, options, trainer.identity)) is not None:
        return finished if trainer.machine.leads else {"losses": finished.get("losses", [])}
    trainer.run(options.out / STATE_FILE, on_step, logs.epoch)
    metrics: dict[str, Any] = {"split": options.val_split, "seed": options.seed, "losses": trainer.losses}
    if trainer.validation:
        metrics |= {"validation": trainer.validation, "best_epoch": trainer.best_epoch}
    if not trainer.machine.leads:
        trainer.machine.barrier()
        return metrics
    metrics |= _evaluate(recipe, options, trainer, corpus)
    provenance = classifier_provenance(recipe, options, trained_data(trainer)).to_dict()
    checkpoint = classifier_checkpoint(recipe, trainer, metrics, provenance)
    path = options.out / CHECKPOINT_FILE
    save_checkpoint(checkpoint, path)
    write_recipe(recipe, options.out)
    write_json(options.out / METRICS_FILE, metrics)
    logs.finish(metrics)
    trainer.machine.barrier()
    return {**metrics, "checkpoint": str(path)}


def classifier_checkpoint(
    recipe: Recipe, trainer: Trainer, metrics: Mapping[str, Any], provenance: Mapping[str, Any]
) -> Checkpoint:
    """The network that a trainer holds, with the decision of its recipe."""
    schema = schema_of(trainer)
    return Checkpoint(
        model=recipe.model.name,
        size=recipe.model.size,
        recipe=recipe.to_dict(),
        front_end=recipe.spec,
        labels=recipe.labels,
        decoder=recipe.decoder,
        temperature=recipe.decision.temperature,
        bias=recipe.decision.bias or _no_bias(recipe),
        state=trainer.model.state_dict(),
        metrics=dict(metrics),
        provenance=dict(provenance),
        metadata=schema.to_dict() if schema is not None else {},
    )


def check_examples(recipe: Recipe, data: TrainingData, where: str, *, folds: int = 0) -> None:
    """Warn of what is missing in the examples of a classifier; errors as :mod:`edge_sdk.training.preflight`."""
    events = data.events.trained
    check_classes((recipe.labels[index] for index in events.bits.tolist()), recipe.labels, where)
    check_patients({str(patient) for patient in events.patient.tolist()}, recipe.fit, where, folds=folds, grouped=True)
    check_batch(recipe.fit)
    check_weights(recipe.model)


def classifier_provenance(recipe: Recipe, options: RunOptions, data: TrainingData) -> Provenance:
    """Where a classifier comes from; ``data`` holds only what the weights were fitted to."""
    events, labels, joint = data.events.trained, recipe.labels, recipe.joint
    corpora = (*joint.extra, *joint.unlabelled, joint.noise)
    cycles = zip(events.patient.tolist(), events.recording.tolist(), events.bits.tolist(), strict=True)
    return training_provenance(
        replace(options, train_split=trained_split(recipe, options)),
        [TrainedCycle(patient, str(recording), labels[index]) for patient, recording, index in cycles],
        labels,
        noise_recordings=len(set(data.noise.tolist()) | set(data.negatives.tolist())),
        heart_recordings=0 if data.heart is None else len(data.heart.lengths),
        joined_corpora=[entry.partition("=")[0] for entry in corpora if entry],
    )


def _evaluate(recipe: Recipe, options: RunOptions, trainer: Trainer, corpus: Corpus) -> dict[str, Any]:
    held_out = [c for c in corpus.cycles if c.split == options.val_split and c.raw_label not in WEAK_LABELS]
    if not held_out or options.val_split == options.train_split:
        return {}
    settings = recipe.decision
    decision = Decision(settings.temperature, settings.bias or _no_bias(recipe), recipe.decoder, settings.threshold)
    logits = annotated_logits(trainer.model, recipe.spec, held_out, schema_of(trainer), cache=options.cache)
    recordings, starts = [cycle.recording_id for cycle in held_out], [cycle.start_s for cycle in held_out]
    probabilities = decision.probabilities(in_context(logits, settings.context, recordings, starts))
    scored = ScoredCycles(
        recipe.labels,
        tuple(cycle.label for cycle in held_out),
        tuple(cycle.patient for cycle in held_out),
        probabilities,
        tuple(recipe.labels[index] for index in decision.classes(probabilities)),
    )
    figures = scored.figures(options.resamples)
    if recipe.joint.extra:
        origins = [Origin(cycle.corpus, cycle.device or "") for cycle in held_out]
        figures["by"] = figures_by_origin(scored, origins)
    return figures


def _no_bias(recipe: Recipe) -> tuple[float, ...]:
    return (0.0,) * logit_count(recipe.decoder, recipe.labels)
