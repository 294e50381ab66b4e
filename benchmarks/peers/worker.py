"""One workload of ``bench peers`` in a process of its own: ``python worker.py WORKLOAD SETTINGS.json``.

Needs only numpy and the peer. Responds to every line on standard input with one JSON object: ``go`` does one unit of
work and returns its CPU and wall seconds, ``profile`` returns CPU seconds by stage.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: F401  from the environment of the peer, before the paths change

if TYPE_CHECKING:
    from benchmarks.peers.workload import PeerWorkload

WORKLOADS = {
    "front-end/ours": ("front_ends", "OurFrontEnd"),
    "front-end/kaldi-native-fbank": ("front_ends", "KnfFrontEnd"),
    "front-end/torchaudio": ("front_ends", "TorchaudioFrontEnd"),
    "front-end/librosa": ("front_ends", "LibrosaFrontEnd"),
    "inference/ours": ("inference", "OurInference"),
    "inference/torch-eager": ("inference", "TorchInference"),
    "inference/torch-compile": ("inference", "CompiledInference"),
    "inference/onnxruntime-default": ("inference", "DefaultOrtInference"),
    "stream/ours": ("streaming", "OurStream"),
    "stream/silero-vad": ("streaming", "Silero"),
    "windows/ours": ("windows", "OurScreening"),
    "windows/birdnet": ("windows", "BirdNet"),
    "windows/yamnet": ("windows", "Yamnet"),
    "events/ours": ("event_scores", "OurEvents"),
    "events/sed_eval": ("event_scores", "SedEval"),
}
"""Name → module of this folder, class."""


def make_workload(name: str, settings: dict[str, Any]) -> PeerWorkload:
    """Prepare one of :data:`WORKLOADS`; any exception of its library is passed on."""
    module, kind = WORKLOADS[name]
    workload: PeerWorkload = getattr(importlib.import_module(f"benchmarks.peers.{module}"), kind)(settings)
    return workload


def serve(workload: PeerWorkload) -> None:
    """Respond to the commands on standard input until it ends."""
    _respond({"ready": True, **workload.about})
    for line in sys.stdin:
        if line.strip() == "profile":
            _respond(workload.profile())
            continue
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        workload.go()
        _respond({"wall_s": (time.perf_counter_ns() - wall) / 1e9, "cpu_s": (time.process_time_ns() - cpu) / 1e9})


def reason(error: Exception) -> str:
    """One line; compilers report hundreds."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _respond(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _settings = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    sys.path[:1] = _settings.get("paths", [])  # instead of this folder, whose names could hide those of libraries
    try:
        _workload = make_workload(sys.argv[1], _settings)
    except Exception as error:  # the parent process reports it
        _respond({"failed": reason(error)})
        raise SystemExit(0) from None
    serve(_workload)
