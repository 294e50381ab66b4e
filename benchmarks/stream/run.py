"""The whole pipeline: throughput, live and files, real-time replay, parallel streams, and cold start."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.core.audio import PreloadedRecording, corpus_recordings, folder_recordings, phantom_recordings
from benchmarks.core.energy import EnergyMeter, energy_of
from benchmarks.core.harness import Row, machine_row, pinned
from benchmarks.core.rows import benchmarked_model
from benchmarks.start import start_rows
from benchmarks.stream.files import live_and_files
from benchmarks.stream.load_generators import (
    GroupLoadGenerator,
    LoadGenerator,
    SessionLoadGenerator,
    StreamLoadGenerator,
)
from benchmarks.stream.parallel import RampOptions, ramp
from benchmarks.stream.replay import replay
from edge_sdk.errors import StethoError
from edge_sdk.events import StreamStats
from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from edge_sdk.runtime.segmentation.factory import EnvelopeFactory, load_segmenter

STREAM_LEVELS = (1, 2, 4, 8, 16, 24, 32, 40, 50, 64, 80, 100, 128, 160, 192, 224, 256, 320, 384, 448, 512)
SESSION_LEVELS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 192)
QUICK_LEVELS = (1, 4)
PARTS = ("throughput", "files", "replay", "streams", "sessions", "start")


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What to measure."""

    bundle: str = "default"
    artefact: str | None = None
    segmenter: str | None = None  # "envelope" or a step graph; the bundle's own where absent
    root: Path | None = None  # folder of real recordings, or of the corpus; phantom patients where absent
    corpus: str | None = None  # annotated recordings for the replay
    split: str = "all"
    parts: tuple[str, ...] = PARTS
    minutes: float = 10.0  # of audio through the stream as fast as possible
    paced_s: float = 60.0  # of real-time replay; 0: no such rows
    together: int = 8  # recordings replayed at once: enough cycles for a P99 in a minute
    rounds: int = 5  # of live and files
    starts: int = 5  # cold starts of ``stetho screen``; 0: no such rows
    hold_s: float = 10.0  # real time at each number of streams; 0: no such rows
    repeats: int = 3  # turns of the levels for the growth figures
    steady_s: float = 60.0  # real time at a constant number of streams
    most: int = 512  # streams
    deadline_s: float = 0.1
    cores: int = 1  # for the parallel streams
    sample_rate: int = 8000  # Hz of simulated patients
    batched: bool = False  # streams once more, in a group; sessions once more, which join their classifications
    quick: bool = False


def run_stream(options: StreamOptions, on_step: Callable[[str], None] | None = None) -> Iterator[Row]:
    """Rows: the machine, then every part in ``options.parts``."""
    report_step = on_step or (lambda _: None)
    yield machine_row()
    bundle = _bundle(options)
    if "throughput" in options.parts:
        report_step(f"{options.minutes:g} minutes of audio as fast as possible")
        yield from throughput(bundle, options)
    if "files" in options.parts:
        yield from _files(bundle, options, report_step)
    if "replay" in options.parts and options.paced_s > 0:
        yield from replay(
            bundle,
            _annotated(options),
            options.paced_s,
            together=options.together,
            deadline_s=options.deadline_s,
            on_step=report_step,
        )
    for kind in ("streams", "sessions"):
        if kind in options.parts and options.hold_s > 0:
            yield from _parallel(bundle, kind, options, report_step)
            if options.batched:
                other = bundle if kind == "streams" else bundle.batched()
                yield from _parallel(other, f"batched {kind}", options, report_step)
    if "start" in options.parts and options.starts > 0:
        report_step(f"{options.starts} cold starts")
        yield from start_rows(options.bundle, options.artefact, starts=options.starts, screens=not bundle.untrained)


def _bundle(options: StreamOptions) -> Bundle:
    bundle = load_bundle(options.bundle, artefact=options.artefact, allow_untrained=True)
    if options.segmenter is None:
        return bundle
    if options.segmenter == "envelope":
        return bundle.with_segmenter(EnvelopeFactory())
    return bundle.with_segmenter(load_segmenter(Path(options.segmenter)))


