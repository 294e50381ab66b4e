"""Delivers blocks of samples in real time, as a live device would, on a clock that starts once and never drifts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edge_sdk.events import AudioBlock
from edge_sdk.signal.clock import SampleClock


class Pacer:
    """Delays blocks until a live source would have captured them; another thread may stop it at any time.

    Parameters
    ----------
    sample_rate
        Hz.
    paced
        False delivers at once, with ``host_ns`` 0.
    speed
        Factor of real time; 2 plays twice as fast.
    """

    def __init__(self, sample_rate: int, *, paced: bool, speed: float = 1.0) -> None:
        self._clock = SampleClock(sample_rate, speed)
        self._paced = paced
        self._stopped = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """End a wait in progress and the delivery."""
        self._stopped.set()

    def deliver(self, blocks: Iterator[npt.NDArray[np.float32]]) -> Iterator[AudioBlock]:
        """Turn consecutive ``[n]`` blocks into audio blocks, each at the time its last sample was due.

        The clock starts when the first block is requested. A late consumer gets overdue blocks at once; their
        ``host_ns`` is still the time of capture, so its own delay appears as latency.
        """
        clock = SampleClock(self._clock.rate_hz, self._clock.speed, time.monotonic_ns())
        first = 0
        for samples in blocks:
            due_ns = clock.deadline_ns(first + samples.size) if self._paced else 0
            if self._paced:
                self._stopped.wait(max(0.0, (due_ns - time.monotonic_ns()) * 1e-9))
            if self.stopped:
                return
            yield AudioBlock(samples, clock.rate_hz, first, due_ns)
            first += samples.size
