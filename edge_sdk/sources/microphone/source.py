"""A microphone, or a stethoscope that appears as one, through PortAudio; dropped samples are counted."""

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
from edge_sdk.sources.microphone.dropouts import DropoutMeter
from edge_sdk.sources.microphone.portaudio import Capture, CaptureRequest, Latency, Stamp, enumerate_again, open_capture
from edge_sdk.sources.microphone.process import ChildCapture

_log = logging.getLogger(__name__)

BLOCK_S = 0.02
"""Default length of a block in seconds."""

_SILENT_S = 1.0  # without a callback: the device is gone
_SILENT_BLOCKS = 10  # the same for very long blocks
_POLL_S = 0.1
AnyCapture: TypeAlias = Capture | ChildCapture


@dataclass(frozen=True, slots=True)
class CaptureStats:
    """Snapshot of the counters of a microphone."""

    callbacks: int = 0
    flags: int = 0  # callbacks with an overflow flag, which may be false
    overrun: int = 0  # samples dropped because the ring was full
    missing: int = 0  # samples dropped by the audio system, estimated by the clock
    away: int = 0  # samples while the device was gone, estimated by the clock
    reconnects: int = 0


class MicrophoneSource:
    """Captures one channel of an input device.

    PortAudio runs in a child process: when a device is unplugged, its ALSA thread may spin forever and block both
    ``abort`` and the end of the process, but a child can be killed. When the device disappears the iterator raises
    ``SourceLostError``; after a successful :meth:`reopen` it can be iterated again and the sample count goes on.
    Samples dropped by the audio system or while the device was gone are estimated by the clock; those dropped because
    the reader was late are counted exactly.

    Parameters
    ----------
    device
        Number, exact name or part of the name of an input device; None is the system's default.
    sample_rate
        Hz to request. A device that does not support it is opened at its own rate, and the stream resamples.
    block_s
        Seconds per callback; 0: the audio system decides, and sizes vary.
    latency
        Audio that the audio system may buffer.
    channel
        Number from 0, or ``"mix"`` for the mean of all.
    backend
        A module like ``sounddevice``, to be used in this process instead of a child (``portaudio()`` in a frozen
        program, which has no interpreter to start).
    clock_ns
        Monotonic host clock in ns.

    Raises
    ------
    MissingDependencyError
        If PortAudio is not installed.
    SourceError
        If no device or several match, the channel does not exist, or the device cannot be opened.
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
        self._request = CaptureRequest(device, sample_rate, False, block_s, latency, channel)
        self._sd = backend
        self._clock_ns = clock_ns
        self._closed = threading.Event()
        self._next = 0  # index of the next sample
        self._end_ns: int | None = None  # when the last sample before it was captured
        self._totals = dict.fromkeys(CaptureStats.__slots__, 0)
        self._capture: AnyCapture | None = self._open()
        self._fresh = False  # no audio since the device was opened again
        self._rate, self._device_name = self._capture.rate, self._capture.device_name
        if sample_rate not in (None, self._rate):
            _log.warning("%s does not support %d Hz; it is opened at its own %d Hz", self.name, sample_rate, self._rate)

    @property
    def name(self) -> str:
        """``mic``, or ``mic:NAME`` as requested."""
        return self._request.name

    @property
    def sample_rate(self) -> int:
        """Rate in Hz that the device delivers."""
        return self._rate

    @property
    def stats(self) -> CaptureStats:
        """Counters so far."""
        return CaptureStats(**self._totals)

    def __iter__(self) -> Iterator[AudioBlock]:
        capture = self._capture
        if capture is None:
            raise SourceError(f"{self.name} is not open; call reopen() or make a new source")
        meter = DropoutMeter(self._rate)
        silent_ns = round(1e9 * max(_SILENT_S, _SILENT_BLOCKS * self._request.block_s))
        try:
            capture.start()
        except Exception as error:
            raise self._source_lost(f"could not be started ({error})") from error
        last_ns = self._clock_ns()
        while not self._closed.is_set():
            taken = capture.take(_POLL_S)
            if self._closed.is_set():
                return
            if taken is not None:
                last_ns = taken[1].now_ns
                yield self._block(*taken, meter)
            elif capture.dead or self._clock_ns() - last_ns > silent_ns:
                raise self._source_lost("stopped delivering audio")

    def reopen(self) -> None:
        """Find the device again and open it.

        Raises
        ------
        SourceError
            If it is not back yet, or came back with another rate.
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
        """Release the device; iterating ends. May be called twice and from another thread."""
        self._closed.set()
        self._release()

    def __enter__(self) -> MicrophoneSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the device ----------------------------------------------------------------------------------------------------

    def _open(self, *, again: bool = False) -> AnyCapture:
        request = self._request
        if again:  # numbers and the default may have changed
            request = replace(request, device=self._device_name, sample_rate=self._rate, exactly=True)
        if self._sd is not None:
            return open_capture(self._sd, request, self._clock_ns)
        return ChildCapture(request)

    def _source_lost(self, what: str) -> SourceLostError:
        self._release()
        return SourceLostError(f"{self.name} {what}; check that it is plugged in")

    def _release(self) -> None:
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.close()

    # -- blocks --------------------------------------------------------------------------------------------------------

    def _block(self, frames: npt.NDArray[np.float32], stamp: Stamp, meter: DropoutMeter) -> AudioBlock:
        received = len(frames) + stamp.overrun
        missing = meter.accept(received, stamp.now_ns, flagged=stamp.flags > 0)
        dropped = stamp.overrun + missing + self._away(received, stamp.now_ns)
        self._totals["callbacks"] += stamp.callbacks
        self._totals["flags"] += stamp.flags
        self._totals["overrun"] += stamp.overrun
        self._totals["missing"] += missing
        channel = self._request.channel
        samples = frames.mean(axis=1) if channel == "mix" else frames[:, channel]
        first = self._next + dropped
        self._next = first + len(frames)
        self._end_ns = stamp.now_ns
        return AudioBlock(np.ascontiguousarray(samples, np.float32), self._rate, first, stamp.now_ns, dropped)

    def _away(self, received: int, now_ns: int) -> int:
        """Samples of the time without a device; counted with the first block after it."""
        fresh, self._fresh = self._fresh, False
        if not fresh or self._end_ns is None:
            return 0
        away = max(0, round((now_ns - self._end_ns) * self._rate / 1e9) - received)
        self._totals["away"] += away
        return away