def _parallel(bundle: Bundle, kind: str, options: StreamOptions, on_step: Callable[[str], None]) -> Iterator[Row]:
    streams = kind.endswith("streams")
    levels = QUICK_LEVELS if options.quick else STREAM_LEVELS if streams else SESSION_LEVELS
    ramp_options = RampOptions(
        levels=tuple(n for n in levels if n <= options.most),
        hold_s=options.hold_s,
        deadline_s=options.deadline_s,
        cores=options.cores,
        fill_s=1.0 if options.quick else 25.0,
        repeats=0 if options.quick else options.repeats,
        steady_s=options.steady_s,
        steady_at=50 if streams else 16,
    )
    recordings = list(_recordings(options, 15.0 if options.quick else 300.0))
    if streams:
        made = StreamLoadGenerator if kind == "streams" else GroupLoadGenerator
        generator: LoadGenerator = made(bundle, recordings, block_s=ramp_options.block_s, fill_s=ramp_options.fill_s)
    else:
        generator = SessionLoadGenerator(bundle, recordings, block_s=ramp_options.block_s, kind=kind)
    yield from ramp(generator, bundle, ramp_options, on_step)


def throughput(bundle: Bundle, options: StreamOptions) -> Iterator[Row]:
    """Process CPU seconds from samples to events, per hour of audio, without reading and decoding files.

    Ctrl-C is raised after the row of the recordings that were completed before.
    """
    seconds, done, cycles, inference_ns, wall_s, cpu_s = 0.0, 0, 0, 0, 0.0, 0.0
    interrupted = False
    meters: list[EnergyMeter] = []  # one a recording: its synthesis or reading is not counted
    with pinned(1) as cores:
        try:
            for recording in _recordings(options, options.minutes * 60):
                with EnergyMeter() as meter:
                    wall, cpu = time.perf_counter(), time.process_time()
                    stats = _pushed(bundle, recording)
                    wall_s += time.perf_counter() - wall
                    cpu_s += time.process_time() - cpu
                meters.append(meter)
                seconds, done = seconds + recording.seconds, done + 1
                cycles, inference_ns = cycles + stats.cycles, inference_ns + stats.inference_ns
        except KeyboardInterrupt:
            interrupted = True
            if not done:
                raise
    yield {
        "benchmark": "stream",
        "subject": benchmarked_model(bundle, "throughput"),
        "segmenter": bundle.segmenter.kind,
        "cores": cores,
        "input": _describe(options),
        "audio_s": seconds,
        "recordings": done,
        "cycles": cycles,
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "cpu_s_per_hour": cpu_s * 3600 / seconds,
        "classifier_s_per_hour": inference_ns / 1e9 * 3600 / seconds,
        "times_real_time": seconds / wall_s,
        **energy_of(meters),
    }
    if interrupted:
        raise KeyboardInterrupt


def _files(bundle: Bundle, options: StreamOptions, on_step: Callable[[str], None]) -> Iterator[Row]:
    if bundle.untrained:
        reason = "an untrained bundle does not screen"
        yield {"benchmark": "stream", "subject": benchmarked_model(bundle, "files"), "failed": reason}
        return
    on_step("the same recordings live and as files")
    yield from live_and_files(
        bundle, _recordings(options, options.minutes * 60), rounds=options.rounds, audio=_describe(options)
    )


def _pushed(bundle: Bundle, recording: PreloadedRecording) -> StreamStats:
    stream = bundle.stream(recording.rate_hz)
    block = max(1, recording.rate_hz // 20)
    for start in range(0, recording.samples.size, block):
        stream.accept(recording.samples[start : start + block])
    stream.finish()
    return stream.stats


def _describe(options: StreamOptions) -> str:
    return "phantom patients" if options.root is None else f"recordings under {options.root.name}"


def _recordings(options: StreamOptions, seconds: float) -> Iterator[PreloadedRecording]:
    if options.root is None:
        return phantom_recordings(seconds, options.sample_rate)
    return folder_recordings(options.root, seconds)


def _annotated(options: StreamOptions) -> Iterator[PreloadedRecording]:
    """Recordings of the corpus, if one is named; else simulated patients, whose true cycles are given."""
    seconds = options.paced_s * options.together
    if options.corpus is None:
        return phantom_recordings(seconds, options.sample_rate, longest_s=min(30.0, options.paced_s))
    if options.root is None:
        raise StethoError(f"the folder of {options.corpus} is missing; give it with --root")
    return corpus_recordings(options.corpus, options.root, options.split, seconds, longest_s=options.paced_s)
