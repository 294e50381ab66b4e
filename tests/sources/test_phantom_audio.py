"""The audio of the simulated patient: levels, spectra, crackles, wheezes and the heart, as the literature has them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from edge_sdk.sources.phantom import SCENARIOS, Scenario
from edge_sdk.sources.phantom.synthesis import crackle
from tests.sources.patients import QUIET_ROOM, RATE, band_rms, patient, rms


def test_inspiration_has_the_level_of_the_scenario() -> None:
    scenario = replace(QUIET_ROOM, low_pass_hz=3000.0)
    samples, truth = patient(scenario, 120.0, 8000)
    levels = [band_rms(samples[c.onset : c.phase_change], 100, 1000, 8000) for c in truth]
    level_dbfs = 20 * np.log10(np.sqrt(np.mean(np.square(levels))))
    assert level_dbfs == pytest.approx(scenario.breath_dbfs, abs=1.0)


def test_breath_noise_falls_off_by_twelve_decibels_an_octave() -> None:
    samples, truth = patient(replace(QUIET_ROOM, low_pass_hz=3900.0), 120.0, 8000)
    inspirations = np.concatenate([samples[c.onset : c.phase_change] for c in truth])
    density = [band_rms(inspirations, low, low * 1.2, 8000) / np.sqrt(0.2 * low) for low in (150, 450, 900, 1800)]
    falls = np.diff(20 * np.log10(density))
    assert -14 < falls[1] < -8
    assert -15 < falls[2] < -10
    assert falls[0] < -6


def test_inspiration_is_louder_higher_and_clearer_than_expiration() -> None:
    samples, truth = patient(QUIET_ROOM, 120.0)
    inspired = np.concatenate([samples[c.onset : c.phase_change] for c in truth])
    expired = np.concatenate([samples[c.phase_change : c.end] for c in truth])
    assert 5 < 20 * np.log10(rms(inspired) / rms(expired)) < 15
    tilt = [band_rms(x, 300, 600) / band_rms(x, 100, 200) for x in (inspired, expired)]
    assert tilt[0] > 1.3 * tilt[1]


def test_between_cycles_there_is_a_pause() -> None:
    samples, truth = patient(QUIET_ROOM, 120.0)
    pauses = np.concatenate([samples[c.end : n.onset] for c, n in pairwise(truth)])
    inspired = np.concatenate([samples[c.onset : c.phase_change] for c in truth])
    assert 20 * np.log10(rms(pauses) / rms(inspired)) < -40


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_signal_to_noise_ratio_is_what_was_asked_for(snr_db: float) -> None:
    scenario = Scenario(snr_db=snr_db, heart_rate_bpm=0.0, low_pass_hz=1900.0)
    samples, truth = patient(scenario, 200.0)
    noise = np.concatenate([samples[c.end : n.onset] for c, n in pairwise(truth)])
    quiet, truth = patient(replace(scenario, snr_db=90.0), 200.0)
    breath = np.concatenate([quiet[c.onset : c.phase_change] for c in truth])
    measured = 20 * np.log10(band_rms(breath, 100, 1000) / band_rms(noise, 100, 1000))
    assert measured == pytest.approx(snr_db, abs=1.5)


def test_a_wheeze_is_a_narrow_line_above_the_breath() -> None:
    samples, truth = patient(replace(QUIET_ROOM, wheeze=1.0), 60.0)
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


def test_crackles_exceed_the_breath_noise_where_the_truth_places_them() -> None:
    samples, truth = patient(replace(QUIET_ROOM, crackle=1.0, coarse_share=0.5), 60.0)
    hits = []
    for cycle in truth:
        level = rms(samples[cycle.onset : cycle.phase_change])
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
    samples, _ = patient(scenario, 60.0)
    envelope = np.convolve(np.abs(samples), np.ones(200) / 200, "same")[::40]  # 100 Hz
    envelope -= envelope.mean()
    correlation = np.correlate(envelope, envelope, "full")[envelope.size :]
    period_s = (50 + int(np.argmax(correlation[50:150]))) / 100
    assert 60 / period_s == pytest.approx(80.0, rel=0.08)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_levels_are_those_of_real_recordings(scenario: str) -> None:
    samples, _ = patient(scenario, 60.0, 8000)
    assert -56 < 20 * np.log10(rms(samples)) < -30  # SPRSound: -49 to -38 dBFS
    assert 0.01 < np.abs(samples).max() <= 1.0
    assert abs(float(samples.mean())) < 1e-4
    assert np.isfinite(samples).all()


def test_no_stretch_is_digitally_silent() -> None:
    samples, _ = patient("apnoea", 60.0)
    assert min(rms(part) for part in np.split(samples, 600)) > 1e-5
