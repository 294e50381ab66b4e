"""The device's sample clock on the host's: offset and rate error, from when blocks arrive.

Arrival is capture plus a delay that is never negative and mostly jitter, so the earliest arrival of each short
stretch counts, and a line through these is fitted with Huber weights. The idea is the dejitter filter of the Lab
Streaming Layer, https://labstreaminglayer.readthedocs.io/info/time_synchronization.html.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_STRETCH_S = 0.25
_POINTS = 480  # two minutes
_MIN_POINTS = 4
_HUBER = 1.5


@dataclass(frozen=True, slots=True)
class ClockFit:
    """``host_ns = offset_ns + index * 1e9 / rate_hz``."""

    offset_ns: float  # host time of sample 0, as it arrives with the least delay seen
    rate_hz: float  # the device's true rate by the host's clock
    ppm: float  # of rate_hz against the nominal rate; positive: the device is fast
    points: int  # stretches that the fit rests on; 0: nominal rate, no fit yet
    residual_ns: float  # median absolute residual

    def host_ns(self, index: float) -> int:
        """When a sample arrives, without jitter."""
        return round(self.offset_ns + index * 1e9 / self.rate_hz)


class ClockFitter:
    """Takes (index after the last sample, arrival) of every block; memory bounded."""

    def __init__(self, rate_hz: float) -> None:
        self.nominal_hz = rate_hz
        self._points: deque[tuple[int, int]] = deque(maxlen=_POINTS)
        self._earliest: tuple[float, int, int] | None = None  # delay against nominal, index, host_ns
        self._stretch_end = 0
        self._fit: ClockFit | None = None

    def add(self, index: int, host_ns: int) -> None:
        """``index``: one past the last sample that arrived at ``host_ns``."""
        late = host_ns - index * 1e9 / self.nominal_hz
        if self._earliest is not None and index >= self._stretch_end:
            self._points.append(self._earliest[1:])
            self._earliest = None
            self._fit = None
        if self._earliest is None:
            self._earliest = (late, index, host_ns)
            self._stretch_end = index + round(_STRETCH_S * self.nominal_hz)
        elif late < self._earliest[0]:
            self._earliest = (late, index, host_ns)
        if len(self._points) < _MIN_POINTS:
            self._fit = None

    def reset(self) -> None:
        """The device's clock started anew."""
        self._points.clear()
        self._earliest = None
        self._fit = None

    @property
    def fit(self) -> ClockFit:
        """The best line through what is known; nominal rate until a second has passed."""
        if self._fit is None:
            self._fit = self._solve()
        return self._fit

    def _solve(self) -> ClockFit:
        known = [*self._points]
        if len(known) < _MIN_POINTS:
            first = known[0] if known else self._earliest[1:] if self._earliest else (0, 0)
            return ClockFit(first[1] - first[0] * 1e9 / self.nominal_hz, self.nominal_hz, 0.0, 0, 0.0)
        index0, host0 = known[0]
        x = np.array([index - index0 for index, _ in known], np.float64) / self.nominal_hz  # s
        # Against the nominal line, so that nanoseconds survive in float64.
        y = np.array([host - host0 for _, host in known], np.float64) * 1e-9 - x  # s late
        slope, intercept, residual = _huber_line(x, y)
        period_ns = (1.0 + slope) * 1e9 / self.nominal_hz
        offset = host0 + intercept * 1e9 - index0 * period_ns
        rate = 1e9 / period_ns
        return ClockFit(offset, rate, (rate / self.nominal_hz - 1.0) * 1e6, len(known), residual * 1e9)


def _huber_line(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Slope, intercept and median absolute residual, by reweighted least squares."""
    weights = np.ones_like(y)
    slope = intercept = spread = 0.0
    for _ in range(12):
        total = weights.sum()
        mean_x, mean_y = (weights @ x) / total, (weights @ y) / total
        variance = weights @ (x - mean_x) ** 2
        slope = float(weights @ ((x - mean_x) * (y - mean_y)) / variance) if variance > 0 else 0.0
        intercept = float(mean_y - slope * mean_x)
        residuals = np.abs(y - intercept - slope * x)
        spread = float(np.median(residuals))
        weights = 1.0 / np.maximum(1.0, residuals / max(_HUBER * 1.4826 * spread, 1e-9))
    return slope, intercept, spread
