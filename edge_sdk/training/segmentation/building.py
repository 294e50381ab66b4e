"""The segmenter of a recipe or of a checkpoint, and the settings that go with it."""

from __future__ import annotations

from edge_sdk.errors import CheckpointError, RecipeError
from edge_sdk.models.segmenter import PHASES, SegmenterNetwork
from edge_sdk.runtime.segmentation.decoder import DecoderParams
from edge_sdk.training.checkpoint import Checkpoint
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.recipes.segment_settings import SegmentSection

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
    """The recipe's network with fresh weights from torch's current random state.

    Raises
    ------
    RecipeError
        The recipe names a classifier, or a size or option that the segmenter does not have.
    """
    model = recipe.model
    if model.name != MODEL:
        raise RecipeError(f"recipe {recipe.name!r}: task segment needs model.name {MODEL!r}, not {model.name!r}")
    try:
        return SegmenterNetwork(front_end=recipe.spec, size=model.size, **model.options)
    except TypeError as error:
        raise RecipeError(f"recipe {recipe.name!r}: model.options {model.options}: {error}") from error


def checkpoint_segmenter(checkpoint: Checkpoint) -> tuple[SegmenterNetwork, Recipe]:
    """The network of a segmenter's checkpoint, in evaluation mode, and the recipe it was trained by.

    Raises
    ------
    CheckpointError
        It is a classifier's, or its tensors do not fit.
    """
    if checkpoint.model != MODEL:
        raise CheckpointError(
            f"checkpoint of model {checkpoint.model!r}, not of a segmenter; 'stetho train segmenter' makes one"
        )
    try:
        recipe = Recipe.from_dict(checkpoint.recipe)
        model = build_segmenter(recipe)
        model.load_state_dict(checkpoint.state)
    except (RuntimeError, RecipeError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"the checkpoint does not fit the segmenter ({first}); use the SDK version that wrote it, or train again"
        ) from error
    return model.eval(), recipe
