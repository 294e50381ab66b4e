"""The scrolling picture of the live view: a small spectrogram in half-block characters, and a level line."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from rich.color import Color
from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.style import Style

_LOW_HZ, _HIGH_HZ = 60.0, 1260.0  # where breath sounds, crackles and wheezes lie
_RANGE_DB = 42.0  # from the darkest to the brightest cell
_LEVELS = " ▁▂▃▄▅▆▇█"
# Dark violet to pale yellow; anchors picked by eye after matplotlib's "inferno".
_ANCHORS = (
    (2, 2, 14),
    (40, 11, 84),
    (101, 21, 110),
    (159, 42, 99),
    (212, 72, 66),
    (245, 125, 21),
    (250, 193, 39),
    (252, 255, 164),
)
_SHADES = 24


def _shade(i: int) -> tuple[int, int, int]:
    place = i / (_SHADES - 1) * (len(_ANCHORS) - 1)
    k = min(int(place), len(_ANCHORS) - 2)
    low, high = _ANCHORS[k], _ANCHORS[k + 1]
    r, g, b = (round(a + (c - a) * (place - k)) for a, c in zip(low, high, strict=True))
    return r, g, b


_PALETTE = tuple(Color.from_rgb(*_shade(i)) for i in range(_SHADES))


@lru_cache(maxsize=_SHADES * _SHADES)
def _cell(upper: int, lower: int) -> Style:
    return Style(color=_PALETTE[upper], bgcolor=_PALETTE[lower])


class Strip:
    """Makes columns of ``column_s`` seconds from samples, newest at the right.

    Parameters
    ----------
    sample_rate
        Sample rate, Hz.
    column_s
        Seconds a column.
    keep
        Number of columns kept.
    bands
        Frequency bands a column, two to a text row.
    """

    def __init__(self, sample_rate: int, *, column_s: float = 0.1, keep: int = 240, bands: int = 16) -> None:
        self.column_s = column_s
        self.bands = bands
        self._column_samples = max(64, round(sample_rate * column_s))
        self._rest = np.zeros(0, np.float32)
        self._columns: deque[npt.NDArray[np.float32]] = deque(maxlen=keep)  # dB, [bands], low to high
        self._peaks: deque[float] = deque(maxlen=keep)
        self._window = np.hanning(self._column_samples).astype(np.float32)
        self.count = 0  # columns ever made: column k covers [k, k + 1) · column_s
        freqs = np.fft.rfftfreq(self._column_samples, 1 / sample_rate)
        edges = np.linspace(_LOW_HZ, min(_HIGH_HZ, 0.48 * sample_rate), bands + 1)
        self._starts = np.minimum(np.searchsorted(freqs, edges[:-1]), len(freqs) - 1)
        self._stop = max(int(np.searchsorted(freqs, edges[-1])), int(self._starts[-1]) + 1)

    def accept(self, samples: npt.NDArray[np.float32]) -> None:
        """Add ``[n]`` samples; any block length gives the same columns."""
        pending = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        n = self._column_samples
        whole = len(pending) // n
        for k in range(whole):
            column = pending[k * n : (k + 1) * n]
            power = np.abs(np.fft.rfft(column * self._window)) ** 2
            sums = np.add.reduceat(power[: self._stop], self._starts)
            self._columns.append((10 * np.log10(sums + 1e-12)).astype(np.float32))
            self._peaks.append(float(np.max(np.abs(column))))
        self.count += whole
        self._rest = pending[whole * n :].copy()

    def skip(self, samples: int) -> None:
        """Add dark columns for dropped samples, so that the time line stays in step."""
        room = self._column_samples * (self._columns.maxlen or 0)
        unseen = max(0, samples - room) // self._column_samples  # would have scrolled out at once
        self.count += unseen
        self.accept(np.zeros(samples - unseen * self._column_samples, np.float32))

    def shades(self, width: int) -> npt.NDArray[np.int_]:
        """The newest ``width`` columns (or fewer) as palette indices, ``[bands, columns]``, low frequencies first."""
        if not self._columns:
            return np.zeros((self.bands, 0), int)
        picture = np.stack(list(self._columns)[-width:], axis=1)
        top = float(np.percentile(picture, 99))
        scaled = (picture - (top - _RANGE_DB)) * ((_SHADES - 1) / _RANGE_DB)
        return np.asarray(np.clip(scaled, 0, _SHADES - 1), int)

    def level(self, width: int) -> str:
        """Draw one text row: the peak of each column, logarithmic, 48 dB from bottom to top."""
        peaks = list(self._peaks)[-width:]
        marks = [_LEVELS[_height(peak)] for peak in peaks]
        return "".join(marks).rjust(width)


@dataclass(frozen=True, slots=True)
class Picture:
    """The spectrogram of a strip as ``rows`` lines of half blocks, newest at the right."""

    strip: Strip
    width: int
    rows: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        shades = self.strip.shades(self.width)
        pad = self.width - shades.shape[1]
        bands = np.linspace(self.strip.bands - 1, 0, 2 * self.rows).round().astype(int)
        for upper, lower in zip(bands[::2], bands[1::2], strict=True):
            yield Segment(" " * pad)
            for u, v in zip(shades[upper].tolist(), shades[lower].tolist(), strict=True):
                yield Segment("▀", _cell(u, v))
            yield Segment.line()


def _height(peak: float) -> int:
    db = 20 * np.log10(max(peak, 1e-6))
    return int(np.clip((db + 54) / 48 * (len(_LEVELS) - 1), 0, len(_LEVELS) - 1))
