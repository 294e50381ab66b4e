"""The simulated patient: repeatable to the bit, with realistic audio and exact ground truth."""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.errors import SourceError
from edge_sdk.sources.phantom import SCENARIOS, PhantomSource, Scenario
from tests.sources.conftest import PacedTime
from tests.sources.patients import RATE, SEED, Samples, patient, play, rms

# --- determinism ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_same_seed_same_bits_other_seed_other_patient(scenario: str) -> None:
    def of_seed(seed: int) -> Samples:
        return play(PhantomSource(scenario, seed=seed, duration_s=6.0))

    first = of_seed(SEED)
    np.testing.assert_array_equal(first, of_seed(SEED))
    assert np.abs(first - of_seed(SEED + 1)).max() > 0.001


@settings(max_examples=12)
@given(block_s=st.floats(0.0003, 3.0), scenario=st.sampled_from(sorted(SCENARIOS)))
def test_block_sizes_change_no_bit(block_s: float, scenario: str) -> None:
    reference = PhantomSource(scenario, seed=SEED, duration_s=5.0)
    source = PhantomSource(scenario, seed=SEED, duration_s=5.0, block_s=block_s)
    np.testing.assert_array_equal(play(source), play(reference))
    assert source.truth == reference.truth


def test_an_endless_patient_begins_like_a_bounded_one() -> None:
    bounded, _ = patient("asthma", 30.0)
    endless, blocks = PhantomSource("asthma", seed=SEED), []
    for block in endless:
        blocks.append(block.samples)
        if block.first_sample >= 20 * RATE:
            break
    np.testing.assert_array_equal(np.concatenate(blocks)[: 20 * RATE], bounded[: 20 * RATE])


def test_cycles_lie_at_the_same_seconds_at_every_rate() -> None:
    _, slow = patient("copd", 30.0, 4000)
    for rate in (2000, 11025, 48000):
        samples, fast = patient("copd", 30.0, rate)
        assert samples.size == 30 * rate
        assert [c.label for c in fast] == [c.label for c in slow]
        np.testing.assert_allclose([c.start_s for c in fast], [c.start_s for c in slow], atol=1e-3)
        np.testing.assert_allclose([c.end_s for c in fast], [c.end_s for c in slow], atol=1e-3)


def test_levels_do_not_depend_on_the_rate() -> None:
    levels = [rms(patient("healthy", 20.0, rate)[0]) for rate in (4000, 8000, 16000, 44100)]
    np.testing.assert_allclose(20 * np.log10(levels), 20 * np.log10(levels[0]), atol=1.0)


# --- truth ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_truth_is_consistent_and_no_cycle_is_cut(scenario: str) -> None:
    samples, truth = patient(scenario, 60.0)
    assert samples.size == 60 * RATE
    assert len(truth) >= 8
    assert [c.index for c in truth] == list(range(len(truth)))
    for cycle, following in zip(truth, [*truth[1:], None], strict=True):
        assert 0 <= cycle.onset < cycle.phase_change < cycle.end <= samples.size
        assert following is None or cycle.end < following.onset
        assert cycle.sample_rate == RATE
        kinds = {event.kind for event in cycle.adventitious}
        crackles, wheezes = kinds & {"fine-crackle", "coarse-crackle"}, kinds & {"wheeze", "rhonchus"}
        expected = {(0, 0): "normal", (1, 0): "crackle", (0, 1): "wheeze", (1, 1): "both"}
        assert cycle.label == expected[bool(crackles), bool(wheezes)]
        assert [e.begin for e in cycle.adventitious] == sorted(e.begin for e in cycle.adventitious)
        assert all(cycle.onset <= e.begin < e.end <= cycle.end for e in cycle.adventitious)


def test_truth_grows_with_what_was_delivered() -> None:
    source = PhantomSource("healthy", seed=SEED, duration_s=30.0)
    assert source.truth == []
    for block in source:
        delivered = block.first_sample + block.samples.size
        assert all(cycle.end <= delivered for cycle in source.truth)
    assert source.truth


