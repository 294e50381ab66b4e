"""A run is bound to its labels and its audio: other data is refused, and what is missing in it has a line."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile

from edge_sdk.errors import CheckpointError, CorpusError, RecipeError
from edge_sdk.models.registry import MODELS
from edge_sdk.training import preflight
from edge_sdk.training.audio.bank import AudioBank
from edge_sdk.training.checkpoint import load_checkpoint
from edge_sdk.training.classification.distill import HELD_OUT
from edge_sdk.training.data_identity import IDENTITY_FILE, digest_of
from edge_sdk.training.loop.fit import Step
from edge_sdk.training.preflight import check_patients, check_weights
from edge_sdk.training.recipes.recipe import ModelSection, Recipe, load_recipe
from edge_sdk.training.run import run_cross_validation, run_training
from edge_sdk.training.run_folder import (
    CHECKPOINT_FILE,
    CV_FILE,
    METRICS_FILE,
    STATE_FILE,
    RunOptions,
    fold_checkpoint_file,
)
from edge_sdk.training.sweep import PlannedRun, train_runs
from tests.support.tiny_corpus import EVENTS_PER_RECORDING, RATE, RECORDINGS, synthetic_data

HEADER = ("file", "start_s", "end_s", "label", "patient", "split")
SMALL = {
    "classify": ("compact", "fit.epochs=2", "fit.batch=8", "sampling.per_epoch=16", "front_end.window_s=1.0"),
    "segment": ("segmenter", "fit.epochs=2", "fit.batch=2", "windows_per_epoch=4", "segment.search=0",
                "segment.extra=[]", "segment.noise_corpus=null", "segment.clip_corpus=null",
                "segment.cycle_corpus=null"),
    "adventitious": ("adventitious", "fit.epochs=2", "fit.batch=2", "windows_per_epoch=4", "adventitious.extra=[]",
                     "adventitious.noise_corpus=null"),
}  # fmt: skip


def small(kind: str, *more: str) -> Recipe:
    name, *settings = SMALL[kind]
    return load_recipe(name, size="tiny", overrides=["heart_corpus=null", *settings, *more])


def table(root: Path) -> list[list[str]]:
    with (root / "cycles.csv").open(newline="") as file:
        return list(csv.reader(file))[1:]


def rewrite(root: Path, rows: list[list[str]]) -> None:
    with (root / "cycles.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The synthetic corpus as a table; the last four patients are val."""
    monkeypatch.setenv("STETHO_CACHE", str(tmp_path / "cache"))
    folder, data = tmp_path / "corpus", synthetic_data()
    folder.mkdir()
    rows = []
    for k in range(RECORDINGS):
        begin, length = data.bank.starts[k], data.bank.lengths[k]
        soundfile.write(folder / f"r{k}.wav", data.bank.samples[begin : begin + length].numpy(), RATE, subtype="PCM_16")
        for row in range(k * EVENTS_PER_RECORDING, (k + 1) * EVENTS_PER_RECORDING):
            times = [f"{data.events.begin[row] / RATE:g}", f"{data.events.end[row] / RATE:g}"]
            label = ("normal", "crackle", "wheeze", "both")[data.events.bits[row]]
            rows.append([f"r{k}.wav", *times, label, f"p{k}", "val" if k >= RECORDINGS - 4 else "train"])
    rewrite(folder, rows)
    return folder


@pytest.fixture
def options(root: Path, tmp_path: Path) -> RunOptions:
    return RunOptions(corpus="csv", root=root, out=tmp_path / "run", resamples=0, logs=("csv",))


def other_label(root: Path) -> None:
    rows = table(root)
    rows[0][3] = "wheeze" if rows[0][3] != "wheeze" else "normal"
    rewrite(root, rows)


def other_time(root: Path) -> None:
    rows = table(root)
    rows[0][2] = f"{float(rows[0][2]) - 0.1:g}"
    rewrite(root, rows)


