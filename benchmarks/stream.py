"""The whole pipeline: CPU seconds per hour of sound, delay of paced replay, and cold start of ``stetho screen``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Row, machine_row, percentiles
from edge_sdk.errors import StethoError
from edge_sdk.events import CycleResult, Event
from edge_sdk.runtime.bundle import Bundle, load_bundle
from edge_sdk.sources.phantom import DEFAULT_SEED, PhantomSource

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What to measure."""

    bundle: str = "default"
    artefact: str | None = None
    root: Path | None = None  # folder of real recordings; phantom patients where absent
    minutes: float = 10.0  # of sound pushed through as fast as possible
    paced_s: float = 20.0  # of sound replayed in real time; 0 leaves the row out
    starts: int = 5  # cold starts of ``stetho screen``; 0 leaves the row out
    sample_rate: int = 8000  # of phantom sound


def run(options: StreamOptions, on_step: Callable[[str], None] | None = None) -> Iterator[Row]:
    """Rows: the machine, then throughput, paced replay and cold start, as far as asked for."""
    tell = on_step or (lambda _: None)
    yield machine_row()
    bundle = load_bundle(options.bundle, artefact=options.artefact, allow_untrained=True)
    tell(f"{options.minutes:g} minutes of sound as fast as possible")
    yield throughput(bundle, options)
    if options.paced_s > 0:
        tell(f"{options.paced_s:g} s of sound in real time")
        yield paced(bundle, options)
    if options.starts > 0:
        tell(f"{options.starts} cold starts")
        yield import_time(options)
        if not bundle.untrained:
            yield cold_start(options)


