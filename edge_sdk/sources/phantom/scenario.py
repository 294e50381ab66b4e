"""Descriptions of simulated patients: one frozen dataclass per scenario."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scenario:
    """A patient, a room and a stethoscope. Levels are in dB relative to the inspiration's RMS, or in dBFS."""

    respiratory_rate_bpm: float = 15.0
    rate_variability: float = 0.06  # relative standard deviation of the cycle length
    ie_ratio: float = 1.5  # expiration lasts this many times the inspiration
    pause_share: float = 0.14  # of a cycle's length, silent after the expiration
    breath_dbfs: float = -42.0  # RMS of a typical inspiration between 100 and 1000 Hz, after the stethoscope
    expiration_db: float = -9.0
    snr_db: float = 22.0  # inspiration against ambient noise, both between 100 and 1000 Hz
    crackle: float = 0.0  # probability of crackles in a cycle
    coarse_share: float = 0.0  # of the cycles with crackles: coarse instead of fine
    crackle_db: float = 15.0  # peak of a typical crackle
    wheeze: float = 0.0  # probability of a wheeze in a cycle
    rhonchus_share: float = 0.0  # of the wheezes: low-pitched (100-200 Hz, rich in harmonics)
    wheeze_db: float = 1.0  # RMS of a typical wheeze
    heart_rate_bpm: float = 74.0  # 0: no heart sounds
    heart_db: float = 0.0  # peak of the first heart sound
    hum_db: float | None = None  # mains hum of 50 Hz and its harmonics; None: none
    talking_per_min: float = 0.0  # utterances of 1 to 3 s
    handling_per_min: float = 0.0  # rubs and knocks on the chest piece
    apnoea_every: int = 0  # cycles between two pauses without breathing; 0: never
    apnoea_s: tuple[float, float] = (10.0, 14.0)  # shortest and longest pause
    high_pass_hz: float = 25.0  # the stethoscope, second order
    low_pass_hz: float = 620.0  # the stethoscope, fifth order: the Yunting II of SPRSound falls off even earlier

    def __post_init__(self) -> None:
        if not 4.0 <= self.respiratory_rate_bpm <= 80.0:
            raise ValueError(f"respiratory_rate_bpm must be between 4 and 80, got {self.respiratory_rate_bpm}")
        if not 0.3 <= self.ie_ratio <= 6.0 or not 0.0 <= self.pause_share <= 0.5:
            raise ValueError("ie_ratio must be between 0.3 and 6, pause_share between 0 and 0.5")
        if not 0.0 <= self.rate_variability <= 0.3:
            raise ValueError(f"rate_variability must be between 0 and 0.3, got {self.rate_variability}")
        for name in ("crackle", "coarse_share", "wheeze", "rhonchus_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a probability, got {getattr(self, name)}")
        if self.heart_rate_bpm and not 20.0 <= self.heart_rate_bpm <= 250.0:
            raise ValueError(f"heart_rate_bpm must be 0 or between 20 and 250, got {self.heart_rate_bpm}")
        if self.apnoea_every < 0 or not 0.0 < self.apnoea_s[0] <= self.apnoea_s[1]:
            raise ValueError("apnoea_every must not be negative and apnoea_s must be (shortest, longest)")
        if min(self.talking_per_min, self.handling_per_min) < 0:
            raise ValueError("talking_per_min and handling_per_min must not be negative")


# The patients of asthma, pneumonia and healthy are of school age, like most training patients of the default bundle.
# Their signs are strong on purpose: a demonstration shows the terms; only real recordings measure a model.
SCENARIOS: dict[str, Scenario] = {
    "healthy": Scenario(respiratory_rate_bpm=19.0, heart_rate_bpm=84.0),
    "asthma": Scenario(
        respiratory_rate_bpm=26.0,
        ie_ratio=1.9,
        pause_share=0.12,
        expiration_db=-5.0,
        wheeze=0.65,
        wheeze_db=4.0,
        heart_rate_bpm=104.0,
    ),
    "pneumonia": Scenario(
        respiratory_rate_bpm=36.0,
        ie_ratio=1.3,
        pause_share=0.1,
        expiration_db=-6.0,
        crackle=0.65,
        coarse_share=0.2,
        crackle_db=23.0,
        wheeze=0.06,
        heart_rate_bpm=112.0,
    ),
    "copd": Scenario(
        respiratory_rate_bpm=18.0,
        ie_ratio=2.2,
        pause_share=0.1,
        breath_dbfs=-45.0,
        expiration_db=-4.0,
        snr_db=18.0,
        crackle=0.45,
        coarse_share=0.8,
        crackle_db=19.0,
        wheeze=0.4,
        wheeze_db=4.0,
        rhonchus_share=0.5,
        heart_rate_bpm=86.0,
    ),
    "noisy-ward": Scenario(
        respiratory_rate_bpm=18.0,
        snr_db=8.0,
        crackle=0.2,
        coarse_share=0.4,
        wheeze=0.2,
        hum_db=-12.0,
        talking_per_min=5.0,
        handling_per_min=5.0,
        heart_rate_bpm=82.0,
    ),
    "apnoea": Scenario(
        respiratory_rate_bpm=17.0,
        ie_ratio=1.4,
        pause_share=0.08,
        apnoea_every=4,
        heart_rate_bpm=68.0,
    ),
}
"""The built-in patients by name."""
