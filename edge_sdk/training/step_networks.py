"""What the training of every network that runs in steps shares: it is built, read and written as no classifier is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from edge_sdk.errors import CheckpointError, RecipeError
from edge_sdk.training.checkpoint import Checkpoint, save_checkpoint
from edge_sdk.training.provenance import Provenance
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run_folder import (
    CHECKPOINT_FILE,
    METRICS_FILE,
    RunOptions,
    fold_checkpoint_file,
    write_json,
    write_recipe,
)

N = TypeVar("N", bound=nn.Module)


def build_step_network(recipe: Recipe, name: str, network: Callable[..., N]) -> N:
    """The recipe's network with fresh weights from torch's current random state.

    Parameters
    ----------
    recipe
        Its ``model`` must have this name.
    name, network
        Of the model, and its class: called with ``front_end``, ``size`` and the options.

    Raises
    ------
    RecipeError
        The recipe names another model, or a size or option that this one does not have.
    """
    model = recipe.model
    if model.name != name:
        raise RecipeError(f"recipe {recipe.name!r}: task {recipe.task} needs model.name {name!r}, not {model.name!r}")
    try:
        return network(front_end=recipe.spec, size=model.size, **model.options)
    except TypeError as error:
        raise RecipeError(f"recipe {recipe.name!r}: model.options {model.options}: {error}") from error


def checkpoint_step_network(
    checkpoint: Checkpoint, name: str, what: str, build: Callable[[Recipe], N]
) -> tuple[N, Recipe]:
    """The network of a checkpoint, in evaluation mode, and the recipe it was trained by.

    Parameters
    ----------
    checkpoint
        Of a run.
    name, what
        Of the model, and what messages call it.
    build
        Recipe → network.

    Raises
    ------
    CheckpointError
        It is another model's, or its tensors do not fit.
    """
    if checkpoint.model != name:
        raise CheckpointError(
            f"checkpoint of model {checkpoint.model!r}, not of a {what}; 'stetho train {name}' makes one"
        )
    try:
        recipe = Recipe.from_dict(checkpoint.recipe)
        model = build(recipe)
        model.load_state_dict(checkpoint.state)
    except (RuntimeError, RecipeError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"the checkpoint does not fit the {what} ({first}); use the SDK version that wrote it, or train again"
        ) from error
    return model.eval(), recipe


def write_step_network(
    recipe: Recipe,
    options: RunOptions,
    model: nn.Module,
    labels: Sequence[str],
    metrics: dict[str, Any],
    provenance: Provenance,
) -> dict[str, Any]:
    """Write checkpoint, metrics and recipe of a run; returns the metrics with ``checkpoint`` naming the file.

    Parameters
    ----------
    recipe, options, model
        Of the run.
    labels
        Rows of the network's output.
    metrics, provenance
        What was measured, and what the weights were fitted to.

    Raises
    ------
    CheckpointError
        A file cannot be written.
    """
    path = options.out / CHECKPOINT_FILE
    save_checkpoint(_checkpoint(recipe, model, labels, metrics, provenance), path)
    write_recipe(recipe, options.out)
    write_json(options.out / METRICS_FILE, metrics)  # last: it says that the run is finished
    return {**metrics, "checkpoint": str(path)}


def keep_fold_network(
    recipe: Recipe,
    folder: Path,
    fold: int,
    model: nn.Module,
    labels: Sequence[str],
    provenance: Provenance,
    metrics: dict[str, Any] | None = None,
) -> None:
    """Write the network of a fold of a cross-validation, which can be exported as that of a run can.

    Parameters
    ----------
    recipe, model, labels, metrics, provenance
        As :func:`write_step_network`; the provenance without the patients that are left out.
    folder, fold
        Of the cross-validation.

    Raises
    ------
    CheckpointError
        The file cannot be written.
    """
    path = fold_checkpoint_file(folder, fold)
    save_checkpoint(_checkpoint(recipe, model, labels, metrics or {}, provenance), path)


def _checkpoint(
    recipe: Recipe, model: nn.Module, labels: Sequence[str], metrics: dict[str, Any], provenance: Provenance
) -> Checkpoint:
    return Checkpoint(
        model=recipe.model.name,
        size=recipe.model.size,
        recipe=recipe.to_dict(),
        front_end=recipe.spec,
        labels=tuple(labels),
        decoder="softmax",
        temperature=1.0,
        bias=(0.0,) * len(labels),
        state=model.state_dict(),
        metrics=metrics,
        provenance=provenance.to_dict(),
    )
