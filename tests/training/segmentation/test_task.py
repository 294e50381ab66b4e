"""The loss compares an output with the moment it belongs to; what the device would emit is what is validated."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from edge_sdk.errors import RecipeError
from edge_sdk.models.segmenter import TEMPI, SegmenterNetwork, SegmentLogits
from edge_sdk.runtime.engines.onnx import OrtEngine
from edge_sdk.runtime.segmentation.decoder_params import DecoderParams
from edge_sdk.runtime.segmentation.network import LearnedSegmenter, StepModel
from edge_sdk.sources.phantom import PhantomSource
from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.recipes.recipe import load_recipe
from edge_sdk.training.recipes.segment_settings import SegmentSection
from edge_sdk.training.segmentation.building import LABELS, build_segmenter
from edge_sdk.training.segmentation.data import AnnotatedRecording, SegmentData
from edge_sdk.training.segmentation.excerpts import Annotation, Excerpt, SegmentTruth, log_mel_frames
from edge_sdk.training.segmentation.inference import clip_phase_odds, emit, run_network
from edge_sdk.training.segmentation.run import phase_accuracy
from edge_sdk.training.segmentation.sampling import WindowBatch
from edge_sdk.training.segmentation.targets import UNANNOTATED, FrameTargets
from edge_sdk.training.segmentation.task import SegmentTask, clip_loss, segment_loss, tempo_loss
from export.onnx.step_graph import export_segmenter
from tests.support.tiny_segmentation import RATE, phase_clips, segment_data, tiny_recipe

NAMES = ("onset", "cycle", "activity", "tempo", "phase")
SETTINGS = SegmentSection()


def _batch(frames: int = 60, seed: int = 0) -> WindowBatch:
    """Random targets with every weight above 0 somewhere."""
    random = torch.Generator().manual_seed(seed)

    def share(*shape: int) -> Tensor:
        return torch.rand(2, frames, *shape, generator=random)

    def whole(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (2, frames), generator=random)

    angle = 2 * torch.pi * share()
    return WindowBatch(
        torch.zeros(2, 16, 2 * frames),
        (share() > 0.8).float(),
        (share() > 0.3).float(),
        torch.stack((angle.cos(), angle.sin()), dim=2),
        (share() > 0.3).float(),
        (share() > 0.5).float(),
        share(),
        whole(-1, TEMPI),
        whole(-1, 3),
    )


def _perfect(batch: WindowBatch, delay: int) -> dict[str, Tensor]:
    """Outputs that repeat the targets, ``delay`` output frames late; nothing is known before."""

    def late(rows: Tensor) -> Tensor:
        return torch.cat((torch.zeros_like(rows[..., :delay]), rows[..., : rows.shape[-1] - delay]), dim=-1)

    def one_hot(index: Tensor, count: int) -> Tensor:
        return 12.0 * torch.nn.functional.one_hot(index.clamp(min=0), count).transpose(1, 2).float()

    return {
        "activity": late(24.0 * batch.activity - 12.0),
        "onset": late(24.0 * batch.onset - 12.0),
        "phase": late(one_hot(batch.phase, 3)),
        "cycle": late(batch.cycle.transpose(1, 2)),
        "tempo": late(one_hot(batch.tempo, TEMPI)),
    }


def _cost(outputs: dict[str, Tensor], batch: WindowBatch, delay: int, settings: SegmentSection = SETTINGS) -> float:
    return float(segment_loss(SegmentLogits(**outputs), batch, delay, settings))


@pytest.mark.parametrize("delay", [0, 1, 5])
def test_each_output_is_compared_with_the_moment_it_belongs_to(delay: int) -> None:
    """Perfect outputs cost little; any one of them a frame early or late costs more."""
    batch = _batch()
    perfect = _perfect(batch, delay)
    least = _cost(perfect, batch, delay)
    lengths = tempo_loss(perfect["tempo"][..., delay:], batch.tempo[:, : 60 - delay])  # blurred, so never certain
    assert 0.0 <= least - SETTINGS.tempo_weight * float(lengths) < 0.01
    for name in NAMES:
        for shift in (-1, 1):
            shifted = perfect | {name: torch.roll(perfect[name], shift, dims=-1)}
            assert _cost(shifted, batch, delay) > least + 0.05, (name, shift)


def test_outputs_before_the_first_frame_do_not_count() -> None:
    batch, delay = _batch(), 5
    outputs = _perfect(batch, delay)
    wrong = {name: rows.clone() for name, rows in outputs.items()}
    for rows in wrong.values():
        rows[..., :delay] = 50.0
    assert _cost(wrong, batch, delay) == _cost(outputs, batch, delay)


@pytest.mark.parametrize("name", NAMES)
def test_frames_without_weight_do_not_count(name: str) -> None:
    batch, delay = _batch(), 3
    outputs = _perfect(batch, delay)
    if name in ("tempo", "phase"):
        free = getattr(batch, name) == UNANNOTATED
    else:
        free = getattr(batch, f"{name}_weight") == 0
        batch = replace(batch, **{f"{name}_weight": torch.where(free, 0.0, 1.0)})
    if name == "activity":
        free = torch.zeros(2, 60, dtype=torch.bool)
        free[:, 10:30] = True
        batch = replace(batch, activity_weight=torch.where(free, 0.0, 1.0))
    least = _cost(outputs, batch, delay)
    late = torch.cat((torch.zeros(2, delay, dtype=torch.bool), free[:, : 60 - delay]), dim=1)
    assert late.any()
    for where, same in ((late, True), (~late, False)):
        rows = outputs[name].clone()
        mask = where if rows.ndim == 2 else where[:, None].expand_as(rows)
        rows[mask] = 7.0 * torch.sign(torch.randn(int(mask.sum()), generator=torch.Generator().manual_seed(1)))
        assert (_cost(outputs | {name: rows}, batch, delay) == pytest.approx(least, abs=1e-6)) == same


@pytest.mark.parametrize("name", ["cycle", "activity", "tempo", "phase"])
def test_each_part_has_its_weight(name: str) -> None:
    batch = _batch()
    outputs = {key: torch.zeros_like(rows) for key, rows in _perfect(batch, 2).items()}
    costs = [
        _cost(outputs, batch, 2, msgspec.structs.replace(SETTINGS, **{f"{name}_weight": weight}))
        for weight in (0.0, 1.0, 2.0)
    ]
    assert costs[2] - costs[1] == pytest.approx(costs[1] - costs[0], rel=1e-4) and costs[1] > costs[0] + 0.1


def test_a_batch_without_any_annotation_costs_nothing() -> None:
    empty = {name: torch.zeros(2, 60, *((2,) if name == "cycle" else ())) for name in FrameTargets.names()}
    empty |= {name: torch.full((2, 60), UNANNOTATED) for name in ("tempo", "phase")}
    batch = WindowBatch(features=torch.zeros(2, 16, 120), **empty)
    outputs = {name: rows.requires_grad_() for name, rows in _perfect(_batch(), 2).items()}
    found = segment_loss(SegmentLogits(**outputs), batch, 2, SETTINGS)
    assert float(found.detach()) == 0.0
    found.backward()
    assert all(rows.grad is None or bool(torch.isfinite(rows.grad).all()) for rows in outputs.values())


def test_a_length_near_the_true_one_costs_less_than_a_far_one() -> None:
    tempo = torch.tensor([[10, 10, UNANNOTATED, 10]])
    costs = []
    for guess in (10, 11, 13, 25):
        logits = torch.zeros(1, TEMPI, 4)
        logits[:, guess] = 6.0
        logits[:, :, 2] = torch.randn(TEMPI)
        costs.append(float(tempo_loss(logits, tempo)))
    assert costs == sorted(costs) and costs[1] < costs[2] - 0.5
    assert float(tempo_loss(torch.zeros(1, TEMPI, 4), tempo)) == pytest.approx(np.log(TEMPI), rel=1e-5)


@pytest.mark.parametrize("delay", [0, 4])
def test_phase_clips_are_compared_after_the_look_ahead(delay: int) -> None:
    phase = torch.tensor([0, 1, 1])
    row = torch.zeros(3, 3, 30)
    row[torch.arange(3), phase, delay:] = 8.0
    row[:, 2] = 99.0  # whether there is a breath at all is not asked
    row[torch.arange(3), 1 - phase, :delay] = 50.0
    zeros = torch.zeros(3, 30)
    right = SegmentLogits(zeros, zeros, row, torch.zeros(3, 2, 30), torch.zeros(3, TEMPI, 30))
    assert float(clip_loss(right, phase, delay)) < 1e-3
    assert float(clip_loss(right, 1 - phase, delay)) > 7.0


def _randomness() -> Randomness:
    return Randomness(torch.Generator().manual_seed(0))


def test_a_task_learns_its_windows_and_clips() -> None:
    """A few steps on one batch lower its loss; a batch is the same for one state of the generators."""
    torch.manual_seed(0)
    task = SegmentTask(tiny_recipe("segment.clip_weight=0.3", "segment.phantoms=1"), _wide(phase=True))
    batches = [task.batch(np.random.default_rng(0), _randomness(), 6) for _ in range(2)]
    for one, two in zip(batches[0].windows, batches[1].windows, strict=True):
        assert torch.equal(one.features, two.features)
    assert torch.equal(batches[0].clips, batches[1].clips) and batches[0].clips.shape[0] == 6
    assert batches[0].clips.shape[2] % 2 == 0 and set(batches[0].clip_phase.tolist()) <= {0, 1}
    model = task.build().train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    costs = []
    for _ in range(25):
        cost = task.loss(model, batches[0])
        optimiser.zero_grad()
        cost.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        costs.append(float(cost.detach()))
    assert costs[-1] < 0.8 * costs[0]
    without = SegmentTask(tiny_recipe("segment.clip_weight=0", "segment.phantoms=1"), _wide(phase=True))
    assert without.batch(np.random.default_rng(0), _randomness(), 6).clips.shape[2] == 0


def _wide(*, phase: bool = False) -> SegmentData:
    """The data of :func:`segment_data` with the mel bands of the packaged recipe."""
    spec = tiny_recipe().spec
    data = segment_data(phase_clips() if phase else None)

    def widened(recording: AnnotatedRecording) -> AnnotatedRecording:
        frames = np.repeat(recording.excerpt.frames, spec.mel_bins // recording.excerpt.frames.shape[1], axis=1)
        return replace(recording, excerpt=replace(recording.excerpt, frames=frames))

    return replace(
        data,
        recordings=tuple(widened(r) for r in data.recordings),
        poor=tuple(widened(r) for r in data.poor),
    )


# -- what the device would emit ----------------------------------------------------------------------------------------


def _network(seed: int = 0) -> SegmenterNetwork:
    """Random weights and statistics."""
    torch.manual_seed(seed)
    model = build_segmenter(tiny_recipe())
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    with torch.no_grad():
        model.head.weight.mul_(6.0)
    return model.eval()


@pytest.fixture(scope="module")
def step_model(tmp_path_factory: pytest.TempPathFactory) -> StepModel:
    """The step graph of :func:`_network`."""
    path = tmp_path_factory.mktemp("graph") / "segmenter.onnx"
    path.write_bytes(export_segmenter(_network()).SerializeToString())
    return StepModel(OrtEngine(path))


@pytest.mark.parametrize("samples", [40_000, 40_001, 40_079, 40_080, 40_160, 40_241, 40_319])
def test_what_is_scored_is_what_the_device_emits(samples: int, step_model: StepModel) -> None:
    """Cycles, announcements and times of emission of the step graph in a stream, to the sample, for any rest."""
    model = _network()
    params = DecoderParams(onset_bonus=4.0, announce_margin=0.2)
    source = PhantomSource("pneumonia", seed=1_000_010, duration_s=12.0, sample_rate=RATE)
    wave = np.concatenate([block.samples for block in source])[:samples]
    (frames,) = log_mel_frames([wave], model.front_end)
    excerpt = Excerpt(frames, SegmentTruth(Annotation.EXACT), 0.02)
    (outputs,) = run_network(model, [AnnotatedRecording("r", "p", wave.size, RATE, excerpt)])
    assert len(outputs.activity) == len(frames) // 2
    scored = emit(outputs, params)
    segmenter = LearnedSegmenter(step_model, params)
    events = [event for at in range(0, samples, 500) for event in segmenter.accept(wave[at : at + 500])]
    events += segmenter.finish()
    finals = [event for event in events if event.final]
    assert len(finals) >= 5
    found = np.array([(event.onset, event.end) for event in finals]) / RATE
    np.testing.assert_allclose(scored.found[:, 0], found[:, 0], atol=1e-9)
    np.testing.assert_allclose(scored.found[:-1, 1], found[:-1, 1], atol=1e-9)
    assert abs(scored.found[-1, 1] - found[-1, 1]) <= 0.08  # the last one ends with the audio, with the last frame here
    emitted = [(event.onset / RATE, event.emitted_at / RATE) for event in events if not event.final]
    announced = [(a.onset_s, a.emitted_s) for a in scored.announcements or ()]
    assert len(emitted) >= 3
    for pair in emitted:
        assert any(np.abs(np.subtract(pair, other)).max() < 1e-9 for other in announced), pair


def test_recordings_in_one_pass_are_those_alone() -> None:
    """Whatever is longer beside them, in the order in which they were given; those without an output frame are not."""
    spec = tiny_recipe().spec
    random = np.random.default_rng(0)
    rows = []
    for k, seconds in enumerate((3.0, 0.05, 5.0, 0.01, 1.234)):
        wave = (0.1 * random.standard_normal(round(seconds * RATE))).astype(np.float32)
        excerpt = Excerpt(log_mel_frames([wave], spec)[0], SegmentTruth(Annotation.NONE), 0.02)
        rows.append(AnnotatedRecording(f"r{k}", "p", wave.size, RATE, excerpt, group=f"device {k}"))
    model = _network()
    together = run_network(model.train(), rows)
    assert model.training  # as it was
    assert [(o.name, o.group) for o in together] == [(f"r{k}", f"device {k}") for k in (0, 2, 4)]
    for outputs in together:
        (alone,) = run_network(model, [r for r in rows if r.name == outputs.name])
        for name in ("activity", "onset", "phase", "cycle"):
            np.testing.assert_allclose(getattr(outputs, name), getattr(alone, name), atol=1e-5)
        assert outputs.phase.sum(axis=0) == pytest.approx(1.0, abs=1e-5)


def test_withdrawn_announcements_are_counted_as_revisions() -> None:
    (outputs,) = run_network(_network(), [_wide().recordings[0]])
    count = len(outputs.activity)
    onset, cycle = np.full(count, 0.02), np.zeros((2, count))
    for begin in range(100, 400, 50):
        onset[begin] = 0.95
        turn = 2 * np.pi * (np.arange(50) + 0.5) / 50
        cycle[:, begin : begin + 50] = 0.8 * np.stack((np.cos(turn), np.sin(turn)))
    onset[40] = 0.99  # a click
    activity = np.where(np.arange(count) >= 100, 0.9, 0.05)
    scored = emit(
        replace(outputs, activity=activity, onset=onset, cycle=cycle),
        DecoderParams(announce_margin=0.1, withdraw_margin=0.2),
    )
    announcements = list(scored.announcements or ())
    revised = [a for a in announcements if a.final_onset_s is None]
    assert all(a.emitted_s > a.onset_s for a in announcements)
    assert revised and revised[0].onset_s == pytest.approx(40 * 0.04, abs=0.1)
    assert len([a for a in announcements if a.final_onset_s is not None]) == len(scored.found) >= 6


def test_phase_accuracy_is_that_of_the_odds() -> None:
    model, clips = _network(), phase_clips()
    odds = clip_phase_odds(model, clips)
    assert odds.shape == (4, ((RATE - 160) // 80 + 1) // 2)
    right = (odds.sum(axis=1) > 0) == np.array([False, False, True, True])
    found = phase_accuracy(model, clips)
    assert found["clip"] == right.mean() and set(found) == {"0.3s", "0.5s", "0.7s", "1s", "clip"}


# -- recipes -----------------------------------------------------------------------------------------------------------


def test_a_classifier_is_no_segmenter() -> None:
    with pytest.raises(RecipeError, match="no section"):
        SegmentTask(load_recipe("compact", size="tiny"), segment_data())
    assert len(LABELS) == _network().head.out_features


def test_settings_after_training_do_not_identify_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_sdk.training.segmentation.task.WindowSampler", lambda *_: None)  # nothing is drawn
    data = _wide()
    one = SegmentTask(tiny_recipe(), data).identity()
    searched = tiny_recipe("segment.search=9", "segment.decoder={typical_s: 1.0}")
    assert one == SegmentTask(searched, data).identity()
    for other in ("segment.onset_width_s=0.2", "segment.mix.cycles=0.1", "fit.learning_rate=0.001"):
        assert SegmentTask(tiny_recipe(other), data).identity() != one
    held_out = SegmentTask(tiny_recipe("segment.decoder={typical_s: 1.0}"), data, data.recordings[:1])
    plain = SegmentTask(tiny_recipe(), data, data.recordings[:1])
    assert held_out.identity() != plain.identity()  # the decoder chooses the epoch
