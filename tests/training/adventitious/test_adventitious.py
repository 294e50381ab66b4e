"""Training windows of crackles and wheezes: labels lie where the sounds are; a run resumes; folds hold patients out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from edge_sdk.corpora import load_corpus
from edge_sdk.errors import CheckpointError, CorpusError, RecipeError
from edge_sdk.evaluation.protocol import fold_of_patient
from edge_sdk.models.adventitious import STRIDE, AdventitiousLogits
from edge_sdk.runtime.decoding import MULTILABEL
from edge_sdk.runtime.verdict.breath_sounds import BreathParams
from edge_sdk.training.adventitious.augment import LogMelSimulator, mel_centres
from edge_sdk.training.adventitious.breaths import breaths_of
from edge_sdk.training.adventitious.building import checkpoint_adventitious
from edge_sdk.training.adventitious.crossval import cross_validate_adventitious, folds_of
from edge_sdk.training.adventitious.data import (
    AdventitiousData,
    SoundRecording,
    load_adventitious_data,
    sound_recordings,
)
from edge_sdk.training.adventitious.inference import SoundOutputs
from edge_sdk.training.adventitious.run import CALIBRATION, train_adventitious
from edge_sdk.training.adventitious.sampling import AdventitiousSampler, Draw, Window
from edge_sdk.training.adventitious.task import AdventitiousTask, adventitious_loss, stacked
from edge_sdk.training.checkpoint import load_checkpoint
from edge_sdk.training.classification.sampling import ANNOTATED
from edge_sdk.training.recipes.adventitious_settings import AdventitiousSection, LogMelAugmentSection
from edge_sdk.training.recipes.recipe import Recipe, load_recipe
from edge_sdk.training.run_folder import RunOptions
from edge_sdk.training.sweep import cross_validate_seeds
from tests.support.sounds_corpus import write_sounds_corpora

STEP_S = 0.04
UNTOUCHED = AdventitiousSection(speed=0.0, shift_bins=0, augment=LogMelAugmentSection(p=0.0))


def tiny_recipe(*overrides: str) -> Recipe:
    return load_recipe("adventitious", size="tiny", overrides=["model.size=tiny", "heart_corpus=null", *overrides])


SPEC = tiny_recipe().spec


@pytest.fixture(autouse=True)
def _own_corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    """The corpora beside the main one are those of the tests, not those of ``STETHO_DATA``."""
    monkeypatch.delenv("STETHO_DATA", raising=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounds_corpora(tmp_path_factory.mktemp("data"))


def options(corpus: Path, out: Path) -> RunOptions:
    return RunOptions("sprsound", corpus, out, cache=corpus.parent / "cache", logs=(), resamples=0)


def recording(
    *,
    sounds: tuple[bool, bool] = (True, False),
    strong: bool = True,
    label: tuple[bool, bool] | None = (True, False),
    name: str = "r",
    patient: str = "p",
    device: str = "d",
    seconds: float = 9.2,
) -> SoundRecording:
    """A sound from 2 to 4 s, whose frames are louder."""
    mel = np.full((round(seconds * 100), SPEC.mel_bins), 8.0, np.float16)
    mel[200:400] = 12.0
    spans = np.array([[2.0, 4.0]])
    return SoundRecording(name, "sprsound", patient, device, mel, spans, np.array([sounds]), strong, label)


def window_of(found: SoundRecording, seed: int = 0, settings: AdventitiousSection = UNTOUCHED) -> Window:
    data = AdventitiousData((found,), (), (), (), (), ())
    return AdventitiousSampler(data, settings, SPEC).window(np.random.default_rng(seed))


def loud(window: Window) -> np.ndarray:
    return window.frames[:, 0].reshape(-1, STRIDE).mean(axis=1) > 10.0


def test_segments_and_absent_frames_lie_where_the_sound_is() -> None:
    window = window_of(recording())
    (begin, end, sound, strong), *rest = window.segments.tolist()
    assert (sound, strong) == (0, 1) and all(row == [0, 0, 0, 0] for row in rest)
    np.testing.assert_array_equal(loud(window), np.isin(np.arange(230), np.arange(begin, end)))
    assert window.absent[0].max() == 0.0  # a crackle somewhere: the frames around it are not known
    np.testing.assert_array_equal(window.absent[1] == 1.0, loud(window))
    assert window.absent[1][~loud(window)].min() == 0.5  # its label excludes a wheeze
    np.testing.assert_array_equal(window.breathing[0] == 1.0, loud(window))
    assert window.label.tolist() == [1.0, 0.0] and window.label_weight == 1.0


@pytest.mark.parametrize("seed", range(6))
def test_labels_follow_a_window_that_is_cut_and_played_faster(seed: int) -> None:
    settings = AdventitiousSection(speed=0.2, shift_bins=0, window_s=3.0, augment=LogMelAugmentSection(p=0.0))
    window = window_of(recording(), seed, settings)
    inside = loud(window)
    held = [row for row in window.segments.tolist() if row[1]]
    if held:
        assert inside[held[0][0] + 1 : held[0][1] - 1].all() and inside.sum() <= held[0][1] - held[0][0] + 2
        assert window.label.tolist() == [1.0, 0.0]
    else:
        assert inside.sum() * STEP_S < 0.62 * 2.0 * 1.25
        assert window.label_weight == 0.0 or not inside.any()


def test_weak_cycles_say_nothing_about_breathing_nor_about_the_frames_around() -> None:
    window = window_of(recording(strong=False, label=None))
    assert window.segments[0, 3] == 0 and window.breathing.max() == 0.0
    np.testing.assert_array_equal(window.absent[1] > 0.0, loud(window))


def test_a_short_recording_is_padded_and_the_padding_does_not_count() -> None:
    window = window_of(recording(seconds=5.0))
    assert window.valid.sum() == 125 and window.frames.shape == (920, SPEC.mel_bins)
    assert window.absent[:, 125:].max() == 0.0 and window.breathing[1, 125:].max() == 0.0


def test_every_device_and_both_classes_are_drawn() -> None:
    quiet = [recording(label=(False, False), sounds=(False, False), name=f"n{k}", patient="a") for k in range(50)]
    rare = [recording(name="c", patient="b"), recording(name="e", patient="c", device="other")]
    draw = Draw([*quiet, *rare], UNTOUCHED)
    random = np.random.default_rng(0)
    names = [draw(random) for _ in range(400)]
    assert 0.4 < np.mean([r.abnormal for r in names if r.device == "d"]) < 0.6
    assert np.mean([r.device == "other" for r in names]) > 0.08
    assert all(r.name == "e" for r in names if r.device == "other")  # no normal ones on that device


def test_augmentation_keeps_the_shape_and_the_floor_and_repeats() -> None:
    frames = recording().mel.astype(np.float32)
    bank = [np.full((300, SPEC.mel_bins), 6.0, np.float16)]
    simulate = LogMelSimulator(LogMelAugmentSection(p=1.0, noise_p=1.0, heart_p=1.0), SPEC, bank, bank, bank)
    one, other = (simulate(frames, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert one.shape == frames.shape and one.dtype == np.float32
    assert one.min() >= np.log(SPEC.log_floor) and np.abs(one - frames).mean() > 0.1
    assert np.median(one[210:390] - one[410:590]) > 0.5  # the sound is still louder than what surrounds it
    centres = mel_centres(SPEC)
    assert centres[0] > 40.0 and centres[-1] < 1900.0 and (np.diff(centres) > 0).all()


def test_right_outputs_cost_less_than_wrong_ones() -> None:
    batch = stacked([window_of(recording()), window_of(recording(sounds=(False, False), label=(False, False)))])
    truth = torch.zeros(2, 3, 230)
    truth[0, 0, 50:100] = 1.0
    truth[:, 2, 50:100] = 1.0

    def outputs(frames: torch.Tensor, label: list[list[float]]) -> AdventitiousLogits:
        clip = torch.tensor(label)[:, :, None].expand(2, 2, 230)
        return AdventitiousLogits(8.0 * (2.0 * frames - 1.0), torch.zeros(2, 2, 230), clip)

    right = adventitious_loss(outputs(truth, [[8.0, -8.0], [-8.0, -8.0]]), batch, UNTOUCHED)
    assert float(right) < 0.01
    other = truth.roll(1, dims=0)
    for frames, label in ((other, [[8.0, -8.0], [-8.0, -8.0]]), (truth, [[-8.0, -8.0], [8.0, -8.0]])):
        assert float(adventitious_loss(outputs(frames, label), batch, UNTOUCHED)) > 1.0


def test_a_batch_without_any_sound_has_a_finite_loss_and_gradient() -> None:
    recipe = tiny_recipe()
    quiet = recording(sounds=(False, False), label=(False, False))
    task = AdventitiousTask(recipe, AdventitiousData((quiet,), (), (), (), (), ()))
    network = task.build()
    loss = task.loss(network, stacked([window_of(quiet), window_of(quiet)]))
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert torch.isfinite(loss) and gradients and all(torch.isfinite(g).all() for g in gradients)


def test_one_second_clips_of_one_recording_are_joined(data_root: Path) -> None:
    clips = load_corpus("hf_lung_labels", data_root / "hf_lung_phase_clips", split="val")
    chosen = clips.where(lambda clip: clip.patient == clips.patients[0])
    found = sound_recordings(chosen, SPEC)
    assert len(found) < len(chosen.recordings) and sum(len(r.spans_s) for r in found) == len(chosen.cycles)
    for joined in found:
        assert not joined.strong and joined.spans_s.max() <= len(joined.mel) * 0.01 + 0.05
        assert (joined.spans_s[1:, 0] >= joined.spans_s[:-1, 1] - 0.05).all()


# -- runs --------------------------------------------------------------------------------------------------------------


def test_a_tiny_run_resumes_to_the_same_weights_and_takes_its_calibration_along(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "cv.json").write_text(json.dumps({CALIBRATION: {"params": {"error": 0.1}}}))

    def run(out: str, stop_at: int | None = None) -> dict[str, object]:
        recipe = tiny_recipe(f"adventitious.calibration={tmp_path / 'cv.json'}")

        def stop(step: object) -> None:
            if stop_at is not None and step.epoch == stop_at:  # type: ignore[attr-defined]
                raise KeyboardInterrupt

        return train_adventitious(recipe, options(corpus, tmp_path / out), on_step=stop)

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("parts", stop_at=1)
    resumed = run("parts")
    one, other = (load_checkpoint(Path(str(r["checkpoint"]))) for r in (whole, resumed))
    assert all(torch.equal(tensor, other.state[name]) for name, tensor in one.state.items())
    assert whole["n"] == 2 and 0.0 <= float(str(whole["auroc"])) <= 1.0
    network, recipe = checkpoint_adventitious(one)
    assert not network.training and recipe.task == "adventitious"
    assert one.metrics[CALIBRATION] == {"params": {"error": 0.1}}
    assert one.provenance["patients"] == 6 and one.provenance["noise_recordings"] == 4
    with pytest.raises(CheckpointError, match="not of a network of the verdict; 'stetho train adventitious' makes one"):
        checkpoint_adventitious(replace(one, model="compact"))


def test_cross_validation_holds_patients_and_noise_out_and_calibrates(corpus: Path, tmp_path: Path) -> None:
    report = cross_validate_adventitious(tiny_recipe(), options(corpus, tmp_path), 2)
    assert report["metrics"]["sprsound"]["n"] == 8 and report["metrics"]["noise"]["n"] == 4
    calibration = report[CALIBRATION]
    assert set(calibration) == {"params", "familiarity", "detector", "figures"}
    assert calibration["figures"]["corpora"]["all"]["end"]["n"] == 8
    assert calibration["figures"]["sounds"]["crackle"]["annotated"] > 0
    assert json.loads((tmp_path / "cv.json").read_text())[CALIBRATION] == calibration
    fold = fold_of_patient(load_corpus("sprsound", corpus), 2)
    for number in range(2):  # each fold's network is kept, with a calibration on the other patients
        kept = load_checkpoint(tmp_path / f"fold-{number}" / "checkpoint.pt")
        network, _ = checkpoint_adventitious(kept)
        assert network.state_shapes and set(kept.metrics[CALIBRATION]) == {"params", "familiarity", "detector"}
        assert kept.metrics[CALIBRATION]["familiarity"] != calibration["familiarity"]
        assert kept.provenance["patients"] == sum(k != number for k in fold.values())


def test_seeds_give_the_figures_of_network_and_verdict(corpus: Path, tmp_path: Path) -> None:
    found = cross_validate_seeds(tiny_recipe("fit.epochs=1"), options(corpus, tmp_path), 2, 2)
    assert found["metrics"] == {}
    verdict = [json.loads((tmp_path / f"seed-{k}" / "cv.json").read_text())[CALIBRATION]["figures"] for k in (0, 1)]
    rates = [figures["corpora"]["sprsound"]["end"]["auroc"] for figures in verdict]
    assert found["by"]["verdict of sprsound"]["auroc"] == pytest.approx(np.mean(rates))
    assert found["by"]["sprsound"]["seeds"] == [0, 1]


def test_folds_are_those_of_the_protocol_and_cover_the_noise(corpus: Path) -> None:
    recipe = tiny_recipe()
    assert recipe.adventitious is not None
    data = load_adventitious_data(
        load_corpus("sprsound", corpus), recipe.spec, recipe.adventitious, split="all", heart_corpus=None,
        cache=corpus.parent / "cache",
    )  # fmt: skip
    fold = folds_of(data, 2, 0)
    assert {r.patient for r in (*data.all, *data.noise)} <= set(fold) and set(fold.values()) == {0, 1}
    kept = data.without({patient for patient, k in fold.items() if k == 0})
    assert kept.recordings and kept.noise and all(fold[r.patient] == 1 for r in (*kept.all, *kept.noise))
    with pytest.raises(RecipeError, match="--cv 50"):
        folds_of(data, 50, 0)


def test_another_corpus_may_lack_files_where_that_is_allowed(corpus: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "here.wav", np.zeros(12_000, np.float32), 4000)
    rows = ["file,start_s,end_s,label,patient", "here.wav,0,2,normal,1", "gone.wav,0,2,crackle,2"]
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    recipe = tiny_recipe(f"adventitious.extra=[csv={tmp_path}]")
    with pytest.raises(CorpusError, match="gone"):
        train_adventitious(recipe, options(corpus, tmp_path / "whole"))
    assert recipe.adventitious is not None
    data = load_adventitious_data(
        load_corpus("sprsound", corpus), recipe.spec, recipe.adventitious, split="all", heart_corpus=None, partial=True
    )
    assert [recording.name for recording in data.extra] == ["here"]


def test_missing_corpora_and_calibrations_are_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="STETHO_DATA"):
        train_adventitious(tiny_recipe("adventitious.extra=[icbhi]"), options(corpus, tmp_path / "a"))
    (tmp_path / "cv.json").write_text("{}")
    with pytest.raises(RecipeError, match="holds no calibration"):
        train_adventitious(
            tiny_recipe(f"adventitious.calibration={tmp_path / 'cv.json'}"), options(corpus, tmp_path / "b")
        )
    with pytest.raises(RecipeError, match="no section 'adventitious'"):
        train_adventitious(load_recipe("segmenter", size="tiny"), options(corpus, tmp_path / "c"))


def classifier_breaths(folder: Path, corpus: Path, *, labels: tuple[str, ...] = MULTILABEL, **changes: Any) -> Path:
    """What a classifier's cross-validation keeps of the annotated breaths of the corpus: it knows nothing."""
    cycles = [c for c in load_corpus("sprsound", corpus).cycles if c.label in MULTILABEL]
    columns: dict[str, Any] = {
        "probabilities": np.full((len(cycles), 4), 0.25),
        "labels": np.array(labels),
        "truth": np.array([MULTILABEL.index(c.label) for c in cycles]),
        "patient": np.array([c.patient for c in cycles]),
        "recording": np.array([c.recording_id for c in cycles]),
        "start_s": np.array([c.start_s for c in cycles]),
        "end_s": np.array([c.end_s for c in cycles]),
        "use": np.full(len(cycles), ANNOTATED),
        "origin": np.array([f"sprsound/{c.device}" for c in cycles]),
        **changes,
    }
    folder.mkdir(exist_ok=True)
    arrays: Any = {name: np.asarray(column) for name, column in columns.items()}
    np.savez(folder / "cv-logits.npz", **arrays)
    return folder


