"""The entry points of ``stetho train``: one run, or a cross-validation, of a recipe of either task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_sdk.training.audio.bank import Progress
from edge_sdk.training.classification.crossval import cross_validate_classifier
from edge_sdk.training.classification.run import train_classifier
from edge_sdk.training.loop.fit import Step
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run_folder import RunOptions
from edge_sdk.training.segmentation.crossval import cross_validate_segmenter
from edge_sdk.training.segmentation.run import train_segmenter


def run_training(
    recipe: Recipe,
    options: RunOptions,
    *,
    on_read: Progress | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> dict[str, Any]:
    """Train on the training split, report on the validation split, write the checkpoint. Resumes by itself.

    Parameters
    ----------
    recipe
        All settings; its ``task`` chooses between classifier and segmenter.
    options
        Corpus, folder, seed and device.
    on_read, on_step
        Called while recordings are read, and after each step of the optimiser.

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
    train = train_segmenter if recipe.task == "segment" else train_classifier
    return train(recipe, options, on_read=on_read, on_step=on_step)


def run_cross_validation(
    recipe: Recipe,
    options: RunOptions,
    folds: int,
    *,
    on_read: Progress | None = None,
    on_step: Callable[[int, Step], None] | None = None,
) -> dict[str, Any]:
    """Cross-validate by patient and write ``cv.json``; an interrupted cross-validation resumes.

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
        ``metrics`` pooled over held-out patients, and the settings to copy into the recipe; see
        :func:`~edge_sdk.training.classification.crossval.cross_validate_classifier` and
        :func:`~edge_sdk.training.segmentation.crossval.cross_validate_segmenter`.

    Raises
    ------
    RecipeError, CorpusError, TrainingError, CheckpointError
        Settings, data, the loop or a file of the run is at fault.
    """
    cross_validate = cross_validate_segmenter if recipe.task == "segment" else cross_validate_classifier
    return cross_validate(recipe, options, folds, on_read=on_read, on_step=on_step)
