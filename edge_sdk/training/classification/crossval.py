"""Patient-grouped cross-validation of a recipe: figures of unseen patients, and the decision that ships."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edge_sdk.corpora.splits import grouped_folds
from edge_sdk.errors import RecipeError
from edge_sdk.runtime.context import in_context
from edge_sdk.runtime.decoding import logit_count
from edge_sdk.training.audio.bank import Progress
from edge_sdk.training.calibration import Decision, Logits
from edge_sdk.training.checkpoint import save_checkpoint
from edge_sdk.training.classification.breakdown import ScoredFolds, score_folds
from edge_sdk.training.classification.data import TrainingData, load_training_data
from edge_sdk.training.classification.distill import HELD_OUT, taught_by_fold, taught_by_seed
from edge_sdk.training.classification.inference import cycle_logits
from edge_sdk.training.classification.joint import joint_folds, load_classifier_sides
from edge_sdk.training.classification.run import check_examples, classifier_checkpoint, classifier_provenance
from edge_sdk.training.classification.sampling import EventTable, Origin
from edge_sdk.training.classification.task import classify_trainer, schema_of, trained_data
from edge_sdk.training.loop.fit import Step, Trainer
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run_folder import (
    CV_FILE,
    CV_LOGITS_FILE,
    RunOptions,
    fold_checkpoint_file,
    fold_state_file,
    run_file,
    write_json,
)


@dataclass(frozen=True)
class CrossValidation(ScoredFolds):
    """Out-of-fold results of one recipe; its decision is what the recipe should carry."""

    logits: Logits  # [n, C] of each cycle by itself
    in_context: Logits  # [n, C] of each cycle in the context of its recording
    fold: npt.NDArray[np.int64]  # [n]


def cross_validate_classifier(
    recipe: Recipe,
    options: RunOptions,
    folds: int,
    *,
    on_read: Progress | None = None,
    on_step: Callable[[int, Step], None] | None = None,
) -> dict[str, Any]:
    """Cross-validate on the patients of the training and validation splits together and write ``cv.json``.

    Parameters
    ----------
    recipe, options
        As for one run.
    folds
        Number of patient-disjoint folds.
    on_read, on_step
        Progress; ``on_step`` is called with (fold, step).

    Returns
    -------
    dict
        ``metrics`` pooled over held-out cycles, ``folds``, and ``decision`` to copy into the recipe.

    Raises
    ------
    RecipeError, CorpusError, TrainingError, CheckpointError
        Settings, data, the loop or a file of the run is at fault.
    """
    recipe = taught_by_seed(recipe, options.seed)
    corpus = load_classifier_sides(recipe, options, on_read)
    both = load_training_data(corpus, recipe, cache=options.cache, progress=on_read)
    check_examples(recipe, both, corpus.name, folds=folds)
    result = cross_validate(
        recipe, both, folds=folds, seed=options.seed, folder=options.out, on_step=on_step,
        on_fold=partial(_keep_fold, recipe, options), device=options.device,
        fold_of=_fold_of(recipe, options, folds, options.seed),
    )  # fmt: skip
    report = {
        "recipe": recipe.name,
        "size": recipe.model.size,
        "seed": options.seed,
        "metrics": result.metrics,
        "by": result.by,
        "folds": result.folds,
        "decision": {
            "temperature": result.decision.temperature,
            "bias": list(result.decision.bias),
            "threshold": list(result.decision.threshold),
        },
        "provenance": classifier_provenance(recipe, options, both).to_dict(),
    }
    write_json(options.out / CV_FILE, report)
    with run_file(options.out / CV_LOGITS_FILE) as draft, draft.open("wb") as file:
        events = both.events
        np.savez_compressed(
            file,
            logits=result.logits,
            truth=events.bits,
            fold=result.fold,
            patient=events.patient,
            recording=both.names[events.recording],
            begin=events.begin,
            start_s=events.begin / recipe.spec.rate_hz,
            end_s=events.end / recipe.spec.rate_hz,
            use=events.use,
            labels=np.array(recipe.labels),
            probabilities=result.decision.probabilities(result.in_context),
            origin=np.array([f"{origin.corpus}/{origin.device}" for origin in both.origins(events)]),
        )
    return report


def _fold_of(recipe: Recipe, options: RunOptions, folds: int, seed: int) -> dict[str, int] | None:
    """Folds of joint training, in which every fold holds out patients of every corpus and device."""
    return joint_folds(recipe, options, folds, seed) if recipe.joint.extra else None


def _keep_fold(recipe: Recipe, options: RunOptions, number: int, left_out: EventTable, trainer: Trainer) -> None:
    """Write the network of a fold: a teacher. It knows patients of both splits, so neither can measure it."""
    both = msgspec.structs.replace(recipe, joint=msgspec.structs.replace(recipe.joint, all_patients=True))
    provenance = classifier_provenance(both, options, trained_data(trainer)).to_dict()
    held_out = {HELD_OUT: sorted(set(left_out.patient.tolist()))}
    checkpoint = classifier_checkpoint(recipe, trainer, held_out, provenance)
    save_checkpoint(checkpoint, fold_checkpoint_file(options.out, number))


def cross_validate(
    recipe: Recipe,
    data: TrainingData,
    *,
    folds: int,
    seed: int,
    folder: Path | None = None,
    on_step: Callable[[int, Step], None] | None = None,
    on_fold: Callable[[int, EventTable, Trainer], None] | None = None,
    device: str = "cpu",
    fold_of: Mapping[str, int] | None = None,
) -> CrossValidation:
    """Train once per fold on the other folds' patients and pool the held-out cycles.

    Parameters
    ----------
    recipe, data, seed
        As for one run; ``data`` holds train and val patients together.
    folds : int
        Number of patient-disjoint folds.
    folder : Path, optional
        Keeps the training state of each fold, so that an interrupted cross-validation resumes.
    on_step : callable, optional
        Called with (fold, step) after each optimiser step.
    on_fold : callable, optional
        Called with (fold, held-out events, trainer) after the last epoch of each fold.
    fold_of : mapping, optional
        Patient → fold; without it patients are dealt so that every fold has as many cycles of each label.
    """
    events = data.events
    fold = np.zeros(len(events), dtype=np.int64)
    logits = np.zeros((len(events), logit_count(recipe.decoder, recipe.labels)))
    for number, (held_out, trainer) in enumerate(
        fold_trainers(
            recipe, data, folds=folds, seed=seed, folder=folder, on_step=on_step, device=device, fold_of=fold_of
        )
    ):
        fold[held_out] = number
        left_out = events.where(held_out)
        logits[held_out] = cycle_logits(trainer.model, recipe, data, left_out, schema_of(trainer))
        if on_fold is not None:
            on_fold(number, left_out, trainer)
    return summarise(recipe, logits, events, fold, data.origins(events))


def fold_trainers(
    recipe: Recipe,
    data: TrainingData,
    *,
    folds: int,
    seed: int,
    folder: Path | None = None,
    on_step: Callable[[int, Step], None] | None = None,
    device: str = "cpu",
    fold_of: Mapping[str, int] | None = None,
) -> Iterator[tuple[npt.NDArray[np.bool_], Trainer]]:
    """The held-out events ``[n]`` of each fold, and the trainer of the others' patients after its last epoch.

    Parameters
    ----------
    recipe, data, folds, seed, folder, on_step, device, fold_of
        As for :func:`cross_validate`; folds that are finished in ``folder`` are not trained again.
    """
    events = data.events
    patients = [str(patient) for patient in events.patient]
    if fold_of is None:
        fold = grouped_folds(events.bits.tolist(), patients, folds, seed=seed)
    else:
        fold = np.array([fold_of[patient] for patient in patients], dtype=np.int64)
    left_out = [set(events.patient[fold == number].tolist()) for number in range(folds)]
    # All teachers before the first fold is trained: one that is missing must not end a run that has lasted for hours.
    taught = [taught_by_fold(recipe, number, out) for number, out in enumerate(left_out)]
    for number in range(folds):
        held_out, trained = fold == number, set(patients) - left_out[number]
        trainer = classify_trainer(taught[number], data.of_patients(trained), seed + number, device=device)
        report = None if on_step is None else (lambda step, number=number: on_step(number, step))
        trainer.run(None if folder is None else fold_state_file(folder, number), report)
        yield held_out, trainer


def finished_folds(
    recipe: Recipe, options: RunOptions, data: TrainingData
) -> Iterator[tuple[Decision, npt.NDArray[np.bool_], Trainer]]:
    """Decision, held-out events ``[n]`` and trainer of each fold of a cross-validation that is done.

    Raises
    ------
    RecipeError
        The folder holds no finished cross-validation.
    """
    try:
        report = json.loads((options.out / CV_FILE).read_text(encoding="utf-8"))
        folds, seed = report["folds"], report["seed"]
        decisions = [fold_decision(recipe, entry) for entry in folds]
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(f"{options.out} holds no finished cross-validation ({error!r})") from error
    recipe, fold_of = taught_by_seed(recipe, seed), _fold_of(recipe, options, len(decisions), seed)
    trainers = fold_trainers(recipe, data, folds=len(decisions), seed=seed, folder=options.out, fold_of=fold_of)
    for decision, (held_out, trainer) in zip(decisions, trainers, strict=True):
        yield decision, held_out, trainer


def fold_decision(recipe: Recipe, entry: Mapping[str, Any]) -> Decision:
    """The decision that a fold's entry of ``cv.json`` holds."""
    threshold = tuple(entry.get("threshold") or ())
    return Decision(entry["temperature"], tuple(entry["bias"]), recipe.decoder, threshold)


def summarise(
    recipe: Recipe,
    logits: Logits,
    events: EventTable,
    fold: npt.NDArray[np.int64],
    origins: Sequence[Origin] | None = None,
) -> CrossValidation:
    """Cross-fit the decision on annotated cycles and score them pooled, per fold, and by origin where these are given.

    Parameters
    ----------
    recipe
        Its labels, decoder and recording context.
    logits
        ``[n, K]`` out of fold, of each cycle by itself.
    events, fold
        ``[n]``.
    origins
        ``[n]`` corpus and device.
    """
    together = in_context(logits, recipe.decision.context, events.recording.tolist(), events.begin.tolist())
    shown = origins if recipe.joint.extra else None
    scored = score_folds(recipe.labels, recipe.decoder, together, events, fold, shown)
    return CrossValidation(**vars(scored), logits=logits, in_context=together, fold=fold)
