"""A microphone, or a stethoscope that looks like one, through PortAudio; every lost sample is counted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import MissingDependencyError, SourceError, SourceLostError
from edge_sdk.events import AudioBlock
from edge_sdk.sources.loss import LossMeter

_log = logging.getLogger(__name__)

BLOCK_S = 0.02
"""Seconds a block, where the caller does not say."""

_RING_S = 4.0  # survives a reader that is away for so long
_SILENT_S = 1.0  # without a callback: the device has gone
_SILENT_BLOCKS = 10  # the same for very long blocks
_POLL_S = 0.1
_MAX_CHANNELS = 64

Latency: TypeAlias = float | Literal["low", "high"]
"""Seconds, or the device's own idea of low and high."""

_NO_PORTAUDIO = (
    "microphones need the PortAudio library; install libportaudio2 (Debian, Ubuntu: apt install libportaudio2) "
    "or portaudio (Fedora, Homebrew)"
)


@dataclass(frozen=True, slots=True)
class CaptureStats:
    """What the audio system did; a snapshot."""

    callbacks: int = 0
    flags: int = 0  # callbacks with an overflow flag; it need not be true
    overrun: int = 0  # samples that came while the ring was full
    missing: int = 0  # samples that never came, by the clock
    away: int = 0  # samples of the time the device was gone, by the clock
    reconnects: int = 0


def portaudio() -> Any:
    """The ``sounddevice`` module.

    Raises
    ------
    MissingDependencyError
        If it or the system's PortAudio is missing; the message names the package.
    """
    try:
        import sounddevice
    except OSError as error:
        raise MissingDependencyError(f"{_NO_PORTAUDIO} ({error})") from error
    except ImportError as error:
        raise MissingDependencyError("microphones need the package sounddevice; pip install sounddevice") from error
    return sounddevice


