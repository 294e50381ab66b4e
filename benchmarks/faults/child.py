"""The process that a fault hits: ``python -m benchmarks.faults.child``, then what it does.

``listen PORT BUNDLE`` or ``record FOLDER BYTES BUNDLE``. The last line of its standard output is one JSON object.
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


class Trace:
    """A sink that notes every block: host clock (ns), first sample, samples, lateness (s); says when the first came."""

    def __init__(self, *, announce: bool = False) -> None:
        self.arrivals: list[tuple[int, int, int, float]] = []
        self.events: list[Event] = []
        self.slowness = 0.0  # seconds that a second of sound takes
        self._announce = announce

    def open(self, source: str, sample_rate: int) -> None:
        pass

    def audio(self, block: AudioBlock) -> None:
        now_ns = time.monotonic_ns()
        if self._announce and not self.arrivals:
            _say({"ready": True})
        self.arrivals.append((now_ns, block.first_sample, block.samples.size, (now_ns - block.host_ns) / 1e9))
        spent_until_ns = now_ns + round(self.slowness * block.samples.size / block.sample_rate * 1e9)
        while self.slowness and time.monotonic_ns() < spent_until_ns:  # until told to be quick again
            time.sleep(0.01)

    def event(self, event: Event, latency_ms: float | None) -> None:
        self.events.append(event)

    def close(self, stats: StreamStats) -> None:
        pass


def listen(port: str, bundle_name: str) -> dict[str, Any]:
    """Hear a serial stethoscope to its end."""
    from edge_sdk.runtime.bundle.load import load_bundle
    from edge_sdk.runtime.session import Session
    from edge_sdk.sources.serial import SerialSource

    bundle = load_bundle(bundle_name, allow_untrained=True)
    trace = Trace(announce=True)
    stats = Session(SerialSource(port), bundle, [trace], give_up_s=10.0).run()
    return {"arrivals": trace.arrivals, "samples_in": stats.samples_in, "samples_lost": stats.samples_lost}


def record(folder: str, most_bytes: str, bundle_name: str) -> dict[str, Any]:
    """Record simulated patients where no file may grow beyond ``most_bytes``: what a full disk does, unprivileged."""
    import resource

    from benchmarks.core.live_audio import LiveSound, patient
    from edge_sdk.runtime.background import BackgroundSink
    from edge_sdk.runtime.bundle.load import load_bundle
    from edge_sdk.runtime.session import Session
    from edge_sdk.sinks.recorder import RecorderSink
    from edge_sdk.sinks.summary import Labels

    bundle = load_bundle(bundle_name, allow_untrained=True)
    sound = patient("asthma", _RECORD_RATE_HZ, 10.0)
    source = LiveSound([sound], _RECORD_RATE_HZ, seconds=_RECORD_S)
    trace = Trace()
    labels = Labels(bundle.labels, bundle.manifest.decoder.normal_label)
    sink = BackgroundSink(RecorderSink(Path(folder), labels))
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most_bytes), resource.RLIM_INFINITY))
    error: BaseException | None = None
    try:
        Session(source, bundle, [trace, sink]).run()
    except Exception as problem:  # whatever it is, it is the result
        error = problem
    return {
        "heard": sum(n for _, _, n, _ in trace.arrivals),
        "error": None if error is None else type(error).__name__,
        "typed": isinstance(error, StethoError),
        "message": str(error) if error is not None else "",
    }


def _say(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _task, *_arguments = sys.argv[1:]
    _say(listen(*_arguments) if _task == "listen" else record(*_arguments))