def other_audio(root: Path) -> None:
    samples = np.random.default_rng(5).normal(0, 0.05, 4 * RATE)
    soundfile.write(root / "r0.wav", samples, RATE, subtype="PCM_16")


def other_val_label(root: Path) -> None:
    rows = table(root)
    rows[-1][3] = "wheeze" if rows[-1][3] != "wheeze" else "normal"
    rewrite(root, rows)


def other_val_audio(root: Path) -> None:
    shutil.copy(root / "r0.wav", root / f"r{RECORDINGS - 1}.wav")


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "label": (other_label, "labels"),
    "time": (other_time, "labels"),
    "audio": (other_audio, "audio"),
    "label that is reported on": (other_val_label, "reported labels"),
    "audio that is reported on": (other_val_audio, "reported audio"),
}


def stop_in_second_epoch(step: Step) -> None:
    if step.epoch == 1:
        raise KeyboardInterrupt


def no_step(step: Step) -> None:
    pytest.fail(f"trained again: {step}")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("change", CHANGES)
def test_a_stopped_run_goes_on_only_with_its_own_data(root: Path, options: RunOptions, change: str) -> None:
    recipe = small("classify")
    with pytest.raises(KeyboardInterrupt):
        run_training(recipe, options, on_step=stop_in_second_epoch)
    before = contents(options.out)
    spoil, named = CHANGES[change]
    spoil(root)
    with pytest.raises(CheckpointError, match=rf"another run .*{named}.* differ.*delete .* or choose another --out"):
        run_training(recipe, options)
    assert contents(options.out) == before


@pytest.mark.parametrize(
    ("kind", "with_state"), [("classify", True), ("classify", False), ("segment", False), ("adventitious", False)]
)
def test_a_finished_run_of_every_task_is_not_overwritten_by_other_data(
    root: Path, options: RunOptions, kind: str, with_state: bool
) -> None:
    rewrite(root, [[*row[:3], "normal", *row[4:]] if row[4] in ("p1", "p2") else row for row in table(root)])
    recipe = small(kind)
    metrics = run_training(recipe, options)
    if not with_state:
        (options.out / STATE_FILE).unlink()  # people free the space
    again = run_training(recipe, options, on_step=no_step)  # finished: nothing is trained
    assert json.dumps(again) == json.dumps(metrics)  # NaN included
    before = contents(options.out)
    for spoil, named in ((other_label, "labels"), (other_audio, "audio")):
        spoil(root)
        with pytest.raises(CheckpointError, match=named) as refused:
            run_training(recipe, options)
        assert "\n" not in str(refused.value) and "--out" in str(refused.value)
        assert contents(options.out) == before


def test_a_finished_run_without_a_record_of_its_data_is_left_alone(options: RunOptions) -> None:
    run_training(small("classify"), options)
    for name in (IDENTITY_FILE, STATE_FILE):
        (options.out / name).unlink()
    with pytest.raises(CheckpointError, match=r"finished run of other data or settings .*not on record"):
        run_training(small("classify"), options)


def test_the_message_counts_the_classes(root: Path, options: RunOptions) -> None:
    run_training(small("classify"), options)
    other_label(root)
    with pytest.raises(CheckpointError, match=r"classes\.\w+ \(\d+ → \d+\)"):
        run_training(small("classify"), options)


def test_the_same_data_in_another_place_is_the_same(root: Path, options: RunOptions, tmp_path: Path) -> None:
    metrics = run_training(small("classify"), options)
    moved = shutil.copytree(root, tmp_path / "moved")
    assert run_training(small("classify"), replace(options, root=moved), on_step=no_step) == metrics


