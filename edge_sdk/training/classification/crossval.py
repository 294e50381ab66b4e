"""Patient-grouped cross-validation of a recipe: figures of unseen patients, and the decision that ships."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.corpora.splits import grouped_folds
from edge_sdk.metrics import evaluate_predictions
from edge_sdk.runtime.decoding import logit_count
from edge_sdk.training.audio.bank import Progress
from edge_sdk.training.calibration import Decision, Logits, cross_fitted_probabilities, fit_decision
from edge_sdk.training.classification.data import TrainingData, load_training_data
from edge_sdk.training.classification.inference import cycle_logits
from edge_sdk.training.classification.run import classifier_provenance
from edge_sdk.training.classification.sampling import EventTable
from edge_sdk.training.classification.task import classify_trainer, schema_of
from edge_sdk.training.corpus import load_sides
from edge_sdk.training.loop.fit import Step
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run_folder import CV_FILE, CV_LOGITS_FILE, RunOptions, fold_state_file, run_file, write_json


@dataclass(frozen=True)
class CrossValidation:
    """Out-of-fold results of one recipe."""

    metrics: dict[str, Any]  # of all held-out cycles, decision fitted on the other folds
    folds: list[dict[str, Any]]  # the same per fold, with the decision used
    decision: Decision  # fitted on all held-out cycles: what the recipe should carry
    logits: Logits  # [n, C]
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
    both = load_training_data(load_sides(recipe, options), recipe, cache=options.cache, progress=on_read)
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
        "provenance": classifier_provenance(options, both, recipe.labels).to_dict(),
    }
    write_json(options.out / CV_FILE, report)
    with run_file(options.out / CV_LOGITS_FILE) as draft, draft.open("wb") as file:
        np.savez_compressed(
            file, logits=result.logits, truth=both.events.bits, fold=result.fold, patient=both.events.patient
        )
    return report


def cross_validate(
    recipe: Recipe,
    data: TrainingData,
    *,
    folds: int,
    seed: int,
    folder: Path | None = None,
    on_step: Callable[[int, Step], None] | None = None,
    device: str = "cpu",
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
    """
    events = data.events
    patients = [str(patient) for patient in events.patient]
    fold = grouped_folds(events.bits.tolist(), patients, folds, seed=seed)
    logits = np.zeros((len(events), logit_count(recipe.decoder, recipe.labels)))
    for number in range(folds):
        held_out = fold == number
        trained = {patient for patient, out in zip(patients, held_out, strict=True) if not out}
        trainer = classify_trainer(recipe, data.of_patients(trained), seed + number, device=device)
        report = None if on_step is None else (lambda step, number=number: on_step(number, step))
        state = None if folder is None else fold_state_file(folder, number)
        model = trainer.run(state, report)
        logits[held_out] = cycle_logits(model, recipe, data, events.where(held_out), schema_of(trainer))
    return summarise(recipe, logits, events, fold)


def summarise(recipe: Recipe, logits: Logits, events: EventTable, fold: npt.NDArray[np.int64]) -> CrossValidation:
    """Cross-fit the decision and score pooled and per fold."""
    probabilities, decisions = cross_fitted_probabilities(logits, events.bits, fold, recipe.decoder)
    predicted = np.zeros(len(events), dtype=np.int64)
    for number, decision in enumerate(decisions):
        predicted[fold == number] = decision.classes(probabilities[fold == number])
    truth = np.array(recipe.labels)[events.bits]
    every = np.ones(len(events), dtype=bool)

    def figures(rows: npt.NDArray[np.bool_], resamples: int) -> dict[str, Any]:
        return evaluate_predictions(
            truth[rows].tolist(),
            probabilities[rows],
            events.patient[rows].tolist(),
            labels=recipe.labels,
            normal_label=recipe.labels[0],
            predictions=[recipe.labels[index] for index in predicted[rows]],
            resamples=resamples,
        )

    per_fold = []
    for number, decision in enumerate(decisions):
        entry = figures(fold == number, 0)
        entry["temperature"], entry["bias"] = decision.temperature, list(decision.bias)
        entry["threshold"] = list(decision.threshold)
        per_fold.append(entry)
    decision = fit_decision(logits, events.bits, recipe.decoder)
    return CrossValidation(figures(every, 1000), per_fold, decision, logits, fold)
