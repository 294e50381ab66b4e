"""Runs PortAudio in a child process: if it hangs when a device is unplugged, the process can be killed."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import struct
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import MissingDependencyError, SourceError
from edge_sdk.sources.microphone.portaudio import CaptureRequest, Stamp

_log = logging.getLogger(__name__)

HEADER = struct.Struct("<qIIIQ")
"""Header of a packet: host clock in ns, frames, flags, callbacks, overrun; ``[frames, channels]`` float32 follow."""

_OPEN_S = 20.0  # the child imports, PortAudio queries every driver
_CHUNK = 1 << 18


class ChildCapture:
    """The interface of :class:`~edge_sdk.sources.microphone.portaudio.Capture` to a capture in a child process.

    Raises
    ------
    SourceError, MissingDependencyError
        The error of the child when it opened the device.
    """

    def __init__(self, request: CaptureRequest) -> None:
        self.dead = False  # closed, or the process has exited: no more frames will arrive
        self._held = bytearray()
        program = f"import sys; sys.path[:] = {sys.path!r}; from edge_sdk.sources.microphone.child import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if _log.isEnabledFor(logging.DEBUG) else subprocess.DEVNULL,  # PortAudio and ALSA chatter
            start_new_session=True,  # Ctrl-C must not reach the child
        )
        self._readable = select.poll()  # select() supports no descriptor above 1023
        assert self._process.stdout is not None
        self._readable.register(self._process.stdout, select.POLLIN | select.POLLHUP)
        try:
            self._send_line(json.dumps(asdict(request)))
            opened = self._receive_opened(request)
        except BaseException:
            self.close()
            raise
        self.rate, self.channels, self.device_name = int(opened["rate"]), int(opened["channels"]), str(opened["name"])

    def start(self) -> None:
        """Start the callbacks."""
        self._send_line("start")

    def take(self, timeout_s: float) -> tuple[npt.NDArray[np.float32], Stamp] | None:
        """Return the frames ``[n, channels]`` of the next callback; None after the timeout or when ``dead``."""
        if not self._fill(HEADER.size, timeout_s):
            return None
        now_ns, frames, flags, callbacks, overrun = HEADER.unpack_from(self._held)
        size = HEADER.size + 4 * frames * self.channels
        if not self._fill(size, timeout_s):
            return None
        samples = np.frombuffer(bytes(self._held[HEADER.size : size]), "<f4").reshape(frames, self.channels)
        del self._held[:size]
        return samples.astype(np.float32, copy=False), Stamp(frames, now_ns, flags, callbacks, overrun)

    def close(self) -> None:
        """Kill the process. May be called twice and from another thread."""
        self._process.kill()
        self._process.wait()

    def __del__(self) -> None:
        process = getattr(self, "_process", None)
        for pipe in (process.stdin, process.stdout) if process is not None else ():
            with contextlib.suppress(OSError):
                pipe.close()

    def _send_line(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            self.dead = True

    def _receive_opened(self, request: CaptureRequest) -> dict[str, Any]:
        deadline = time.monotonic() + _OPEN_S
        while b"\n" not in self._held:
            if not self._fill(len(self._held) + 1, max(0.0, deadline - time.monotonic())):
                raise SourceError(f"cannot open {request.name}: the audio system does not respond; restart it")
        line, _, rest = bytes(self._held).partition(b"\n")
        self._held = bytearray(rest)
        opened: dict[str, Any] = json.loads(line)
        if "error" in opened:
            kind = MissingDependencyError if opened["error"] == MissingDependencyError.__name__ else SourceError
            raise kind(opened["message"])
        return opened

    def _fill(self, size: int, timeout_s: float) -> bool:
        """Wait for ``size`` bytes; whether they are held now."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        while len(self._held) < size and not self.dead:
            if not self._readable.poll(max(0.0, 1e3 * (deadline - time.monotonic()))):
                return False
            data = os.read(self._process.stdout.fileno(), _CHUNK)
            self.dead = not data
            self._held += data
        return len(self._held) >= size