def test_a_cross_validation_is_bound_to_its_data(root: Path, options: RunOptions) -> None:
    recipe = small("classify", "fit.epochs=1")
    report = run_cross_validation(recipe, options, 2)
    assert run_cross_validation(recipe, options, 2)["metrics"] == report["metrics"]
    networks = [load_checkpoint(fold_checkpoint_file(options.out, fold)) for fold in (0, 1)]
    held_out = [network.metrics[HELD_OUT] for network in networks]
    trained = [network.provenance["patients"] for network in networks]
    assert trained == [len(held_out[1]), len(held_out[0])]
    assert {network.provenance["split"] for network in networks} == {"train+val"}, "no split can measure them"
    assert not set(held_out[0]) & set(held_out[1])
    assert len(held_out[0]) + len(held_out[1]) == report["metrics"]["patients"]
    other_label(root)
    with pytest.raises(CheckpointError, match="labels"):
        run_cross_validation(recipe, options, 2)
    for fold in (0, 1):
        shutil.rmtree(options.out / f"fold-{fold}")
    with pytest.raises(CheckpointError, match=rf"finished run .*labels.*delete {CV_FILE}"):
        run_cross_validation(recipe, options, 2)


def test_a_cross_validation_is_bound_to_the_teachers_of_its_folds(options: RunOptions) -> None:
    report = run_cross_validation(small("classify", "fit.epochs=1"), options, 2)
    teacher = fold_checkpoint_file(options.out, 0)
    leaking, own = replace(options, out=options.out / "leaking"), replace(options, out=options.out / "taught")
    with pytest.raises(RecipeError, match="patients that fold 1 holds out"):
        run_cross_validation(small("classify", "fit.epochs=1", f"objective.distill.teacher={teacher}"), leaking, 2)
    named = str(teacher).replace("fold-0", "fold-{fold}")
    taught = small("classify", "fit.epochs=1", f"objective.distill.teacher={named}")
    first = run_cross_validation(taught, own, 2)
    shutil.copy(fold_checkpoint_file(own.out, 0), teacher)  # another network of the same fold
    with pytest.raises(CheckpointError, match="teachers"):
        run_cross_validation(taught, own, 2)
    assert first["metrics"]["n"] == report["metrics"]["n"]


def test_a_sweep_never_gives_figures_of_other_data(root: Path, options: RunOptions) -> None:
    runs = [PlannedRun((), seed, small("classify", "fit.epochs=1"), options.out / f"seed-{seed}") for seed in (0, 1)]
    rows = train_runs(runs, options)
    assert train_runs(runs, options, on_step=no_step) == rows
    other_val_label(root)
    with pytest.raises(CheckpointError, match="reported labels"):
        train_runs(runs, options)


def without(root: Path, keep: Callable[[list[str]], bool]) -> None:
    rewrite(root, [row for row in table(root) if keep(row)])


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.endswith("preflight")]


def stop(_: Any) -> None:
    raise KeyboardInterrupt


MISSING: dict[str, tuple[Callable[[list[str]], bool], str]] = {
    "a class": (lambda row: row[3] != "both", "no example of the class 'both'"),
    "all patients but one": (lambda row: row[4] in ("p0", "p11"), "of one patient (p0)"),
    "val": (lambda row: row[5] == "train", "split 'val' has nothing to report on"),
}


