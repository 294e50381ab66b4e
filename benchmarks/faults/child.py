"""The process that a fault hits: ``python -m benchmarks.faults.child``, then a task with its arguments.

Tasks: ``listen PORT BUNDLE`` and ``record FOLDER BYTES BUNDLE``. The last line on standard output is a JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from edge_sdk.errors import StethoError
from edge_sdk.events import AudioBlock, Event, StreamStats

_RECORD_S = 60.0
_RECORD_RATE_HZ = 8000


class ArrivalSink:
    """A sink that keeps events and the arrival of every block; ``announce`` reports the first block on stdout."""

    def __init__(self, *, announce: bool = False) -> None:
        self.arrivals: list[tuple[int, int, int, float]] = []  # see benchmarks.faults.row.Arrival
        self.events: list[Event] = []
        self.slowness = 0.0  # seconds of delay per second of audio
        self._announce = announce

    def open(self, source: str, sample_rate: int) -> None:
        pass

    def audio(self, block: AudioBlock) -> None:
        now_ns = time.monotonic_ns()
        if self._announce and not self.arrivals:
            _emit({"ready": True})
        self.arrivals.append((now_ns, block.first_sample, block.samples.size, (now_ns - block.host_ns) / 1e9))
        spent_until_ns = now_ns + round(self.slowness * block.samples.size / block.sample_rate * 1e9)
        while self.slowness and time.monotonic_ns() < spent_until_ns:  # until the sink is set to be fast again
            time.sleep(0.01)

    def event(self, event: Event, latency_ms: float | None) -> None:
        self.events.append(event)

    def close(self, stats: StreamStats) -> None:
        pass


def receive_serial(port: str, bundle_name: str) -> dict[str, Any]:
    """Receive a serial stethoscope until it ends."""
    from edge_sdk.runtime.bundle.load import load_bundle
    from edge_sdk.runtime.session import Session
    from edge_sdk.sources.serial import SerialSource

    bundle = load_bundle(bundle_name, allow_untrained=True)
    sink = ArrivalSink(announce=True)
    stats = Session(SerialSource(port), bundle, [sink], give_up_s=10.0).run()
    return {"arrivals": sink.arrivals, "samples_in": stats.samples_in, "samples_lost": stats.samples_lost}


def record(folder: str, most_bytes: str, bundle_name: str) -> dict[str, Any]:
    """Record simulated patients with a limit of ``most_bytes`` per file: like a full disk, without privileges."""
    import resource

    from benchmarks.core.audio import LiveLoopSource, phantom_samples
    from edge_sdk.runtime.background import BackgroundSink
    from edge_sdk.runtime.bundle.load import load_bundle
    from edge_sdk.runtime.session import Session
    from edge_sdk.sinks.recorder import RecorderSink
    from edge_sdk.sinks.summary import Labels

    bundle = load_bundle(bundle_name, allow_untrained=True)
    samples = phantom_samples("asthma", _RECORD_RATE_HZ, 10.0)
    source = LiveLoopSource([samples], _RECORD_RATE_HZ, seconds=_RECORD_S)
    arrival_sink = ArrivalSink()
    labels = Labels(bundle.labels, bundle.manifest.decoder.normal_label)
    recorder = BackgroundSink(RecorderSink(Path(folder), labels))
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most_bytes), resource.RLIM_INFINITY))
    error: BaseException | None = None
    try:
        Session(source, bundle, [arrival_sink, recorder]).run()
    except Exception as problem:  # any error is the result
        error = problem
    return {
        "received": sum(n for _, _, n, _ in arrival_sink.arrivals),
        "error": None if error is None else type(error).__name__,
        "typed": isinstance(error, StethoError),
        "message": str(error) if error is not None else "",
    }


def _emit(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _task, *_arguments = sys.argv[1:]
    _emit(receive_serial(*_arguments) if _task == "listen" else record(*_arguments))
