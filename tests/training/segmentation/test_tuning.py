"""The decoder's settings are searched for on patients that the network was not trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk.corpora import load_corpus
from edge_sdk.errors import CheckpointError, RecipeError
from edge_sdk.evaluation.protocol import fold_of_patient
from edge_sdk.runtime.segmentation.decoder_params import DecoderParams
from edge_sdk.training.checkpoint import load_checkpoint
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run import run_cross_validation
from edge_sdk.training.run_folder import RunOptions
from edge_sdk.training.segmentation.building import checkpoint_segmenter, decoder_params
from edge_sdk.training.segmentation.excerpts import Annotation
from edge_sdk.training.segmentation.inference import NetworkOutputs
from edge_sdk.training.segmentation.run import train_segmenter
from edge_sdk.training.segmentation.tuning import Bounds, search_params
from tests.support.tiny_segmentation import FRAME_S, SPEC, tiny_recipe, write_corpus


def _trained(folder: Path, *overrides: str) -> dict[str, Any]:
    """A tiny run on the corpus of six children in ``folder``."""
    if not (folder / "corpus").is_dir():
        write_corpus(folder / "corpus")
    small = ("fit.validation_share=0.2", "segment.window_s=4.0", "fit.epochs=1")
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


def test_cross_validation_runs_every_training_patient_once_and_suggests_a_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / "corpus")
    recipe = tiny_recipe("segment.window_s=4.0", "fit.epochs=1", "segment.search=4")
    monkeypatch.setattr("edge_sdk.training.segmentation.crossval._PHANTOMS", 2)
    options = RunOptions(
        "sprsound", tmp_path / "corpus", tmp_path / "cv", cache=tmp_path / "cache", logs=(), resamples=0
    )
    steps: list[int] = []
    report = run_cross_validation(recipe, options, 2, on_step=lambda fold, _: steps.append(fold))
    assert set(steps) == {0, 1}
    metrics = report["metrics"]
    assert set(metrics) == {"events", "exact"}
    assert metrics["events"]["patients"] == 5 == report["provenance"]["patients"]  # the sixth is of the other split
    assert metrics["exact"]["patients"] == 4  # two simulated patients for each fold's network, others for each
    assert DecoderParams.from_dict(report["decoder"]) is not None
    start = report["decoder_search"]["start"]
    for kind, name in (("events", "event_f1_regional"), ("exact", "event_f1"), ("exact", "rate_within_15pct")):
        assert start[f"{kind}.{name}"] == pytest.approx(metrics[kind][name] or 0.0), (kind, name)
    assert json.loads((tmp_path / "cv" / "cv.json").read_text())["folds"] == 2
    steps.clear()
    again = run_cross_validation(recipe, options, 2, on_step=lambda fold, _: steps.append(fold))
    assert not steps and again["decoder_search"] == report["decoder_search"]  # resumed: all was trained
    with pytest.raises(RecipeError, match="patients"):
        run_cross_validation(recipe, options, 9)
    fold = fold_of_patient(load_corpus("sprsound", tmp_path / "corpus", split="train"), 2)
    for number in range(2):
        kept = load_checkpoint(tmp_path / "cv" / f"fold-{number}" / "checkpoint.pt")
        assert checkpoint_segmenter(kept)[0].delay > 0
        assert kept.provenance["patients"] == sum(k != number for k in fold.values())


def test_another_decoder_needs_no_other_training(tmp_path: Path) -> None:
    """Unless the epoch was chosen with it, on held-out patients."""
    write_corpus(tmp_path / "corpus")
    small = ("segment.window_s=4.0", "fit.epochs=1")

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


ANYTHING = Bounds(detection_delay_p95_s=9.0, revision_rate=1.0)


def test_the_search_finds_cycles_of_low_probability() -> None:
    """A decoder that expects certainty misses most of them."""
    outputs = [_low_probabilities(f"p{k}", np.random.default_rng(k)) for k in range(3)]
    strict = DecoderParams(activity_bias=1.0, onset_weight=0.4, onset_bonus=-2.0, cycle_weight=0.05)
    _, figures = search_params(outputs, strict, evaluations=49, bounds=ANYTHING)
    assert figures["found"]["exact.event_f1"] > figures["start"]["exact.event_f1"] + 0.1
    assert figures["found"]["merit"] > figures["start"]["merit"] + 0.1


def test_a_search_repeats_for_one_seed() -> None:
    """Over a move of the centre."""
    outputs = [_low_probabilities("p", np.random.default_rng(0))]
    strict = DecoderParams(activity_bias=1.0, onset_weight=0.4, onset_bonus=-2.0, cycle_weight=0.05)
    found, again, other = (
        search_params(outputs, strict, evaluations=17, seed=seed, bounds=ANYTHING)[0] for seed in (0, 0, 1)
    )
    assert found == again and strict not in (found, other)
    assert found != other


def test_one_candidate_is_no_search() -> None:
    outputs = [_low_probabilities("p", np.random.default_rng(0))]
    for evaluations in (0, 1):
        found, figures = search_params(outputs, DecoderParams(), evaluations=evaluations)
        assert found == DecoderParams() and figures["found"] == figures["start"]


def test_each_kind_of_annotation_has_its_merits() -> None:
    """Where silence is not annotated, only annotated regions count; the merit is the weighted sum of its parts."""
    rows = [
        replace(_low_probabilities(kind.name, np.random.default_rng(0)), kind=kind)
        for kind in (Annotation.CYCLES, Annotation.EVENTS, Annotation.EXACT)
    ]
    empty = replace(rows[0], name="none", patient="none", kind=Annotation.NONE, truth_s=np.zeros((0, 2)))
    _, figures = search_params([*rows, empty], DecoderParams(), evaluations=1, bounds=ANYTHING)
    parts = figures["start"]
    weights = {
        "cycles.event_f1": 1.0, "cycles.onset_f1_200ms": 0.5, "cycles.rate_within_15pct": 0.5,
        "events.event_f1_regional": 0.7, "events.rate_within_15pct": 0.3,
        "exact.event_f1": 1.0, "exact.rate_within_15pct": 0.5,
    }  # fmt: skip
    assert set(parts) == {"merit", "detection_delay_p95_s", "revision_rate", *weights}
    assert parts["merit"] == pytest.approx(sum(weight * parts[name] for name, weight in weights.items()))
    alone, _ = search_params(rows[1:2], DecoderParams(), evaluations=1, bounds=ANYTHING)
    assert alone == DecoderParams()


@pytest.mark.parametrize(("name", "price"), [("detection_delay_p95_s", 0.5), ("revision_rate", 1.0)])
def test_what_exceeds_a_bound_costs_merit(name: str, price: float) -> None:
    outputs = [_low_probabilities(f"p{k}", np.random.default_rng(k)) for k in range(3)]
    params = DecoderParams(announce_margin=0.0, withdraw_margin=0.0, onset_bonus=2.5)

    def merit(bounds: Bounds) -> tuple[float, float]:
        _, figures = search_params(outputs, params, evaluations=1, bounds=bounds)
        return figures["start"]["merit"], figures["start"][name]

    free, value = merit(ANYTHING)
    assert value > 0.0
    tight, _ = merit(Bounds(**({"detection_delay_p95_s": 9.0, "revision_rate": 1.0} | {name: value / 2})))
    assert free - tight == pytest.approx(price * value / 2)


def _low_probabilities(name: str, random: np.random.Generator) -> NetworkOutputs:
    """20 s of cycles of random probability, each above that of the pauses."""
    frames = round(20.0 / FRAME_S)
    starts = np.arange(1.0, 18.0, 2.4) + random.uniform(-0.2, 0.2, 8)
    truth = np.stack((starts, starts + random.uniform(1.2, 1.8, 8)), axis=1)
    centre = (np.arange(frames) + 0.5) * FRAME_S
    activity, onset, cycle = np.full(frames, 0.1), np.full(frames, 0.02), np.zeros((2, frames))
    for (begin, end), likely in zip(truth, random.uniform(0.3, 0.9, 8), strict=True):
        inside = (centre >= begin) & (centre < end)
        activity[inside] = likely
        angle = 2 * np.pi * (centre[inside] - begin) / (end - begin)
        cycle[:, inside] = 0.5 * likely * np.stack((np.cos(angle), np.sin(angle)))
        onset[np.abs(centre - begin) < 0.05] = 0.5
    samples = round(20.0 * SPEC.rate_hz)
    phase = np.full((3, frames), 1 / 3)
    return NetworkOutputs(name, name, samples, SPEC, 5, Annotation.EXACT, truth, activity, onset, phase, cycle)
