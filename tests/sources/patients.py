"""Simulated patients for tests: their samples, their ground truth and levels of their samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edge_sdk.sources.phantom import SCENARIOS, PhantomSource, Scenario, TrueCycle

RATE = 4000
SEED = 1_000_123
QUIET_ROOM = replace(SCENARIOS["healthy"], snr_db=90.0, heart_rate_bpm=0.0)

Samples = npt.NDArray[np.float32]


def play(source: PhantomSource) -> Samples:
    """All samples of a source."""
    return np.concatenate([block.samples for block in source])


def patient(scenario: str | Scenario, duration_s: float, rate: int = RATE) -> tuple[Samples, list[TrueCycle]]:
    """Samples and true cycles of a patient with the seed of the tests."""
    source = PhantomSource(scenario, seed=SEED, duration_s=duration_s, sample_rate=rate)
    return play(source), source.truth


def rms(samples: Samples) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def band_rms(samples: Samples, low: float, high: float, rate: int = RATE) -> float:
    """Root mean square of the frequencies from ``low`` to ``high`` Hz."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    hz = np.fft.rfftfreq(samples.size, 1 / rate)
    return float(np.sqrt(2 * power[(hz >= low) & (hz < high)].sum()) / samples.size)
