"""The entry points of ``stetho train``: one run, or a cross-validation, of a recipe of any task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_sdk.training.adventitious.crossval import cross_validate_adventitious
from edge_sdk.training.adventitious.run import train_adventitious
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
        All settings; its ``task`` chooses what is trained.
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
    train = {"classify": train_classifier, "segment": train_segmenter, "adventitious": train_adventitious}
    return train[recipe.task](recipe, options, on_read=on_read, on_step=on_step)


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
        :func:`~edge_sdk.training.classification.crossval.cross_validate_classifier`,
        :func:`~edge_sdk.training.segmentation.crossval.cross_validate_segmenter` and
        :func:`~edge_sdk.training.adventitious.crossval.cross_validate_adventitious`.

    Raises
    ------
    RecipeError, CorpusError, TrainingError, CheckpointError
        Settings, data, the loop or a file of the run is at fault.
    """
    cross_validate = {
        "classify": cross_validate_classifier,
        "segment": cross_validate_segmenter,
        "adventitious": cross_validate_adventitious,
    }
    return cross_validate[recipe.task](recipe, options, folds, on_read=on_read, on_step=on_step)
