"""Errors of the respiratory rate: mean and median, the share close to the truth, halved and doubled rates.

A recording of which no rate was found is never dropped: it counts as 0 breaths a minute in the errors that existed
before (``rate_mae_bpm``, ``rate_error_p50_bpm``), it is not within any tolerance, and ``rate_undefined`` counts it.
``rate_mae_defined_bpm`` is the mean error of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.metrics.matching import Floats

RATE_CYCLES = 4
"""Annotated cycles that a recording needs for a respiratory rate."""

RATE_TOLERANCE = 0.15
"""Relative: a found rate this close to the true one (to half, to twice of it) is right (halved, doubled)."""

FAST_BPM = 40.0
"""Above this true rate the bias is reported by itself: infants."""

RANGE_BPM = (8.0, 80.0)
"""True rates that a segmenter is built for; annotations beyond often mark each phase as an event."""


@dataclass(frozen=True, slots=True)
class RatedRecording:
    """True and found respiratory rate of one recording."""

    true_bpm: float
    found_bpm: float | None  # None: no rate is stated, or fewer than two cycles were found
    confident: bool | None = None  # what the segmenter states of its rate; None: it states nothing

    @property
    def error_bpm(self) -> float:
        """Absolute error; an undefined rate counts as 0 breaths a minute."""
        return abs((self.found_bpm or 0.0) - self.true_bpm)


def respiratory_rate(onsets: Floats) -> float | None:
    """Breaths per minute: 60 over the median interval of ``[n]`` onsets in seconds.

    ``None`` below two onsets, and where they do not advance.
    """
    if len(onsets) < 2:
        return None
    interval_s = float(np.median(np.diff(onsets)))
    return 60.0 / interval_s if interval_s > 0 else None


def rate_figures(rated: Sequence[RatedRecording]) -> dict[str, Any]:
    """Figures of the respiratory rate over a set of recordings, as a mapping for JSON.

    Parameters
    ----------
    rated
        One entry per recording whose annotation gives a rate.

    Returns
    -------
    dict
        Errors in breaths per minute, shares of *all* the recordings. Without recordings every figure but the counts
        is ``None``; those of fast breathing and of confidence are ``None`` where no recording has any.
    """
    errors = np.array([r.error_bpm for r in rated])
    known = [r for r in rated if r.found_bpm is not None]
    ratios = np.array([(r.found_bpm or 0.0) / r.true_bpm for r in rated])
    fast = [r for r in rated if r.true_bpm > FAST_BPM]
    fast_bias = [r.found_bpm - r.true_bpm for r in fast if r.found_bpm is not None]
    inside = [r for r in rated if RANGE_BPM[0] <= r.true_bpm <= RANGE_BPM[1]]
    return {
        "rate_mae_bpm": _mean(errors),
        "rate_error_p50_bpm": float(np.median(errors)) if len(errors) else None,
        "rate_recordings": len(rated),
        "rate_undefined": len(rated) - len(known),
        "rate_mae_defined_bpm": _mean([r.error_bpm for r in known]),
        "rate_within_15pct": _share_near(ratios, 1.0),
        "rate_halved": _share_near(ratios, 0.5),
        "rate_doubled": _share_near(ratios, 2.0),
        "rate_bias_bpm": _mean([r.found_bpm - r.true_bpm for r in known if r.found_bpm is not None]),
        "rate_bias_above_40_bpm": _mean(fast_bias),
        "rate_recordings_above_40": len(fast),
        "rate_undefined_above_40": len(fast) - len(fast_bias),
        "rate_mae_8_to_80_bpm": _mean([r.error_bpm for r in inside]),
        "rate_bias_40_to_80_bpm": _mean(
            [r.found_bpm - r.true_bpm for r in inside if r.true_bpm > FAST_BPM and r.found_bpm is not None]
        ),
        "rate_recordings_beyond_8_to_80": len(rated) - len(inside),
        **_confidence(rated),
    }


def _confidence(rated: Sequence[RatedRecording]) -> dict[str, float | None]:
    """Error and share of the rates that the segmenter calls confident, among the recordings with such a statement.

    A rate that is undefined is not confident, whatever the segmenter states.
    """
    stated = [r for r in rated if r.confident is not None]
    confident = [r for r in stated if r.confident and r.found_bpm is not None]
    return {
        "rate_mae_confident_bpm": _mean([r.error_bpm for r in confident]),
        "rate_confident_fraction": len(confident) / len(stated) if stated else None,
    }


def _share_near(ratios: Floats, centre: float) -> float | None:
    near = np.abs(ratios / centre - 1.0) <= RATE_TOLERANCE + 1e-9
    return float(near.mean()) if len(ratios) else None


def _mean(values: Sequence[float] | npt.NDArray[np.float64]) -> float | None:
    return float(np.mean(values)) if len(values) else None
