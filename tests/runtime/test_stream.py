"""The stream's promises: order, finality, independence, last breath, and plain answers to bad input."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from threading import Thread

import numpy as np
import pytest

from edge_sdk.errors import AudioError, StreamError
from edge_sdk.events import AudioBlock, BreathCycle, CycleResult, Event, QualityEvent, Verdict
from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from tests.runtime.conftest import Samples, phantom

RATE = 4000


def run(bundle: Bundle, samples: Samples, rate: int = RATE, step: int = 800) -> list[Event]:
    stream = bundle.stream(rate)
    events = [e for i in range(0, samples.size, step) for e in stream.accept(samples[i : i + step])]
    return events + stream.finish()


def results(events: list[Event]) -> list[CycleResult]:
    return [event for event in events if isinstance(event, CycleResult)]


@pytest.mark.requirement("RES-1")
def test_every_final_cycle_is_followed_by_its_result_and_never_revised(bundle: Bundle) -> None:
    events = run(bundle, phantom("copd", 30.0))
    finals = [i for i, e in enumerate(events) if isinstance(e, BreathCycle) and e.final]
    assert len(finals) >= 5
    for i in finals:
        following = events[i + 1]
        assert isinstance(following, CycleResult) and following.cycle == events[i]
    indices = [e.index for e in events if isinstance(e, BreathCycle) and e.final]
    assert indices == list(range(len(finals)))
    cycles = [r.cycle for r in results(events)]
    assert all(a.end <= b.onset for a, b in pairwise(cycles))
    assert all(a.emitted_at <= b.emitted_at for a, b in pairwise(cycles))


def test_a_provisional_cycle_is_confirmed_with_the_same_onset(bundle: Bundle) -> None:
    events = run(bundle, phantom("healthy", 30.0))
    cycles = [e for e in events if isinstance(e, BreathCycle)]
    finals = {c.index: c for c in cycles if c.final}
    provisional = [c for c in cycles if not c.final]
    assert len(provisional) >= 5
    for early in provisional:
        assert early.onset == finals[early.index].onset
        assert early.emitted_at <= finals[early.index].emitted_at
        assert early.end <= early.emitted_at


def test_a_result_comes_soon_after_its_breath(bundle: Bundle) -> None:
    results_ = results(run(bundle, phantom("healthy", 60.0)))
    delays = [r.cycle.detection_delay_s for r in results_]
    assert np.median(delays) < 0.6
    assert max(delays) < 2.0


def test_cycles_come_at_once_and_verdicts_within_half_a_second() -> None:
    stream, samples, tick = load_bundle("default").stream(RATE), phantom("asthma", 30.0), 320
    waited: dict[type, list[int]] = {BreathCycle: [], Verdict: []}
    for end in range(tick, samples.size + 1, tick):
        for event in stream.accept(samples[end - tick : end]):
            if isinstance(event, BreathCycle):
                waited[BreathCycle].append(end - event.emitted_at)
            elif isinstance(event, Verdict):
                waited[Verdict].append(end - event.at)
    assert len(waited[BreathCycle]) >= 10 and max(waited[BreathCycle]) < tick
    assert len(waited[Verdict]) >= 5 and max(waited[Verdict]) < 5 * tick


def test_finish_gives_the_breath_that_the_end_cuts_off(bundle: Bundle) -> None:
    whole = results(run(bundle, phantom()))
    middle = whole[2].cycle
    cut_at = middle.onset + (middle.end - middle.onset) * 3 // 4
    last = results(run(bundle, phantom()[:cut_at]))[-1].cycle
    assert last.onset < cut_at <= last.end + RATE // 10
    assert last.end <= cut_at


def test_two_streams_on_one_bundle_do_not_interact(bundle: Bundle) -> None:
    recordings = [phantom("asthma"), phantom("pneumonia")]
    alone = [run(bundle, audio) for audio in recordings]
    streams = [bundle.stream(RATE) for _ in recordings]
    mixed: list[list[Event]] = [[], []]
    for begin in range(0, recordings[0].size, 800):
        for stream, audio, out in zip(streams, recordings, mixed, strict=True):
            out += stream.accept(audio[begin : begin + 800])
    for stream, out in zip(streams, mixed, strict=True):
        out += stream.finish()
    assert mixed == alone


def test_streams_in_several_threads_give_what_they_give_alone(bundle: Bundle) -> None:
    recordings = [phantom(name) for name in ("asthma", "pneumonia", "copd", "healthy")]
    alone = [run(bundle, audio) for audio in recordings]
    found: dict[int, list[Event]] = {}
    threads = [
        Thread(target=lambda i=i, audio=audio: found.update({i: run(bundle, audio)}))
        for i, audio in enumerate(recordings)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [found[i] for i in range(len(recordings))] == alone


def test_a_long_past_leaves_no_trace(bundle: Bundle) -> None:
    past, audio = phantom("healthy", 120.0, seed=1_000_020), phantom("asthma", 30.0)
    fresh = results(run(bundle, audio))
    late = [r for r in results(run(bundle, np.concatenate((past, audio)))) if r.cycle.onset >= past.size + 8 * RATE]
    tail = [r for r in fresh if r.cycle.onset >= 8 * RATE]
    assert len(tail) >= 6
    spans = np.array([(r.cycle.onset - past.size, r.cycle.end - past.size) for r in late])
    matched = [(np.abs(spans - (r.cycle.onset, r.cycle.end)) <= 80).all(axis=1).any() for r in tail]
    assert np.mean(matched) >= 0.8


@pytest.mark.parametrize("gain_db", [-20.0, 10.0])
def test_level_does_not_move_the_breaths(bundle: Bundle, gain_db: float) -> None:
    audio = phantom("healthy", 30.0)
    louder = (audio * 10 ** (gain_db / 20)).astype(np.float32)
    spans = [[(r.cycle.onset, r.cycle.end) for r in results(run(bundle, s))] for s in (audio, louder)]
    assert spans[0] == spans[1]


@pytest.mark.parametrize("offset", [0.5, -0.25])
def test_a_constant_offset_does_not_move_the_breaths(bundle: Bundle, offset: float) -> None:
    audio = phantom("healthy", 30.0)
    spans = [[(r.cycle.onset, r.cycle.end, r.quality) for r in results(run(bundle, s))]
             for s in (audio, (audio + np.float32(offset)))]  # fmt: skip
    assert len(spans[0]) == len(spans[1])
    for (onset, end, quality), (onset2, end2, quality2) in zip(*spans, strict=True):
        assert abs(onset - onset2) <= RATE // 10 and abs(end - end2) <= RATE // 10
        assert quality == quality2 == "ok"


@pytest.mark.parametrize("rate", [2000, 4000, 8000, 11025, 44100, 48000, 96000])
def test_every_source_rate_finds_the_same_breaths(bundle: Bundle, rate: int) -> None:
    found = results(run(bundle, phantom("healthy", 20.0, rate), rate, rate // 3))
    reference = results(run(bundle, phantom("healthy", 20.0, 4000)))
    assert len(found) == len(reference) >= 3
    for a, b in zip(found, reference, strict=True):
        assert abs(a.cycle.start_s - b.cycle.start_s) < 0.15
        assert a.cycle.sample_rate == rate


def test_silence_has_no_cycles_and_is_reported(bundle: Bundle) -> None:
    events = run(bundle, np.zeros(RATE * 20, np.float32))
    assert results(events) == []
    assert [e.state for e in events if isinstance(e, QualityEvent)] == ["silence"]


@pytest.mark.parametrize("seconds", [0.0, 0.0003, 0.1, 0.3])
def test_too_short_audio_is_a_result_not_an_error(bundle: Bundle, seconds: float) -> None:
    assert seconds < bundle.shortest_s
    events = run(bundle, phantom()[: round(seconds * RATE)])
    assert results(events) == []
    assert [e.state for e in events if isinstance(e, QualityEvent)] == ["too-short"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_nan_block_is_refused_and_changes_nothing(bundle: Bundle, bad: float) -> None:
    audio = phantom()
    broken = audio[8000:16000].copy()
    broken[123] = bad
    stream = bundle.stream(RATE)
    events = stream.accept(audio[:8000])
    with pytest.raises(AudioError, match="sample 8123 is NaN"):
        stream.accept(broken)
    events += stream.accept(audio[8000:]) + stream.finish()
    assert events == run(bundle, audio)


@pytest.mark.parametrize("block", [np.zeros((4, 2), np.float32), np.zeros(4, np.int16)])
def test_blocks_that_are_no_mono_floats_are_refused(bundle: Bundle, block: Samples) -> None:
    with pytest.raises(AudioError, match="one channel"):
        bundle.stream(RATE).accept(block)


def test_float64_and_strided_blocks_are_accepted(bundle: Bundle) -> None:
    audio = phantom()
    stereo = np.stack((audio, audio), axis=1).astype(np.float64)
    assert run(bundle, stereo[:, 0]) == run(bundle, audio)  # type: ignore[arg-type]


def test_another_rate_is_refused(bundle: Bundle) -> None:
    with pytest.raises(StreamError, match="8000 Hz"):
        bundle.stream(RATE).accept(AudioBlock(phantom()[:100], 8000))
    with pytest.raises(StreamError, match="positive"):
        bundle.stream(0)


def test_nothing_after_finish(bundle: Bundle) -> None:
    stream = bundle.stream(RATE)
    stream.accept(phantom()[:30_000])  # in the middle of a breath
    assert stream.finish()
    assert stream.finish() == []
    with pytest.raises(StreamError, match="finished"):
        stream.accept(phantom())


def test_unknown_metadata_is_refused(bundle: Bundle) -> None:
    with pytest.raises(StreamError, match="shoe_size"):
        bundle.stream(RATE, {"shoe_size": 43})
    for unknown in ({"site": "back"}, {"sex": "x"}, {"age_years": "old"}, {"bmi": -1.0}):
        with pytest.raises(StreamError, match=f"{next(iter(unknown))} "):
            bundle.stream(RATE, unknown)
    given = {"site": " Left Anterior", "sex": "F", "age_years": 7, "bmi": None, "device": "new"}
    known = {"site": "left anterior", "sex": "female", "age_years": 7.0, "device": "new"}
    assert bundle.stream(RATE, given).metadata == known


def test_counters_agree_with_the_events(bundle: Bundle) -> None:
    stream = bundle.stream(RATE)
    found = results(stream.accept(phantom("copd", 20.0)) + stream.finish())
    stats = stream.stats
    assert stats.samples_in == 20 * RATE
    assert stats.cycles == len(found)
    assert stats.classified == sum(r.label is not None for r in found) > 0
    assert stats.inference_ns > 0


def test_probabilities_are_those_of_the_bundle_on_the_same_samples(bundle: Bundle) -> None:
    from edge_sdk.signal.padding import fit_window

    audio = phantom("pneumonia")
    for result in results(run(bundle, audio)):
        window = fit_window(audio[result.cycle.onset : result.cycle.end], bundle.front_end)
        expected = bundle.classifier.classify(window[None])[0]
        assert np.allclose(list(result.probabilities.values()), expected, atol=1e-6)
        assert result.label == bundle.labels[int(expected.argmax())]
        assert abs(sum(result.probabilities.values()) - 1) < 1e-9


@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_stream_without_events_keeps_no_memory_and_needs_little(rate: int) -> None:
    tick = round(0.08 * rate)
    audio = (np.random.default_rng(0).standard_normal(64 * rate) * 1e-3).astype(np.float32)  # noise: no cycles
    stream, events, held, most = load_bundle("default").stream(rate), [], [], 0
    tracemalloc.start()
    try:
        for number, begin in enumerate(range(0, audio.size - tick, tick)):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            found = stream.accept(audio[begin : begin + tick])
            if number * tick < 32 * rate:  # after 30 s nothing is left to fill
                continue
            after, peak = tracemalloc.get_traced_memory()
            events += found
            most = max(most, peak - before)
            if number % 25 == 0:  # 2 s: all parts of a stream are at the same place in their steps
                held.append(after)
    finally:
        tracemalloc.stop()
    assert not events
    assert len(held) >= 15 and max(held[8:]) - max(held[:8]) <= 8 << 10
    assert most <= 400 << 10
