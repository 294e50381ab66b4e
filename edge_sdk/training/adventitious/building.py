"""The network of a recipe or of a checkpoint, and the settings that go with it."""

from __future__ import annotations

from edge_sdk.errors import RecipeError
from edge_sdk.models.adventitious import SOUNDS, AdventitiousNetwork
from edge_sdk.training.checkpoint import Checkpoint
from edge_sdk.training.recipes.adventitious_settings import AdventitiousSection
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.step_networks import build_step_network, checkpoint_step_network

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
    """The recipe's network with fresh weights; raises as :func:`build_step_network`."""
    return build_step_network(recipe, MODEL, AdventitiousNetwork)


def checkpoint_adventitious(checkpoint: Checkpoint) -> tuple[AdventitiousNetwork, Recipe]:
    """The network of a checkpoint and its recipe; raises as :func:`checkpoint_step_network`."""
    return checkpoint_step_network(checkpoint, MODEL, "network of the verdict", build_adventitious)
