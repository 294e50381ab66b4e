"""Nobody is shown the figures of a model on its own training recordings without a warning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge_sdk.corpora import Corpus
from edge_sdk.evaluation.model import load_model
from edge_sdk.evaluation.overlap import training_overlap
from edge_sdk.evaluation.verdict_report import evaluate_recordings

JOINT = {"corpus": "sprsound", "split": "train+val", "joined_corpora": ["icbhi", "kauh"]}
SINGLE = {"corpus": "sprsound", "split": "train"}


def warned(training: dict[str, Any], corpus: str, split: str) -> list[str]:
    model = replace(load_model("default"), training=training)
    return training_overlap(model, Corpus(corpus, Path("unused"), ()), split)


@pytest.mark.parametrize(
    ("training", "corpus", "split"),
    [
        (SINGLE, "sprsound", "train"),
        (SINGLE, "sprsound", "all"),
        (JOINT, "sprsound", "train"),
        (JOINT, "sprsound", "val"),
        (JOINT, "sprsound", "train+val"),
        (JOINT, "icbhi", "val"),
        (JOINT, "kauh", "all"),
    ],
)
def test_every_corpus_and_split_that_was_trained_on_is_named(training: dict[str, Any], corpus: str, split: str) -> None:
    (line,) = warned(training, corpus, split)
    assert f"trained on {corpus} {training['split']}" in line


@pytest.mark.parametrize(
    ("training", "corpus", "split"),
    [
        (SINGLE, "sprsound", "val"),
        (SINGLE, "icbhi", "train"),
        (JOINT, "icbhi", "test"),
        (JOINT, "hf_lung_labels", "all"),
        (JOINT | {"corpus": "csv"}, "csv", "train"),  # another folder of the same format
        ({}, "sprsound", "all"),  # nothing is known
    ],
)
def test_other_recordings_give_no_warning(training: dict[str, Any], corpus: str, split: str) -> None:
    assert warned(training, corpus, split) == []


def test_verdicts_of_recordings_are_warned_of_too(tmp_path: Path) -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal(3 * 4000)
    for name in ("BP1_N,N,P R U,81,F", "BP2_COPD,E W,P R U,70,M"):
        soundfile.write(tmp_path / f"{name}.wav", noise, 4000)
    for joined, expected in ((["icbhi"], 0), (["kauh"], 1)):
        model = replace(load_model("default"), training=JOINT | {"joined_corpora": joined})
        report = evaluate_recordings(model, "kauh", tmp_path, partial=True, resamples=0)
        assert report["n"] == 2
        assert len(report.get("warnings", ())) == expected
