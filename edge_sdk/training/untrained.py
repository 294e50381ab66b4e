"""A checkpoint with random weights: for export and benchmarks of a model before it is trained."""

from __future__ import annotations

import torch

from edge_sdk.runtime.decoding import logit_count
from edge_sdk.training.building import build_recipe_model, example_schema
from edge_sdk.training.checkpoint import Checkpoint
from edge_sdk.training.recipes.recipe import load_recipe


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
        schema = example_schema(recipe)
        model = build_recipe_model(recipe, schema, pretrained=False)
    return Checkpoint(
        model=recipe.model.name,
        size=recipe.model.size,
        recipe=recipe.to_dict(),
        front_end=recipe.spec,
        labels=recipe.labels,
        decoder=recipe.decoder,
        temperature=1.0,
        bias=(0.0,) * logit_count(recipe.decoder, recipe.labels),
        state=model.state_dict(),
        provenance={"untrained": True, "seed": seed},
        metadata=schema.to_dict() if schema is not None else {},
    )
