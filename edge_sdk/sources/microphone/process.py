"""PortAudio in a process of its own: whatever happens to it when a device goes, the process can be killed."""

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
from edge_sdk.sources.microphone.portaudio import Request, Stamp

_log = logging.getLogger(__name__)

HEADER = struct.Struct("<qIIIQ")
"""Of a packet: host clock in ns, frames, flags, callbacks, overrun; then ``[frames, channels]`` float32."""

_OPEN_S = 20.0  # the child imports, PortAudio asks every driver
_CHUNK = 1 << 18


class ChildCapture:
    """The same as :class:`~edge_sdk.sources.microphone.portaudio.Capture`, from another process.

    Raises
    ------
    SourceError, MissingDependencyError
        What the child met when it opened the device.
    """

    def __init__(self, request: Request) -> None:
        self.dead = False  # closed, or the process has gone: nothing more will come
        self._held = bytearray()
        program = f"import sys; sys.path[:] = {sys.path!r}; from edge_sdk.sources.microphone.child import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if _log.isEnabledFor(logging.DEBUG) else subprocess.DEVNULL,  # PortAudio and ALSA chatter
            start_new_session=True,  # Ctrl-C is ours
        )
        self._readable = select.poll()  # select() knows no descriptor above 1023
        assert self._process.stdout is not None
        self._readable.register(self._process.stdout, select.POLLIN | select.POLLHUP)
        try:
            self._say(json.dumps(asdict(request)))
            opened = self._answer(request)
        except BaseException:
            self.close()
            raise
        self.rate, self.channels, self.device_name = int(opened["rate"]), int(opened["channels"]), str(opened["name"])

    def start(self) -> None:
        self._say("start")

    def take(self, timeout_s: float) -> tuple[npt.NDArray[np.float32], Stamp] | None:
        """The next callback's frames, ``[n, channels]``; None after the timeout or when ``dead``."""
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
        """Kill it. May be called twice and from another thread."""
        self._process.kill()
        self._process.wait()

    def __del__(self) -> None:
        process = getattr(self, "_process", None)
        for pipe in (process.stdin, process.stdout) if process is not None else ():
            with contextlib.suppress(OSError):
                pipe.close()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            self.dead = True

    def _answer(self, request: Request) -> dict[str, Any]:
        deadline = time.monotonic() + _OPEN_S
        while b"\n" not in self._held:
            if not self._fill(len(self._held) + 1, max(0.0, deadline - time.monotonic())):
                raise SourceError(f"cannot open {request.name}: the audio system does not answer; restart it")
        line, _, rest = bytes(self._held).partition(b"\n")
        self._held = bytearray(rest)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind = MissingDependencyError if answer["error"] == MissingDependencyError.__name__ else SourceError
            raise kind(answer["message"])
        return answer

    def _fill(self, size: int, timeout_s: float) -> bool:
        """Whether ``size`` bytes are held, after waiting for them."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        while len(self._held) < size and not self.dead:
            if not self._readable.poll(max(0.0, 1e3 * (deadline - time.monotonic()))):
                return False
            data = os.read(self._process.stdout.fileno(), _CHUNK)
            self.dead = not data
            self._held += data
        return len(self._held) >= size
