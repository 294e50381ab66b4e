"""Joint training: who is trained on, in which shares, and what weak labels and noise become."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from benchmarks.studies.fold_streams import fold_streams
from benchmarks.studies.robustness import conditions, noise_banks, robustness
from edge_sdk.corpora import load_corpus
from edge_sdk.errors import CorpusError, RecipeError
from edge_sdk.evaluation.model import load_model
from edge_sdk.evaluation.protocol import fold_of_patient
from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.classification.data import load_training_data
from edge_sdk.training.classification.joint import (
    joint_folds,
    load_classifier_sides,
    noise_folds,
    trained_split,
)
from edge_sdk.training.classification.sampling import ANNOTATED, UNUSED, WEAK, EventTable, Origin, balanced
from edge_sdk.training.classification.weak import RankedSpan, most_abnormal
from edge_sdk.training.corpus import named_folder
from edge_sdk.training.recipes.joint_settings import JointSection
from edge_sdk.training.recipes.recipe import Recipe, load_recipe
from edge_sdk.training.run import run_cross_validation, run_training
from edge_sdk.training.run_folder import CV_FILE, CV_LOGITS_FILE, CV_SEEDS_FILE, RunOptions
from edge_sdk.training.sweep import cross_validate_seeds
from export.documents.robustness_card import robustness_section
from tests.runtime.conftest import phantom

RATE = 4000
_SETTINGS = ["heart_corpus=null", "fit.epochs=1", "fit.batch=16", "sampling.per_epoch=64", "decision.context=0.4"]


def _recipe(*more: str) -> Recipe:
    extra = ["joint.extra=[icbhi, kauh=kauh_part]", "joint.shares={csv: 0.5, icbhi: 0.3, kauh: 0.2}"]
    quiet = ["joint.noise=''", "joint.noise_share=0.0", "joint.noise_mixed=false"]
    return load_recipe("compact-joint", size="tiny", overrides=[*_SETTINGS, *extra, *quiet, *more])


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A main corpus of six patients, ICBHI of four on two devices, KAUH of three, and noise of eight sources."""
    root = tmp_path_factory.mktemp("corpora")
    audio = phantom("copd", 12.0)
    (root / "main").mkdir()
    rows = ["file,start_s,end_s,label,patient,split,device"]
    for k, label in enumerate(["normal", "crackle", "wheeze", "both", "normal", "crackle"]):
        soundfile.write(root / "main" / f"m{k}.wav", audio[k * 800 :], RATE)
        split = "val" if k >= 4 else "train"
        rows += [f"m{k}.wav,{a},{a + 2},{'normal' if a else label},{k},{split},Yunting" for a in (0, 3, 6)]
    (root / "main" / "table.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (root / "icbhi").mkdir()
    sides = ["file,patient,split"]
    for k, device in enumerate(["Meditron", "Meditron", "AKGC417L", "AKGC417L"]):
        name = f"10{k}_1b1_Al_sc_{device}"
        soundfile.write(root / "icbhi" / f"{name}.wav", audio[k * 500 :], RATE)
        (root / "icbhi" / f"{name}.txt").write_text(
            "0.0\t2.0\t1\t0\n2.0\t4.0\t0\t0\n4.0\t7.0\t0\t1\n", encoding="utf-8"
        )
        sides.append(f"{name},10{k},{'val' if k % 2 else 'train'}")
    (root / "icbhi" / "split.csv").write_text("\n".join(sides) + "\n", encoding="utf-8")
    (root / "kauh_part").mkdir()
    for name in ("BP1_N,N,P R U,81,F", "BP2_COPD,E W,P R U,70,M", "BP3_Pneumonia,Bronchial,P R U,60,M"):
        soundfile.write(root / "kauh_part" / f"{name}.wav", phantom("copd", 30.0), RATE)
    (root / "noise" / "rain").mkdir(parents=True)
    table = ["file,kind,source,seconds"]
    for k in range(8):
        soundfile.write(root / "noise" / "rain" / f"1-{k}-A.wav", audio[: 2 * RATE], RATE)
        table.append(f"rain/1-{k}-A.wav,rain,ESC-10,2.0")
    (root / "noise" / "clips.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    return root


@pytest.fixture
def options(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunOptions:
    monkeypatch.delenv("STETHO_DATA", raising=False)
    cache = data_folder / "cache"
    monkeypatch.setenv("STETHO_CACHE", str(cache))
    return RunOptions("csv", data_folder / "main", tmp_path / "run", cache=cache, logs=("csv",), resamples=0)


def test_patients_of_every_corpus_keep_their_side(options: RunOptions) -> None:
    corpus = load_classifier_sides(_recipe(), options)
    sides = {split: {r.patient for r in corpus.recordings if r.split == split} for split in ("train", "val")}
    assert sides["val"] == {"4", "5", "icbhi/101", "icbhi/103"}
    assert sides["train"] == {"0", "1", "2", "3", "icbhi/100", "icbhi/102", "kauh/1", "kauh/2"}
    assert {c.recording_id.split("/")[0] for c in corpus.cycles if c.corpus == "icbhi"} == {"icbhi"}


def test_all_patients_are_trained_on_where_the_recipe_says_so(options: RunOptions) -> None:
    recipe = _recipe("joint.all_patients=true")
    corpus = load_classifier_sides(recipe, options)
    assert {recording.split for recording in corpus.recordings} == {"train"}
    assert {c.patient for c in corpus.cycles} >= {"4", "5", "icbhi/101", "icbhi/103"}
    assert trained_split(recipe, options) == "train+val"
    metrics = run_training(recipe, options)
    assert "score" not in metrics  # nothing is left to report on


def test_folds_are_those_of_the_protocol_in_every_corpus(options: RunOptions, data_folder: Path) -> None:
    found = joint_folds(_recipe(), options, 2, 1)
    for name, folder, prefix in (("csv", "main", ""), ("icbhi", "icbhi", "icbhi/"), ("kauh", "kauh_part", "kauh/")):
        fold = fold_of_patient(load_corpus(name, data_folder / folder), 2, 1)
        assert {prefix + patient: k for patient, k in fold.items()}.items() <= found.items()
    assert set(found) >= set(load_classifier_sides(_recipe(), options).patients)
    run_cross_validation(_recipe(), options, 2)
    logits = np.load(options.out / CV_LOGITS_FILE)
    fold = joint_folds(_recipe(), options, 2, 0)
    assert [fold[patient] for patient in logits["patient"].tolist()] == logits["fold"].tolist()
    assert logits["labels"].tolist() == list(_recipe().labels)
    assert logits["probabilities"].shape == (len(fold_rows := logits["fold"]), 4) and len(fold_rows) > 0
    np.testing.assert_allclose(logits["probabilities"].sum(axis=1), 1.0)
    spans = logits["end_s"] - logits["start_s"]
    assert (spans > 0).all() and spans.max() < 30.0
    with pytest.raises(RecipeError, match="--cv 5: icbhi: 4 patients"):
        joint_folds(_recipe(), options, 5, 0)


def test_weak_labels_are_of_the_cycles_ranked_most_abnormal(options: RunOptions) -> None:
    recipe = _recipe()
    data = load_training_data(load_classifier_sides(recipe, options), recipe, cache=options.cache)
    events = data.events
    normal, abnormal = (events.use[events.patient == f"kauh/{k}"] for k in (1, 2))
    assert len(normal) >= 5 and set(normal.tolist()) == {WEAK}
    assert (abnormal == WEAK).sum() == np.ceil(0.6 * len(abnormal))
    assert (abnormal == UNUSED).sum() == len(abnormal) - (abnormal == WEAK).sum() > 0
    assert set(events.bits[events.patient == "kauh/2"].tolist()) == {2}
    assert not (events.patient == "kauh/3").any()  # bronchial breathing is none of the classes
    assert set(events.use[~np.isin(events.patient, ["kauh/1", "kauh/2"])].tolist()) == {ANNOTATED}
    assert (events.trained.use > UNUSED).all()


def test_windows_stand_in_where_no_segmenter_is_wanted(options: RunOptions) -> None:
    corpus = load_classifier_sides(_recipe("joint.weak_segmenter=''", "joint.weak_window_s=3.0"), options)
    lengths = {round(c.duration_s, 3) for c in corpus.cycles if c.corpus == "kauh"}
    assert lengths == {3.0}


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (5, 3), (6, 4), (10, 6)])
def test_a_share_of_the_cycles_is_rounded_up(count: int, kept: int) -> None:
    spans = [RankedSpan(k, k + 1.0, (k * 7 % count) / count) for k in range(count)]
    chosen = most_abnormal(spans, 0.6)
    assert len(chosen) == kept
    left = set(range(count)) - chosen
    assert not left or min(spans[k].p_abnormal for k in chosen) > max(spans[k].p_abnormal for k in left)


def _events(bits: list[int], patients: list[str]) -> EventTable:
    zeros = np.zeros(len(bits), dtype=np.int64)
    return EventTable(zeros, zeros, zeros + 1, np.array(bits), np.array(patients), np.full(len(bits), ANNOTATED))


def test_examples_are_balanced_over_corpora_devices_and_patients() -> None:
    bits = [0, 0, 0, 1, 2, 2, 0, 1, 1, 1]
    events = _events(bits, ["a", "a", "b", "b", "c", "c", "d", "d", "d", "e"])
    origins = [Origin("x", "p")] * 4 + [Origin("x", "q")] * 2 + [Origin("y", "p")] * 4
    settings = JointSection(
        extra=("y",), shares={"x": 3.0, "y": 1.0}, normal_share=0.5, device_power=1.0, patient_power={"y": 0.5}
    )
    found = balanced(events, origins, 0.5, settings)
    assert found.sum() == pytest.approx(1.0)
    assert found[:6].sum() == pytest.approx(0.75)
    assert found[:4].sum() == pytest.approx(found[4:6].sum())  # devices of x alike
    assert found[:3].sum() == pytest.approx(found[3])  # half of device p of x is normal
    assert found[6] == pytest.approx(found[7:].sum())
    assert found[9] / found[7] == pytest.approx(3**0.5)  # patient d has three cycles, e has one
    natural = balanced(events, origins, 0.5, JointSection(extra=("y",)))
    assert natural[:6].sum() == pytest.approx(0.6)


def test_a_corpus_without_a_share_is_named() -> None:
    with pytest.raises(RecipeError, match="'main'"):
        balanced(_events([0, 1], ["a", "b"]), [Origin("main", "")] * 2, 0.5, JointSection(shares={"other": 1.0}))
    with pytest.raises(RecipeError, match="kauh missing"):
        load_recipe("compact-joint", overrides=["joint.shares={sprsound: 1.0, icbhi: 1.0, hf_lung_labels: 1.0}"])


def test_noise_is_normal_and_some_of_its_sources_are_never_used(options: RunOptions) -> None:
    recipe = _recipe("joint.noise=noise", "joint.noise_share=0.5", "joint.noise_held_out=0.25")
    data = load_training_data(load_classifier_sides(recipe, options), recipe, cache=options.cache)
    assert len(data.negatives) == 6
    assert len(data.of_patients({"0"}).negatives) == 6
    assert len(data.noise) == 0  # not mixed in unless asked for
    whole = load_corpus("noise", options.root.parent / "noise")
    assert sum(noise_folds(whole, 0.25).values()) == 6 and all(noise_folds(whole, 0.0).values())
    with pytest.raises(RecipeError, match="set both or neither"):
        _recipe("joint.noise=noise")


def test_cross_validation_reports_every_corpus_and_device(options: RunOptions) -> None:
    report = run_cross_validation(_recipe(), options, 2)
    assert set(report["by"]) == {"csv", "icbhi", "icbhi/AKG C417L", "icbhi/Welch Allyn Meditron", "kauh"}
    assert report["metrics"]["n"] == 18 + 12
    assert report["by"]["icbhi"]["n"] == 12 and report["by"]["kauh"]["n"] == 2
    assert report["by"]["kauh"]["unit"] == "recording"
    assert "auroc_crackle" in report["by"]["icbhi"]
    assert report["provenance"]["corpus"] == "csv"
    assert report["provenance"]["joined_corpora"] == ["icbhi", "kauh"]


def test_each_fold_streams_the_recordings_it_left_out_once(options: RunOptions) -> None:
    """The network of each fold comes from its state; nothing is trained again."""
    with pytest.raises(RecipeError, match="no finished cross-validation"):
        list(fold_streams(_recipe(), options, lambda fold: load_model("default")))
    run_cross_validation(_recipe(), options, 2)
    states = {path: path.stat().st_mtime_ns for path in options.out.glob("fold-*/*.pt")}  # state and network of each
    lines = list(fold_streams(_recipe(), options, lambda fold: load_model("default")))
    assert {path: path.stat().st_mtime_ns for path in options.out.glob("fold-*/*.pt")} == states and len(states) == 4
    ends = sorted((corpus, line["recording"]) for corpus, line in lines if line.get("type") == "summary")
    assert len(ends) == len(set(ends)) == 6 + 4 + 2
    assert ("icbhi", "100_1b1_Al_sc_Meditron") in ends
    cycles = [line for _, line in lines if "probabilities" in line]
    assert cycles and all(sum(line["probabilities"].values()) == pytest.approx(1.0, abs=1e-3) for line in cycles)


def test_groups_and_worse_audio_are_measured_out_of_fold(options: RunOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every annotated cycle counts once in its group; the clean audio equals the cross-validation's own figures."""
    report = run_cross_validation(_recipe(), options, 2)
    monkeypatch.setattr("benchmarks.studies.robustness.EVERY", {})  # every recording is made worse
    found = robustness(_recipe(), options, options.root.parent / "noise")
    ages = {row["group"]: row for row in found["groups"] if row["by"] == "age"}
    assert sum(row["n"] for row in ages.values()) == report["metrics"]["n"]
    (alone,) = found["noise_alone"]
    assert (alone["kind"], alone["windows"]) == ("rain", 2 * 8) and 0.0 <= alone[
        "abnormal"
    ] <= 1.0  # in each of two folds
    clean, *worse = found["degradations"]
    assert clean["condition"] == "clean" and set(clean) == {"condition", "level", "csv", "icbhi"}
    assert clean["icbhi"]["n"] == 12
    assert len(worse) == len({(row["condition"], row["level"]) for row in worse}) >= 15
    assert any(row["csv"] != clean["csv"] for row in worse)
    section = robustness_section({"cross_validation": found})
    assert "| white noise | 20 dB, 10 dB, 5 dB, 0 dB |" in section and "clipped" in section
    assert robustness_section({}) == ""


def test_noise_that_was_trained_on_is_no_measure(options: RunOptions) -> None:
    root = options.root.parent / "noise"
    noisy = ("joint.noise=noise", "joint.noise_share=0.1")
    (all_of_it,) = noise_banks(root, _recipe(), options).values()
    (left_out,) = noise_banks(root, _recipe(*noisy, "joint.noise_held_out=0.25"), options).values()
    assert (len(all_of_it.lengths), len(left_out.lengths)) == (8, 2)
    assert noise_banks(root, _recipe(*noisy, "joint.noise_held_out=0"), options) == {}


@pytest.mark.parametrize("name", ["white noise", "low-pass", "high-pass", "level", "clipped", "lost in 50-ms packets"])
def test_a_condition_does_to_the_audio_what_it_says(name: str) -> None:
    time = torch.arange(3 * RATE) / RATE
    wave = 0.2 * torch.stack([torch.sin(2 * torch.pi * hz * time) for hz in (50.0, 700.0)])
    for condition in (c for c in conditions(RATE, {}, None) if c.name == name):
        changed = condition.change(wave, Randomness(torch.Generator().manual_seed(0)))
        assert changed.shape == wave.shape and changed.dtype == wave.dtype
        power = changed.pow(2).mean(dim=1) / wave.pow(2).mean(dim=1)
        value = float(condition.level.split()[0].rstrip("%"))
        if name == "white noise":
            snr = wave.pow(2).mean(dim=1) / (changed - wave).pow(2).mean(dim=1)
            if float(changed.abs().amax()) < 1.0:  # else scaled down as a whole
                assert 10 * torch.log10(snr) == pytest.approx([value, value], abs=0.01)
        elif name == "low-pass":
            assert float(power[0]) == pytest.approx(1.0, abs=0.02)
            assert (float(power[1]) < 0.2) == (value < 700)
        elif name == "high-pass":
            assert float(power[0]) < 0.1 and float(power[1]) == pytest.approx(1.0, abs=0.02)
        elif name == "level":
            assert 10 * torch.log10(power) == pytest.approx([value, value], abs=0.2)
        elif name == "clipped":
            share = (changed.abs() >= changed.abs().amax(dim=1, keepdim=True) - 1e-6).float().mean(dim=1) * 100
            assert share == pytest.approx([value, value], abs=4.0)
        else:
            assert float((changed == 0).float().mean()) * 100 == pytest.approx(value, abs=15.0)


def test_several_seeds_give_mean_and_deviation_by_corpus(options: RunOptions) -> None:
    result = cross_validate_seeds(_recipe(), options, 2, 2)
    runs = [json.loads((options.out / f"seed-{seed}" / CV_FILE).read_text("utf-8")) for seed in (0, 1)]
    for figures, own in ((result["metrics"], [r["metrics"] for r in runs]), (result["by"]["icbhi"], None)):
        values = [r["auroc"] for r in (own or [r["by"]["icbhi"] for r in runs])]
        assert figures["auroc"] == pytest.approx(np.mean(values))
        assert figures["auroc_sd"] == pytest.approx(np.std(values, ddof=1))
    assert json.loads((options.out / CV_SEEDS_FILE).read_text("utf-8"))["by"].keys() == result["by"].keys()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.delenv("STETHO_DATA", raising=False)
    assert named_folder("icbhi=here", tmp_path / "main") == ("icbhi", tmp_path / "here")
    monkeypatch.setenv("STETHO_DATA", str(tmp_path / "other"))
    with pytest.raises(CorpusError, match="set STETHO_DATA"):
        named_folder("icbhi=here", tmp_path / "main")
    assert named_folder(f"icbhi={tmp_path / 'here'}", tmp_path)[1] == tmp_path / "here"
