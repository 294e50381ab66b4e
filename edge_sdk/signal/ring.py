"""A ring of the most recent samples, addressed by absolute sample index."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import StreamError


class Ring:
    """Keeps the last ``capacity`` float32 samples of an endless stream.

    Indices are absolute and never wrap (Python integers: a counter near 2**31 or 2**63 is nothing special).

    Parameters
    ----------
    capacity
        Samples kept.
    first
        Absolute index of the first sample that will be appended.
    """

    def __init__(self, capacity: int, *, first: int = 0) -> None:
        if capacity < 1:
            raise ValueError(f"a ring needs a capacity of at least 1 sample, got {capacity}")
        self.capacity = capacity
        self._buffer = np.zeros(capacity, dtype=np.float32)
        self._first = first  # nothing before this was ever appended
        self._end = first

    @property
    def start(self) -> int:
        """Absolute index of the oldest sample kept."""
        return max(self._first, self._end - self.capacity)

    @property
    def end(self) -> int:
        """One past the newest sample."""
        return self._end

    def append(self, samples: npt.NDArray[np.float32]) -> None:
        """Add ``[n]`` samples after ``end``; the oldest are overwritten."""
        self._end += samples.size
        kept = samples[-self.capacity :] if samples.size > self.capacity else samples
        begin = (self._end - kept.size) % self.capacity
        head = min(kept.size, self.capacity - begin)
        self._buffer[begin : begin + head] = kept[:head]
        if head < kept.size:
            self._buffer[: kept.size - head] = kept[head:]

    def read(self, begin: int, end: int) -> npt.NDArray[np.float32]:
        """Return a copy of the samples ``[begin, end)``.

        Raises
        ------
        StreamError
            If part of the span is overwritten, not yet appended, or ``end < begin``.
        """
        if end < begin or begin < self.start or end > self._end:
            raise StreamError(
                f"ring holds samples {self.start} to {self._end}, requested {begin} to {end}; "
                f"read earlier or make the ring larger than {self.capacity} samples"
            )
        count = end - begin
        offset = begin % self.capacity
        head = min(count, self.capacity - offset)
        return np.concatenate((self._buffer[offset : offset + head], self._buffer[: count - head]))

    def reset(self, first: int = 0) -> None:
        """Forget everything; the next sample appended has absolute index ``first``."""
        self._first = self._end = first
