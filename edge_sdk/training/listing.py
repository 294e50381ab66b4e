"""The packaged recipes as a table: sizes, parameters, papers, protocols."""

from __future__ import annotations

from typing import Any

from edge_sdk.models import MODELS, count_parameters
from edge_sdk.training.building import model_on_meta
from edge_sdk.training.recipes.recipe import load_recipe, recipe_names


def recipe_table() -> list[dict[str, Any]]:
    """One row per packaged recipe of a classifier and size; parameters counted from the network itself."""
    rows = []
    for name in recipe_names():
        base = load_recipe(name)
        sizes = MODELS[base.model.name].sizes if base.model.name in MODELS else (base.model.size,)
        for size in sizes:
            recipe = load_recipe(name, size=size)
            counted = recipe.task == "classify"
            model = model_on_meta(recipe) if counted else None
            rows.append(
                {
                    "name": name,
                    "size": size,
                    "task": recipe.task,
                    "model": recipe.model.name,
                    "parameters": count_parameters(model) if model is not None else None,
                    "trained": None if model is None else sum(p.numel() for p in model.parameters() if p.requires_grad),
                    "paper": recipe.paper or None,
                    "protocol": recipe.protocol,
                    "title": recipe.title,
                    "default": size == base.model.size,
                }
            )
    return rows
