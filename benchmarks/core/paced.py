"""Sound in memory as a live source in real time, for benchmarks: no disk, an ideal schedule, any phase."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edge_sdk.events import AudioBlock

Samples = npt.NDArray[np.float32]


def repeated(sounds: Sequence[Samples], start: int) -> Samples:
    """The sounds one after another, begun at the ``start``-th, as one array."""
    return np.concatenate([sounds[(start + k) % len(sounds)] for k in range(len(sounds))])


class LoopSource:
    """Plays ``[n]`` samples over and over in real time.

    ``host_ns`` of a block is the moment at which its last sample was due, however late it is handed over, so that every
    delay of this process counts as latency.

    Parameters
    ----------
    samples, sample_rate
        The sound, and Hz.
    seconds
        How long it plays.
    block_s
        Seconds a block.
    start_ns
        Monotonic clock at the first sample; now where absent.
    live
        What a session is told: a live source does not wait.
    """

    def __init__(
        self,
        samples: Samples,
        sample_rate: int,
        seconds: float,
        *,
        block_s: float = 0.05,
        start_ns: int | None = None,
        live: bool = True,
        name: str = "benchmark",
    ) -> None:
        self.name = name
        self.live = live
        self._samples, self._rate, self._start_ns = samples, sample_rate, start_ns
        self._block = max(1, round(block_s * sample_rate))
        self._total = round(seconds * sample_rate)
        self._stopped = threading.Event()

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self._rate

    def __iter__(self) -> Iterator[AudioBlock]:
        start_ns = time.monotonic_ns() if self._start_ns is None else self._start_ns
        at = 0
        while at < self._total:
            size = min(self._block, self._total - at)
            due_ns = start_ns + (at + size) * 1_000_000_000 // self._rate
            self._stopped.wait(max(0.0, (due_ns - time.monotonic_ns()) * 1e-9))
            if self._stopped.is_set():
                return
            yield AudioBlock(loop_slice(self._samples, at, size), self._rate, at, due_ns)
            at += size

    def close(self) -> None:
        """Stop, also in the middle of a wait."""
        self._stopped.set()


def loop_slice(samples: Samples, begin: int, size: int) -> Samples:
    """``[size]`` samples from ``begin`` on, of an endless repetition."""
    begin %= samples.size
    piece = samples[begin : begin + size]
    return piece if piece.size == size else np.resize(np.roll(samples, -begin), size)
