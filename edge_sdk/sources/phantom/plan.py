"""Plans a patient's breathing cycle by cycle, in seconds: the same cycles at every sample rate.

Timing and kinds follow the CORSA and Sovijärvi definitions (Eur Respir Rev 2000;10:77) and Pasterkamp et al. (Am J
Respir Crit Care Med 1997;156:974): fine crackles late in the inspiration, coarse ones early and in the expiration,
wheezes of at least 100 ms mostly in the expiration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_sdk.sources.phantom.scenario import Scenario

# Second word of the seed of every random generator, which makes their streams independent.
RNG_PLAN, RNG_BREATH, RNG_HEART, RNG_AMBIENT, RNG_TALKING, RNG_HANDLING, RNG_START = range(7)


@dataclass(frozen=True, slots=True)
class Crackle:
    """One crackle."""

    kind: Literal["fine-crackle", "coarse-crackle"]
    at_s: float  # from the cycle's onset
    idw_s: float  # initial deflection width
    cycles_s: float  # two-cycle duration
    gain: float  # peak; negative where the first deflection points down


@dataclass(frozen=True, slots=True)
class Wheeze:
    """One wheeze or rhonchus."""

    kind: Literal["wheeze", "rhonchus"]
    at_s: float  # from the cycle's onset
    duration_s: float
    pitch_hz: float
    glide: float  # relative change of the pitch from begin to end
    vibrato_hz: float
    gain: float  # RMS


@dataclass(frozen=True, slots=True)
class PlannedCycle:
    """One respiratory cycle, in seconds and in units of the scenario's inspiration RMS."""

    index: int
    onset_s: float
    inspiration_s: float
    expiration_s: float
    pause_s: float  # silence after it, an apnoea included
    apnoea: bool  # the pause is an apnoea
    gain: float  # of the breath noise
    crackles: tuple[Crackle, ...]
    wheezes: tuple[Wheeze, ...]

    @property
    def phase_change_s(self) -> float:
        """Begin of the expiration."""
        return self.onset_s + self.inspiration_s

    @property
    def end_s(self) -> float:
        """End of the expiration."""
        return self.onset_s + self.inspiration_s + self.expiration_s


def plan_cycles(scenario: Scenario, seed: int) -> Iterator[PlannedCycle]:
    """Yield the cycles of one patient without end; each depends only on the scenario, the seed and its number."""
    onset_s = float(np.random.default_rng([seed, RNG_START]).uniform(0.3, 0.8))
    index = 0
    while True:
        cycle = _plan_cycle(scenario, np.random.default_rng([seed, RNG_PLAN, index]), index, onset_s)
        yield cycle
        onset_s = cycle.end_s + cycle.pause_s
        index += 1


def _plan_cycle(scenario: Scenario, rng: np.random.Generator, index: int, onset_s: float) -> PlannedCycle:
    cycle_s = 60.0 / scenario.respiratory_rate_bpm * _around(rng, scenario.rate_variability)
    pause_s = cycle_s * scenario.pause_share * rng.uniform(0.6, 1.4)
    inspiration_s = (cycle_s - pause_s) / (1.0 + scenario.ie_ratio * _around(rng, 0.08))
    expiration_s = cycle_s - pause_s - inspiration_s
    gain = 10.0 ** (rng.normal(0.0, 1.2) / 20.0)
    apnoea_s = rng.uniform(*scenario.apnoea_s)
    apnoea = False
    if scenario.apnoea_every:
        place = index % scenario.apnoea_every
        apnoea = place == scenario.apnoea_every - 1
        # cycles swell and fade between two apnoeas, as in Cheyne-Stokes breathing
        gain *= 10.0 ** ((7.0 * np.sin(np.pi * (place + 0.5) / scenario.apnoea_every) - 6.0) / 20.0)
    crackles = _plan_crackles(scenario, rng, inspiration_s, expiration_s)
    wheezes = _plan_wheezes(scenario, rng, inspiration_s, expiration_s)
    return PlannedCycle(
        index=index,
        onset_s=onset_s,
        inspiration_s=inspiration_s,
        expiration_s=expiration_s,
        pause_s=apnoea_s if apnoea else pause_s,
        apnoea=apnoea,
        gain=float(gain),
        crackles=crackles,
        wheezes=wheezes,
    )


def _around(rng: np.random.Generator, spread: float) -> float:
    """A factor near 1, never more than 2.5 spreads away from it."""
    return float(1.0 + spread * np.clip(rng.standard_normal(), -2.5, 2.5))


def _plan_crackles(
    scenario: Scenario, rng: np.random.Generator, inspiration_s: float, expiration_s: float
) -> tuple[Crackle, ...]:
    if rng.random() >= scenario.crackle:
        return ()
    kind: Literal["fine-crackle", "coarse-crackle"]
    if rng.random() >= scenario.coarse_share:
        count = int(rng.integers(6, 15))
        times = inspiration_s * rng.uniform(0.5, 0.97, count)
        kind, idw, cycles = "fine-crackle", rng.uniform(0.4e-3, 0.65e-3, count), rng.uniform(4.0e-3, 6.0e-3, count)
    else:
        count = int(rng.integers(4, 10))
        early = inspiration_s * rng.uniform(0.08, 0.5, count)
        late = inspiration_s + expiration_s * rng.uniform(0.05, 0.5, count)
        times = np.where(rng.random(count) < 0.65, early, late)
        kind, idw, cycles = "coarse-crackle", rng.uniform(1.0e-3, 1.5e-3, count), rng.uniform(8.5e-3, 12e-3, count)
    peaks = 10.0 ** ((scenario.crackle_db + rng.normal(0.0, 2.5, count)) / 20.0)
    peaks *= -1.0 if rng.random() < 0.8 else 1.0  # crackles of one cycle have the same polarity, mostly downwards
    order = np.argsort(times, kind="stable")
    return tuple(
        Crackle(kind, *map(float, values))
        for values in zip(times[order], idw[order], cycles[order], peaks[order], strict=True)
    )


def _plan_wheezes(
    scenario: Scenario, rng: np.random.Generator, inspiration_s: float, expiration_s: float
) -> tuple[Wheeze, ...]:
    if rng.random() >= scenario.wheeze:
        return ()
    places = ("expiration",) if rng.random() < 0.8 else ("inspiration", "expiration")
    wheezes = []
    for place in places:
        begin_s, phase_s = (0.0, inspiration_s) if place == "inspiration" else (inspiration_s, expiration_s)
        low = rng.random() < scenario.rhonchus_share
        duration_s = max(0.15, phase_s * rng.uniform(0.4, 0.75))
        at_s = begin_s + max(0.0, phase_s * 0.85 - duration_s) * rng.uniform(0.0, 0.4)
        wheezes.append(
            Wheeze(
                kind="rhonchus" if low else "wheeze",
                at_s=float(at_s),
                duration_s=float(duration_s),
                pitch_hz=float(rng.uniform(110.0, 190.0) if low else 230.0 * (650.0 / 230.0) ** rng.random()),
                glide=float(rng.normal(0.0, 0.06)),
                vibrato_hz=float(rng.uniform(3.0, 7.0)),
                gain=float(10.0 ** ((scenario.wheeze_db + rng.normal(0.0, 2.0)) / 20.0)),
            )
        )
    return tuple(wheezes)
