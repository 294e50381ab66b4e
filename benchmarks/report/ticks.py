"""Limits of an axis and its ticks, with labels that differ from each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

_LEAST = 1e-9  # on a logarithmic axis
_MARGIN = 0.04  # of the axis, between data and its ends
_SPACES = 6  # between ticks, at most
_MOST_DIGITS = 15
_POSITIONAL = (1e-4, 1e6)  # without an exponent


@dataclass(frozen=True, slots=True)
class Scale:
    """One axis."""

    low: float
    high: float
    ticks: Sequence[float]
    log: bool = False

    @property
    def labels(self) -> list[str]:
        """The ticks in as few digits as tell them apart."""
        for digits in range(3, _MOST_DIGITS):
            labels = [_written(tick, digits) for tick in self.ticks]
            if len(set(labels)) == len(labels) and all(map(_exact, labels, self.ticks)):
                break
        return [label.replace("-", "−") for label in labels]

    def clamp(self, value: float) -> float:
        """The value itself, or the least that a logarithmic axis shows."""
        return max(value, _LEAST) if self.log else value


def _written(tick: float, digits: int) -> str:
    if tick == 0 or not _POSITIONAL[0] <= abs(tick) < _POSITIONAL[1]:
        return f"{tick:.{digits}g}"
    return np.format_float_positional(tick, precision=digits, unique=False, fractional=False, trim="-")


def _exact(label: str, tick: float) -> bool:
    return math.isclose(float(label), tick, rel_tol=1e-9, abs_tol=1e-12)


def linear_scale(
    values: Sequence[float], begin: float | None, end: float | None, *, whole: bool = False, spaces: int = _SPACES
) -> Scale:
    """Limits just beyond the values, or as given, and round ticks between them."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    low, high = (low if begin is None else min(low, begin)), (high if end is None else max(high, end))
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        spread = abs(high) * 0.1 or 1.0
        low, high = low - spread, high + spread
    margin = _MARGIN * (high - low)
    ticks = MaxNLocator(nbins=spaces, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    low, high = low - margin, high + margin
    return Scale(low, high, [float(t) for t in ticks if low <= t <= high])


def log_scale(values: Sequence[float], *, spaces: int = _SPACES) -> Scale:
    """Limits just beyond the values and ticks at 1, 2 and 5 times powers of ten, or at powers of ten only."""
    shown = [max(v, _LEAST) for v in values] or [1.0, 10.0]
    low, high = math.log10(min(shown)), math.log10(max(shown))
    if high - low < 1.0:
        low, high = (low + high) / 2 - 0.5, (low + high) / 2 + 0.5
    margin = _MARGIN * (high - low)
    low, high = low - margin, high + margin
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [m * 10.0**k for k in powers for m in (1, 2, 5) if low <= math.log10(m * 10.0**k) <= high]
    if len(ticks) > spaces + 2:
        ticks = [t for t in ticks if round(math.log10(t), 9).is_integer()]
        ticks = ticks[:: -(-len(ticks) // (spaces + 1))]
    return Scale(10.0**low, 10.0**high, ticks, log=True)
