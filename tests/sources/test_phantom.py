"""The simulated patient: repeatable to the bit, shaped like breath, and honest about what it played."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.errors import SourceError
from edge_sdk.sources.phantom import SCENARIOS, PhantomSource, Scenario, TrueCycle
from edge_sdk.sources.phantom.synthesis import crackle

RATE = 4000
SEED = 1_000_123
QUIET_ROOM = replace(SCENARIOS["healthy"], snr_db=90.0, heart_rate_bpm=0.0)

Samples = npt.NDArray[np.float32]


def _play(source: PhantomSource) -> Samples:
    return np.concatenate([block.samples for block in source])


def _patient(scenario: str | Scenario, duration_s: float, rate: int = RATE) -> tuple[Samples, list[TrueCycle]]:
    source = PhantomSource(scenario, seed=SEED, duration_s=duration_s, sample_rate=rate)
    return _play(source), source.truth


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def _band_rms(samples: Samples, low: float, high: float, rate: int = RATE) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    hz = np.fft.rfftfreq(samples.size, 1 / rate)
    return float(np.sqrt(2 * power[(hz >= low) & (hz < high)].sum()) / samples.size)


# --- determinism ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_same_seed_same_bits_other_seed_other_patient(scenario: str) -> None:
    def play(seed: int) -> Samples:
        return _play(PhantomSource(scenario, seed=seed, duration_s=6.0))

    first = play(SEED)
    np.testing.assert_array_equal(first, play(SEED))
    assert np.abs(first - play(SEED + 1)).max() > 0.001


@settings(max_examples=12)
@given(block_s=st.floats(0.0003, 3.0), scenario=st.sampled_from(sorted(SCENARIOS)))
def test_block_sizes_change_no_bit(block_s: float, scenario: str) -> None:
    reference = PhantomSource(scenario, seed=SEED, duration_s=5.0)
    source = PhantomSource(scenario, seed=SEED, duration_s=5.0, block_s=block_s)
    np.testing.assert_array_equal(_play(source), _play(reference))
    assert source.truth == reference.truth


def test_an_endless_patient_begins_like_a_bounded_one() -> None:
    bounded, _ = _patient("asthma", 30.0)
    endless, pieces = PhantomSource("asthma", seed=SEED), []
    for block in endless:
        pieces.append(block.samples)
        if block.first_sample >= 20 * RATE:
            break
    np.testing.assert_array_equal(np.concatenate(pieces)[: 20 * RATE], bounded[: 20 * RATE])


def test_breaths_lie_at_the_same_seconds_at_every_rate() -> None:
    _, slow = _patient("copd", 30.0, 4000)
    for rate in (2000, 11025, 48000):
        samples, fast = _patient("copd", 30.0, rate)
        assert samples.size == 30 * rate
        assert [c.label for c in fast] == [c.label for c in slow]
        np.testing.assert_allclose([c.start_s for c in fast], [c.start_s for c in slow], atol=1e-3)
        np.testing.assert_allclose([c.end_s for c in fast], [c.end_s for c in slow], atol=1e-3)


def test_levels_do_not_depend_on_the_rate() -> None:
    levels = [_rms(_patient("healthy", 20.0, rate)[0]) for rate in (4000, 8000, 16000, 44100)]
    np.testing.assert_allclose(20 * np.log10(levels), 20 * np.log10(levels[0]), atol=1.0)


# --- truth ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_truth_is_consistent_and_no_breath_is_cut(scenario: str) -> None:
    samples, truth = _patient(scenario, 60.0)
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
        heard = block.first_sample + block.samples.size
        assert all(cycle.end <= heard for cycle in source.truth)
    assert source.truth


@pytest.mark.parametrize(
    ("scenario", "abnormal"),
    [("healthy", 0.0), ("apnoea", 0.0), ("asthma", 0.65), ("pneumonia", 0.67), ("copd", 0.67), ("noisy-ward", 0.36)],
)
def test_abnormal_breaths_are_as_frequent_as_the_scenario_says(scenario: str, abnormal: float) -> None:
    _, truth = _patient(scenario, 600.0, 2000)
    share = np.mean([c.label != "normal" for c in truth])
    assert share == pytest.approx(abnormal, abs=0.1 if abnormal else 0.0)


def test_crackles_and_wheezes_lie_where_the_literature_puts_them() -> None:
    sick = Scenario(crackle=1.0, coarse_share=0.5, wheeze=1.0, rhonchus_share=0.3)
    _, truth = _patient(sick, 400.0, 2000)
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
    _, truth = _patient(scenario, 60 * 60 / bpm, 2000)
    onsets = np.array([c.start_s for c in truth])
    assert 60 / np.diff(onsets).mean() == pytest.approx(bpm, rel=0.05)
    ratios = [(c.end - c.phase_change) / (c.phase_change - c.onset) for c in truth]
    assert np.mean(ratios) == pytest.approx(ie_ratio, rel=0.07)
    assert np.std(np.diff(onsets)) > 0.02 * 60 / bpm  # nobody breathes like a metronome


def test_apnoeas_are_silent_and_told() -> None:
    source = PhantomSource(replace(SCENARIOS["apnoea"], heart_rate_bpm=0.0), seed=SEED, duration_s=120.0)
    samples = _play(source)
    assert len(source.apnoeas) >= 3
    for pause in source.apnoeas:
        assert pause.end - pause.begin >= 9.9 * RATE or pause.end == samples.size
        assert not any(c.onset < pause.end and c.end > pause.begin for c in source.truth)
        begin, end = pause.begin + RATE // 2, pause.end - RATE // 2
        assert _rms(samples[begin:end]) < 0.3 * _rms(samples)


def test_disturbances_are_heard_where_they_are_told() -> None:
    source = PhantomSource("noisy-ward", seed=SEED, duration_s=120.0)
    samples = _play(source)
    events = source.disturbances
    assert {e.kind for e in events} == {"talking", "handling"}
    assert 12 <= len(events) <= 28  # 5 + 5 a minute
    assert [e.begin for e in events] == sorted(e.begin for e in events)
    loudness = [_rms(samples[e.begin : min(e.end, samples.size)]) for e in events if e.begin < samples.size - 400]
    assert np.median(loudness) > 1.5 * np.median(np.abs(samples)) / 0.6745


# --- sound ---------------------------------------------------------------------------------------------------------


def test_inspiration_has_the_level_of_the_scenario() -> None:
    scenario = replace(QUIET_ROOM, low_pass_hz=3000.0)
    samples, truth = _patient(scenario, 120.0, 8000)
    levels = [_band_rms(samples[c.onset : c.phase_change], 100, 1000, 8000) for c in truth]
    level_dbfs = 20 * np.log10(np.sqrt(np.mean(np.square(levels))))
    assert level_dbfs == pytest.approx(scenario.breath_dbfs, abs=1.0)


def test_breath_noise_falls_off_by_twelve_decibels_an_octave() -> None:
    samples, truth = _patient(replace(QUIET_ROOM, low_pass_hz=3900.0), 120.0, 8000)
    heard = np.concatenate([samples[c.onset : c.phase_change] for c in truth])
    density = [_band_rms(heard, low, low * 1.2, 8000) / np.sqrt(0.2 * low) for low in (150, 450, 900, 1800)]
    falls = np.diff(20 * np.log10(density))
    assert -14 < falls[1] < -8
    assert -15 < falls[2] < -10
    assert falls[0] < -6


def test_inspiration_is_louder_higher_and_clearer_than_expiration() -> None:
    samples, truth = _patient(QUIET_ROOM, 120.0)
    inspired = np.concatenate([samples[c.onset : c.phase_change] for c in truth])
    expired = np.concatenate([samples[c.phase_change : c.end] for c in truth])
    assert 5 < 20 * np.log10(_rms(inspired) / _rms(expired)) < 15
    tilt = [_band_rms(x, 300, 600) / _band_rms(x, 100, 200) for x in (inspired, expired)]
    assert tilt[0] > 1.3 * tilt[1]


def test_between_breaths_there_is_a_pause() -> None:
    samples, truth = _patient(QUIET_ROOM, 120.0)
    pauses = np.concatenate([samples[c.end : n.onset] for c, n in pairwise(truth)])
    inspired = np.concatenate([samples[c.onset : c.phase_change] for c in truth])
    assert 20 * np.log10(_rms(pauses) / _rms(inspired)) < -40


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_signal_to_noise_ratio_is_what_was_asked_for(snr_db: float) -> None:
    scenario = Scenario(snr_db=snr_db, heart_rate_bpm=0.0, low_pass_hz=1900.0)
    samples, truth = _patient(scenario, 200.0)
    noise = np.concatenate([samples[c.end : n.onset] for c, n in pairwise(truth)])
    quiet, truth = _patient(replace(scenario, snr_db=90.0), 200.0)
    breath = np.concatenate([quiet[c.onset : c.phase_change] for c in truth])
    measured = 20 * np.log10(_band_rms(breath, 100, 1000) / _band_rms(noise, 100, 1000))
    assert measured == pytest.approx(snr_db, abs=1.5)


def test_a_wheeze_is_a_narrow_line_above_the_breath() -> None:
    samples, truth = _patient(replace(QUIET_ROOM, wheeze=1.0), 60.0)
    events = [e for c in truth for e in c.adventitious]
    assert len(events) >= 10
    for event in events:
        third = (event.end - event.begin) // 3
        middle = samples[event.begin + third : event.end - third] * np.hanning(event.end - event.begin - 2 * third)
        power = np.abs(np.fft.rfft(middle)) ** 2
        hz = np.fft.rfftfreq(middle.size, 1 / RATE)
        peak = hz[np.argmax(power)]
        assert 100 <= peak <= 1000
        assert power[np.abs(hz - peak) < 60].sum() > 0.4 * power.sum()


def test_crackles_stick_out_of_the_breath_where_they_are_told() -> None:
    samples, truth = _patient(replace(QUIET_ROOM, crackle=1.0, coarse_share=0.5), 60.0)
    hits = []
    for cycle in truth:
        level = _rms(samples[cycle.onset : cycle.phase_change])
        hits += [np.abs(samples[e.begin - 4 : e.end + 4]).max() > 2.5 * level for e in cycle.adventitious]
    assert len(hits) > 50
    assert np.mean(hits) > 0.8


@pytest.mark.parametrize("rate", [4000, 8000, 44100])
@pytest.mark.parametrize(
    ("idw_s", "cycles_s", "low_hz", "high_hz"), [(0.5e-3, 5e-3, 300, 800), (1.25e-3, 10e-3, 120, 400)]
)
def test_a_crackle_has_its_initial_deflection_two_cycles_and_pitch(
    rate: int, idw_s: float, cycles_s: float, low_hz: float, high_hz: float
) -> None:
    wave = crackle(rate, 0.0, idw_s, cycles_s, 1.0)
    power = np.abs(np.fft.rfft(wave, 8192)) ** 2
    peak_hz = np.fft.rfftfreq(8192, 1 / rate)[np.argmax(power)]
    assert low_hz < peak_hz < high_hz
    inside = wave[: round(cycles_s * rate) + 1]
    assert np.sum(inside**2) > 0.97 * np.sum(wave**2)
    if rate > 40_000:
        crossings = np.flatnonzero(np.diff(np.signbit(inside[2:-2]))) + 2
        assert crossings[0] / rate == pytest.approx(idw_s, rel=0.2)
        assert crossings.size == 3
        assert np.abs(wave).max() == pytest.approx(1.0, abs=0.05)


def test_a_crackle_may_begin_between_two_samples() -> None:
    whole, half = (crackle(4000, offset, 1.25e-3, 10e-3, 1.0) for offset in (0.0, 0.5))
    place = [np.sum(np.arange(w.size) * w**2) / np.sum(w**2) for w in (whole, half)]
    assert place[1] - place[0] == pytest.approx(0.5, abs=0.1)


def test_the_heart_beats_at_its_rate() -> None:
    scenario = Scenario(heart_rate_bpm=80.0, heart_db=20.0, snr_db=90.0, breath_dbfs=-60.0)
    samples, _ = _patient(scenario, 60.0)
    envelope = np.convolve(np.abs(samples), np.ones(200) / 200, "same")[::40]  # 100 Hz
    envelope -= envelope.mean()
    correlation = np.correlate(envelope, envelope, "full")[envelope.size :]
    period_s = (50 + int(np.argmax(correlation[50:150]))) / 100
    assert 60 / period_s == pytest.approx(80.0, rel=0.08)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_levels_are_those_of_real_recordings(scenario: str) -> None:
    samples, _ = _patient(scenario, 60.0, 8000)
    assert -56 < 20 * np.log10(_rms(samples)) < -30  # SPRSound: -49 to -38 dBFS
    assert 0.01 < np.abs(samples).max() <= 1.0
    assert abs(float(samples.mean())) < 1e-4
    assert np.isfinite(samples).all()


def test_no_stretch_is_digitally_silent() -> None:
    samples, _ = _patient("apnoea", 60.0)
    assert min(_rms(piece) for piece in np.split(samples, 600)) > 1e-5


# --- behaviour as a source -----------------------------------------------------------------------------------------


def test_synthesis_is_much_faster_than_real_time() -> None:
    begin = time.process_time()
    _patient("noisy-ward", 60.0)
    assert time.process_time() - begin < 3.0


def test_a_long_run_keeps_only_what_still_sounds() -> None:
    source = PhantomSource("noisy-ward", seed=SEED, duration_s=300.0, sample_rate=4000)
    tracemalloc.start()
    try:
        for _ in source:
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000  # the samples alone are 4.8 MB


def test_paced_delivery_and_close() -> None:
    source = PhantomSource("healthy", seed=SEED, duration_s=1.0, paced=True, speed=4.0)
    begin = time.monotonic()
    blocks = list(source)
    assert 0.25 <= time.monotonic() - begin < 0.6
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


def test_a_duration_too_short_for_a_breath_has_none() -> None:
    samples, truth = _patient("healthy", 0.1)
    assert samples.size == 400
    assert truth == []


def test_a_scenario_of_ones_own_is_welcome() -> None:
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
