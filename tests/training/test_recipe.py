"""Recipes define a run, and no setting is silently ignored."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import pytest

from edge_sdk.errors import RecipeError
from edge_sdk.metadata import CATEGORICAL, CONTINUOUS, FIELDS
from edge_sdk.training.building import model_on_meta
from edge_sdk.training.recipes.recipe import MetadataSection, Recipe, load_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_every_packaged_recipe_builds_in_every_size(name: str) -> None:
    for size in ("tiny", "small", "base"):
        recipe = load_recipe(name, size=size)
        if recipe.task == "classify":
            model = model_on_meta(recipe)
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


def test_short_names_find_their_setting() -> None:
    given = ["window_s=4", "sam.rho=0.02", "epochs=2", "dropout=0.4", "distill.teacher=t.pt"]
    recipe = load_recipe("compact", overrides=given)
    assert (recipe.spec.window_s, recipe.sampling.window_s) == (4, (1.0, 3.5))  # a pair would be the sampling's
    assert recipe.optimiser.sam is not None and recipe.optimiser.sam.rho == 0.02
    assert (recipe.fit.epochs, recipe.model.options["dropout"]) == (2, 0.4)
    assert recipe.objective.distill is not None and recipe.objective.distill.teacher == "t.pt"
    pair = load_recipe("compact", overrides=["window_s=[1.0, 2.0]"])
    assert (pair.spec.window_s, pair.sampling.window_s) == (3.0, (1.0, 2.0))


def test_short_name_of_several_settings_is_refused_with_all_of_them() -> None:
    with pytest.raises(RecipeError, match=r"patch_mix\.beta or .*bias_denoising\.beta"):
        load_recipe("compact", overrides=["beta=0.3"])


def test_sizes_are_laid_over_the_recipe_and_settings_over_both() -> None:
    base, small = load_recipe("ast"), load_recipe("ast", size="small")
    compact = load_recipe("compact")
    assert (base.spec.rate_hz, small.spec) == (16000, compact.spec)
    assert (small.augment, small.sampling) == (compact.augment, compact.sampling)
    assert small.model.options == base.model.options
    assert small.fit.epochs != base.fit.epochs
    assert load_recipe("ast", size="small", overrides=["fit.epochs=77"]).fit.epochs == 77
    assert load_recipe("ast", overrides=["model.size=small"]) == small


def test_a_recipe_like_another_differs_only_in_its_own_settings() -> None:
    plain, sam = load_recipe("ast", size="small"), load_recipe("ast-sam", size="small")
    assert sam.optimiser.sam is not None and plain.optimiser.sam is None
    assert sam.spec == plain.spec and sam.labels == plain.labels
    assert "pooling" not in load_recipe("lung-srad").model.options  # another model has options of its own


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("like: ast\nname: x\nsizes: {tiny: {fit: {epoch: 3}}}", "epoch"),
        ("like: ast\nname: x\nsizes: [tiny]", "sizes must map"),
        ("like: nothing\nname: x", "nothing"),
        ("like: ast\nname: x\nmetadata: {fields: [shoe_size]}", "shoe_size"),
        ("like: ast\nname: x\nfit: {validation_share: 0.0, patience: 3}", "held-out patients"),
        ("like: ast\nname: x\nlabels: [a, b]\ndecoder: multilabel", "multilabel"),
    ],
)
def test_faults_of_written_recipes_are_named(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=named):
        load_recipe(str(path), size="tiny" if "sizes" in text else None)


def test_a_circle_of_recipes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"like: {path}\nname: x")
    with pytest.raises(RecipeError, match="circle"):
        load_recipe(str(path))


def test_published_settings_stand_in_the_paper_recipes() -> None:
    sam, add = load_recipe("ast-sam-paper"), load_recipe("add-paper")
    assert (sam.fit.batch, sam.fit.epochs, sam.fit.learning_rate, sam.fit.weight_decay) == (8, 20, 1e-5, 1e-4)
    assert sam.optimiser.sam is not None and sam.optimiser.sam.rho == 0.05 and not sam.optimiser.sam.adaptive
    assert (sam.sampling.class_power, sam.optimiser.schedule, sam.fit.label_smoothing) == (1.0, "constant", 0.1)
    assert (add.fit.learning_rate, add.fit.weight_decay, add.fit.ma_beta, add.fit.epochs) == (5e-5, 1e-6, 0.5, 50)
    for name in recipe_names():
        assert load_recipe(name).protocol


def test_a_recipe_may_name_every_metadata_field_and_no_other() -> None:
    (fields,) = [field.type for field in msgspec.structs.fields(MetadataSection) if field.name == "fields"]
    names = get_args(get_args(fields)[0])
    assert set(names) == {*FIELDS, "duration_s"} == {*CATEGORICAL, *CONTINUOUS}
