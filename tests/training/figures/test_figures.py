"""``stetho figures`` on tiny runs: every figure that applies, the metrics' numbers, and reasons for the rest."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from edge_sdk.cli.main import run as command_line
from edge_sdk.corpora import Corpus, load_corpus
from edge_sdk.errors import CheckpointError, CorpusError, RecipeError
from edge_sdk.metrics import expected_calibration_error
from edge_sdk.models.ast import Ast
from edge_sdk.models.dass import Dass
from edge_sdk.models.inspect import attention_maps
from edge_sdk.models.layers.spectral import spectral_response
from edge_sdk.training.building import build_recipe_model
from edge_sdk.training.checkpoint import save_checkpoint
from edge_sdk.training.figures import FIGURES, EvaluatedModel, draw_figures, load_evaluated_model
from edge_sdk.training.figures.embedding import linear_probe
from edge_sdk.training.recipes.recipe import load_recipe
from edge_sdk.training.run import run_training
from edge_sdk.training.run_folder import RunOptions
from edge_sdk.training.untrained import untrained_checkpoint
from tests.support.tiny_corpus import EVENTS_PER_RECORDING, RATE, RECORDINGS, synthetic_data

_NAMES = ("normal", "crackle", "wheeze", "both")
_SITES = ("left anterior", "right anterior", "left posterior")
_EVERYWHERE = {"confusion", "roc", "reliability", "tsne", "spectral-response"}
_APPLY = {
    "compact": _EVERYWHERE,
    "film": _EVERYWHERE | {"attention", "film-parameters"},
    "softfilm": _EVERYWHERE | {"attention", "film-parameters", "soft-masks"},
    "lung-srad": _EVERYWHERE,
}


@pytest.fixture(scope="module", autouse=True)
def monkeypatch_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """One thread as in training, a cache of our own."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STETHO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield patch
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve patients, three breaths each, two devices, three sites; the last six patients are val."""
    root = tmp_path_factory.mktemp("corpus")
    data = synthetic_data()
    with (root / "cycles.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "start_s", "end_s", "label", "patient", "split", "site", "device", "age"))
        for recording in range(RECORDINGS):
            start = data.bank.starts[recording]
            pcm = data.bank.samples[start : start + data.bank.lengths[recording]].numpy()
            soundfile.write(root / f"r{recording}.wav", pcm, RATE, subtype="PCM_16")
            split = "val" if recording >= RECORDINGS // 2 else "train"
            metadata = (f"p{recording}", split, _SITES[recording % 3], f"device {recording % 2}", 5 + recording)
            for event in range(EVENTS_PER_RECORDING):
                row = recording * EVENTS_PER_RECORDING + event
                times = data.events.begin[row] / RATE, data.events.end[row] / RATE
                writer.writerow((f"r{recording}.wav", *times, _NAMES[data.events.bits[row]], *metadata))
    return root


@pytest.fixture(scope="module")
def runs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    settings = ["heart_corpus=null", "fit.epochs=1", "per_epoch=32", "fit.batch=16"]
    for name in _APPLY:
        recipe = load_recipe(name, size="tiny", overrides=settings)
        run_training(recipe, RunOptions("csv", root, folder / name, resamples=0, logs=("csv",)))
    return folder


@pytest.fixture(scope="module")
def val(root: Path) -> Corpus:
    return load_corpus("csv", root, split="val")


@pytest.fixture(scope="module")
def models(runs: Path, val: Corpus) -> dict[str, EvaluatedModel]:
    return {name: load_evaluated_model(runs / name, val, "val", resamples=50) for name in _APPLY}


@pytest.fixture(scope="module")
def drawn(
    models: dict[str, EvaluatedModel], tmp_path_factory: pytest.TempPathFactory, monkeypatch_module: pytest.MonkeyPatch
) -> dict[str, dict[str, Any]]:
    """Numbers of every figure, by run and figure."""
    out = tmp_path_factory.mktemp("figures")
    numbers: dict[str, dict[str, Any]] = {}
    monkeypatch_module.setattr("edge_sdk.training.figures.page._DPI", 40)
    for name, evaluated in models.items():
        results = draw_figures(evaluated, out / name)
        assert [outcome.name for outcome in results] == list(FIGURES)
        assert {outcome.name for outcome in results if outcome.png} == _APPLY[name]
        assert all(outcome.reason for outcome in results if not outcome.png)
        numbers[name] = {o.name: json.loads(o.json.read_text()) for o in results if o.json}
        for outcome in results:
            assert outcome.png is None or outcome.png.read_bytes()[:4] == b"\x89PNG"
    return numbers


def test_every_figure_states_what_was_measured_how(drawn: dict[str, dict[str, Any]]) -> None:
    for name, figures in drawn.items():
        for figure in figures.values():
            assert (figure["run"], figure["n"], figure["patients"], figure["split"]) == (name, 18, 6, "val")
            assert figure["protocol"] == "csv train → val, fixed epochs, annotated breaths"
            assert "not a medical device" in figure["research_use"].lower()


def test_numbers_are_those_of_evaluate(
    drawn: dict[str, dict[str, Any]], models: dict[str, EvaluatedModel], runs: Path, root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name in ("compact", "softfilm"):
        path = runs / name / "checkpoint.pt"
        arguments = ["evaluate", str(path), "csv", str(root), "--split", "val", "--json", "--bootstrap", "50"]
        with pytest.raises(SystemExit):
            command_line(arguments)
        report = json.loads(capsys.readouterr().out)
        assert drawn[name]["confusion"]["confusion"] == report["confusion"]
        assert drawn[name]["confusion"]["score"] == report["score"]
        assert drawn[name]["roc"]["auroc"] == pytest.approx(report["auroc"])
        assert drawn[name]["reliability"]["ece"] == pytest.approx(report["ece"])
        assert drawn[name]["roc"]["operating_points"][0]["sensitivity_ci"] is not None
        table = drawn[name]["reliability"]
        gaps = [
            n * abs(c - a) for n, c, a in zip(table["count"], table["confidence"], table["accuracy"], strict=True) if n
        ]
        assert sum(gaps) / report["n"] == pytest.approx(report["ece"])


def test_the_roc_encloses_its_auroc_and_lies_in_its_band(drawn: dict[str, dict[str, Any]]) -> None:
    roc = drawn["compact"]["roc"]
    area = np.trapezoid(roc["true_positive_rate"], roc["false_positive_rate"])
    assert area == pytest.approx(roc["auroc"])
    assert (np.array(roc["band"]["low"]) <= np.array(roc["band"]["high"])).all()


def test_attention_of_the_figure_is_the_networks(
    drawn: dict[str, dict[str, Any]], models: dict[str, EvaluatedModel]
) -> None:
    evaluated, figure = models["softfilm"], drawn["softfilm"]["attention"]
    assert [row["label"] for row in figure["examples"]] == list(_NAMES)
    row = figure["examples"][2]
    index = next(
        i for i, c in enumerate(evaluated.cycles) if (c.recording_id, c.start_s) == (row["recording"], row["start_s"])
    )
    assert evaluated.cycles[index].label == "wheeze"
    assert isinstance(evaluated.model, Ast)
    maps = attention_maps(evaluated.model, evaluated.features([index]), evaluated.metadata([index]))
    np.testing.assert_allclose(row["last_block"], maps[0, -1].mean(dim=0), atol=1e-5)
    assert all(0 <= share <= 1 for share in row["on_patches"] + row["entropy"])


def test_masks_and_modulation_are_the_checkpoints(
    drawn: dict[str, dict[str, Any]], models: dict[str, EvaluatedModel]
) -> None:
    masks = np.array(drawn["softfilm"]["soft-masks"]["masks"])
    logits = models["softfilm"].checkpoint.state["conditioner.masks.logits"]
    np.testing.assert_allclose(masks, logits.softmax(dim=0)[:-1], atol=1e-5)
    film = drawn["softfilm"]["film-parameters"]
    assert set(film["curves"]) == set(drawn["softfilm"]["soft-masks"]["factors"])
    assert set(drawn["film"]["film-parameters"]["curves"]) == {"all tokens"}
    assert set(film["swaps"]["device"]) == {"unknown", "device 0", "device 1"}
    for curve in film["curves"].values():
        assert all(part <= whole + 1e-9 for part, whole in zip(curve["beta_between"], curve["beta"], strict=True))


def test_spectral_curves_are_given_before_and_after_the_gaussian(
    drawn: dict[str, dict[str, Any]], models: dict[str, EvaluatedModel]
) -> None:
    figure, model = drawn["lung-srad"]["spectral-response"], models["lung-srad"].model
    assert isinstance(model, Dass)
    assert set(figure["before_gaussian"]) == {f"stage {stage}" for stage in model.blends} - {
        name for name in figure["maps"] if name not in figure["after"]
    }
    maps = model.stage_maps(models["lung-srad"].features(list(range(18))))
    _, curve = spectral_response(maps[2])
    np.testing.assert_allclose(figure["after"]["stage 3"]["log_amplitude"], curve, atol=1e-5)
    before, after = (figure[key]["stage 3"]["log_amplitude"][-1] for key in ("before_gaussian", "after"))
    assert after < before
    assert set(drawn["softfilm"]["spectral-response"]["after"]) == {"block 1", "block 2"}


def test_linear_probe_finds_what_is_there_and_not_what_is_not(models: dict[str, EvaluatedModel]) -> None:
    evaluated = models["compact"]
    random = np.random.default_rng(0)
    informative = replace(evaluated, embeddings=np.eye(4)[evaluated.truth] + 0.01 * random.normal(size=(18, 4)))
    probe = linear_probe(informative, [_NAMES[index] for index in evaluated.truth.tolist()])
    assert probe["balanced_accuracy"] == 1.0
    assert probe["chance"] == 0.25
    blind = replace(evaluated, embeddings=random.normal(size=(18, 4)))
    assert linear_probe(blind, [_NAMES[index] for index in evaluated.truth.tolist()])["balanced_accuracy"] < 0.7
    assert linear_probe(evaluated, ["one"] * 18) == {"reason": "all are one"}


def test_the_command_draws_chosen_figures_of_several_runs(
    runs: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["figures", str(runs), "--root", str(root), "--only", "confusion,soft-masks", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        command_line([*arguments, "--json", "--bootstrap", "0"])
    assert ended.value.code in (0, None)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 2 * len(_APPLY)
    assert {row["figure"] for row in rows if row["png"]} == {"confusion", "soft-masks"}
    assert (tmp_path / "softfilm" / "soft-masks.png").is_file()
    assert not (tmp_path / "compact" / "soft-masks.png").exists()
    assert all(row["reason"] for row in rows if row["png"] is None)


def test_what_cannot_be_drawn_states_the_reason(
    runs: Path, val: Corpus, models: dict[str, EvaluatedModel], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="no figure sunrise; choose among confusion"):
        draw_figures(models["compact"], tmp_path, ["sunrise"])
    with pytest.raises(CheckpointError, match="does not exist"):
        load_evaluated_model(tmp_path / "nothing.pt", val, "val")
    with pytest.raises(CorpusError, match="no annotated breaths"):
        load_evaluated_model(runs / "compact", val.where(lambda recording: False), "val")
    segmenter = replace(untrained_checkpoint("compact", size="tiny"), recipe={"task": "segment"})
    save_checkpoint(segmenter, tmp_path / "segmenter.pt")
    with pytest.raises(CheckpointError, match="segment-eval"):
        load_evaluated_model(tmp_path / "segmenter.pt", val, "val")


def test_a_binary_checkpoint_is_drawn_on_four_class_truth(val: Corpus, tmp_path: Path) -> None:
    settings = ["labels=[normal,abnormal]", "labels_scheme=binary", "decoder=binary", "decision.bias=[]"]
    recipe = load_recipe("compact", size="tiny", overrides=[*settings, "sampling.exact_share=1.0"])
    checkpoint = replace(
        untrained_checkpoint("compact", size="tiny"),
        recipe=recipe.to_dict(),
        labels=recipe.labels,
        decoder="binary",
        bias=(0.0,),
        state=build_recipe_model(recipe).state_dict(),
    )
    save_checkpoint(checkpoint, tmp_path / "model.pt")
    evaluated = load_evaluated_model(tmp_path / "model.pt", val, "val", resamples=0)
    assert np.array(evaluated.report["confusion"]).shape == (2, 2)
    assert evaluated.protocol == "untrained → csv val, annotated breaths"
    confidence, right = evaluated.probabilities.max(axis=1), evaluated.probabilities.argmax(axis=1) == evaluated.truth
    assert evaluated.report["ece"] == pytest.approx(expected_calibration_error(confidence, right))
