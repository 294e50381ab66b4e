"""Self-training: which clips a teacher labels, by what rule, and that no fold learns from the patients it holds out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_sdk.errors import CheckpointError, RecipeError
from edge_sdk.metrics.calibration import softmax
from edge_sdk.training.checkpoint import load_checkpoint, save_checkpoint
from edge_sdk.training.classification.data import TrainingData, load_training_data
from edge_sdk.training.classification.inference import cycle_logits
from edge_sdk.training.classification.joint import load_classifier_sides
from edge_sdk.training.classification.sampling import UNUSED, WEAK
from edge_sdk.training.classification.self_training import with_pseudo_labels
from edge_sdk.training.recipes.recipe import Recipe, load_recipe
from edge_sdk.training.run import run_cross_validation, run_training
from edge_sdk.training.run_folder import RunOptions
from tests.runtime.conftest import phantom

RATE = 4000
_SETTINGS = [
    "heart_corpus=null", "fit.epochs=1", "fit.batch=16", "sampling.per_epoch=32", "joint.extra=[hf_lung_labels=clips]",
    "joint.noise=''", "joint.noise_share=0.0", "joint.noise_mixed=false",
]  # fmt: skip
_SHARES = "joint.shares={csv: 0.5, hf_lung_labels: 0.25, hf_lung_clips: 0.25}"


def _teaching() -> Recipe:
    return load_recipe("compact-joint", size="tiny", overrides=[*_SETTINGS, "joint.shares={}"])


def _taught(teacher: Path | str, *more: str) -> Recipe:
    own = ["joint.unlabelled=[hf_lung_clips=clips]", _SHARES, f"joint.teacher={teacher}"]
    return load_recipe("compact-student", size="tiny", overrides=[*_SETTINGS, *own, *more])


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunOptions:
    """A main corpus of four patients; clips of four dates, those of two recordings with labels."""
    monkeypatch.delenv("STETHO_DATA", raising=False)
    monkeypatch.setenv("STETHO_CACHE", str(tmp_path / "cache"))
    audio = phantom("copd", 12.0)
    (tmp_path / "main").mkdir()
    rows = ["file,start_s,end_s,label,patient,split"]
    for k, label in enumerate(["normal", "crackle", "wheeze", "both"]):
        soundfile.write(tmp_path / "main" / f"m{k}.wav", audio[k * 800 :], RATE)
        rows += [f"m{k}.wav,{a},{a + 2},{'normal' if a else label},{k},{'val' if k == 3 else 'train'}" for a in (0, 3)]
    (tmp_path / "main" / "table.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    folder = tmp_path / "clips"
    folder.mkdir()
    clips = {"a_000": "1", "d_000": "2", "b_000": "1", "c_000": "3", "e_000": "4"}
    for k, name in enumerate(clips):
        length = 7 * RATE if name == "e_000" else RATE
        soundfile.write(folder / f"{name}.wav", audio[k * 4000 : k * 4000 + length], RATE)
    lines = [f"{name},{name[0]},{date},I,{'val' if name == 'c_000' else 'train'}" for name, date in clips.items()]
    (folder / "clips.csv").write_text("\n".join(["file,recording,date_group,phase,split", *lines]) + "\n")
    labels = ["recording,line,tag,start_s,end_s", "a,0,I,0.0,1.0", "a,1,D,0.0,1.0", "d,0,I,0.0,1.0"]
    (folder / "labels.csv").write_text("\n".join(labels) + "\n")
    return RunOptions("csv", tmp_path / "main", tmp_path / "run", logs=("csv",), resamples=0)


@pytest.fixture
def teacher(options: RunOptions) -> Path:
    return Path(run_training(_teaching(), replace(options, out=options.out.with_name("teacher")))["checkpoint"])


def _data(recipe: Recipe, options: RunOptions) -> TrainingData:
    return load_training_data(load_classifier_sides(recipe, options), recipe)


def test_clips_without_labels_are_those_of_nobody_else(options: RunOptions) -> None:
    data = _data(_taught("none"), options)
    clips = data.unlabelled
    assert clips is not None and set(clips.use.tolist()) == {UNUSED}
    assert sorted(set(data.names[clips.recording].tolist())) == [f"hf_lung_clips/{k}_000" for k in "bce"]
    assert set(clips.patient.tolist()) == {f"hf_lung_labels/{date}" for date in "134"}  # the dates are the same people
    assert not set(data.events.recording.tolist()) & set(clips.recording.tolist())
    lengths = {
        name: (clips.end - clips.begin)[data.names[clips.recording] == f"hf_lung_clips/{name}"]
        for name in ("b_000", "e_000")
    }
    assert lengths["b_000"].tolist() == [RATE]
    assert lengths["e_000"].tolist() == [2 * RATE] * 3  # 7 s are longer than the network's window


def test_clips_of_another_folder_are_of_other_people(options: RunOptions) -> None:
    shutil.copytree(options.root.parent / "clips", options.root.parent / "others")
    clips = _data(_taught("none", "joint.unlabelled=[hf_lung_clips=others]"), options).unlabelled
    assert clips is not None and len(set(clips.recording.tolist())) == 5  # those with labels elsewhere too
    assert set(clips.patient.tolist()) == {f"hf_lung_clips/{date}" for date in "1234"}


def test_clips_of_a_person_who_is_left_out_are_left_out_too(options: RunOptions) -> None:
    kept = _data(_taught("none"), options).of_patients({"0", "hf_lung_labels/2"}).unlabelled
    assert kept is not None
    assert set(kept.patient.tolist()) == {"hf_lung_labels/3", "hf_lung_labels/4"}  # of whom no label is known


def test_the_teacher_labels_what_it_is_sure_of(options: RunOptions, teacher: Path) -> None:
    recipe = _taught(teacher, "joint.sure_abnormal=0.5", "joint.sure_normal=0.5")
    data = _data(recipe, options)
    assert data.unlabelled is not None
    checkpoint = load_checkpoint(teacher)
    logits = cycle_logits(checkpoint.build(), recipe, data, data.unlabelled)
    abnormal = 1.0 - softmax(logits / checkpoint.temperature)[:, 0]
    taught = with_pseudo_labels(recipe, data)
    new = taught.events.where(np.arange(len(taught.events)) >= len(data.events))
    assert taught.unlabelled is None and new.recording.tolist() == data.unlabelled.recording.tolist()
    assert new.use.tolist() == [WEAK] * len(new)
    assert (new.bits > 0).tolist() == (abnormal >= 0.5).tolist()
    assert new.bits[abnormal >= 0.5].tolist() == (1 + logits[abnormal >= 0.5][:, 1:].argmax(axis=1)).tolist()
    unsure = with_pseudo_labels(_taught(teacher, "joint.sure_abnormal=1.0", "joint.sure_normal=1.0"), data)
    assert len(unsure.events.trained) == len(data.events.trained)


def test_a_student_is_trained_and_says_what_on(options: RunOptions, teacher: Path) -> None:
    metrics = run_training(_taught(teacher, "joint.sure_abnormal=0.5", "joint.sure_normal=0.5"), options)
    provenance = load_checkpoint(Path(metrics["checkpoint"])).provenance
    assert provenance["joined_corpora"] == ["hf_lung_labels", "hf_lung_clips"]


def test_no_fold_has_a_teacher_who_knows_its_patients(options: RunOptions) -> None:
    known = options.out.with_name("known-0")
    run_cross_validation(_teaching(), replace(options, out=known), 2)
    report = run_cross_validation(_taught(f"{known.parent}/known-{{seed}}/fold-{{fold}}/checkpoint.pt"), options, 2)
    assert report["metrics"]["n"] == 8 + 2  # the clips that the teacher labels are no measure
    (known / "fold-1" / "checkpoint.pt").rename(moved := known / "moved.pt")
    with pytest.raises(CheckpointError, match="fold-1"):
        run_cross_validation(
            _taught(f"{known}/fold-{{fold}}/checkpoint.pt"), replace(options, out=(late := options.out / "late")), 2
        )
    assert not list(late.glob("fold-*"))  # said before the first fold is trained
    moved.rename(known / "fold-1" / "checkpoint.pt")
    with pytest.raises(RecipeError, match="patients that fold 0 holds out"):
        run_cross_validation(_taught(known / "fold-1" / "checkpoint.pt"), replace(options, out=options.out / "x"), 2)


def test_clips_without_a_usable_teacher_are_an_error(options: RunOptions, teacher: Path) -> None:
    with pytest.raises(RecipeError, match="needs a network that labels"):
        run_training(_taught("''"), options)
    with pytest.raises(CheckpointError, match="nothing"):
        run_training(_taught(teacher.with_name("nothing.pt")), options)
    checkpoint = load_checkpoint(teacher)
    for change, message in (
        ({"labels": ("normal", "abnormal")}, "other labels"),
        ({"decoder": "multilabel"}, "softmax"),
    ):
        save_checkpoint(replace(checkpoint, **change), other := teacher.with_name("other.pt"))
        with pytest.raises(RecipeError, match=message):
            with_pseudo_labels(_taught(other), _data(_taught(other), options))