def outputs_of(name: str, clip: float, patient: str) -> SoundOutputs:
    """Outputs of 5 s in which crackles have the same logit everywhere."""
    found = replace(recording(name=name, patient=patient), corpus="icbhi")
    rows = np.array([np.full(125, clip), np.full(125, -9.0)])
    return SoundOutputs(found, np.zeros((3, 125)), np.zeros((2, 125)), rows, STEP_S)


def test_breaths_join_the_network_where_their_recordings_are_known(corpus: Path, tmp_path: Path) -> None:
    outputs = [outputs_of("a", 3.0, "icbhi/1"), outputs_of("b", -3.0, "icbhi/2")]
    clips = replace(recording(name="c", patient="hf/1"), corpus="hf_lung_labels", clips_s=(("c_0", 0.0), ("c_1", 2.0)))
    clip = np.array([np.repeat([2.0, -2.0], [50, 75]), np.full(125, -9.0)])
    outputs.append(SoundOutputs(clips, np.zeros((3, 125)), np.zeros((2, 125)), clip, STEP_S))
    rows: dict[str, Any] = {
        "recording": ["icbhi/a", "icbhi/b", "hf_lung_labels/c_1", "icbhi/unknown", "icbhi/a"],
        "origin": ["icbhi/M", "icbhi/M", "hf_lung_labels/L", "icbhi/M", "icbhi/M"],
        "start_s": [0.0, 1.0, 0.0, 0.0, 7.0],
        "end_s": [2.0, 3.0, 1.0, 2.0, 9.0],  # the last lies beyond the recording
        "truth": [1, 0, 0, 0, 1],
        "patient": ["x"] * 5,
        "use": [ANNOTATED] * 5,
        "probabilities": np.full((5, 4), 0.25),
    }
    folder = classifier_breaths(tmp_path / "cv", corpus, **rows)
    found = breaths_of(outputs, AdventitiousSection(breaths=str(folder), breath_own=0.5, breath_running=0.25))
    assert found is not None
    assert found.events.patient.tolist() == ["icbhi/1", "icbhi/2", "hf/1"]
    assert [origin.corpus for origin in found.origins] == ["icbhi", "icbhi", "hf_lung_labels"]
    chances = np.exp(found.scores)
    odds = np.log(chances[:, 1:].sum(axis=1) / chances[:, 0]) - np.log(3.0)
    np.testing.assert_allclose(odds, [2.25, -2.25, -1.5], atol=0.02)  # of a clip its own part alone
    assert breaths_of(outputs, AdventitiousSection()) is None


