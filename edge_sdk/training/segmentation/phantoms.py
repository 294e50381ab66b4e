"""Simulated patients for training: rates from newborns to sleepers, apnoea, talking, other devices."""

from __future__ import annotations

import numpy as np

from edge_sdk.sources.phantom import TRAINING_SEED_LIMIT, PhantomSource, Scenario
from edge_sdk.training.segmentation.excerpts import AudioExcerpt, SegmentTruth, spans


def random_scenario(random: np.random.Generator, rates_bpm: tuple[float, float]) -> Scenario:
    """A patient of any age, on any stethoscope; apnoea in one of six."""
    rate = float(np.exp(random.uniform(*np.log(rates_bpm))))
    apnoea = random.random() < 1 / 6
    return Scenario(
        respiratory_rate_bpm=rate,
        rate_variability=float(random.uniform(0.02, 0.2)),
        ie_ratio=float(random.uniform(0.9, 2.6)),
        pause_share=float(random.uniform(0.02, 0.3)),
        breath_dbfs=float(random.uniform(-55.0, -30.0)),
        expiration_db=float(random.uniform(-14.0, -2.0)),
        snr_db=float(random.uniform(7.0, 32.0)),
        crackle=float(random.choice([0.0, 0.6])),
        coarse_share=float(random.uniform(0.0, 1.0)),
        crackle_db=float(random.uniform(12.0, 24.0)),
        wheeze=float(random.choice([0.0, 0.6])),
        rhonchus_share=float(random.uniform(0.0, 0.6)),
        wheeze_db=float(random.uniform(-3.0, 5.0)),
        heart_rate_bpm=float(random.uniform(55.0, 150.0)),
        heart_db=float(random.uniform(-10.0, 8.0)),
        hum_db=float(random.uniform(-20.0, 0.0)) if random.random() < 0.2 else None,
        talking_per_min=float(random.uniform(0.0, 6.0)) if random.random() < 0.25 else 0.0,
        handling_per_min=float(random.uniform(0.0, 6.0)) if random.random() < 0.25 else 0.0,
        apnoea_every=int(random.integers(3, 7)) if apnoea else 0,
        apnoea_s=(6.0, 14.0),
        high_pass_hz=float(random.uniform(20.0, 80.0)),
        low_pass_hz=float(np.exp(random.uniform(np.log(400.0), np.log(1600.0)))),
    )


def phantom_excerpts(
    count: int, seconds: float, rates_bpm: tuple[float, float], rate_hz: int, seed: int = 0
) -> list[AudioExcerpt]:
    """``count`` patients of ``seconds`` each with their exact truth; a pure function of the arguments."""
    random = np.random.default_rng([seed, 20])
    return [
        _play(random_scenario(random, rates_bpm), int(random.integers(TRAINING_SEED_LIMIT)), seconds, rate_hz)
        for _ in range(count)
    ]


def _play(scenario: Scenario, seed: int, seconds: float, rate_hz: int) -> AudioExcerpt:
    source = PhantomSource(scenario, seed=seed, duration_s=seconds, sample_rate=rate_hz, block_s=1.0)
    wave = np.concatenate([block.samples for block in source])
    truth = SegmentTruth(
        cycles=spans([(cycle.onset, cycle.end) for cycle in source.truth]),
        inspirations=spans([(cycle.onset, cycle.phase_change) for cycle in source.truth]),
        expirations=spans([(cycle.phase_change, cycle.end) for cycle in source.truth]),
        phase_annotated=spans([(0, wave.size)]),
    )
    return AudioExcerpt(wave, truth)
