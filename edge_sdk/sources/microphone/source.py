"""A microphone, or a stethoscope that looks like one, through PortAudio; every lost sample is counted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import SourceError, SourceLostError
from edge_sdk.events import AudioBlock
from edge_sdk.sources.microphone.dropouts import LossMeter
from edge_sdk.sources.microphone.portaudio import Capture, Latency, Request, Stamp, enumerate_again, open_capture
from edge_sdk.sources.microphone.process import ChildCapture

_log = logging.getLogger(__name__)

BLOCK_S = 0.02
"""Seconds a block, where the caller does not say."""

_SILENT_S = 1.0  # without a callback: the device has gone
_SILENT_BLOCKS = 10  # the same for very long blocks
_POLL_S = 0.1
Opened: TypeAlias = Capture | ChildCapture


@dataclass(frozen=True, slots=True)
class CaptureStats:
    """What the audio system did; a snapshot."""

    callbacks: int = 0
    flags: int = 0  # callbacks with an overflow flag; it need not be true
    overrun: int = 0  # samples that came while the ring was full
    missing: int = 0  # samples that never came, by the clock
    away: int = 0  # samples of the time the device was gone, by the clock
    reconnects: int = 0


class MicrophoneSource:
    """Captures one channel of an input device.

    PortAudio runs in a process of its own: when a device goes, its ALSA thread may spin for ever and let neither
    ``abort`` nor the end of the process pass; a process can be killed. When the device vanishes the iterator raises
    ``SourceLostError``; after a successful :meth:`reopen` it can be iterated again and goes on with the same count of
    samples. Sound lost by the audio system or while the device was away is estimated by the clock, sound lost because
    nobody read is exact.

    Parameters
    ----------
    device
        Number, exact name or a part of the name of an input device; None is the system's default.
    sample_rate
        Hz to ask for. A device that lacks it is opened at its own, and the stream resamples.
    block_s
        Seconds a callback; 0 leaves it to the audio system, sizes then vary.
    latency
        What the audio system may buffer.
    channel
        Number from 0, or ``"mix"`` for the mean of all.
    backend
        A module like ``sounddevice``, to be used in this process instead (``portaudio()`` in a frozen program, which
        has no interpreter to start).

    Raises
    ------
    MissingDependencyError
        PortAudio is not installed.
    SourceError
        No such device, several that match, no such channel, or it cannot be opened.
    """

    live = True

    def __init__(
        self,
        device: str | int | None = None,
        *,
        sample_rate: int | None = None,
        block_s: float = BLOCK_S,
        latency: Latency = "low",
        channel: int | Literal["mix"] = 0,
        backend: Any = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if block_s < 0 or (sample_rate is not None and sample_rate < 1):
            raise SourceError("a microphone needs a positive rate and a block length of 0 s or more")
        self._request = Request(device, sample_rate, False, block_s, latency, channel)
        self._sd = backend
        self._clock_ns = clock_ns
        self._closed = threading.Event()
        self._next = 0  # index of the next sample
        self._end_ns: int | None = None  # when the last sample before it was captured
        self._totals = dict.fromkeys(CaptureStats.__slots__, 0)
        self._capture: Opened | None = self._open()
        self._fresh = False  # nothing has been heard since the device was opened again
        self._rate, self._device_name = self._capture.rate, self._capture.device_name
        if sample_rate not in (None, self._rate):
            _log.warning("%s lacks %d Hz; it is opened at its own %d Hz", self.name, sample_rate, self._rate)

    @property
    def name(self) -> str:
        """``mic``, or ``mic:NAME`` as asked for."""
        return self._request.name

    @property
    def sample_rate(self) -> int:
        """Hz, what the device really delivers."""
        return self._rate

    @property
    def stats(self) -> CaptureStats:
        """Counters so far."""
        return CaptureStats(**self._totals)

    def __iter__(self) -> Iterator[AudioBlock]:
        capture = self._capture
        if capture is None:
            raise SourceError(f"{self.name} is not open; call reopen() or make a new source")
        meter = LossMeter(self._rate)
        silent_ns = round(1e9 * max(_SILENT_S, _SILENT_BLOCKS * self._request.block_s))
        try:
            capture.start()
        except Exception as error:
            raise self._lost(f"could not be started ({error})") from error
        heard_ns = self._clock_ns()
        while not self._closed.is_set():
            taken = capture.take(_POLL_S)
            if self._closed.is_set():
                return
            if taken is not None:
                heard_ns = taken[1].now_ns
                yield self._block(*taken, meter)
            elif capture.dead or self._clock_ns() - heard_ns > silent_ns:
                raise self._lost("stopped delivering sound")

    def reopen(self) -> None:
        """Look for the device again and open it.

        Raises
        ------
        SourceError
            It is not back yet, or came back with another rate.
        """
        if self._closed.is_set():
            raise SourceError(f"{self.name} was closed; make a new source")
        self._release()
        if self._sd is not None:
            enumerate_again(self._sd)
        self._capture = self._open(again=True)
        self._fresh = True
        self._totals["reconnects"] += 1
        if self._closed.is_set():
            self._release()

    def close(self) -> None:
        """Let go of the device; iterating ends. May be called twice and from another thread."""
        self._closed.set()
        self._release()

    def __enter__(self) -> MicrophoneSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the device ----------------------------------------------------------------------------------------------------

    def _open(self, *, again: bool = False) -> Opened:
        request = self._request
        if again:  # numbers and the default may have changed
            request = replace(request, device=self._device_name, sample_rate=self._rate, exactly=True)
        if self._sd is not None:
            return open_capture(self._sd, request, self._clock_ns)
        return ChildCapture(request)

    def _lost(self, what: str) -> SourceLostError:
        self._release()
        return SourceLostError(f"{self.name} {what}; check that it is plugged in")

    def _release(self) -> None:
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.close()

    # -- blocks --------------------------------------------------------------------------------------------------------

    def _block(self, frames: npt.NDArray[np.float32], stamp: Stamp, meter: LossMeter) -> AudioBlock:
        came = len(frames) + stamp.overrun
        missing = meter.accept(came, stamp.now_ns, flagged=stamp.flags > 0)
        lost = stamp.overrun + missing + self._away(came, stamp.now_ns)
        self._totals["callbacks"] += stamp.callbacks
        self._totals["flags"] += stamp.flags
        self._totals["overrun"] += stamp.overrun
        self._totals["missing"] += missing
        channel = self._request.channel
        samples = frames.mean(axis=1) if channel == "mix" else frames[:, channel]
        first = self._next + lost
        self._next = first + len(frames)
        self._end_ns = stamp.now_ns
        return AudioBlock(np.ascontiguousarray(samples, np.float32), self._rate, first, stamp.now_ns, lost)

    def _away(self, came: int, now_ns: int) -> int:
        """Samples of the time without a device, told with the first block after it."""
        fresh, self._fresh = self._fresh, False
        if not fresh or self._end_ns is None:
            return 0
        away = max(0, round((now_ns - self._end_ns) * self._rate / 1e9) - came)
        self._totals["away"] += away
        return away
