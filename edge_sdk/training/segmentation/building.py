"""The segmenter of a recipe or of a checkpoint, and the settings that go with it."""

from __future__ import annotations

from edge_sdk.errors import RecipeError
from edge_sdk.models.segmenter import PHASES, SegmenterNetwork
from edge_sdk.runtime.segmentation.decoder_params import DecoderParams
from edge_sdk.training.checkpoint import Checkpoint
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.recipes.segment_settings import SegmentSection
from edge_sdk.training.step_networks import build_step_network, checkpoint_step_network

MODEL = "segmenter"
LABELS = ("activity", "onset", *PHASES, "cosine", "sine")
"""Rows of the network's output, as the checkpoint names them."""


def segment_section(recipe: Recipe) -> SegmentSection:
    """The recipe's settings of this task.

    Raises
    ------
    RecipeError
        It has none.
    """
    if recipe.segment is None:
        raise RecipeError(f"recipe {recipe.name!r} has no section 'segment': it trains no segmenter")
    return recipe.segment


def decoder_params(recipe: Recipe) -> DecoderParams:
    """Settings of the decoder that the recipe validates and ships with.

    Raises
    ------
    RecipeError
        The recipe has no ``segment`` section, or a decoder setting is out of its range.
    """
    try:
        return DecoderParams.from_dict(segment_section(recipe).decoder)
    except ValueError as error:
        raise RecipeError(f"recipe {recipe.name!r}: {error}") from error


def build_segmenter(recipe: Recipe) -> SegmenterNetwork:
    """The recipe's segmenter with fresh weights; raises as :func:`build_step_network`."""
    return build_step_network(recipe, MODEL, SegmenterNetwork)


def checkpoint_segmenter(checkpoint: Checkpoint) -> tuple[SegmenterNetwork, Recipe]:
    """The segmenter of a checkpoint and its recipe; raises as :func:`checkpoint_step_network`."""
    return checkpoint_step_network(checkpoint, MODEL, "segmenter", build_segmenter)
