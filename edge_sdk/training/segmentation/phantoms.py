"""Simulated patients for training: rates from newborns to sleepers, apnoea, talking, other devices."""

from __future__ import annotations

import numpy as np

from edge_sdk.sources.phantom import TRAINING_SEED_LIMIT, PhantomSource, Scenario, random_scenario
from edge_sdk.training.segmentation.excerpts import AudioExcerpt, SegmentTruth, spans


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