class MicrophoneSource:
    """Captures one channel of an input device.

    PortAudio's callback only copies into a ring made beforehand and notes time, frames and flags; everything else
    happens in the thread that iterates. When the device vanishes the iterator raises ``SourceLostError``; after a
    successful :meth:`reopen` it can be iterated again and goes on with the same count of samples. Sound lost by the
    audio system or while the device was away is estimated by the clock, sound lost because nobody read is exact.

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
        self._sd = portaudio() if backend is None else backend
        self._device, self._block_s, self._latency, self._channel = device, block_s, latency, channel
        self._clock_ns = clock_ns
        self._closed = threading.Event()
        self._next = 0  # index of the next sample
        self._end_ns: int | None = None  # when the last sample before it was captured
        self._totals = dict.fromkeys(CaptureStats.__slots__, 0)
        self._device_name: str | None = None  # of the device first opened: numbers and the default may change
        self._rate = 0
        self._capture: _Capture | None = None
        self._capture = self._open(sample_rate)

    @property
    def name(self) -> str:
        """``mic``, or ``mic:NAME`` as asked for."""
        return "mic" if self._device is None else f"mic:{self._device}"

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
        silent_ns = round(1e9 * max(_SILENT_S, _SILENT_BLOCKS * self._block_s))
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
            elif self._clock_ns() - heard_ns > silent_ns:
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
        _enumerate_again(self._sd)
        self._capture = self._open(self._rate, exactly=True)
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

    def _open(self, sample_rate: int | None, *, exactly: bool = False) -> _Capture:
        found = find_input(self._sd, self._device_name or self._device)
        channels = self._channels(found)
        own = round(found["default_samplerate"])
        rates = [own] if sample_rate is None else [sample_rate] if exactly else list(dict.fromkeys([sample_rate, own]))
        failure: Exception | None = None
        for rate in rates:
            try:
                capture = _Capture(
                    self._sd, found["index"], rate, channels, round(self._block_s * rate), self._latency, self._clock_ns
                )
            except (self._sd.PortAudioError, ValueError) as error:
                failure = failure or error
                continue
            if sample_rate not in (None, rate):
                _log.warning("%s lacks %d Hz; it is opened at its own %d Hz", self.name, sample_rate, rate)
            self._rate, self._device_name = rate, found["name"]
            return capture
        raise SourceError(f"cannot open {self.name}: {failure}; see 'stetho devices' for what there is") from failure

    def _channels(self, found: dict[str, Any]) -> int:
        there = min(int(found["max_input_channels"]), _MAX_CHANNELS)
        if self._channel == "mix":
            return there
        if not 0 <= self._channel < there:
            choices = "0" if there == 1 else f"0 to {there - 1}, or mix"
            raise SourceError(f"{self.name} has no channel {self._channel}; choose {choices}")
        return self._channel + 1

    def _lost(self, what: str) -> SourceLostError:
        self._release()
        return SourceLostError(f"{self.name} {what}; check that it is plugged in")

    def _release(self) -> None:
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.close()

    # -- blocks --------------------------------------------------------------------------------------------------------

    def _block(self, frames: npt.NDArray[np.float32], stamp: _Stamp, meter: LossMeter) -> AudioBlock:
        came = len(frames) + stamp.overrun
        missing = meter.accept(came, stamp.now_ns, flagged=stamp.flags > 0)
        lost = stamp.overrun + missing + self._away(came, stamp.now_ns)
        self._totals["callbacks"] += stamp.callbacks
        self._totals["flags"] += stamp.flags
        self._totals["overrun"] += stamp.overrun
        self._totals["missing"] += missing
        samples = frames.mean(axis=1) if self._channel == "mix" else frames[:, self._channel]
        first = self._next + lost
        self._next = first + len(frames)
        self._end_ns = stamp.now_ns
        return AudioBlock(np.ascontiguousarray(samples, np.float32), self._rate, first, stamp.now_ns, lost)

    def _away(self, came: int, now_ns: int) -> int:
        """Samples of the time without a device, told with the first block after it."""
        if self._capture is None or self._capture.known or self._end_ns is None:
            away = 0
        else:
            away = max(0, round((now_ns - self._end_ns) * self._rate / 1e9) - came)
        if self._capture is not None:
            self._capture.known = True
        self._totals["away"] += away
        return away


@dataclass(frozen=True, slots=True)
class _Stamp:
    """One callback, and those before it whose frames found no room."""

    frames: int
    now_ns: int
    flags: int
    callbacks: int
    overrun: int


class _Capture:
    """One open PortAudio stream and its ring: written by PortAudio's thread, read by one other."""

    def __init__(
        self,
        sd: Any,
        device: int,
        rate: int,
        channels: int,
        block_frames: int,
        latency: Latency,
        clock_ns: Callable[[], int],
    ) -> None:
        self.known = False  # the reader has seen a block of it
        self._clock_ns = clock_ns
        self._capacity = max(round(_RING_S * rate), 4 * block_frames)
        self._ring = np.zeros((self._capacity, channels), np.float32)
        self._written = self._read = 0  # frames, ever
        self._stamps: SimpleQueue[_Stamp | None] = SimpleQueue()
        self._overrun = self._flags = self._callbacks = 0  # not yet in a stamp
        self._lock = threading.Lock()
        with _opened_lock:
            self._stream = sd.InputStream(
                samplerate=rate,
                blocksize=block_frames,
                device=device,
                channels=channels,
                dtype="float32",
                latency=latency,
                callback=self._callback,
            )
            _opened.add(self)

    def start(self) -> None:
        self._stream.start()

    def take(self, timeout_s: float) -> tuple[npt.NDArray[np.float32], _Stamp] | None:
        """The next callback's frames, ``[n, channels]``; None after the timeout or when closed."""
        try:
            stamp = self._stamps.get(timeout=timeout_s)
        except Empty:
            return None
        if stamp is None:
            return None
        begin = self._read % self._capacity
        head = min(stamp.frames, self._capacity - begin)
        frames = np.concatenate((self._ring[begin : begin + head], self._ring[: stamp.frames - head]))
        self._read += stamp.frames
        return frames, stamp

    def close(self) -> None:
        """``abort``, never ``stop``: of a device that has gone, ``stop`` never returns."""
        with self._lock:
            stream, self._stream = self._stream, None
            if stream is None:
                return
            try:
                stream.abort()
            except Exception:
                _log.debug("abort of a stream failed", exc_info=True)
            try:
                stream.close()
            except Exception:
                _log.debug("close of a stream failed", exc_info=True)
        with _opened_lock:
            _opened.discard(self)
        self._stamps.put(None)

    def _callback(self, indata: npt.NDArray[np.float32], frames: int, _time: Any, status: Any) -> None:
        now_ns = self._clock_ns()
        self._callbacks += 1
        self._flags += bool(status.input_overflow)
        if self._written + frames - self._read > self._capacity:
            self._overrun += frames
            return
        begin = self._written % self._capacity
        head = min(frames, self._capacity - begin)
        self._ring[begin : begin + head] = indata[:head]
        self._ring[: frames - head] = indata[head:]
        self._written += frames
        self._stamps.put(_Stamp(frames, now_ns, self._flags, self._callbacks, self._overrun))
        self._overrun = self._flags = self._callbacks = 0


_opened: set[_Capture] = set()
_opened_lock = threading.Lock()


def _enumerate_again(sd: Any) -> None:
    """PortAudio sees new devices only after a restart, which would kill whatever else is open in this process."""
    with _opened_lock:
        if not _opened:
            sd._terminate()
            sd._initialize()


def find_input(sd: Any, device: str | int | None) -> dict[str, Any]:
    """The input device that is meant: PortAudio's own description.

    Raises
    ------
    SourceError
        None matches, or several do; the message lists them.
    """
    inputs = [dict(found, index=k) for k, found in enumerate(sd.query_devices()) if found["max_input_channels"] > 0]
    if not inputs:
        raise SourceError("this machine has no microphone; connect one and see 'stetho devices'")
    there = ", ".join(found["name"] for found in inputs)
    if device is None:
        default = sd.default.device[0]
        return next((found for found in inputs if found["index"] == default), inputs[0])
    if isinstance(device, int) or device.isdecimal():
        for found in inputs:
            if found["index"] == int(device):
                return found
        raise SourceError(f"microphone {device} does not exist; there is: {there} ('stetho devices' has the numbers)")
    exact = [found for found in inputs if found["name"] == device]
    matching = exact or [found for found in inputs if device.casefold() in found["name"].casefold()]
    if not matching:
        raise SourceError(f"no microphone matches {device!r}; there is: {there}")
    if len(matching) > 1 and not exact:
        several = ", ".join(f"{found['index']} {found['name']}" for found in matching)
        raise SourceError(f"{device!r} matches several microphones ({several}); name one by its number")
    return matching[0]
