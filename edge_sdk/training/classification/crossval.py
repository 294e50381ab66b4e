"""Patient-grouped cross-validation of a recipe: honest figures, and the decision (temperature, bias) that ships."""

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
from edge_sdk.training.calibration import Decision, Logits, cross_fitted_probabilities, fit_decision
from edge_sdk.training.classification.data import TrainingData
from edge_sdk.training.classification.inference import cycle_logits
from edge_sdk.training.classification.sampling import EventTable
from edge_sdk.training.classification.task import classify_trainer, schema_of
from edge_sdk.training.loop.fit import STATE_FILE, Step
from edge_sdk.training.recipes.recipe import Recipe


@dataclass(frozen=True)
class CrossValidation:
    """Out-of-fold results of one recipe."""

    metrics: dict[str, Any]  # of all held-out cycles, decision fitted on the other folds
    folds: list[dict[str, Any]]  # the same per fold, with the decision used
    decision: Decision  # fitted on all held-out cycles: what the recipe should carry
    logits: Logits  # [n, C]
    fold: npt.NDArray[np.int64]  # [n]


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
        seen = {patient for patient, out in zip(patients, held_out, strict=True) if not out}
        trainer = classify_trainer(recipe, data.of_patients(seen), seed + number, device=device)
        report = None if on_step is None else (lambda step, number=number: on_step(number, step))
        state = None if folder is None else folder / f"fold-{number}" / STATE_FILE
        model = trainer.run(state, report)
        logits[held_out] = cycle_logits(model, recipe, data, events.where(held_out), schema_of(trainer))
    return summarise(recipe, logits, events, fold)


def summarise(recipe: Recipe, logits: Logits, events: EventTable, fold: npt.NDArray[np.int64]) -> CrossValidation:
    """Cross-fit the decision and score pooled and per fold."""
    probabilities, decisions = cross_fitted_probabilities(logits, events.bits, fold, recipe.decoder)
    called = np.zeros(len(events), dtype=np.int64)
    for number, decision in enumerate(decisions):
        called[fold == number] = decision.classes(probabilities[fold == number])
    truth = np.array(recipe.labels)[events.bits]
    every = np.ones(len(events), dtype=bool)

    def figures(rows: npt.NDArray[np.bool_], resamples: int) -> dict[str, Any]:
        return evaluate_predictions(
            truth[rows].tolist(),
            probabilities[rows],
            events.patient[rows].tolist(),
            labels=recipe.labels,
            normal_label=recipe.labels[0],
            predictions=[recipe.labels[index] for index in called[rows]],
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
