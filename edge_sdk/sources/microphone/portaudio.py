"""One open PortAudio stream: its callback only copies into a ring made beforehand and notes time, frames and flags."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import MissingDependencyError, SourceError

_log = logging.getLogger(__name__)

_RING_S = 4.0  # survives a reader that is away for so long
_MAX_CHANNELS = 64

Latency: TypeAlias = float | Literal["low", "high"]
"""Seconds, or the device's own idea of low and high."""

_NO_PORTAUDIO = (
    "microphones need the PortAudio library; install libportaudio2 (Debian, Ubuntu: apt install libportaudio2) "
    "or portaudio (Fedora, Homebrew)"
)


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


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be opened."""

    device: str | int | None  # None: the system's default
    sample_rate: int | None  # Hz; None: the device's own
    exactly: bool  # no other rate will do
    block_s: float  # 0: the audio system's choice
    latency: Latency
    channel: int | Literal["mix"]

    @property
    def name(self) -> str:
        return "mic" if self.device is None else f"mic:{self.device}"


@dataclass(frozen=True, slots=True)
class Stamp:
    """One callback, and those before it whose frames found no room."""

    frames: int
    now_ns: int
    flags: int
    callbacks: int
    overrun: int


class Capture:
    """One open stream and its ring: written by PortAudio's thread, read by one other."""

    def __init__(
        self,
        sd: Any,
        device: dict[str, Any],
        rate: int,
        channels: int,
        block_frames: int,
        latency: Latency,
        clock_ns: Callable[[], int],
    ) -> None:
        self.rate, self.channels, self.device_name = rate, channels, str(device["name"])
        self.dead = False  # closed: nothing more will come
        self._clock_ns = clock_ns
        self._capacity = max(round(_RING_S * rate), 4 * block_frames)
        self._ring = np.zeros((self._capacity, channels), np.float32)
        self._written = self._read = 0  # frames, ever
        self._stamps: SimpleQueue[Stamp | None] = SimpleQueue()
        self._overrun = self._flags = self._callbacks = 0  # not yet in a stamp
        self._lock = threading.Lock()
        with _opened_lock:
            self._stream = sd.InputStream(
                samplerate=rate,
                blocksize=block_frames,
                device=device["index"],
                channels=channels,
                dtype="float32",
                latency=latency,
                callback=self._callback,
            )
            _opened.add(self)

    def start(self) -> None:
        self._stream.start()

    def take(self, timeout_s: float) -> tuple[npt.NDArray[np.float32], Stamp] | None:
        """The next callback's frames, ``[n, channels]``; None after the timeout or when closed."""
        try:
            stamp = self._stamps.get(timeout=timeout_s)
        except Empty:
            return None
        if stamp is None:
            self.dead = True
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
        self._stamps.put(Stamp(frames, now_ns, self._flags, self._callbacks, self._overrun))
        self._overrun = self._flags = self._callbacks = 0


_opened: set[Capture] = set()
_opened_lock = threading.Lock()


def enumerate_again(sd: Any) -> None:
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


def open_capture(sd: Any, request: Request, clock_ns: Callable[[], int] = time.monotonic_ns) -> Capture:
    """Find the device and open it, at its own rate where it lacks the one asked for.

    Raises
    ------
    SourceError
        No such device, several that match, no such channel, or it cannot be opened.
    """
    found = find_input(sd, request.device)
    channels = _channels(found, request)
    own, asked = round(found["default_samplerate"]), request.sample_rate
    rates = [own] if asked is None else [asked] if request.exactly else list(dict.fromkeys([asked, own]))
    failure: Exception | None = None
    for rate in rates:
        try:
            return Capture(sd, found, rate, channels, round(request.block_s * rate), request.latency, clock_ns)
        except (sd.PortAudioError, ValueError) as error:
            failure = failure or error
    raise SourceError(f"cannot open {request.name}: {failure}; see 'stetho devices' for what there is") from failure


def _channels(found: dict[str, Any], request: Request) -> int:
    there = min(int(found["max_input_channels"]), _MAX_CHANNELS)
    if request.channel == "mix":
        return there
    if not 0 <= request.channel < there:
        choices = "0" if there == 1 else f"0 to {there - 1}, or mix"
        raise SourceError(f"{request.name} has no channel {request.channel}; choose {choices}")
    return request.channel + 1
