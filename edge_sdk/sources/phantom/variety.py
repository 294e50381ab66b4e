"""Simulated patients at random: rates from sleepers to newborns, apnoea, talking, other stethoscopes."""

from __future__ import annotations

import numpy as np

from edge_sdk.sources.phantom.scenario import Scenario


def random_scenario(
    random: np.random.Generator,
    rates_bpm: tuple[float, float],
    *,
    snr_db: tuple[float, float] = (7.0, 32.0),
    apnoea_share: float = 1 / 6,
    most_pause: float = 0.3,
) -> Scenario:
    """A patient of any age, on any stethoscope.

    Parameters
    ----------
    random
        Decides everything; each call draws from it.
    rates_bpm
        Lowest and highest respiratory rate, drawn evenly on a logarithmic scale.
    snr_db
        Lowest and highest ratio of inspiration and ambient noise.
    apnoea_share
        Share of the patients with apnoeas.
    most_pause
        Longest pause after an expiration, as a share of the breath.
    """
    rate = float(np.exp(random.uniform(*np.log(rates_bpm))))
    apnoea = random.random() < apnoea_share
    return Scenario(
        respiratory_rate_bpm=rate,
        rate_variability=float(random.uniform(0.02, 0.2)),
        ie_ratio=float(random.uniform(0.9, 2.6)),
        pause_share=float(random.uniform(0.02, most_pause)),
        breath_dbfs=float(random.uniform(-55.0, -30.0)),
        expiration_db=float(random.uniform(-14.0, -2.0)),
        snr_db=float(random.uniform(*snr_db)),
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
