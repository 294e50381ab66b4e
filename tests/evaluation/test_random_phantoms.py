"""Simulated patients at random: the same set at every call, never one of training, over the whole range of rates."""

from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.evaluation import segmentation
from edge_sdk.evaluation.segmentation import RANDOM_PHANTOMS, random_phantoms, score_random_phantoms
from edge_sdk.events import BreathCycle
from edge_sdk.metrics.detections import DetectedCycles
from edge_sdk.runtime.bundle.load import load_bundle
from edge_sdk.sources.phantom import TRAINING_SEED_LIMIT, PhantomSource, random_scenario


def test_the_set_is_fixed_and_a_larger_one_begins_with_it() -> None:
    assert list(random_phantoms(5)) == list(random_phantoms(9))[:5]
    seeds = [seed for seed, _ in random_phantoms()]
    assert len(set(seeds)) == RANDOM_PHANTOMS and min(seeds) >= TRAINING_SEED_LIMIT


def test_it_covers_rates_pauses_and_apnoea_at_usable_noise() -> None:
    patients = [scenario for _, scenario in random_phantoms()]
    rates = np.array([patient.respiratory_rate_bpm for patient in patients])
    assert rates.min() < 10 and rates.max() > 65 and rates.min() >= 8 and rates.max() <= 80
    assert 0.2 < np.mean(rates > 40) < 0.4
    assert all(patient.snr_db >= 10 for patient in patients)
    assert max(patient.pause_share for patient in patients) > 0.25
    assert 0.2 < np.mean([patient.apnoea_every > 0 for patient in patients]) < 0.45


def test_the_share_of_apnoea_is_that_asked_for() -> None:
    random = np.random.default_rng(0)
    assert all(random_scenario(random, (8, 80), apnoea_share=1.0).apnoea_every for _ in range(20))
    assert not any(random_scenario(random, (8, 80), apnoea_share=0.0).apnoea_every for _ in range(20))
    assert all(20 <= random_scenario(random, (8, 80), snr_db=(20, 21)).snr_db <= 21 for _ in range(20))


def test_cycles_found_well_inside_an_apnoea_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    seed, scenario = next((seed, one) for seed, one in random_phantoms() if one.apnoea_every)
    with PhantomSource(scenario, seed=seed, duration_s=60.0, sample_rate=4000) as source:
        for _ in source:
            pass
        pause = next(event for event in source.apnoeas if event.end_s - event.begin_s > 5)

    def found(*offsets: tuple[float, float]) -> DetectedCycles:
        spans = [(round((pause.begin_s + a) * 4000), round((pause.begin_s + b) * 4000)) for a, b in offsets]
        return DetectedCycles([BreathCycle(0, a, b, 4000, True, b, 1.0) for a, b in spans], [None] * len(spans))

    def counted(*offsets: tuple[float, float]) -> int:
        monkeypatch.setattr(segmentation, "detect_cycles", lambda *_: found(*offsets))
        monkeypatch.setattr(segmentation, "random_phantoms", lambda count: [(seed, scenario)])
        rows, invented = score_random_phantoms(load_bundle(), lambda what, done, total: None, 1)
        assert len(rows) == 1 and len(rows[0].truth)
        return invented

    assert counted((1.2, 2.0), (2.1, 3.5)) == 2
    assert counted((0.9, 2.0)) == counted((-2.0, 1.0)) == counted() == 0
