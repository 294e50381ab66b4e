"""Training windows: every kind, repeatable, and their targets lie where the audio is, in any surroundings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge_sdk.models.segmenter import STRIDE
from edge_sdk.training.recipes.segment_settings import MixSection, SegmentSection
from edge_sdk.training.segmentation.data import SegmentData
from edge_sdk.training.segmentation.excerpts import Annotation, Excerpt, SegmentTruth
from edge_sdk.training.segmentation.sampling import WindowBatch, WindowSampler
from edge_sdk.training.segmentation.targets import UNANNOTATED, FrameTargets
from tests.support.tiny_segmentation import (
    FRAME_S,
    HOP_S,
    RATE,
    SPEC,
    bursts,
    phase_clips,
    recording,
    segment_data,
)

NOTHING = dict.fromkeys(("cycles", "events", "poor", "phantoms", "clips", "negatives"), 0.0)
KINDS = tuple(NOTHING)


def _settings(**values: object) -> SegmentSection:
    small = {"window_s": 8.0, "event_window_s": 5.0, "phantoms": 2, "phantom_s": 8.0, "mix": MixSection(negatives=0.2)}
    return SegmentSection(**(small | values))  # type: ignore[arg-type]


def _only(kind: str, data: SegmentData | None = None, **values: object) -> WindowSampler:
    """A sampler of one kind."""
    mix = MixSection(**(NOTHING | {kind: 1.0}))
    return WindowSampler(data or segment_data(phase_clips()), _settings(mix=mix, **values), SPEC)


def _arrays(batches: list[WindowBatch]) -> list[torch.Tensor]:
    return [getattr(batch, name) for batch in batches for name in ("features", *FrameTargets.names())]


def test_windows_repeat_for_one_seed_and_hold_every_kind() -> None:
    data = segment_data(phase_clips())
    one, two, other = (WindowSampler(data, _settings(), SPEC, seed) for seed in (0, 0, 1))
    drawn = [_arrays(sampler.draw(24, np.random.default_rng(5))) for sampler in (one, two)]
    assert all(torch.equal(a, b) for a, b in zip(*drawn, strict=True))
    again = _arrays(one.draw(24, np.random.default_rng(5)))  # earlier draws do not matter
    assert all(torch.equal(a, b) for a, b in zip(drawn[0], again, strict=True))
    apart = _arrays(other.draw(24, np.random.default_rng(5)))  # other simulated patients
    assert not all(torch.equal(a, b) for a, b in zip(drawn[0], apart, strict=True))
    later = _arrays(one.draw(24, np.random.default_rng(6)))
    assert not torch.equal(later[0][:1], drawn[0][0][:1])


def test_windows_of_one_length_are_together() -> None:
    sampler = WindowSampler(segment_data(phase_clips()), _settings(), SPEC)
    batches = sampler.draw(30, np.random.default_rng(0))
    assert [batch.features.shape[2] for batch in batches] == [400, 250]
    assert sum(len(batch.features) for batch in batches) == 30
    for batch in batches:
        rows, frames = batch.features.shape[0], batch.features.shape[2] // STRIDE
        assert batch.features.shape[1] == SPEC.mel_bins and batch.cycle.shape == (rows, frames, 2)
        assert batch.onset.shape == batch.tempo.shape == batch.phase.shape == (rows, frames)
        assert batch.tempo.dtype == batch.phase.dtype == torch.int64
        assert all(bool(torch.isfinite(part).all()) for part in _arrays([batch]))
    long = batches[0]
    assert set(torch.unique(long.phase).tolist()) == {-1, 0, 1, 2}
    assert 0.05 < float(long.activity.mean()) < 0.9


@pytest.mark.parametrize("exact_share", [1.0, 0.0])
@pytest.mark.parametrize("kind", ["cycles", "events"])
def test_targets_lie_where_the_audio_is_in_any_surroundings(kind: str, exact_share: float) -> None:
    """Also with another pace, another response, another gain and a noise floor, which may hide a part of it."""
    (batch,) = _only(kind, exact_share=exact_share).draw(24, np.random.default_rng(1))
    apart, clear = [], 0
    for row in range(24):
        count = int((batch.activity_weight[row] > 0).nonzero().max()) + 1
        level = batch.features[row].reshape(SPEC.mel_bins, -1, STRIDE).mean(dim=(0, 2))[:count]
        sure = batch.activity_weight[row][:count] >= 0.5
        active = (batch.activity[row][:count] > 0.5) & sure
        if not active.any() or active.all():
            continue
        quiet = (batch.activity[row][:count] < 0.5) & (batch.activity_weight[row][:count] > 0.2)
        clear += kind == "cycles" or float(level[active].mean()) > float(level[quiet].mean())
        onset = batch.onset[row][:count]
        begins = (onset > 0.85).nonzero().flatten()
        begins = begins[(begins > 6) & (begins < count - 6)]
        apart += [float(level[b + 1 : b + 5].mean() - level[b - 5 : b - 1].mean()) for b in begins.tolist()]
    assert len(apart) >= 30
    assert np.mean(np.array(apart) > 0.2) > (0.999 if exact_share == 1.0 else 0.9)
    assert np.median(apart) > (5.0 if exact_share == 1.0 else 1.0)
    assert clear >= 18


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_alone(kind: str) -> None:
    batches = _only(kind).draw(6, np.random.default_rng(2))
    (batch,) = batches
    cycles, silent = kind not in ("poor", "negatives"), kind in ("poor", "negatives")
    assert bool((batch.onset > 0.5).any()) == cycles and bool((batch.activity > 0.5).any()) == cycles
    assert bool((batch.tempo != UNANNOTATED).any()) == cycles
    assert bool((batch.phase >= 0).any()) == (kind in ("phantoms", "clips", "negatives"))
    if silent:
        weight = {"poor": 0.3, "negatives": 1.0}[kind]
        assert torch.unique(batch.onset_weight).tolist() in ([pytest.approx(weight)], [0.0, pytest.approx(weight)])


def test_windows_begin_at_the_start_of_the_file_or_anywhere() -> None:
    """At its first frame the network has seen nothing: that happens once in a recording, and in each stream."""
    ramp = np.repeat(np.arange(2000, dtype=np.float32)[:, None], SPEC.mel_bins, axis=1)
    truth = bursts(Annotation.CYCLES, seconds=40.0).truth
    data = SegmentData((recording("a", "p", Excerpt(ramp, truth, HOP_S)),), (), None, None, (), RATE)
    for share in (0.0, 0.4, 1.0):
        sampler = _only("cycles", data, exact_share=1.0, start_share=share, cycle_pace=(1.0, 1.0))
        (batch,) = sampler.draw(200, np.random.default_rng(3))
        first = batch.features[:, 0, 0]
        at_start = float(((first == 0.0) | (first == 25.0)).float().mean())  # 25: the first cycle of a loop
        assert abs(at_start - share) < 0.12 and len(torch.unique(first)) >= (2 if share == 1.0 else 50)


def test_a_short_recording_counts_only_where_it_is() -> None:
    data = SegmentData((recording("a", "p", bursts(seconds=2.0)),), (), None, None, (), RATE)
    (batch,) = _only("events", data, event_pace=(1.0, 1.0)).draw(4, np.random.default_rng(4))
    frames = (2 * RATE - 80) // 80 // STRIDE
    assert bool((batch.onset_weight[:, :frames] == 1.0).all()) and not bool(batch.onset_weight[:, frames:].any())
    assert not bool(batch.activity_weight[:, frames:].any())
    assert bool((batch.features[:, :, 2 * frames + 4 :].diff(dim=2) == 0).all())


@pytest.mark.parametrize("period_s", [0.8, 2.0, 6.5])
def test_no_pace_makes_cycles_shorter_than_half_a_second_or_longer_than_seven(period_s: float) -> None:
    excerpt = bursts(Annotation.CYCLES, seconds=40.0, on_s=0.3 * period_s, period_s=period_s)
    data = SegmentData((recording("a", "p", excerpt),), (), None, None, (), RATE)
    sampler = _only("cycles", data, window_s=16.0, exact_share=1.0, cycle_pace=(0.25, 5.0))
    (batch,) = sampler.draw(40, np.random.default_rng(5))
    lengths = []
    for row in batch.onset:
        peaks = (row >= 0.85).nonzero().flatten().float() * FRAME_S
        gaps = peaks.diff()
        lengths += gaps[gaps > 2.5 * FRAME_S].tolist()
    assert min(lengths) >= 0.5 - 1.5 * FRAME_S and max(lengths) <= 7.0 + 1.5 * FRAME_S
    assert max(lengths) > 1.5 * min(lengths)


def test_a_patient_counts_by_the_root_of_the_number_of_recordings() -> None:
    def constant(value: float) -> Excerpt:
        frames = np.full((300, SPEC.mel_bins), value, np.float32)
        return Excerpt(frames, SegmentTruth(Annotation.NONE), HOP_S)

    often = [recording(f"a{k}", "a", constant(1.0)) for k in range(16)]
    data = SegmentData((), (*often, recording("b", "b", constant(2.0))), None, None, (), RATE)
    (batch,) = _only("poor", data, exact_share=1.0).draw(2000, np.random.default_rng(6))
    assert abs(float((batch.features[:, 0, 0] == 1.0).float().mean()) - 0.8) < 0.04  # 4 : 1


def test_kinds_without_data_are_left_out() -> None:
    data = SegmentData((recording("a", "p", bursts(Annotation.CYCLES)),), (), None, None, (), RATE)
    sampler = WindowSampler(data, _settings(phantoms=0), SPEC)
    (batch,) = sampler.draw(12, np.random.default_rng(7))
    assert len(batch.features) == 12 and bool((batch.tempo != UNANNOTATED).any(dim=1).all())


def test_real_noise_is_a_negative_and_a_disturbance() -> None:
    random = np.random.default_rng(8)
    noise = {
        "rain": tuple((0.05 * random.standard_normal(3 * RATE)).astype(np.float32) for _ in range(2)),
        "dog": tuple((0.2 * random.standard_normal(2 * RATE)).astype(np.float32) for _ in range(2)),
    }
    plain = segment_data()
    noisy = SegmentData(plain.recordings, plain.poor, None, None, plain.hearts, RATE, noise)
    drawn = [
        _only("cycles", data, exact_share=0.0).draw(16, np.random.default_rng(9))[0].features
        for data in (plain, noisy, noisy)
    ]
    assert torch.equal(drawn[1], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    (batch,) = _only("negatives", noisy, phantoms=0).draw(8, np.random.default_rng(10))  # nothing else is made up
    assert not bool(batch.onset.any()) and bool((batch.onset_weight > 0).any())


# -- phase clips -------------------------------------------------------------------------------------------------------


def test_phase_clips_are_one_second_of_either_phase() -> None:
    sampler = _only("cycles")
    wave, phase = sampler.clips(400, np.random.default_rng(0))
    again, same = sampler.clips(400, np.random.default_rng(0))
    assert torch.equal(wave, again) and torch.equal(phase, same)
    assert wave.shape == (400, RATE) and set(phase.tolist()) == {0, 1}
    assert abs(float(phase.float().mean()) - 0.5) < 0.08
    level = wave.square().mean(dim=1).sqrt()
    assert bool((level[phase == 0] > 0.1).all()) and bool((level[phase == 1] < 0.05).all())
    assert bool((wave[:, -40:].abs().amax(dim=1) > 0).all())  # a fast one goes on in reverse


def test_clips_need_clips() -> None:
    with pytest.raises(ValueError, match="no phase clips"):
        _only("cycles", segment_data()).clips(2, np.random.default_rng(0))