def test_breaths_that_cannot_be_joined_are_refused(corpus: Path, tmp_path: Path) -> None:
    outputs = [outputs_of("a", 3.0, "icbhi/1")]
    settings = AdventitiousSection(breaths=str(tmp_path))
    with pytest.raises(RecipeError, match="holds no breaths of a cross-validated classifier"):
        breaths_of(outputs, settings)
    (tmp_path / "cv-logits.npz").write_bytes(b"PK")
    with pytest.raises(RecipeError, match="holds no breaths"):
        breaths_of(outputs, settings)
    np.savez(tmp_path / "cv-logits.npz", logits=np.zeros((2, 4)))  # of an older SDK
    with pytest.raises(RecipeError, match="again where an older SDK did"):
        breaths_of(outputs, settings)
    classifier_breaths(tmp_path, corpus, labels=("normal", "abnormal"))
    with pytest.raises(RecipeError, match="must have the labels normal, crackle, wheeze, both"):
        breaths_of(outputs, settings)
    classifier_breaths(tmp_path, corpus)
    with pytest.raises(RecipeError, match="has no annotated breath of a recording used here"):
        breaths_of(outputs, settings)


@pytest.mark.parametrize("setting", ["breaths={}", "cycles=[sprsound={}/none.jsonl]"])
def test_evidence_that_cannot_be_read_ends_a_run_before_it_trains(corpus: Path, tmp_path: Path, setting: str) -> None:
    name = setting.partition("=")[0]
    recipe = tiny_recipe(f"adventitious.{setting.format(tmp_path)}")
    with pytest.raises(RecipeError, match=f"adventitious.{name}"):
        cross_validate_adventitious(recipe, options(corpus, tmp_path / "out"), 2)
    assert not (tmp_path / "out").exists()


