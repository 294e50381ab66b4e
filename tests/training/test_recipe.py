"""Recipes say what a run does, and nothing they say is silently ignored."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_sdk.errors import RecipeError
from edge_sdk.models import MODELS, build_model
from edge_sdk.training.recipe import Recipe, load_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_every_packaged_recipe_builds_in_every_size(name: str) -> None:
    for size in MODELS[load_recipe(name).model.name].sizes:
        recipe = load_recipe(name, size=size)
        model = build_model(recipe.model.name, size=size, classes=len(recipe.labels), front_end=recipe.spec)
        assert sum(parameter.numel() for parameter in model.parameters()) > 0


def test_round_trip_through_plain_builtins_changes_nothing() -> None:
    recipe = load_recipe("compact")
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_overrides_reach_every_depth_and_keep_their_types() -> None:
    recipe = load_recipe(
        "compact", size="tiny", overrides=["fit.epochs=7", "model.options.dropout=0.5", "heart_corpus=null"]
    )
    assert (recipe.fit.epochs, recipe.model.options["dropout"], recipe.heart_corpus) == (7, 0.5, None)
    assert recipe.model.size == "tiny"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("fit.epoch=3", "epoch"),
        ("fits.epochs=3", "fits"),
        ("fit.epochs=many", "int"),
        ("front_end.mel_bin=3", "mel_bin"),
        ("front_end.high_hz=9000", "high_hz"),
        ("model.name=resnet", "known models"),
        ("model.size=huge", "choose one of"),
        ("decision.bias=[1.0]", "one number per label"),
        ("fit.epochs", "key=value"),
        ("fit.epochs.more=1", "holds a value"),
    ],
)
def test_unknown_or_impossible_settings_are_refused_by_name(override: str, named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        load_recipe("compact", overrides=[override])


def test_missing_and_malformed_recipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"choose one of .*compact"):
        load_recipe("compcat")
    with pytest.raises(RecipeError, match="does not exist"):
        load_recipe(str(tmp_path / "mine.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("model: [")
    with pytest.raises(RecipeError, match="not valid YAML"):
        load_recipe(str(broken))
    broken.write_text("- a list")
    with pytest.raises(RecipeError, match="mapping"):
        load_recipe(str(broken))