@pytest.mark.parametrize(
    ("scenario", "abnormal"),
    [("healthy", 0.0), ("apnoea", 0.0), ("asthma", 0.65), ("pneumonia", 0.67), ("copd", 0.67), ("noisy-ward", 0.36)],
)
def test_abnormal_cycles_are_as_frequent_as_the_scenario_specifies(scenario: str, abnormal: float) -> None:
    _, truth = patient(scenario, 300.0, 2000)
    share = np.mean([c.label != "normal" for c in truth])
    assert share == pytest.approx(abnormal, abs=0.1 if abnormal else 0.0)


def test_crackles_and_wheezes_lie_where_the_literature_puts_them() -> None:
    sick = Scenario(crackle=1.0, coarse_share=0.5, wheeze=1.0, rhonchus_share=0.3)
    _, truth = patient(sick, 400.0, 2000)
    places: dict[str, list[float]] = {"fine-crackle": [], "coarse-crackle": [], "wheeze": [], "rhonchus": []}
    for cycle in truth:
        counts = {kind: sum(e.kind == kind for e in cycle.adventitious) for kind in places}
        assert counts["fine-crackle"] in (0, *range(6, 15))
        assert counts["coarse-crackle"] in (0, *range(4, 10))
        for event in cycle.adventitious:
            length = cycle.phase_change - cycle.onset
            places[event.kind].append((event.begin - cycle.onset) / length)
            if event.kind in ("wheeze", "rhonchus"):
                assert event.end_s - event.begin_s >= 0.1
            else:
                assert 0.003 <= event.end_s - event.begin_s <= 0.013
    assert 0.5 <= min(places["fine-crackle"]) <= max(places["fine-crackle"]) <= 1.0
    assert 0.5 <= np.mean(np.array(places["coarse-crackle"]) < 0.51) <= 0.8  # the others in the expiration
    assert np.mean(np.array(places["wheeze"] + places["rhonchus"]) >= 1.0) > 0.7


@pytest.mark.parametrize("bpm", [8.0, 15.0, 40.0, 70.0])
@pytest.mark.parametrize("ie_ratio", [1.0, 2.5])
def test_respiratory_rate_and_ie_ratio_are_kept(bpm: float, ie_ratio: float) -> None:
    scenario = Scenario(respiratory_rate_bpm=bpm, ie_ratio=ie_ratio)
    _, truth = patient(scenario, 60 * 60 / bpm, 2000)
    onsets = np.array([c.start_s for c in truth])
    assert 60 / np.diff(onsets).mean() == pytest.approx(bpm, rel=0.05)
    ratios = [(c.end - c.phase_change) / (c.phase_change - c.onset) for c in truth]
    assert np.mean(ratios) == pytest.approx(ie_ratio, rel=0.07)
    assert np.std(np.diff(onsets)) > 0.02 * 60 / bpm  # nobody breathes like a metronome


def test_apnoeas_are_silent_and_in_the_truth() -> None:
    source = PhantomSource(replace(SCENARIOS["apnoea"], heart_rate_bpm=0.0), seed=SEED, duration_s=120.0)
    samples = play(source)
    assert len(source.apnoeas) >= 3
    for pause in source.apnoeas:
        assert pause.end - pause.begin >= 9.9 * RATE or pause.end == samples.size
        assert not any(c.onset < pause.end and c.end > pause.begin for c in source.truth)
        begin, end = pause.begin + RATE // 2, pause.end - RATE // 2
        assert rms(samples[begin:end]) < 0.3 * rms(samples)


def test_disturbances_are_audible_where_the_truth_places_them() -> None:
    source = PhantomSource("noisy-ward", seed=SEED, duration_s=120.0)
    samples = play(source)
    events = source.disturbances
    assert {e.kind for e in events} == {"talking", "handling"}
    assert 12 <= len(events) <= 28  # 5 + 5 a minute
    assert [e.begin for e in events] == sorted(e.begin for e in events)
    loudness = [rms(samples[e.begin : min(e.end, samples.size)]) for e in events if e.begin < samples.size - 400]
    assert np.median(loudness) > 1.5 * np.median(np.abs(samples)) / 0.6745


