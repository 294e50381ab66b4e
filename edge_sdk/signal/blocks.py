"""Re-blocking: blocks of any size in, blocks of one exact size out, so that results do not depend on the input's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class Reblocker:
    """Cuts a stream of samples into hops of exactly ``hop`` samples.

    Parameters
    ----------
    hop
        Samples of every block that comes out, at least 1.
    first
        Samples of the first block, and of the first after :meth:`flush` or :meth:`reset`; 0: as the others.
    """

    def __init__(self, hop: int, first: int = 0) -> None:
        if hop < 1 or not 0 <= first <= hop:
            raise ValueError(f"hop must be at least 1 sample and the first no longer, got {hop} and {first}")
        self.hop = hop
        self._first = first or hop
        self._size = self._first  # of the current hop
        self._hop_buffer = np.zeros(hop, dtype=np.float32)
        self._filled = 0

    @property
    def pending(self) -> int:
        """Samples held back because they do not fill a hop yet; always below ``hop``."""
        return self._filled

    def accept(self, samples: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        """Take ``[n]`` samples, n >= 0, and return every hop that is complete now, in order, each a new array."""
        hops: list[npt.NDArray[np.float32]] = []
        position = 0
        while position < samples.size:
            take = min(self._size - self._filled, samples.size - position)
            self._hop_buffer[self._filled : self._filled + take] = samples[position : position + take]
            self._filled += take
            position += take
            if self._filled == self._size:
                hops.append(self._hop_buffer[: self._size].copy())
                self._filled, self._size = 0, self.hop
        return hops

    def flush(self) -> npt.NDArray[np.float32]:
        """Return the ``[pending]`` samples that fill no hop (possibly none) and forget them."""
        rest = self._hop_buffer[: self._filled].copy()
        self.reset()
        return rest

    def reset(self) -> None:
        """Forget the pending samples."""
        self._filled, self._size = 0, self._first
