"""Delivers blocks of samples as a live device would: on a clock that starts once and never drifts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edge_sdk.events import AudioBlock
from edge_sdk.signal.clock import SampleClock


class Pacer:
    """Holds blocks back until a live source would have captured them; another thread may stop it at any time.

    Parameters
    ----------
    sample_rate
        Hz.
    paced
        False delivers at once, with ``host_ns`` 0.
    speed
        2 plays twice as fast as real time.
    """

    def __init__(self, sample_rate: int, *, paced: bool, speed: float = 1.0) -> None:
        self._clock = SampleClock(sample_rate, speed)
        self._paced = paced
        self._stopped = threading.Event()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """Wake whoever waits and end the delivery."""
        self._stopped.set()

    def deliver(self, blocks: Iterator[npt.NDArray[np.float32]]) -> Iterator[AudioBlock]:
        """Turn consecutive ``[n]`` blocks into audio blocks, each at the time its last sample was due.

        The clock starts when the first block is asked for. A late consumer gets overdue blocks at once, their
        ``host_ns`` still the moment of capture, so that its own delay shows as latency.
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
