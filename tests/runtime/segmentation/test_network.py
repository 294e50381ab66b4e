"""The learned segmenter: any blocks, gaps, the last frames, hours."""

from __future__ import annotations

import gc
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from edge_sdk.events import AudioBlock, BreathCycle, Event, Gap
from edge_sdk.metrics.matching import match_onsets
from edge_sdk.protocols import Segmenter
from edge_sdk.runtime.bundle.load import Bundle
from edge_sdk.runtime.segmentation.network import LearnedSegmenter, StepModel
from edge_sdk.sources.phantom import PhantomSource
from tests.runtime.conftest import Samples, phantom
from tests.runtime.segmentation.conftest import RATE, cycles_of, events_of, segment
from tests.support.tiny_segmenter import FRAMES, SPEC, STRIDE


def test_it_implements_the_interface(model: StepModel) -> None:
    segmenter: Segmenter = LearnedSegmenter(model)
    assert segmenter.sample_rate == RATE and segmenter.hop_samples == 320
    assert LearnedSegmenter(model).look_ahead_s == pytest.approx(2 * 0.04 + 0.01 + 0.02)
    assert model.settings.outputs_per_step == FRAMES // STRIDE


def test_it_finds_simulated_cycles(model: StepModel) -> None:
    source = PhantomSource("healthy", seed=1_000_060, duration_s=40.0, sample_rate=RATE)
    audio = np.concatenate([block.samples for block in source])
    found = [c.start_s for c in segment(model, audio, [320]) if c.final]
    truth = [t.start_s for t in source.truth]
    assert len(match_onsets(truth, found, 0.2)) >= 0.8 * len(truth)


@pytest.mark.parametrize("sizes", [[1, 2, 3], [79, 81], [320], [4000], [7, 5000, 400], [999_999]])
def test_any_block_sizes_give_identical_cycles(model: StepModel, sizes: list[int]) -> None:
    audio = phantom("pneumonia", 10.0)
    cycles = segment(model, audio, [160])
    assert len(cycles) >= 4
    assert segment(model, audio, sizes) == cycles


