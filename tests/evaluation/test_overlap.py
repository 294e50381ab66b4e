"""Nobody is shown the figures of a model on its own training recordings without a warning."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge_sdk.corpora import Corpus
from edge_sdk.evaluation.model import load_model
from edge_sdk.evaluation.overlap import training_overlap
from edge_sdk.evaluation.segmentation_report import evaluate_segmenter
from edge_sdk.evaluation.verdict_report import evaluate_recordings
from edge_sdk.runtime.bundle.load import load_bundle

JOINT = {"corpus": "sprsound", "split": "train+val", "joined_corpora": ["icbhi", "kauh"]}
SINGLE = {"corpus": "sprsound", "split": "train"}
WHOLE = {"corpus": "sprsound", "split": "all", "joined_corpora": ["icbhi"]}


def warned(training: dict[str, Any], corpus: str, split: str) -> list[str]:
    return training_overlap(training, Corpus(corpus, Path("unused"), ()), split)


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
        (WHOLE, "sprsound", "val"),
        (WHOLE, "icbhi", "train"),
    ],
)
@pytest.mark.requirement("EVA-2")
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
        (WHOLE, "kauh", "all"),
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


def test_a_segmenter_scored_on_its_own_recordings_is_warned_of(tmp_path: Path) -> None:
    """The record is the segmenter's own: another segmenter than the bundle's has none."""
    rng = np.random.default_rng(0)
    for name, side in (("101_1b1_Al_sc_Meditron", "train"), ("102_1b1_Al_sc_Meditron", "test")):
        soundfile.write(tmp_path / f"{name}.wav", 0.05 * rng.standard_normal(6 * 4000), 4000)
        (tmp_path / f"{name}.txt").write_text("0.5\t2.0\t0\t0\n2.0\t3.5\t0\t1\n")
        with (tmp_path / "ICBHI_challenge_train_test.txt").open("a") as file:
            file.write(f"{name}\t{side}\n")
    bundle = tmp_path / "bundle"
    shutil.copytree(load_bundle("default").path, bundle)
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["training"]["segmenter"] |= WHOLE | {"split": "train"}
    (bundle / "bundle.json").write_text(json.dumps(manifest))

    def lines(split: str, segmenter: str | None = None) -> list[str]:
        report = evaluate_segmenter(bundle, "icbhi", tmp_path, split=split, segmenter=segmenter, resamples=0)
        return report.get("warnings", [])

    assert len(lines("train")) == 1 and "trained on icbhi train" in lines("all")[0]
    assert lines("test") == [] and lines("train", "envelope") == []
