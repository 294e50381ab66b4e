"""A checkpoint with random weights: export and benchmarks can handle a model before it is trained."""

from __future__ import annotations

import torch

from edge_sdk.models.registry import build_model
from edge_sdk.training.checkpoint import Checkpoint
from edge_sdk.training.recipe import load_recipe


def untrained_checkpoint(recipe_name: str, *, size: str | None = None, seed: int = 0) -> Checkpoint:
    """Instantiate a recipe's model with the weights that ``seed`` gives.

    Raises
    ------
    RecipeError
        No such recipe or size.
    """
    recipe = load_recipe(recipe_name, size=size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(
            recipe.model.name,
            size=recipe.model.size,
            classes=len(recipe.labels),
            front_end=recipe.spec,
            options=recipe.model.options,
        )
    return Checkpoint(
        model=recipe.model.name,
        size=recipe.model.size,
        recipe=recipe.to_dict(),
        front_end=recipe.spec,
        labels=recipe.labels,
        decoder=recipe.decoder,
        temperature=1.0,
        bias=(0.0,) * len(recipe.labels),
        state=model.state_dict(),
        provenance={"untrained": True, "seed": seed},
    )
