"""Classifier and segmenter state in one way what they were trained on."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge_sdk.training.checkpoint import load_checkpoint, save_checkpoint
from edge_sdk.training.classification.data import TrainingData, load_training_data
from edge_sdk.training.classification.run import classifier_provenance
from edge_sdk.training.classification.task import classify_trainer, trained_data
from edge_sdk.training.corpus import load_sides, side_of
from edge_sdk.training.recipes.recipe import Recipe, load_recipe
from edge_sdk.training.run_folder import RunOptions
from edge_sdk.training.segmentation.building import segment_section
from edge_sdk.training.segmentation.data import load_segment_data
from edge_sdk.training.segmentation.run import segmenter_provenance, train_segmenter
from edge_sdk.training.untrained import untrained_checkpoint
from tests.support.tiny_segmentation import tiny_recipe, write_corpus


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    """Five children to train on, one to report on, and one whose only recording is of poor quality."""
    root = tmp_path / "corpus"
    write_corpus(root)
    name = "40000009_5.0_0_p1_9"
    (root / "train_json" / f"{name}.json").write_text(
        json.dumps({"record_annotation": "Poor Quality", "event_annotation": []})
    )
    soundfile.write(root / "train_wav" / f"{name}.wav", 0.1 * np.random.default_rng(0).normal(size=48_000), 8000)
    with (root / "split.csv").open("a", newline="") as file:
        csv.writer(file).writerow((name, "40000009", "train"))
    return RunOptions("sprsound", root, tmp_path / "run", cache=tmp_path / "cache", logs=(), resamples=0)


def test_both_tasks_give_the_same_keys_types_and_counts_for_the_same_patients(options: RunOptions) -> None:
    compact = load_recipe("compact", size="tiny", overrides=["heart_corpus=null"])
    segmenter = tiny_recipe()
    corpus = side_of(load_sides(compact, options), options.train_split)
    events = load_training_data(corpus, compact, cache=options.cache)
    recordings = load_segment_data(
        corpus, segmenter.spec, segment_section(segmenter), heart_corpus=None, cache=options.cache
    )
    one = classifier_provenance(compact, options, events).to_dict()
    other = segmenter_provenance(segmenter, options, recordings).to_dict()
    assert list(one) == list(other) and one == other
    assert {key: type(value) for key, value in one.items()} == {key: type(value) for key, value in other.items()}
    assert (one["patients"], one["recordings"], one["noise_recordings"]) == (5, 5, 1)  # the seventh child is noise
    assert set(one["cycles"]) == set(compact.labels) and sum(one["cycles"].values()) == len(events.events)


def test_patients_held_out_for_the_epoch_are_not_counted_by_the_classifier(
    recipe: Recipe, data: TrainingData, tmp_path: Path
) -> None:
    values: dict[str, Any] = recipe.to_dict()
    values["fit"]["validation_share"] = 0.25
    trainer = classify_trainer(Recipe.from_dict(values), data, 0)
    source = classifier_provenance(recipe, RunOptions("csv", tmp_path, tmp_path), trained_data(trainer))
    assert source.patients == 9 and sum(source.cycles.values()) == 27  # of 12 patients with 3 cycles each


def test_patients_held_out_for_the_epoch_are_not_counted_by_the_segmenter(options: RunOptions) -> None:
    small = ("segment.window_s=4.0", "fit.epochs=1", "fit.validation_share=0.3")
    result = train_segmenter(tiny_recipe(*small), options)
    source = load_checkpoint(Path(result["checkpoint"])).provenance
    assert source["patients"] + source["noise_recordings"] == 4  # two of the six children are held out
    assert source["patients"] == source["recordings"]


def test_checkpoints_with_an_older_provenance_still_load(tmp_path: Path) -> None:
    older = {"corpus": "sprsound", "patients": 213, "cycles": 6749, "versions": {"torch": "2.11.0"}}
    save_checkpoint(replace(untrained_checkpoint("compact", size="tiny"), provenance=older), tmp_path / "old.pt")
    assert load_checkpoint(tmp_path / "old.pt").provenance == older
