"""One open PortAudio stream. Its callback only copies into a preallocated ring and notes time, frames and flags."""

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
from edge_sdk.numbers import whole_number

_log = logging.getLogger(__name__)

_RING_S = 4.0  # longest pause of the reader without a dropout
_MAX_CHANNELS = 64

Latency: TypeAlias = float | Literal["low", "high"]
"""Seconds, or the device's own low or high latency."""

_NO_PORTAUDIO = (
    "microphones need the PortAudio library; install libportaudio2 (Debian, Ubuntu: apt install libportaudio2) "
    "or portaudio (Fedora, Homebrew)"
)


def portaudio() -> Any:
    """Import and return the ``sounddevice`` module.

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
class CaptureRequest:
    """The device to open, and how."""

    device: str | int | None  # None: the system's default
    sample_rate: int | None  # Hz; None: the device's default
    exactly: bool  # accept no other rate
    block_s: float  # 0: the audio system's choice
    latency: Latency
    channel: int | Literal["mix"]

    @property
    def name(self) -> str:
        """``mic``, or ``mic:DEVICE``."""
        return "mic" if self.device is None else f"mic:{self.device}"


@dataclass(frozen=True, slots=True)
class Stamp:
    """Data of one callback, and of those before it whose frames did not fit into the ring."""

    frames: int
    now_ns: int  # monotonic host clock
    flags: int  # callbacks with an overflow flag
    callbacks: int
    overrun: int  # frames dropped because the ring was full


class Capture:
    """An open stream and its ring: PortAudio's thread writes, one other thread reads."""

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
        self.dead = False  # closed: no more frames will arrive
        self._clock_ns = clock_ns
        self._capacity = max(round(_RING_S * rate), 4 * block_frames)
        self._ring = np.zeros((self._capacity, channels), np.float32)
        self._written = self._read = 0  # frames since the start
        self._stamps: SimpleQueue[Stamp | None] = SimpleQueue()
        self._overrun = self._flags = self._callbacks = 0  # since the last stamp
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
        """Start the callbacks."""
        self._stream.start()

    def take(self, timeout_s: float) -> tuple[npt.NDArray[np.float32], Stamp] | None:
        """Return the frames ``[n, channels]`` of the next callback; None after the timeout or when closed."""
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
        """Close with ``abort``, never ``stop``: if the device is gone, ``stop`` never returns."""
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
    """Restart PortAudio so that it finds new devices. Does nothing while another stream of this process is open."""
    with _opened_lock:
        if not _opened:
            sd._terminate()
            sd._initialize()


def find_input(sd: Any, device: str | int | None) -> dict[str, Any]:
    """Return PortAudio's description of the input device with this number, name or part of a name.

    Raises
    ------
    SourceError
        If none or several match; the message lists them.
    """
    inputs = [dict(found, index=k) for k, found in enumerate(sd.query_devices()) if found["max_input_channels"] > 0]
    if not inputs:
        raise SourceError("this machine has no microphone; connect one and see 'stetho devices'")
    names = ", ".join(found["name"] for found in inputs)
    if device is None:
        default = sd.default.device[0]
        return next((found for found in inputs if found["index"] == default), inputs[0])
    number = device if isinstance(device, int) else whole_number(device)
    if isinstance(device, int) or number is not None:
        for found in inputs:
            if found["index"] == number:
                return found
        raise SourceError(f"microphone {device} does not exist; there is: {names} ('stetho devices' has the numbers)")
    exact = [found for found in inputs if found["name"] == device]
    matching = exact or [found for found in inputs if device.casefold() in found["name"].casefold()]
    if not matching:
        raise SourceError(f"no microphone matches {device!r}; there is: {names}")
    if len(matching) > 1 and not exact:
        several = ", ".join(f"{found['index']} {found['name']}" for found in matching)
        raise SourceError(f"{device!r} matches several microphones ({several}); name one by its number")
    return matching[0]


def open_capture(sd: Any, request: CaptureRequest, clock_ns: Callable[[], int] = time.monotonic_ns) -> Capture:
    """Find the device and open it, at its own rate if it does not support the requested one.

    Raises
    ------
    SourceError
        If no device or several match, the channel does not exist, or the device cannot be opened.
    """
    found = find_input(sd, request.device)
    channels = _channels(found, request)
    own, requested = round(found["default_samplerate"]), request.sample_rate
    rates = [own] if requested is None else [requested]
    if not request.exactly and own not in rates:
        rates.append(own)
    failure: Exception | None = None
    for rate in rates:
        try:
            return Capture(sd, found, rate, channels, round(request.block_s * rate), request.latency, clock_ns)
        except (sd.PortAudioError, ValueError) as error:
            failure = failure or error
    raise SourceError(f"cannot open {request.name}: {failure}; see 'stetho devices' for what there is") from failure


def _channels(found: dict[str, Any], request: CaptureRequest) -> int:
    available = min(int(found["max_input_channels"]), _MAX_CHANNELS)
    if request.channel == "mix":
        return available
    if not 0 <= request.channel < available:
        choices = "0" if available == 1 else f"0 to {available - 1}, or mix"
        raise SourceError(f"{request.name} has no channel {request.channel}; choose {choices}")
    return request.channel + 1
