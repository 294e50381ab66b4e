"""Training sequences of the segmenter: targets lie where the audio is, draws repeat, a run resumes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from edge_sdk.errors import CheckpointError, RecipeError
from edge_sdk.models.segmenter import SegmentLogits
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.sources.phantom import PhantomSource
from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.checkpoint import load_checkpoint
from edge_sdk.training.recipes.recipe import Recipe, load_recipe
from edge_sdk.training.recipes.segment_settings import MixSection, SegmentSection
from edge_sdk.training.run_folder import RunOptions
from edge_sdk.training.segmentation.building import checkpoint_segmenter
from edge_sdk.training.segmentation.clips import PhaseClips
from edge_sdk.training.segmentation.data import AnnotatedRecording, SegmentData
from edge_sdk.training.segmentation.disturbances import Disturbances
from edge_sdk.training.segmentation.excerpts import AudioExcerpt, SegmentTruth, doubtful_gaps, spans
from edge_sdk.training.segmentation.phantoms import phantom_excerpts
from edge_sdk.training.segmentation.run import held_out_patients, train_segmenter
from edge_sdk.training.segmentation.sampling import WindowSampler
from edge_sdk.training.segmentation.targets import UNANNOTATED, FrameTargets, TargetPainter
from edge_sdk.training.segmentation.task import SegmentTask, aligned, segment_loss

RATE = 4000
SPEC = FrontEndSpec(frame_samples=160, hop_samples=80, mel_bins=16, high_hz=1800.0, normalisation="none")


def _bursts(seconds: float = 10.0, seed: int = 0) -> AudioExcerpt:
    """Hiss of one second every two seconds, from 0.5 s on: what is loud is a breath."""
    wave = np.zeros(round(seconds * RATE), dtype=np.float32)
    cycles = [(begin, begin + RATE) for begin in range(RATE // 2, wave.size - RATE, 2 * RATE)]
    random = np.random.default_rng(seed)
    for begin, end in cycles:
        wave[begin:end] = 0.1 * random.standard_normal(end - begin)
    return AudioExcerpt(wave, SegmentTruth(cycles=spans(cycles)))


def _data(clips: PhaseClips | None = None) -> SegmentData:
    recordings = tuple(AnnotatedRecording(f"r{k}", f"p{k}", 10.0, _bursts(seed=k)) for k in range(4))
    poor = (
        AnnotatedRecording("x", "p9", 4.0, AudioExcerpt(np.full(4 * RATE, 0.01, np.float32), SegmentTruth(weight=0.3))),
    )
    return SegmentData(recordings, poor, clips, None, (), RATE)


def _clips() -> PhaseClips:
    random = np.random.default_rng(3)
    waves = [(level * random.standard_normal(RATE)).astype(np.float32) for level in (0.2, 0.2, 0.05, 0.05)]
    return PhaseClips(waves, ["a", "b", "a", "b"], ["I", "I", "E", "E"], RATE)


def _loudness(wave: np.ndarray) -> np.ndarray:
    """RMS around the centre of each frame."""
    frames = SPEC.frames_of(wave.size)
    return np.array([np.sqrt(np.mean(wave[t * 80 + 40 : t * 80 + 120] ** 2)) for t in range(frames)])


@pytest.mark.parametrize("speed", [1.0, 0.8, 1.2])
def test_activity_lies_where_the_breath_is_audible(speed: float) -> None:
    excerpt = _bursts().cut(1234, 33_000).at_speed(speed)
    targets = FrameTargets.empty(SPEC.frames_of(excerpt.wave.size))
    TargetPainter(SPEC, 0.08, 0.12).paint(targets, excerpt.truth, 0, excerpt.wave.size)
    assert np.mean((_loudness(excerpt.wave) > 0.02) == (targets.activity > 0.5)) > 0.98


def test_onset_pulses_peak_at_the_onsets_and_cuts_make_none() -> None:
    excerpt = _bursts()
    targets = FrameTargets.empty(SPEC.frames_of(excerpt.wave.size))
    TargetPainter(SPEC, 0.08, 0.12).paint(targets, excerpt.truth, 0, excerpt.wave.size)
    centre = np.arange(len(targets.onset)) * 80 + 80
    for pulses, moments in ((targets.onset, excerpt.truth.cycles[:, 0]), (targets.offset, excerpt.truth.cycles[:, 1])):
        for moment in moments:
            near = np.abs(centre - moment) < 400
            assert abs(centre[near][np.argmax(pulses[near])] - moment) <= 40
    assert np.count_nonzero(targets.onset) <= 9 * len(excerpt.truth.cycles)
    middle = excerpt.cut(RATE, 2 * RATE)  # begins inside the first breath
    cut = FrameTargets.empty(SPEC.frames_of(RATE))
    TargetPainter(SPEC, 0.08, 0.12).paint(cut, middle.truth, 0, RATE)
    assert cut.activity[0] == 1.0 and cut.onset.max() == 0.0
    assert cut.weight[0] == 0.0 and cut.weight[-1] == 1.0  # the rest of a cycle has no onset in the excerpt


def test_long_gaps_are_doubtful_and_short_ones_are_pauses() -> None:
    cycles = spans([(1000, 5000), (6000, 10_000), (20_000, 24_000)])
    gaps = doubtful_gaps(cycles, 25_000, 0.8)
    np.testing.assert_array_equal(gaps, [[10_000, 20_000]])
    truth = SegmentTruth(cycles=cycles, doubtful=gaps, doubt_weight=0.25)
    targets = FrameTargets.empty(SPEC.frames_of(25_000))
    TargetPainter(SPEC, 0.08, 0.12).paint(targets, truth, 0, 25_000)
    assert set(np.unique(targets.weight)) == {0.25, 1.0}
    assert targets.weight[(12_000 // 80)] == 0.25 and targets.weight[5500 // 80] == 1.0


def test_clips_become_breaths_of_inspiration_then_expiration() -> None:
    excerpt = _clips().sequence(8 * RATE, np.random.default_rng(0))
    truth = excerpt.truth
    assert len(truth.cycles) == len(truth.inspirations) == len(truth.expirations) >= 2
    assert (truth.inspirations[:, 1] <= truth.expirations[:, 0]).all()
    assert (truth.cycles[1:, 0] >= truth.cycles[:-1, 1]).all()
    targets = FrameTargets.empty(SPEC.frames_of(excerpt.wave.size))
    TargetPainter(SPEC, 0.08, 0.12).paint(targets, truth, 0, excerpt.wave.size)
    level = _loudness(excerpt.wave)
    assert np.median(level[targets.phase == 0]) > 2 * np.median(level[targets.phase == 1])
    assert UNANNOTATED in targets.phase  # late in a clip the phase may be over


def test_simulated_patients_have_phases_without_gaps() -> None:
    excerpts = phantom_excerpts(6, 20.0, (8.0, 70.0), RATE, seed=1)
    again = phantom_excerpts(6, 20.0, (8.0, 70.0), RATE, seed=1)
    assert all(np.array_equal(a.wave, b.wave) for a, b in zip(excerpts, again, strict=True))
    rates = [60.0 * RATE / np.median(np.diff(e.truth.cycles[:, 0])) for e in excerpts if len(e.truth.cycles) > 2]
    assert max(rates) / min(rates) > 1.5
    for excerpt in excerpts:
        np.testing.assert_array_equal(excerpt.truth.inspirations[:, 1], excerpt.truth.expirations[:, 0])


def test_windows_repeat_and_hold_every_kind() -> None:
    settings = SegmentSection(window_s=8.0, phantoms=2, phantom_s=8.0, mix=MixSection(negatives=0.2))
    sampler = WindowSampler(_data(_clips()), settings, SPEC)
    one, two = (sampler.draw(12, np.random.default_rng(5)) for _ in range(2))
    for name in ("wave", "activity", "onset", "offset", "phase", "weight", "exact"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    assert one.wave.shape == (12, 8 * RATE) and one.activity.shape == (12, SPEC.frames_of(8 * RATE))
    assert bool(torch.isfinite(one.wave).all()) and float(one.wave.abs().max()) <= 1.0
    assert 0.1 < float(one.activity.mean()) < 0.9
    assert set(torch.unique(one.phase).tolist()) == {-1, 0, 1, 2}


@pytest.mark.parametrize("seed", range(12))
def test_negatives_hold_no_breath(seed: int) -> None:
    excerpt = Disturbances(RATE).negative(3 * RATE, np.random.default_rng(seed))
    assert excerpt.wave.shape == (3 * RATE,) and np.isfinite(excerpt.wave).all() and np.abs(excerpt.wave).max() <= 1.0
    assert len(excerpt.truth.cycles) == 0 and excerpt.truth.weight == 1.0


@pytest.mark.parametrize("delay", [-1, 0, 3])
def test_outputs_are_compared_with_the_moment_they_belong_to(delay: int) -> None:
    targets = torch.arange(10.0)[None]
    logits = targets - delay  # output t belongs to frame t - delay
    kept_logits, kept_targets = aligned(logits, targets, delay)
    assert torch.equal(kept_logits, kept_targets) and kept_logits.shape[1] == 10 - abs(delay)


def tiny_recipe(*overrides: str) -> Recipe:
    return load_recipe("segmenter", size="tiny", overrides=["heart_corpus=null", *overrides])


def test_perfect_outputs_cost_less_than_shifted_ones() -> None:
    task = SegmentTask(tiny_recipe(), _data())
    batch = task.batch(np.random.default_rng(0), Randomness(torch.Generator().manual_seed(0)), 2)
    delay = 10

    def outputs(shift: int) -> SegmentLogits:
        def late(values: torch.Tensor) -> torch.Tensor:
            return torch.roll(8.0 * (values * 2.0 - 1.0), shift, dims=-1)

        phase = torch.zeros(2, 3, batch.phase.shape[1])
        onset, offset = (late((pulses > 0.5).float()) for pulses in (batch.onset, batch.offset))
        return SegmentLogits(late(batch.activity), onset, phase, offset)

    costs = [float(segment_loss(outputs(shift), batch, delay, task.settings)) for shift in (delay, 0, 2 * delay)]
    assert costs[0] < 0.5 * min(costs[1:])


def test_held_out_patients_are_a_repeatable_share() -> None:
    patients = [f"p{k}" for k in range(50)]
    assert len(held_out_patients(patients, 0.1, 0)) == 5
    assert held_out_patients(patients, 0.1, 0) == held_out_patients(patients[::-1], 0.1, 0)
    assert held_out_patients(patients, 0.0, 0) == set()
    with pytest.raises(RecipeError, match="leaves none"):
        held_out_patients(["a"], 0.5, 0)


def write_corpus(root: Path) -> None:
    """Six children in the layout of SPRSound: simulated breathing at 8 kHz with its annotation."""
    for folder in ("train_json", "train_wav"):
        (root / folder).mkdir(parents=True)
    rows = []
    for child in range(6):
        source = PhantomSource("pneumonia", seed=child, duration_s=6.0, sample_rate=8000)
        wave = np.concatenate([block.samples for block in source])
        name = f"4000000{child}_5.0_0_p1_{child}"
        events = [
            {"start": str(round(c.start_s * 1000)), "end": str(round(c.end_s * 1000)), "type": "Normal"}
            for c in source.truth
        ]
        annotation = {"record_annotation": "Normal", "event_annotation": events}
        (root / "train_json" / f"{name}.json").write_text(json.dumps(annotation))
        soundfile.write(root / "train_wav" / f"{name}.wav", wave, 8000)
        rows.append((name, f"4000000{child}", "val" if child == 5 else "train"))
    with (root / "split.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "patient", "split"), *rows])


def test_tiny_run_writes_a_checkpoint_and_resumes_to_the_same_weights(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")

    def run(out: str, epochs_seen: int | None = None) -> dict[str, object]:
        recipe = tiny_recipe("segment.clip_corpus=null", "fit.validation_share=0.2", "segment.window_s=4.0")
        options = RunOptions(
            "sprsound", tmp_path / "corpus", tmp_path / out, cache=tmp_path / "cache", logs=(), resamples=0
        )

        def stop(step: object) -> None:
            if epochs_seen is not None and step.epoch == epochs_seen:  # type: ignore[attr-defined]
                raise KeyboardInterrupt

        return train_segmenter(recipe, options, on_step=stop)

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("parts", epochs_seen=1)
    resumed = run("parts")
    states = [load_checkpoint(Path(str(result["checkpoint"]))).state for result in (whole, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert {"event_f1", "validation", "best_epoch"} <= set(whole)
    model, recipe = checkpoint_segmenter(load_checkpoint(Path(str(whole["checkpoint"]))))
    assert model.delay == 10 and recipe.segment is not None


def test_a_classifier_is_no_segmenter() -> None:
    from edge_sdk.training.untrained import untrained_checkpoint

    with pytest.raises(CheckpointError, match="not of a segmenter"):
        checkpoint_segmenter(untrained_checkpoint("compact", size="tiny"))
    with pytest.raises(RecipeError, match="no section"):
        SegmentTask(load_recipe("compact", size="tiny"), _data())