@pytest.mark.parametrize("rate", [4000, 8000, 44100])
def test_any_block_sizes_give_identical_events(learned: Bundle, rate: int) -> None:
    audio = phantom("pneumonia", 10.0, rate)
    events = events_of(learned, audio, audio.size, rate)
    assert len(cycles_of(events)) >= 2
    for size in (37, rate // 50, rate):
        assert events_of(learned, audio, size, rate) == events


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_resampling_delays_an_onset_by_its_filter_only(learned: Bundle, rate: int) -> None:
    """soxr would hold back 0.23 s at 8 kHz, and hops that end elsewhere than the network's steps up to 0.02 s."""
    emitted = []
    for rate_hz in (4000, rate):
        events = events_of(learned, phantom("healthy", 12.0, rate_hz, seed=1_000_070), 500, rate_hz)
        emitted.append([e.emitted_at / rate_hz for e in events if isinstance(e, BreathCycle) and not e.final])
    assert len(emitted[0]) >= 2
    late = emitted[1][0] - emitted[0][0]
    assert abs(late) <= 0.1 and 0.004 < late % 0.08 < 0.006  # a step earlier or later depends on the audio


def test_cycles_are_in_order_and_emitted_after_their_end(learned: Bundle) -> None:
    events = events_of(learned, phantom("asthma", 40.0), 800)
    cycles = cycles_of(events)
    assert [c.index for c in cycles] == list(range(len(cycles)))
    assert all(a.end <= b.onset for a, b in pairwise(cycles))
    assert all(c.end <= c.emitted_at for c in cycles)
    provisional = {e.index for e in events if isinstance(e, BreathCycle) and not e.final}
    assert provisional


def test_it_is_causal(model: StepModel) -> None:
    past, emitted = phantom("healthy", 20.0), []
    for future in (phantom("copd", 12.0), np.zeros(12 * RATE, np.float32)):
        segmenter = LearnedSegmenter(model)
        emitted.append(segmenter.accept(past))
        segmenter.accept(future)
    assert emitted[0] == emitted[1]


@pytest.mark.parametrize("extra", [0, 1, 160, 319, 320, 400])
def test_the_last_frames_come_out(model: StepModel, extra: int) -> None:
    """Audio that ends late in a cycle: the cycle ends with the last sample, whatever is left of a step."""
    breath = PhantomSource("healthy", seed=1_000_060, duration_s=40.0, sample_rate=RATE)
    audio = np.concatenate([block.samples for block in breath])
    loud = next(t for t in breath.truth if t.index == 2)
    cut = loud.onset + round(0.7 * (loud.end - loud.onset)) + extra
    last = [c for c in segment(model, audio[:cut], [320]) if c.final][-1]
    assert last.end == cut
    assert abs(last.onset - loud.onset) <= 0.2 * RATE
    assert last.emitted_at == cut


@pytest.mark.parametrize("extra", [0, 1, 160, 319])
def test_a_stub_at_the_end_is_no_cycle(model: StepModel, extra: int) -> None:
    breath = PhantomSource("healthy", seed=1_000_060, duration_s=40.0, sample_rate=RATE)
    audio = np.concatenate([block.samples for block in breath])
    truth = list(breath.truth)
    cut = truth[3].onset + round(0.15 * (truth[3].end - truth[3].onset)) + extra
    found = [c for c in segment(model, audio[:cut], [320]) if c.final]
    assert len(found) == 3 and found[-1].end <= cut


@pytest.mark.parametrize("count", [0, 1, 100, 399, 400])
def test_very_short_audio_has_no_cycle(model: StepModel, count: int) -> None:
    assert [c for c in segment(model, np.zeros(count, np.float32), [64]) if c.final] == []


def test_reset_is_a_fresh_start(model: StepModel) -> None:
    segmenter, audio = LearnedSegmenter(model), phantom("asthma", 12.0)
    first = [*segmenter.accept(audio), *segmenter.finish()]
    segmenter.reset()
    assert [*segmenter.accept(audio), *segmenter.finish()] == first


def test_two_streams_share_one_network_and_nothing_else(learned: Bundle) -> None:
    recordings = [phantom("asthma", 12.0), phantom("copd", 12.0)]
    alone = [events_of(learned, audio, 800) for audio in recordings]
    streams: list = [learned.stream(RATE) for _ in recordings]
    together: list[list[Event]] = [[], []]
    for at in range(0, recordings[0].size, 800):
        for k in (0, 1):
            together[k] += streams[k].accept(recordings[k][at : at + 800])
    assert [t + s.finish() for t, s in zip(together, streams, strict=True)] == alone


def test_a_gap_restarts_it_and_closes_the_open_cycle(learned: Bundle) -> None:
    audio, at = phantom("pneumonia", 24.0), 50_000
    stream = learned.stream(RATE)
    events = stream.accept(audio[:at])
    events += stream.accept(AudioBlock(audio[at:], RATE, at + 3000, lost_before=3000)) + stream.finish()
    assert [e for e in events if isinstance(e, Gap)] == [Gap(at, 3000, RATE)]
    after = [(c.onset - at - 3000, c.end - at - 3000) for c in cycles_of(events) if c.onset >= at]
    assert after == [(c.onset, c.end) for c in cycles_of(events_of(learned, audio[at:], 700))]
    indices = [c.index for c in cycles_of(events)]
    assert indices == list(range(len(indices)))
    assert all(c.end <= at or c.onset >= at + 3000 for c in cycles_of(events))


def outputs_of(model: StepModel, samples: Samples) -> np.ndarray:
    """Activity, onset and angle of every step, ``[4, 2 * steps]``."""
    from edge_sdk.signal.logmel import LogMel

    frames, steps = LogMel(model.settings.front_end).accept(samples), model.network.state()
    emitted = []
    for k in range(0, len(frames) - FRAMES + 1, FRAMES):
        outputs = steps.step(frames[k : k + FRAMES])
        emitted.append(np.concatenate((outputs["activity"], outputs["onset"], outputs["cycle"][0])))
    return np.concatenate(emitted, axis=1)


def test_steps_in_place_are_those_of_the_graph(model: StepModel) -> None:
    """Also after a reset, whichever of the two states the last step wrote to."""
    random, kept = np.random.default_rng(0), model.network.state()
    for steps in (3, 4):
        kept.reset()
        shapes = {name: shape for name, shape in model.engine.inputs.items() if name != "features"}
        state = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        for _ in range(steps):
            frames = random.uniform(8, 14, (FRAMES, SPEC.mel_bins)).astype(np.float32)
            wanted = model.engine.run({"features": np.ascontiguousarray(frames.T)[None], **state})
            state = {name: wanted[f"{name}_next"] for name in state}
            for name, array in kept.step(frames).items():
                np.testing.assert_array_equal(array, wanted[name])


def check_that_its_memory_is_short(model: StepModel, minutes: float) -> None:
    """Input older than 60 s does not matter: outputs and cycles are those of a fresh stream."""
    audio = np.concatenate([phantom("asthma", 60.0, seed=1_000_080 + k) for k in range(round(minutes))])
    begin = audio.size - 80 * RATE
    begin -= begin % 320
    old, fresh = outputs_of(model, audio), outputs_of(model, audio[begin:])
    hop = STRIDE * SPEC.hop_samples
    tail = round(20 * RATE / hop) - 4
    count = min(old.shape[1], fresh.shape[1] + begin // hop)
    old = old[:, begin // hop : count]
    assert np.abs(old[:, -tail:] - fresh[:, : old.shape[1]][:, -tail:]).max() <= 1e-3
    late = begin + 60 * RATE
    whole = [(c.onset, c.end) for c in segment(model, audio, [4000]) if c.final and c.onset >= late]
    warmed = [(c.onset + begin, c.end + begin) for c in segment(model, audio[begin:], [4000]) if c.final]
    assert whole == [span for span in warmed if span[0] >= late] and len(whole) >= 3


def test_after_three_minutes_it_is_as_after_one(model: StepModel) -> None:
    check_that_its_memory_is_short(model, 3)


@pytest.mark.long
def test_after_an_hour_it_is_as_after_a_minute(model: StepModel) -> None:
    check_that_its_memory_is_short(model, 60)


def traced_bytes() -> int:
    """Memory in use, without Python's table of names: it is rebuilt now and then in numpy's window views."""
    gc.collect()
    found = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, "*_stride_tricks_impl.py")])
    return sum(trace.size for trace in found.traces)


def check_memory(model: StepModel, minutes: int) -> None:
    segmenter, minute = LearnedSegmenter(model), phantom("asthma", 60.0)
    segmenter.accept(minute)
    tracemalloc.start()
    try:
        segmenter.accept(minute)
        before = traced_bytes()
        for _ in range(minutes - 1):
            segmenter.accept(minute)
        assert traced_bytes() - before < 100_000  # the promise is 1 MB an hour
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow(model: StepModel) -> None:
    check_memory(model, 3)


@pytest.mark.long
def test_memory_does_not_grow_in_an_hour(model: StepModel) -> None:
    check_memory(model, 60)
