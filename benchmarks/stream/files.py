"""The same audio live, in blocks, and as a file at once: CPU seconds per hour of both, in the same rounds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile

import edge_sdk
from benchmarks.compare import ratio_interval
from benchmarks.core.audio import PreloadedRecording
from benchmarks.core.energy import EnergyMeter
from benchmarks.core.harness import Interrupted, Row, interleave, percentiles, pinned
from benchmarks.core.rows import benchmarked_model
from edge_sdk.events import CycleResult
from edge_sdk.runtime.bundle.load import Bundle

LIVE_BLOCK_S = 0.1


def live_and_files(
    bundle: Bundle, recordings: Iterable[PreloadedRecording], *, rounds: int, audio: str, on_round: OnRound = None
) -> Iterator[Row]:
    """Rows: live (blocks of 100 ms through a stream) and files (``edge_sdk.screen``), in one process on one core.

    Both begin with samples at the rate of the recording; ``screen`` also opens the wav file and gives a verdict.
    ``cpu_ratio`` of files is its CPU time divided by that of live in the same round, median and 95 % interval.

    Parameters
    ----------
    recordings
        One unit of work is all of them.
    audio
        What they are, in words.
    """
    with tempfile.TemporaryDirectory() as directory, pinned(1) as cores:
        paths, kept = [], list(recordings)
        for number, recording in enumerate(kept):
            paths.append(Path(directory) / f"{number}.wav")
            soundfile.write(paths[-1], recording.samples, recording.rate_hz, subtype="FLOAT")
        cycles = {"live": 0, "files": 0}

        def live(_: int) -> None:
            cycles["live"] = sum(_live_cycles(bundle, recording) for recording in kept)

        def files(_: int) -> None:
            cycles["files"] = sum(len(edge_sdk.screen(path, bundle=bundle).cycles) for path in paths)

        calls = {"live": live, "files": files}
        interrupted = False
        try:
            timings = interleave(calls, rounds=rounds, warm_up=min(1, rounds - 1), on_round=on_round)
        except Interrupted as stopped:
            timings, interrupted = stopped.timings, True
        seconds = sum(recording.seconds for recording in kept)
        for name in calls:
            spent = timings[name]["cpu_seconds"]
            row: Row = {
                "benchmark": "stream",
                "subject": benchmarked_model(bundle, name),
                "segmenter": bundle.segmenter.kind,
                "cores": cores,
                "input": f"{audio}; " + (f"blocks of {LIVE_BLOCK_S * 1e3:g} ms" if name == "live" else "wav files"),
                "audio_s": seconds,
                "recordings": len(kept),
                "cycles": cycles[name],
                "cpu_s": timings[name]["cpu_s"],
                "cpu_s_per_hour": float(np.median(spent)) * 3600 / seconds,
                "times_real_time": seconds / float(np.median(timings[name]["seconds"])),
                "samples_ms": [round(1e3 * s, 4) for s in spent],
                **percentiles(timings[name]["seconds"]),
            }
            if name == "files":
                ratio, low, high = ratio_interval(spent, timings["live"]["cpu_seconds"], paired=True)
                row |= {"cpu_ratio": ratio, "cpu_ratio_low": low, "cpu_ratio_high": high, "reference": "live"}
            if not interrupted:
                row |= _energy(calls[name], seconds)
            yield row
    if interrupted:
        raise KeyboardInterrupt


OnRound = Callable[[int, int], None] | None


def _live_cycles(bundle: Bundle, recording: PreloadedRecording) -> int:
    """Push a recording in blocks and count its labelled cycles."""
    stream = bundle.stream(recording.rate_hz)
    block, found = max(1, round(LIVE_BLOCK_S * recording.rate_hz)), 0
    for start in range(0, recording.samples.size, block):
        events = stream.accept(recording.samples[start : start + block])
        found += sum(isinstance(event, CycleResult) for event in events)
    return found + sum(isinstance(event, CycleResult) for event in stream.finish())


def _energy(call: Callable[[int], None], seconds: float) -> Row:
    """Joules of one more unit of work, where the machine has a meter."""
    meter = EnergyMeter()
    if not meter.available:
        return {}
    with meter:
        call(0)
    if meter.joules is None:
        return {}
    return meter.figures() | {"joules_per_hour": meter.joules * 3600 / seconds}
