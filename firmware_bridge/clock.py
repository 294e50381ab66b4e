"""Fits the device's sample clock to the host's clock: offset and rate error, from the arrival times of blocks.

A block arrives at its time of capture plus a delay that is never negative and mostly jitter. So only the earliest
arrival of each short interval counts, and a line through these points is fitted with Huber weights. The idea is the
dejitter filter of the Lab Streaming Layer, https://labstreaminglayer.readthedocs.io/info/time_synchronization.html.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_INTERVAL_S = 0.25
_POINTS = 480  # two minutes
_MIN_POINTS = 4
_HUBER = 1.5


@dataclass(frozen=True, slots=True)
class ClockFit:
    """A fitted line: ``host_ns = offset_ns + index * 1e9 / rate_hz``."""

    offset_ns: float  # host time at which sample 0 would arrive with the least delay observed
    rate_hz: float  # the device's rate measured by the host's clock
    ppm: float  # deviation of rate_hz from the nominal rate; positive: the device is fast
    points: int  # intervals in the fit; 0: nominal rate, no fit yet
    residual_ns: float  # median absolute residual

    def host_ns(self, index: float) -> int:
        """Arrival time of sample ``index`` without jitter, in ns of the host's monotonic clock."""
        return round(self.offset_ns + index * 1e9 / self.rate_hz)


class ClockFitter:
    """Collects (index after the last sample, arrival time) of every block and fits a line; bounded memory."""

    def __init__(self, rate_hz: float) -> None:
        self.nominal_hz = rate_hz
        self._points: deque[tuple[int, int]] = deque(maxlen=_POINTS)
        self._earliest: tuple[float, int, int] | None = None  # delay against nominal, index, host_ns
        self._interval_end = 0
        self._fit: ClockFit | None = None

    def add(self, index: int, host_ns: int) -> None:
        """Add a block: ``index`` is one past its last sample, ``host_ns`` its arrival time."""
        late = host_ns - index * 1e9 / self.nominal_hz
        if self._earliest is not None and index >= self._interval_end:
            self._points.append(self._earliest[1:])
            self._earliest = None
            self._fit = None
        if self._earliest is None:
            self._earliest = (late, index, host_ns)
            self._interval_end = index + round(_INTERVAL_S * self.nominal_hz)
        elif late < self._earliest[0]:
            self._earliest = (late, index, host_ns)
        if len(self._points) < _MIN_POINTS:
            self._fit = None

    def reset(self) -> None:
        """Forget all points, because the device's clock was restarted."""
        self._points.clear()
        self._earliest = None
        self._fit = None

    @property
    def fit(self) -> ClockFit:
        """The best line through the points so far; the nominal rate during the first second."""
        if self._fit is None:
            self._fit = self._solve()
        return self._fit

    def _solve(self) -> ClockFit:
        points = [*self._points]
        if len(points) < _MIN_POINTS:
            first = points[0] if points else self._earliest[1:] if self._earliest else (0, 0)
            return ClockFit(first[1] - first[0] * 1e9 / self.nominal_hz, self.nominal_hz, 0.0, 0, 0.0)
        index0, host0 = points[0]
        x = np.array([index - index0 for index, _ in points], np.float64) / self.nominal_hz  # s
        # Relative to the nominal line, so that float64 keeps the nanoseconds.
        y = np.array([host - host0 for _, host in points], np.float64) * 1e-9 - x  # s late
        slope, intercept, residual = _huber_line(x, y)
        period_ns = (1.0 + slope) * 1e9 / self.nominal_hz
        offset = host0 + intercept * 1e9 - index0 * period_ns
        rate = 1e9 / period_ns
        return ClockFit(offset, rate, (rate / self.nominal_hz - 1.0) * 1e6, len(points), residual * 1e9)


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
