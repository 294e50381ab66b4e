"""The queue of blocks between the thread that reads a source and the one that processes it."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace

import numpy as np

from edge_sdk.events import AudioBlock

_GRACE_S = 0.25
"""Seconds that a full queue makes a live source wait before it drops, once until it is half empty again: after a stall
the device and its driver deliver their buffers in one burst, faster than the queue is read; this absorbs it."""


class Inbox:
    """A queue of blocks bounded in samples, between one writer and one reader.

    A full queue makes the writer wait, or drops its oldest blocks and counts them: ``lost_before`` of the block after a
    drop is exactly the number of dropped samples.
    """

    def __init__(self, capacity: int, *, drop_oldest: bool) -> None:
        self.dropped = 0  # samples
        self.joined = 0  # blocks returned together with the one before
        self._capacity = max(1, capacity)
        self._drop_oldest = drop_oldest
        self._blocks: deque[AudioBlock] = deque()
        self._held = 0  # samples
        self._ended = False
        self._closed = False
        self._grace_s = _GRACE_S  # that is left
        self._changed = threading.Condition()

    def put(self, block: AudioBlock) -> bool:
        """Add a block; False after :meth:`close`."""
        with self._changed:
            while not self._closed and self._blocks and self._held + block.samples.size > self._capacity:
                if not self._drop_oldest:
                    self._changed.wait()
                elif self._grace_s > 0:
                    began = time.monotonic()
                    self._changed.wait(self._grace_s)
                    self._grace_s -= time.monotonic() - began
                else:
                    block = self._drop(block)
            if self._closed:
                return False
            self._blocks.append(block)
            self._held += block.samples.size
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float, *, join_samples: int = 0) -> AudioBlock | None:
        """Return the next block; None after ``timeout_s`` without one, or at the end.

        Consecutive blocks without dropped samples between them are joined up to ``join_samples``.
        """
        with self._changed:
            if not self._blocks and not self._ended:
                self._changed.wait(timeout_s)
            if not self._blocks:
                return None
            taken = [self._blocks.popleft()]
            size = taken[0].samples.size
            while (
                self._blocks
                and self._blocks[0].lost_before == 0
                and size + self._blocks[0].samples.size <= join_samples
            ):
                taken.append(self._blocks.popleft())
                size += taken[-1].samples.size
            self._held -= size
            if 2 * self._held <= self._capacity:
                self._grace_s = _GRACE_S
            self.joined += len(taken) - 1
            self._changed.notify_all()
        if len(taken) == 1:
            return taken[0]
        return replace(taken[0], samples=np.concatenate([b.samples for b in taken]), host_ns=taken[-1].host_ns)

    @property
    def fill(self) -> float:
        """Filled share of the capacity."""
        with self._changed:
            return self._held / self._capacity

    @property
    def exhausted(self) -> bool:
        """Whether the writer has ended and everything has been read."""
        with self._changed:
            return self._ended and not self._blocks

    def end(self) -> None:
        """Writer: no more blocks follow."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Reader: no more blocks are wanted."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _drop(self, incoming: AudioBlock) -> AudioBlock:
        oldest = self._blocks.popleft()
        self._held -= oldest.samples.size
        self.dropped += oldest.samples.size
        lost = oldest.lost_before + oldest.samples.size
        if self._blocks:
            self._blocks[0] = replace(self._blocks[0], lost_before=self._blocks[0].lost_before + lost)
            return incoming
        return replace(incoming, lost_before=incoming.lost_before + lost)