def throughput(bundle: Bundle, options: StreamOptions) -> Row:
    """Process CPU seconds from samples to events, per hour of sound; reading and decoding files is not counted in."""
    sounds = list(_sounds(options))
    seconds = sum(samples.size / rate for samples, rate in sounds)
    cycles, inference_ns = 0, 0
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    for samples, rate in sounds:
        stream = bundle.stream(rate)
        block = max(1, rate // 20)
        for start in range(0, samples.size, block):
            stream.accept(samples[start : start + block])
        stream.finish()
        cycles += stream.stats.cycles
        inference_ns += stream.stats.inference_ns
    cpu_s, wall_s = (time.process_time_ns() - cpu) / 1e9, (time.perf_counter_ns() - wall) / 1e9
    return {
        "benchmark": "stream",
        "subject": _subject(bundle, "throughput"),
        "input": _describe(options),
        "audio_s": seconds,
        "recordings": len(sounds),
        "cycles": cycles,
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "cpu_s_per_hour": cpu_s * 3600 / seconds,
        "classifier_s_per_hour": inference_ns / 1e9 * 3600 / seconds,
        "times_real_time": seconds / wall_s,
    }


def _subject(bundle: Bundle, part: str) -> Row:
    return {
        "model": f"{bundle.manifest.name} {bundle.manifest.version}",
        "artefact": bundle.artefact.format,
        "engine": bundle.engine.name,
        "threads": 1,
        "batch": 1,
        "part": part,
    }


def _describe(options: StreamOptions) -> str:
    return "phantom patients" if options.root is None else f"recordings under {options.root.name}"


def _sounds(options: StreamOptions) -> Iterator[tuple[Samples, int]]:
    """Sound of about the length asked for, in memory so that disks do not count."""
    left = options.minutes * 60
    if options.root is None:
        for index, scenario in enumerate(_cycle(("healthy", "asthma", "pneumonia", "copd"))):
            length = min(60.0, left)
            source = PhantomSource(
                scenario, seed=DEFAULT_SEED + index, duration_s=length, sample_rate=options.sample_rate
            )
            yield np.concatenate([block.samples for block in source]), options.sample_rate
            left -= length
            if left <= 0:
                return
    else:
        from edge_sdk.corpora.audio import read_recording

        files = sorted(p for p in options.root.rglob("*") if p.suffix.lower() in {".wav", ".flac"})
        if not files:
            raise StethoError(f"no wav or flac files under {options.root}; give a folder of recordings")
        for path in files:
            samples, rate = read_recording(path)
            yield samples, rate
            left -= samples.size / rate
            if left <= 0:
                return


def _cycle(names: Sequence[str]) -> Iterator[str]:
    while True:
        yield from names


class _Latencies:
    """A sink that keeps what a person would wait: end of the last sample needed → event at the sink."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def open(self, source: str, sample_rate: int) -> None:
        pass

    def audio(self, block: Any) -> None:
        pass

    def event(self, event: Event, latency_ms: float | None) -> None:
        if isinstance(event, CycleResult) and latency_ms is not None:
            self.seconds.append(latency_ms / 1e3)

    def close(self, stats: Any) -> None:
        pass


def paced(bundle: Bundle, options: StreamOptions) -> Row:
    """Replay in real time through the threaded session; capture-to-event latency of every classified breath."""
    from edge_sdk.runtime.session import Session

    source = PhantomSource(
        "asthma", seed=DEFAULT_SEED, duration_s=options.paced_s, sample_rate=options.sample_rate, paced=True
    )
    sink = _Latencies()
    cpu = time.process_time_ns()
    stats = Session(source, bundle, [sink]).run()
    cpu_s = (time.process_time_ns() - cpu) / 1e9
    row: Row = {
        "benchmark": "stream",
        "subject": _subject(bundle, "paced"),
        "input": "phantom asthma in real time, through source thread, queue and sink",
        "audio_s": options.paced_s,
        "cycles": stats.cycles,
        "lost_samples": stats.samples_lost,
        "cpu_s": cpu_s,
        "cpu_s_per_hour": cpu_s * 3600 / options.paced_s,
    }
    return row | (percentiles(sink.seconds) if sink.seconds else {"n": 0})


def cold_start(options: StreamOptions) -> Row:
    """``stetho screen`` of a 10-s recording in fresh processes: wall time to the end, peak resident memory."""
    import soundfile

    source = PhantomSource("asthma", seed=DEFAULT_SEED, duration_s=10.0, sample_rate=options.sample_rate)
    samples = np.concatenate([block.samples for block in source])
    walls, peaks = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "phantom.wav"
        soundfile.write(path, samples, options.sample_rate)
        command = [sys.executable, "-c", _SCREEN, str(path), options.bundle]
        for _ in range(options.starts):
            before = time.perf_counter_ns()
            done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
            walls.append((time.perf_counter_ns() - before) / 1e9)
            if done.returncode != 0:
                raise StethoError(f"'stetho screen' failed in the cold-start benchmark: {done.stderr.strip()}")
            peaks.append(float(json.loads(done.stderr.splitlines()[-1])["peak_mb"]))
    return {
        "benchmark": "stream",
        "subject": {"model": options.bundle, "artefact": options.artefact, "part": "cold start", "batch": 1},
        "input": "stetho screen --json of a 10-s phantom wav, a fresh process each",
        **percentiles(walls),
        "rss_mb": max(peaks),
    }


def import_time(options: StreamOptions) -> Row:
    """``import edge_sdk`` in fresh processes, measured inside them."""
    code = "import time; t = time.perf_counter(); import edge_sdk; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    walls = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(options.starts + 1)
    ]
    return {
        "benchmark": "stream",
        "subject": {"model": None, "artefact": None, "part": "import edge_sdk", "batch": 1},
        "input": "a fresh process each; the first fills the disk cache and does not count",
        **percentiles(walls[1:]),
    }


_SCREEN = """
import json, sys
from edge_sdk.cli.main import run
try:
    run(["screen", sys.argv[1], "--bundle", sys.argv[2], "--json"])
except SystemExit:
    from benchmarks.harness import peak_rss_mb
    print(json.dumps({"peak_mb": peak_rss_mb()}), file=sys.stderr)
    raise
"""
