"""Blocks of samples: cut to one exact size, whatever the input's, and rounded to the grid of a recording."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

BEYOND_FULL_SCALE = "the source goes beyond full scale: it is clipped, in the recording as in the results"
"""Note on audio of which :func:`on_grid` clipped samples."""


def on_grid(samples: npt.NDArray[np.float32], full_scale: int) -> tuple[npt.NDArray[np.float32], bool]:
    """Round samples ``[n]`` to the steps of a recording, so that its replay gives the same results.

    Parameters
    ----------
    samples
        In ±1.
    full_scale
        Steps of the recording up to 1, for example 1 << 23.

    Returns
    -------
    samples, clips
        ``[n]`` in ±1, and whether any lay beyond.
    """
    steps = np.rint(samples.astype(np.float64) * full_scale)
    clips = bool(np.any(np.abs(steps) > full_scale))
    return (np.clip(steps, -full_scale, full_scale - 1) / full_scale).astype(np.float32), clips


class Reblocker:
    """Cuts a stream of samples into hops of one length.

    Parameters
    ----------
    hop
        Samples of every hop that comes out, at least 1. Of a fraction the hops are rounded so that they never drift:
        hop ``k`` ends at ``first + k * hop``, rounded up.
    first
        Samples of the first hop, and of the first after :meth:`flush` or :meth:`reset`; 0: as the others.
    """

    def __init__(self, hop: int | Fraction, first: int = 0) -> None:
        if hop < 1 or not 0 <= first <= hop:
            raise ValueError(f"hop must be at least 1 sample and the first no longer, got {hop} and {first}")
        self._up, self._down = Fraction(hop).as_integer_ratio()
        self._first = first
        self._hop_buffer = np.zeros(-(-self._up // self._down), dtype=np.float32)
        self._filled = self._count = 0
        self._size = self._stop = self._end(1)  # of the current hop

    @property
    def pending(self) -> int:
        """Samples held back because they do not fill a hop yet; always below the longest hop."""
        return self._filled

    def accept(self, samples: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        """Take ``[n]`` samples, n >= 0, and return every hop that is complete now, in order, each a new array."""
        hops: list[npt.NDArray[np.float32]] = []
        position = 0
        while position < samples.size:
            filled = self._filled
            take = min(self._size - filled, samples.size - position)
            self._hop_buffer[filled : filled + take] = samples[position : position + take]
            position += take
            if filled + take < self._size:
                self._filled = filled + take
                return hops
            hops.append(self._hop_buffer[: self._size].copy())
            self._filled, self._count = 0, self._count + 1
            following = self._end(self._count + 1)
            self._size, self._stop = following - self._stop, following
        return hops

    def flush(self) -> npt.NDArray[np.float32]:
        """Return the ``[pending]`` samples that fill no hop (possibly none) and forget them."""
        rest = self._hop_buffer[: self._filled].copy()
        self.reset()
        return rest

    def reset(self) -> None:
        """Forget the pending samples."""
        self._filled = self._count = 0
        self._size = self._stop = self._end(1)

    def _end(self, count: int) -> int:
        """Samples of the first ``count`` hops."""
        if self._first == 0:
            return -(-count * self._up // self._down)
        return 0 if count == 0 else self._first - (-(count - 1) * self._up // self._down)
