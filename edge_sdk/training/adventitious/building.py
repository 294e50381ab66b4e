"""The network of a recipe or of a checkpoint, and the settings that go with it."""

from __future__ import annotations

from edge_sdk.errors import CheckpointError, RecipeError
from edge_sdk.models.adventitious import SOUNDS, AdventitiousNetwork
from edge_sdk.training.checkpoint import Checkpoint
from edge_sdk.training.recipes.adventitious_settings import AdventitiousSection
from edge_sdk.training.recipes.recipe import Recipe

MODEL = "adventitious"
LABELS = (*SOUNDS, "breathing")
"""Rows of the network's frame outputs, as the checkpoint names them."""


def adventitious_section(recipe: Recipe) -> AdventitiousSection:
    """The recipe's settings of this task.

    Raises
    ------
    RecipeError
        It has none.
    """
    if recipe.adventitious is None:
        raise RecipeError(f"recipe {recipe.name!r} has no section 'adventitious': it trains no network of this kind")
    return recipe.adventitious


def build_adventitious(recipe: Recipe) -> AdventitiousNetwork:
    """The recipe's network with fresh weights from torch's current random state.

    Raises
    ------
    RecipeError
        The recipe names another model, or a size or option that this one does not have.
    """
    model = recipe.model
    if model.name != MODEL:
        raise RecipeError(f"recipe {recipe.name!r}: task adventitious needs model.name {MODEL!r}, not {model.name!r}")
    try:
        return AdventitiousNetwork(front_end=recipe.spec, size=model.size, **model.options)
    except TypeError as error:
        raise RecipeError(f"recipe {recipe.name!r}: model.options {model.options}: {error}") from error


def checkpoint_adventitious(checkpoint: Checkpoint) -> tuple[AdventitiousNetwork, Recipe]:
    """The network of a checkpoint, in evaluation mode, and the recipe it was trained by.

    Raises
    ------
    CheckpointError
        It is another model's, or its tensors do not fit.
    """
    if checkpoint.model != MODEL:
        raise CheckpointError(
            f"checkpoint of model {checkpoint.model!r}, not of {MODEL!r}; 'stetho train {MODEL}' makes one"
        )
    try:
        recipe = Recipe.from_dict(checkpoint.recipe)
        model = build_adventitious(recipe)
        model.load_state_dict(checkpoint.state)
    except (RuntimeError, RecipeError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"the checkpoint does not fit model {MODEL!r} ({first}); use the SDK version that wrote it, or train again"
        ) from error
    return model.eval(), recipe
