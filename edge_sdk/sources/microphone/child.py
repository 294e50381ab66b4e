"""Main program of the process behind ``ChildCapture``: opens a device and writes its audio to stdout."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

from edge_sdk.errors import StethoError
from edge_sdk.sources.microphone.portaudio import CaptureRequest, open_capture, portaudio
from edge_sdk.sources.microphone.process import HEADER


def main() -> None:
    """Never returns: it exits with its parent, at once and without PortAudio's cleanup, which may hang."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        request = CaptureRequest(**json.loads(sys.stdin.readline()))
        capture = open_capture(portaudio(), request)
        opened = {"rate": capture.rate, "channels": capture.channels, "name": capture.device_name}
    except StethoError as error:
        _write(json.dumps({"error": type(error).__name__, "message": str(error)}).encode() + b"\n")
        os._exit(1)
    except Exception as error:
        message = f"the audio system failed ({type(error).__name__}: {error}); restart it and see 'stetho doctor'"
        _write(json.dumps({"error": "SourceError", "message": message}).encode() + b"\n")
        os._exit(1)
    _write(json.dumps(opened).encode() + b"\n")
    if not sys.stdin.readline():
        os._exit(0)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        capture.start()
        while True:
            taken = capture.take(1.0)
            if taken is not None:
                frames, stamp = taken
                header = HEADER.pack(stamp.now_ns, stamp.frames, stamp.flags, stamp.callbacks, stamp.overrun)
                _write(header + frames.astype("<f4", copy=False).tobytes())
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        os._exit(1)


def _exit_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