@pytest.mark.parametrize("kind", MISSING)
def test_what_is_missing_has_a_line_before_training(
    root: Path, options: RunOptions, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    keep, named = MISSING[kind]
    without(root, keep)
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        run_training(small("classify", "fit.validation_share=0"), options, on_step=stop)
    assert sum(named in line for line in lines(caplog)) == 1


def test_a_batch_of_one_has_a_line(options: RunOptions, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run_training(small("classify", "fit.batch=1", "sampling.per_epoch=2", "fit.epochs=1"), options)
    assert any("fit.batch is 1" in line for line in lines(caplog))
    assert (options.out / METRICS_FILE).is_file()


@pytest.mark.parametrize("kind", ["classify", "adventitious"])
def test_one_class_alone_is_refused(root: Path, options: RunOptions, kind: str) -> None:
    without(root, lambda row: row[3] == "normal")
    with pytest.raises(CorpusError, match="nothing to tell apart"):
        run_training(small(kind), options)
    assert not (options.out / CHECKPOINT_FILE).exists()


@pytest.mark.parametrize("kind", SMALL)
def test_one_patient_cannot_be_held_out(root: Path, options: RunOptions, kind: str) -> None:
    without(root, lambda row: row[4] in ("p0", "p11"))
    with pytest.raises(RecipeError, match=r"1 patient .*validation_share=0"):
        run_training(small(kind, "fit.validation_share=0.2"), options)
    assert not options.out.exists() or not (options.out / CHECKPOINT_FILE).exists()


@pytest.mark.parametrize(("grouped", "refused"), [(True, True), (False, False)])
def test_patients_that_can_be_held_out_suffice(grouped: bool, refused: bool) -> None:
    """Only a classifier needs a patient for each of 1 / share groups."""
    fit = msgspec.structs.replace(load_recipe("segmenter").fit, validation_share=0.12)
    six = [f"p{k}" for k in range(6)]
    with pytest.raises(RecipeError, match="8 are needed") if refused else nullcontext():
        check_patients(six, fit, "csv, split train", grouped=grouped)


def test_too_many_folds_are_refused(options: RunOptions) -> None:
    with pytest.raises(RecipeError, match="cannot make 40 folds"):
        run_cross_validation(small("classify"), options, 40)


def test_digests_tell_structures_apart() -> None:
    values: list[Any] = [(), [""], ["a", "b"], ["ab"], [["a"], "b"], 1, "1", 1.0, np.zeros(2), np.zeros((2, 1)), None]
    assert len({digest_of(value) for value in values}) == len(values)
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})


def test_the_checksum_of_audio_is_of_the_files_not_of_the_resampler(root: Path, tmp_path: Path) -> None:
    paths = [root / "r0.wav", root / "r1.wav"]
    spec = load_recipe("compact", size="tiny").spec
    first = AudioBank.load(paths, spec, cache=tmp_path / "c")
    assert AudioBank.load(paths, spec, cache=tmp_path / "c").digest == first.digest  # from the cache
    samples, rate = soundfile.read(root / "r0.wav", dtype="int16")
    soundfile.write(tmp_path / "r0.flac", samples, rate)
    assert AudioBank.load([tmp_path / "r0.flac", paths[1]], spec, cache=tmp_path / "c").digest == first.digest
    assert AudioBank.load(paths[::-1], spec, cache=tmp_path / "c").digest != first.digest
    assert json.loads(next((tmp_path / "c").glob("*.json")).read_text())[0] == [16000, 16000]


@pytest.mark.parametrize(
    ("model", "warned"),
    [
        (ModelSection(name="yamnet-compact"), True),
        (ModelSection(name="yamnet", size="medium"), True),
        (ModelSection(name="yamnet-compact", pretrained="yamnet.tflite"), False),
        (ModelSection(name="yamnet", size="tiny"), False),
        (ModelSection(name="ast"), True),
        (ModelSection(name="dass"), True),
        (ModelSection(name="mri-net"), True),
        (ModelSection(name="lung-adapter"), True),
        (ModelSection(name="add", size="small"), False),
        (ModelSection(name="compact"), False),
    ],
)
def test_a_network_that_lacks_its_public_weights_has_a_line(
    caplog: pytest.LogCaptureFixture, model: ModelSection, *, warned: bool
) -> None:
    """It trains without an error, and is worse."""
    with caplog.at_level(logging.WARNING):
        check_weights(model)
    assert any("give them by --set model.pretrained=FILE" in line for line in lines(caplog)) is warned


def test_every_classifier_run_checks_its_public_weights(
    options: RunOptions, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "compact", replace(MODELS["compact"], begins_with="some.weights"))
    monkeypatch.setattr(preflight, "_SMALL_SIZES", ())
    with caplog.at_level(logging.WARNING):
        run_training(small("classify", "fit.epochs=1"), options)
    assert sum("some.weights" in line for line in lines(caplog)) == 1
