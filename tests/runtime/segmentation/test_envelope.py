"""The envelope segmenter: finds the cycles, is causal, never revises, drops no audible breathing, costs little."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_sdk.events import BreathCycle
from edge_sdk.protocols import Segmenter
from edge_sdk.runtime.segmentation.envelope import WEAK_CONFIDENCE, EnvelopeSegmenter
from edge_sdk.runtime.segmentation.level import BandLevel, EnvelopeParams, RunningMean
from edge_sdk.signal.resample import resample
from edge_sdk.sources.phantom import SCENARIOS, PhantomSource, Scenario
from tests.runtime.conftest import Samples, phantom

RATE = 4000


def segment(samples: Samples, rate: int = RATE) -> list[BreathCycle]:
    segmenter = EnvelopeSegmenter(rate)
    return [c for c in (*segmenter.accept(samples), *segmenter.finish()) if c.final]


def hits(found: list[tuple[float, float]], truth: list[tuple[float, float]]) -> int:
    """One-to-one matches with IoU >= 0.5 (such pairs of disjoint spans are unique but for ties)."""
    count, used = 0, set()
    for begin, end in found:
        for i, (onset, stop) in enumerate(truth):
            overlap = min(end, stop) - max(begin, onset)
            if i not in used and overlap > 0 and overlap >= 0.5 * (max(end, stop) - min(begin, onset)):
                used.add(i)
                count += 1
                break
    return count


def event_f1(pairs: list[tuple[list[tuple[float, float]], list[tuple[float, float]]]]) -> float:
    matched = sum(hits(found, truth) for found, truth in pairs)
    return 2 * matched / sum(len(found) + len(truth) for found, truth in pairs)


def patient(scenario: Scenario | str, seed: int = 1_000_050, seconds: float = 40.0) -> tuple[Samples, PhantomSource]:
    source = PhantomSource(scenario, seed=seed, duration_s=seconds, sample_rate=RATE)
    return np.concatenate([block.samples for block in source]), source


def score(scenario: Scenario | str, seeds: range = range(1_000_050, 1_000_053)) -> float:
    pairs = []
    for seed in seeds:
        audio, source = patient(scenario, seed)
        pairs.append(([(c.start_s, c.end_s) for c in segment(audio)], [(t.start_s, t.end_s) for t in source.truth]))
    return event_f1(pairs)


def test_it_implements_the_interface() -> None:
    segmenter: Segmenter = EnvelopeSegmenter(RATE)
    assert segmenter.sample_rate == RATE and segmenter.hop_samples == 80


@pytest.mark.parametrize("rate_bpm", [8, 12, 15, 20, 30, 45, 60, 70])
def test_from_slow_adults_to_infants(rate_bpm: int) -> None:
    assert score(replace(SCENARIOS["healthy"], respiratory_rate_bpm=float(rate_bpm))) >= 0.85


@pytest.mark.parametrize(
    ("scenario", "least"), [("healthy", 0.95), ("asthma", 0.7), ("pneumonia", 0.85), ("copd", 0.7), ("apnoea", 0.95)]
)
def test_simulated_patients(scenario: str, least: float) -> None:
    assert score(scenario) >= least


def test_children_of_sprsound_above_the_offline_envelope(data_root: Path) -> None:
    """The bar is 0.33, an energy envelope that sees the whole recording; every sixth recording of ``val`` here."""
    root = data_root / "sprsound"
    recordings = {p.stem: p for p in root.rglob("*.flac")}
    labels = {p.stem: p for p in root.rglob("*.json")}
    rows = [r.split(",") for r in (root / "split.csv").read_text().splitlines()]
    names = [r[0] for r in rows if r[-1] == "val"][::6]
    pairs = []
    for name in names:
        events = json.loads(labels[name].read_text())["event_annotation"]
        if events:
            samples, rate = soundfile.read(recordings[name], dtype="float32")
            found = [(c.start_s, c.end_s) for c in segment(resample(samples, rate, RATE))]
            pairs.append((found, [(int(e["start"]) / 1000, int(e["end"]) / 1000) for e in events]))
    assert len(pairs) >= 40
    assert event_f1(pairs) >= 0.45


def test_no_cycle_is_found_in_an_apnoea() -> None:
    audio, source = patient("apnoea", seconds=60.0)
    found = segment(audio)
    assert len(source.apnoeas) >= 2
    for pause in source.apnoeas:
        inside = [c for c in found if c.onset > pause.begin + RATE and c.end < pause.end - RATE]
        assert inside == []


def test_it_is_causal() -> None:
    """What was final before a moment does not depend on what comes after it."""
    past, futures = phantom("healthy", 20.0), [phantom("copd", 12.0), np.zeros(12 * RATE, np.float32)]
    emitted = []
    for future in futures:
        segmenter = EnvelopeSegmenter(RATE)
        before = segmenter.accept(past)
        segmenter.accept(future)
        emitted.append(before)
    assert emitted[0] == emitted[1]
    assert all(c.end <= c.emitted_at <= past.size for c in emitted[0])


def test_cycles_are_in_order_apart_and_of_sane_length() -> None:
    for scenario in SCENARIOS:
        cycles = segment(phantom(scenario, 60.0))
        assert all(a.end <= b.onset for a, b in pairwise(cycles))
        assert all(0.3 <= c.duration_s <= 7.0 for c in cycles)
        assert all(0.0 <= c.confidence <= 1.0 for c in cycles)


def test_reset_is_a_fresh_start() -> None:
    segmenter, audio = EnvelopeSegmenter(RATE), phantom("asthma", 12.0)
    first = [*segmenter.accept(audio), *segmenter.finish()]
    segmenter.reset()
    assert [*segmenter.accept(audio), *segmenter.finish()] == first


def test_a_steady_signal_is_not_dropped_silently() -> None:
    rng = np.random.default_rng(7)
    steady = (rng.standard_normal(RATE * 30) * 0.01).astype(np.float32)
    cycles = segment(steady)
    assert cycles and all(c.confidence <= 0.6 for c in cycles)
    assert max(b.onset - a.end for a, b in pairwise(cycles)) <= 7 * RATE if len(cycles) > 1 else True


@pytest.mark.parametrize("seconds", [3.0, 4.5, 8.0])
def test_a_short_recording_of_breathing_gives_a_cycle(seconds: float) -> None:
    for scenario in ("healthy", "asthma", "copd"):
        assert segment(phantom(scenario, 12.0)[RATE : RATE + round(seconds * RATE)])


def test_weak_cycles_have_the_lowest_confidence() -> None:
    rng = np.random.default_rng(8)
    steady = (rng.standard_normal(RATE * 2) * 0.01).astype(np.float32)
    cycles = segment(steady)
    assert [c.confidence for c in cycles] == [WEAK_CONFIDENCE]


def test_digital_silence_has_no_cycle() -> None:
    assert segment(np.zeros(RATE * 20, np.float32)) == []


def test_every_adult_recording_has_cycles(data_root: Path) -> None:
    paths = sorted((data_root / "kauh").rglob("*.flac"))[::9]
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32")
        assert segment(resample(samples, rate, RATE)), path.name


def test_the_running_mean_does_not_drift() -> None:
    mean, rng = RunningMean(29), np.random.default_rng(2)
    values = rng.normal(-60, 20, 100_000)
    last = [mean.push(float(v)) for v in values][-1]
    fresh = RunningMean(29)
    assert last == [fresh.push(float(v)) for v in values[-29:]][-1]


def test_band_level_is_the_level_of_a_tone() -> None:
    time_s = np.arange(RATE) / RATE
    inside = (0.1 * np.sin(2 * np.pi * 400 * time_s)).astype(np.float32)
    heart = (0.1 * np.sin(2 * np.pi * 60 * time_s)).astype(np.float32)
    offset = np.full(RATE, 0.5, np.float32)
    levels = [np.array(BandLevel(RATE, EnvelopeParams()).accept(x)) for x in (inside, heart, offset)]
    assert np.ptp(levels[0]) < 0.1
    assert levels[1].max() < levels[0].min() - 50
    assert levels[2].max() < -105


def test_it_costs_little() -> None:
    audio, segmenter = phantom("asthma", 60.0), EnvelopeSegmenter(RATE)
    before = time.process_time()
    for begin in range(0, audio.size, 80):
        segmenter.accept(audio[begin : begin + 80])
    assert (time.process_time() - before) * 60 < 12  # s per hour of audio; measured below 3
