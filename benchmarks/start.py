"""Cold start: ``stetho screen`` of a 10-s recording and ``import edge_sdk`` in new processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.compare import ratio_interval
from benchmarks.core.audio import phantom_samples
from benchmarks.core.harness import Interrupted, Row, interleave, percentiles
from edge_sdk.errors import StethoError

AUDIO_S, RATE_HZ = 10.0, 8000
REFERENCE = "import numpy, onnxruntime"
"""What every process that runs an ONNX graph pays, in the same rounds: the rest is ours."""

# The last line of a process on stderr: its own peak memory and CPU time, from the start of the interpreter on. It loads
# no module that would be measured too; rusage of the child could hold the peak of the parent before exec.
_REPORT = """
def report():
    import time
    peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    print('{"peak_mb": %s, "cpu_s": %r}' % (int(peak[0]) / 1024, time.process_time()), file=__import__("sys").stderr)
"""
_SCREEN = (
    _REPORT
    + """
import sys
from edge_sdk.cli.main import run
sys.argv = ["stetho", "screen", sys.argv[1], "--bundle", sys.argv[2], *sys.argv[3:], "--json"]
try:
    run()  # without arguments: the process is the command, as a user's is
finally:
    report()
"""
)
_PROGRAMS: Mapping[str, str] = {
    "cold start": _SCREEN,
    "import edge_sdk": _REPORT + "import edge_sdk; report()",
    "import edge_sdk.screen": _REPORT + "from edge_sdk import screen; report()",
    REFERENCE: _REPORT + "import numpy, onnxruntime; report()",
}


def start_rows(bundle: str, artefact: str | None, *, starts: int, screens: bool = True) -> Iterator[Row]:
    """Rows: each program in new processes, all in the same rounds; the first round fills the disk cache.

    ``cpu_ratio`` is the CPU time divided by that of :data:`REFERENCE` in the same round, median and 95 % interval.

    Parameters
    ----------
    bundle, artefact
        Of ``stetho screen``.
    starts
        Measured processes of each program.
    screens
        Whether the bundle can screen; an untrained one cannot.

    Raises
    ------
    StethoError
        A program failed.
    """
    programs = {name: code for name, code in _PROGRAMS.items() if screens or code is not _SCREEN}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}  # CPU seconds, peak MB
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "phantom.wav"
        soundfile.write(path, phantom_samples("asthma", RATE_HZ, AUDIO_S), RATE_HZ)
        arguments = [str(path), bundle, *(["--artefact", artefact] if artefact else [])]
        warm_up, interrupted = min(1, starts - 1), False  # a single round is a quick form
        try:
            timings = interleave(
                {name: _starter(name, code, arguments, spent[name]) for name, code in programs.items()},
                rounds=starts,
                warm_up=warm_up,
            )
        except Interrupted as stopped:
            timings, interrupted = stopped.timings, True
    count = len(timings[REFERENCE]["seconds"])
    cpu = {name: [one[0] for one in figures[warm_up : warm_up + count]] for name, figures in spent.items()}
    for name in programs:
        screening = name == "cold start"
        row: Row = {
            "benchmark": "stream",
            "subject": {
                "model": bundle if screening else None,
                "artefact": artefact if screening else None,
                "part": name,
                "batch": 1,
            },
            "input": f"stetho screen --json of a {AUDIO_S:g}-s phantom wav, a new process each"
            if screening
            else "a new process each",
            **percentiles(timings[name]["seconds"]),
            "cpu_s": float(np.sum(cpu[name])),
            "cpu_ms": 1e3 * float(np.median(cpu[name])),
            "rss_mb": max(one[1] for one in spent[name]),
            "samples_ms": [round(1e3 * s, 4) for s in cpu[name]],
        }
        if name != REFERENCE:
            ratio, low, high = ratio_interval(cpu[name], cpu[REFERENCE], paired=True)
            row |= {"cpu_ratio": ratio, "cpu_ratio_low": low, "cpu_ratio_high": high, "reference": REFERENCE}
        yield row
    if interrupted:
        raise KeyboardInterrupt


class _Start:
    """Starts one program and keeps its CPU time and peak memory."""

    def __init__(self, name: str, command: Sequence[str], spent: list[tuple[float, float]]) -> None:
        self.name, self.command, self.spent = name, command, spent

    def __call__(self, _: int) -> None:
        done = subprocess.run(self.command, capture_output=True, text=True, check=False, env={**os.environ})
        lines = done.stderr.strip().splitlines()
        if done.returncode != 0 or not lines:
            reason = lines[0] if lines else f"status {done.returncode}"
            raise StethoError(f"{self.name} failed in the benchmark of the start: {reason}")
        figures = json.loads(lines[-1])
        self.spent.append((float(figures["cpu_s"]), float(figures["peak_mb"])))


def _starter(name: str, code: str, arguments: Sequence[str], spent: list[tuple[float, float]]) -> _Start:
    return _Start(name, [sys.executable, "-c", code, *arguments], spent)