def test_cross_validation_fits_the_join_for_all_and_for_each_fold(corpus: Path, tmp_path: Path) -> None:
    folder = classifier_breaths(tmp_path / "classifier", corpus)
    recipe = tiny_recipe("fit.epochs=1", f"adventitious.breaths={folder}", "adventitious.breath_own=0.8")
    report = cross_validate_adventitious(recipe, options(corpus, tmp_path / "out"), 2)
    calibration = report[CALIBRATION]
    assert BreathParams.from_dict(calibration["breaths"]).own == 0.8
    figures = calibration["figures"]["breaths"]["sprsound"]
    known = {r.id for r in load_corpus("sprsound", corpus).recordings if not r.quality_poor}
    assert figures["n"] == sum(
        c.recording_id in known for c in load_corpus("sprsound", corpus).cycles if c.label in MULTILABEL
    )
    assert 0.0 <= figures["auroc"] <= 1.0
    kept = [load_checkpoint(tmp_path / "out" / f"fold-{k}" / "checkpoint.pt").metrics[CALIBRATION] for k in (0, 1)]
    assert all(set(one) == {"params", "familiarity", "detector", "breaths"} for one in kept)
    again = tiny_recipe("fit.epochs=1", "adventitious.breath_running=0.1")  # the join comes after training: none again
    assert cross_validate_adventitious(again, options(corpus, tmp_path / "out"), 2)["metrics"] == report["metrics"]