# --- behaviour as a source -----------------------------------------------------------------------------------------


def test_synthesis_needs_little_work_so_that_it_is_much_faster_than_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few lines of Python a second (no loop over samples) and few FFT points a sample."""
    lines = points = 0

    def counted(transform: Callable[..., npt.NDArray[Any]]) -> Callable[..., npt.NDArray[Any]]:
        def run(data: npt.NDArray[Any], size: int | None = None) -> npt.NDArray[Any]:
            nonlocal points
            points += size or len(data)
            return transform(data, size)

        return run

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace if "phantom" in frame.f_code.co_filename else None

    for name in ("rfft", "irfft"):
        monkeypatch.setattr(np.fft, name, counted(getattr(np.fft, name)))
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        samples, _ = patient("noisy-ward", 60.0)
    finally:
        sys.settrace(before)
    assert 0 < lines < 2000 * 60
    assert 0 < points < 30 * samples.size


def test_a_long_run_keeps_only_the_segments_in_progress() -> None:
    source = PhantomSource("noisy-ward", seed=SEED, duration_s=300.0, sample_rate=4000)
    tracemalloc.start()
    try:
        for _ in source:
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000  # the samples alone are 4.8 MB


def test_paced_delivery_takes_exactly_the_time_of_the_audio(paced_time: PacedTime) -> None:
    begin_ns = paced_time.now_ns
    blocks = list(PhantomSource("healthy", seed=SEED, duration_s=1.0, paced=True, speed=4.0))
    assert paced_time.now_ns - begin_ns == pytest.approx(250_000_000, abs=2)
    assert blocks[-1].host_ns - begin_ns == 250_000_000
    assert all(block.host_ns > begin_ns for block in blocks)


def test_paced_delivery_and_close() -> None:
    source = PhantomSource("healthy", seed=SEED, duration_s=1.0, paced=True, speed=4.0)
    begin = time.monotonic()
    blocks = list(source)
    assert time.monotonic() - begin >= 0.25
    assert all(block.host_ns > 0 for block in blocks)
    source.close()
    endless = PhantomSource("healthy", seed=SEED)
    iterator = iter(endless)
    next(iterator)
    endless.close()
    assert list(iterator) == []


def test_a_phantom_plays_once() -> None:
    source = PhantomSource(duration_s=0.1)
    list(source)
    with pytest.raises(SourceError, match="already played"):
        next(iter(source))


def test_a_duration_too_short_for_a_cycle_has_none() -> None:
    samples, truth = patient("healthy", 0.1)
    assert samples.size == 400
    assert truth == []


def test_your_own_scenario_is_accepted() -> None:
    assert PhantomSource(Scenario(snr_db=3.0)).name == "phantom:custom:1000000"
    assert PhantomSource(SCENARIOS["copd"]).name == "phantom:copd:1000000"


@pytest.mark.parametrize(
    "arguments",
    [
        {"scenario": "flu"},
        {"seed": -1},
        {"sample_rate": 1000},
        {"duration_s": 0.0},
        {"duration_s": float("inf")},
        {"block_s": 0.0},
    ],
)
def test_impossible_phantoms_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(SourceError, match="phantom"):
        PhantomSource(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        {"respiratory_rate_bpm": 0.0},
        {"ie_ratio": 0.0},
        {"pause_share": 0.9},
        {"rate_variability": 1.0},
        {"crackle": 1.5},
        {"wheeze": -0.1},
        {"heart_rate_bpm": 500.0},
        {"apnoea_every": -1},
        {"apnoea_s": (5.0, 2.0)},
        {"talking_per_min": -1.0},
    ],
)
def test_impossible_scenarios_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must|probability"):
        Scenario(**arguments)  # type: ignore[arg-type]
