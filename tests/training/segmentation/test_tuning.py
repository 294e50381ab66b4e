"""The decoder's settings are searched for on patients that the network was not trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk.errors import CheckpointError, RecipeError
from edge_sdk.runtime.segmentation.decoder import DecoderParams
from edge_sdk.training.checkpoint import load_checkpoint
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run import run_cross_validation
from edge_sdk.training.run_folder import RunOptions
from edge_sdk.training.segmentation.building import decoder_params
from edge_sdk.training.segmentation.inference import NetworkOutputs
from edge_sdk.training.segmentation.run import train_segmenter
from edge_sdk.training.segmentation.tuning import Bounds, search_params
from tests.training.segmentation.test_segmentation import SPEC, tiny_recipe, write_corpus


def _trained(folder: Path, *overrides: str) -> dict[str, Any]:
    """A tiny run on the corpus of six children in ``folder``."""
    if not (folder / "corpus").is_dir():
        write_corpus(folder / "corpus")
    small = ("segment.clip_corpus=null", "fit.validation_share=0.2", "segment.window_s=4.0", "fit.epochs=1")
    options = RunOptions(
        "sprsound", folder / "corpus", folder / f"run{len(list(folder.iterdir()))}", cache=folder / "cache", logs=(),
        resamples=0,
    )  # fmt: skip
    return train_segmenter(tiny_recipe(*small, *overrides), options)


def test_the_search_keeps_its_promises_and_ships_what_it_found(tmp_path: Path) -> None:
    result = _trained(tmp_path, "segment.search=10")
    search = result["decoder_search"]
    assert search["found"]["merit"] >= search["start"]["merit"] and search["evaluations"] == 10
    recipe = Recipe.from_dict(load_checkpoint(Path(result["checkpoint"])).recipe)
    assert decoder_params(recipe) != decoder_params(tiny_recipe()) or search["found"] == search["start"]


def test_cross_validation_runs_every_training_patient_once_and_suggests_a_decoder(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    recipe = tiny_recipe(
        "segment.clip_corpus=null", "segment.window_s=4.0", "fit.epochs=1", "segment.search=4"
    )  # fmt: skip
    options = RunOptions(
        "sprsound", tmp_path / "corpus", tmp_path / "cv", cache=tmp_path / "cache", logs=(), resamples=0
    )
    steps: list[int] = []
    report = run_cross_validation(recipe, options, 2, on_step=lambda fold, _: steps.append(fold))
    assert set(steps) == {0, 1}
    assert report["metrics"]["patients"] == 5 == report["provenance"]["patients"]  # the sixth is of the other split
    assert DecoderParams.from_dict(report["decoder"]) is not None
    assert report["decoder_search"]["start"]["event_f1"] == pytest.approx(report["metrics"]["event_f1"])
    assert json.loads((tmp_path / "cv" / "cv.json").read_text())["folds"] == 2
    steps.clear()
    again = run_cross_validation(recipe, options, 2, on_step=lambda fold, _: steps.append(fold))
    assert not steps and again["decoder_search"] == report["decoder_search"]  # resumed: all was trained
    with pytest.raises(RecipeError, match="patients"):
        run_cross_validation(recipe, options, 9)


def test_another_decoder_needs_no_other_training(tmp_path: Path) -> None:
    """Unless the epoch was chosen with it, on held-out patients."""
    write_corpus(tmp_path / "corpus")
    small = ("segment.clip_corpus=null", "segment.window_s=4.0", "fit.epochs=1")

    def run(folder: str, *overrides: str) -> dict[str, Any]:
        options = RunOptions(
            "sprsound", tmp_path / "corpus", tmp_path / folder, cache=tmp_path / "cache", logs=(), resamples=0
        )
        return train_segmenter(tiny_recipe(*small, *overrides), options, on_step=lambda _: steps.append(1))

    steps: list[int] = []
    run("all", "fit.validation_share=0")
    trained = len(steps)
    again = run("all", "fit.validation_share=0", "segment.decoder={typical_s: 1.1}")
    assert len(steps) == trained
    recipe = Recipe.from_dict(load_checkpoint(Path(again["checkpoint"])).recipe)
    assert decoder_params(recipe).typical_s == 1.1
    run("some", "fit.validation_share=0.2")
    with pytest.raises(CheckpointError):
        run("some", "fit.validation_share=0.2", "segment.decoder={typical_s: 1.1}")


def test_the_search_finds_cycles_of_low_probability() -> None:
    """Cycles of low probability: a decoder that expects certainty misses most of them."""
    outputs = [_low_probabilities(f"p{k}", np.random.default_rng(k)) for k in range(3)]
    strict = DecoderParams(activity_bias=1.0, onset_weight=0.1)
    anything = Bounds(9.0, 1.0, 9.0, 99.0)
    found, figures = search_params(outputs, 0, SPEC, strict, evaluations=49, bounds=anything)
    assert figures["found"]["event_f1"] > figures["start"]["event_f1"] + 0.1
    again, _ = search_params(outputs, 0, SPEC, strict, evaluations=49, bounds=anything)
    assert found == again


def _low_probabilities(name: str, random: np.random.Generator) -> NetworkOutputs:
    """20 s of cycles of random probability, each above that of the pauses."""
    frames, hop_s = 1000, SPEC.hop_samples / SPEC.rate_hz
    starts = np.arange(1.0, 18.0, 2.4) + random.uniform(-0.2, 0.2, 8)
    truth = np.stack((starts, starts + random.uniform(1.2, 1.8, 8)), axis=1)
    centre = (np.arange(frames) + 0.5) * hop_s
    activity, onset = np.full(frames, 0.1), np.full(frames, 0.02)
    for (begin, end), likely in zip(truth, random.uniform(0.3, 0.9, 8), strict=True):
        activity[(centre >= begin) & (centre < end)] = likely
        onset[np.abs(centre - begin) < 0.05] = 0.5
    phase = np.full((3, frames), 1 / 3)
    return NetworkOutputs(name, name, frames * SPEC.hop_samples, truth, activity, onset, phase, frames)
