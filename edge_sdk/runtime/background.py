"""A sink in its own thread, for sinks that may be slow: a disk, a network."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_sdk.events import AudioBlock, Event, Health, StreamStats
from edge_sdk.protocols import HealthSink

if TYPE_CHECKING:
    from edge_sdk.protocols import Sink

_log = logging.getLogger(__name__)

WAITING_S = 30.0
"""Seconds of audio that may wait for a slow sink."""

_MOST_EVENTS = 10_000  # that may wait beside the audio
_CLOSE_S = 30.0


class BackgroundSink:
    """Forwards every call to ``sink`` in order, without making the caller wait.

    An exception of the sink is raised from the caller's next call. When more than ``waiting_s`` seconds of audio wait,
    new blocks are skipped; the next forwarded block counts them in ``lost_before``, so that the sink's times stay
    right.

    Parameters
    ----------
    sink
        Called from the new thread only, except ``open``.
    waiting_s
        Limit of the audio that may wait.
    wait
        For a source that can wait: make the caller wait instead of skipping audio.
    """

    def __init__(self, sink: Sink, *, waiting_s: float = WAITING_S, wait: bool = False) -> None:
        self.left_out = 0  # samples that were skipped
        self.left_out_events = 0
        self._sink = sink
        self._waiting_s = waiting_s
        self._wait = wait
        self._capacity = 1
        self._held = 0  # samples waiting
        self._uncounted = 0  # skipped since the last forwarded block
        self._work: deque[tuple[int, Callable[[], None]]] = deque()  # samples, call
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="stetho-sink", daemon=True)

    def open(self, source: str, sample_rate: int) -> None:
        """Open the sink in the caller's thread, then start the new one."""
        self._capacity = max(1, round(self._waiting_s * sample_rate))
        self._sink.open(source, sample_rate)
        self._thread.start()

    def audio(self, block: AudioBlock) -> None:
        """Queue a block; skip it, or wait, where too much audio waits."""
        size = block.samples.size
        with self._changed:
            self._raise()
            while self._held and self._held + size > self._capacity:
                if not self._wait:
                    if not self.left_out:
                        _log.warning("the disk is too slow; audio is missing from the recording")
                    self.left_out += size
                    self._uncounted += block.lost_before + size
                    return
                self._changed.wait(0.1)
                self._raise()
            if self._uncounted:
                block = replace(block, lost_before=block.lost_before + self._uncounted)
                self._uncounted = 0
            self._held += size
        self._put(size, lambda: self._sink.audio(block))

    def event(self, event: Event, latency_ms: float | None) -> None:
        """Queue an event."""
        self._put(0, lambda: self._sink.event(event, latency_ms))

    def health(self, change: Health) -> None:
        """Queue a change of health, if the sink takes them."""
        sink = self._sink
        if isinstance(sink, HealthSink):
            self._put(0, lambda: sink.health(change))

    def close(self, stats: StreamStats) -> None:
        """Wait until everything is forwarded, then close the sink."""
        if not self._thread.is_alive() and self._thread.ident is None:
            self._sink.close(stats)  # open failed
            return
        with self._changed:
            self._work.append((0, lambda: self._sink.close(stats)))
            self._ended = True
            self._changed.notify_all()
        self._thread.join(_CLOSE_S)
        with self._changed:
            if self._thread.is_alive():
                _log.warning("a sink did not finish within %g s", _CLOSE_S)
            self._raise()

    def _put(self, size: int, action: Callable[[], None]) -> None:
        with self._changed:
            self._raise()
            if len(self._work) >= _MOST_EVENTS and not size:
                self.left_out_events += 1
                return
            self._work.append((size, action))
            self._changed.notify_all()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        broken = False
        while True:
            with self._changed:
                while not self._work:
                    if self._ended:
                        return
                    self._changed.wait()
                size, action = self._work.popleft()
                last = self._ended and not self._work
            if not broken or last:  # a sink that failed is still closed
                try:
                    action()
                except BaseException as error:
                    broken = True
                    with self._changed:
                        self._error = self._error or error
            with self._changed:
                self._held -= size
                self._changed.notify_all()
