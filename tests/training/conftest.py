"""Fixtures of the training tests: a corpus of a few seconds and a recipe of a few steps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge_sdk.training.classification.data import TrainingData
from edge_sdk.training.recipes.recipe import Recipe, load_recipe
from tests.support.tiny_corpus import synthetic_data


@pytest.fixture(scope="package", autouse=True)
def few_voices() -> Iterator[None]:
    """Four ready-made voices and knocks, not 32: each sampler of windows makes them anew, a third of a second of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge_sdk.training.segmentation.negatives._READY", 4)
        yield


@pytest.fixture(scope="session")
def data() -> TrainingData:
    return synthetic_data()


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """The packaged recipe, shrunk: one-second windows, few steps."""
    return load_recipe(
        "compact",
        size="tiny",
        overrides=[
            "fit.epochs=3",
            "fit.batch=16",
            "sampling.per_epoch=64",
            "front_end.window_s=1.0",
            "sampling.window_s=[0.4, 1.2]",
        ],
    )
