"""The network of a recipe: name, size, head, metadata and the public weights that it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from edge_sdk.errors import RecipeError
from edge_sdk.metadata import MetadataSchema
from edge_sdk.models import build_model
from edge_sdk.models.network import Network
from edge_sdk.runtime.decoding import logit_count
from edge_sdk.training.recipes.recipe import Recipe


def build_recipe_model(recipe: Recipe, schema: MetadataSchema | None = None, *, pretrained: bool = True) -> Network:
    """The recipe's network with fresh weights from torch's current random state, or its public ones.

    Parameters
    ----------
    recipe : Recipe
        Names the model, its size and options, labels and decoder.
    schema : MetadataSchema, optional
        Of the training rows; needed where the recipe has metadata.
    pretrained : bool
        Whether ``model.pretrained`` is loaded.

    Raises
    ------
    RecipeError
        Unknown model, size or option; metadata without a schema.
    CheckpointError
        The public weights do not fit.
    """
    section = recipe.model
    options: dict[str, Any] = dict(section.options)
    if recipe.metadata is not None:
        if schema is None:
            raise RecipeError(f"recipe {recipe.name!r} reads metadata: its model needs the schema of the training rows")
        options["metadata_schema"] = schema
    model = build_model(
        section.name,
        size=section.size,
        classes=logit_count(recipe.decoder, recipe.labels),
        front_end=recipe.spec,
        options=options,
    )
    if not isinstance(model, Network):
        raise RecipeError(f"model {section.name!r} is no classifier; recipes of task 'segment' have their own builder")
    if pretrained and section.pretrained is not None:
        from edge_sdk.models.pretrained import load_public_weights

        load_public_weights(model, Path(section.pretrained))
    return model


def model_on_meta(recipe: Recipe) -> nn.Module:
    """The same network without memory for its weights: for counting parameters of any size at once."""
    schema = example_schema(recipe)
    try:
        with torch.device("meta"):
            return build_recipe_model(recipe, schema, pretrained=False)
    except (NotImplementedError, RuntimeError):  # a network that reads values while it is built
        return build_recipe_model(recipe, schema, pretrained=False)


def example_schema(recipe: Recipe) -> MetadataSchema | None:
    """Vocabularies of the size that ICBHI has, for networks without training rows."""
    if recipe.metadata is None:
        return None
    row = {"age_years": 40.0, "bmi": 22.0, "duration_s": 2.5}
    rows = [
        {**row, "device": f"device {k % 4}", "site": f"site {k}", "sex": ("female", "male")[k % 2]} for k in range(7)
    ]
    return MetadataSchema.fit(rows, recipe.metadata.fields)
