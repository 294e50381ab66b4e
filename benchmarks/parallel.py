"""How many real-time streams one core carries: more and more of them until one misses its deadline."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.harness import Row, deadline_misses, linear_fit, percentiles, pinned, resident_mb
from benchmarks.paced import LoopSource, Samples, loop_slice
from benchmarks.replay import subject
from benchmarks.sounds import Sound
from edge_sdk.events import AudioBlock, Event, StreamStats
from edge_sdk.runtime.bundle import Bundle
from edge_sdk.runtime.session import Session

_SETTLE_S = 0.3  # of every level before anything counts: threads start, caches fill
_LEAD_NS = 50_000_000


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """A load test."""

    levels: tuple[int, ...]  # numbers of streams, growing
    hold_s: float = 10.0  # real time at each level
    deadline_s: float = 0.1  # from the capture of a block's last sample until its events are out
    block_s: float = 0.05
    cores: int = 1
    attempts: int = 2  # a level is missed when all of them miss: others use this machine too
    fill_s: float = 25.0  # of sound pushed through every new stream first, so that its memory is all in use
    steady_s: float = 30.0  # at the largest wanted level, for growth with time; 0 leaves it out
    steady_at: int = 50


@dataclass(frozen=True, slots=True)
class Held:
    """One level held for some time."""

    seconds: tuple[float, ...]  # lateness of every block
    cpu_load: float  # CPU seconds of this process a second
    rss_mb: float | None
    waited_s: float | None = None  # for a core that others used; None where the system does not tell


class Load(Protocol):
    """A number of streams at work."""

    kind: str

    def hold(self, count: int, seconds: float) -> Held:
        """Run so many in real time for so long."""


# -- N streams, one thread ---------------------------------------------------------------------------------------------


class StreamLoad:
    """Streams in one thread, each given its blocks when they are due; starts spread evenly over a block."""

    kind = "streams"

    def __init__(self, bundle: Bundle, sounds: Sequence[Sound], options: LoadOptions) -> None:
        self._bundle, self._options = bundle, options
        self._rate = sounds[0].rate_hz
        self._sounds = [s.samples for s in sounds if s.rate_hz == self._rate]
        self._block = max(1, round(options.block_s * self._rate))
        self._streams: list[tuple[Any, Samples, int]] = []  # stream, its sound, where it begins

    def hold(self, count: int, seconds: float) -> Held:
        """Streams of an earlier level go on; new ones are added."""
        self._grow(count)
        block_ns = round(self._options.block_s * 1e9)
        rounds = max(1, round(seconds / self._options.block_s))
        settled = round(_SETTLE_S / self._options.block_s)
        begin_ns = time.monotonic_ns() + _LEAD_NS
        due = [(begin_ns + (k * block_ns) // count + block_ns, k, 0) for k in range(count)]
        heapq.heapify(due)
        late: list[float] = []
        waited = _waited_s()
        cpu_before, before = time.process_time_ns(), time.perf_counter_ns()
        while due:
            due_ns, k, number = due[0]
            wait_ns = due_ns - time.monotonic_ns()
            if wait_ns > 0:
                time.sleep(wait_ns / 1e9)
            self._push(k)
            if number >= settled:
                late.append((time.monotonic_ns() - due_ns) / 1e9)
            if number + 1 < rounds + settled:
                heapq.heapreplace(due, (due_ns + block_ns, k, number + 1))
            else:
                heapq.heappop(due)
        wall = (time.perf_counter_ns() - before) / 1e9
        cpu_load = (time.process_time_ns() - cpu_before) / 1e9 / wall
        now = _waited_s()
        others = None if waited is None or now is None else now - waited
        return Held(tuple(late), cpu_load, resident_mb(), others)

    def _push(self, k: int) -> None:
        stream, sound, at = self._streams[k]
        stream.accept(loop_slice(sound, at, self._block))
        self._streams[k] = (stream, sound, at + self._block)

    def _grow(self, count: int) -> None:
        while len(self._streams) < count:
            k = len(self._streams)
            self._streams.append((self._bundle.stream(self._rate), self._sounds[k % len(self._sounds)], 997 * k))
            for _ in range(round(self._options.fill_s / self._options.block_s)):
                self._push(k)


def _waited_s() -> float | None:
    """How long this thread was ready to run and did not, because its core was busy with others."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return None


# -- N sessions, each with its threads ---------------------------------------------------------------------------------


class _Lateness:
    """A sink that keeps how late each block was done with."""

    def __init__(self, from_sample: int) -> None:
        self.seconds: list[float] = []
        self._from = from_sample

    def open(self, source: str, sample_rate: int) -> None:
        """Nothing to prepare."""

    def audio(self, block: AudioBlock) -> None:
        """Called when the stream has done with the block."""
        if block.first_sample >= self._from:
            self.seconds.append((time.monotonic_ns() - block.host_ns) / 1e9)

    def event(self, event: Event, latency_ms: float | None) -> None:
        """Counted by the block."""

    def close(self, stats: StreamStats) -> None:
        """The source has ended."""


class SessionLoad:
    """Full sessions: a source thread, a queue and a working thread each."""

    kind = "sessions"

    def __init__(self, bundle: Bundle, sounds: Sequence[Sound], options: LoadOptions) -> None:
        self._bundle, self._options = bundle, options
        self._sounds = list(sounds)

    def hold(self, count: int, seconds: float) -> Held:
        """New sessions each time: a session plays once."""
        options, problems = self._options, []
        begin_ns = time.monotonic_ns() + _LEAD_NS + 5_000_000 * count
        sinks: list[_Lateness] = []
        threads = []
        for k in range(count):
            sound = self._sounds[k % len(self._sounds)]
            source = LoopSource(
                sound.samples,
                sound.rate_hz,
                seconds + _SETTLE_S,
                block_s=options.block_s,
                start_ns=begin_ns + round(k * options.block_s * 1e9 / count),
            )
            sinks.append(_Lateness(round(_SETTLE_S * sound.rate_hz)))
            session = Session(source, self._bundle, [sinks[-1]])

            def play(session: Session = session) -> None:
                try:
                    session.run()
                except Exception as error:
                    problems.append(error)

            threads.append(threading.Thread(target=play, daemon=True))
        cpu_before, before = time.process_time_ns(), time.perf_counter_ns()
        for thread in threads:
            thread.start()
        time.sleep(max(0.0, (begin_ns - time.monotonic_ns()) / 1e9 + seconds))
        rss = resident_mb()  # while all of them are at work
        for thread in threads:
            thread.join()
        wall = (time.perf_counter_ns() - before) / 1e9
        cpu_load = (time.process_time_ns() - cpu_before) / 1e9 / wall
        if problems:
            raise problems[0]
        return Held(tuple(s for sink in sinks for s in sink.seconds), cpu_load, rss)


# -- the ramp ----------------------------------------------------------------------------------------------------------


def ramp(load: Load, bundle: Bundle, options: LoadOptions, tell: Callable[[str], None]) -> Iterator[Row]:
    """A row a level until one misses its deadline, then how CPU and memory grew with the number, then with time."""
    passed: list[tuple[int, Held]] = []
    missed_at: int | None = None
    with pinned(options.cores) as cores:
        for level in options.levels:
            for attempt in range(options.attempts):
                tell(f"{level} {load.kind} in real time for {options.hold_s:g} s")
                held = load.hold(level, options.hold_s)
                misses = deadline_misses(held.seconds, options.deadline_s)
                yield _level_row(load, bundle, options, cores, level, held, misses, attempt)
                if misses == 0:
                    passed.append((level, held))
                    break
            else:
                missed_at = level
                break
        yield _growth_row(load, bundle, options, cores, passed, missed_at)
        if passed and options.steady_s > 0:
            level = max((n for n, _ in passed if n <= options.steady_at), default=passed[0][0])
            tell(f"{level} {load.kind} for {options.steady_s:g} s")
            yield _time_row(load, bundle, options, cores, level)


def _level_row(
    load: Load,
    bundle: Bundle,
    options: LoadOptions,
    cores: list[int],
    level: int,
    held: Held,
    misses: int,
    attempt: int,
) -> Row:
    return {
        "benchmark": "stream",
        "subject": subject(bundle, load.kind),
        "segmenter": bundle.segmenter.kind,
        "streams": level,
        "attempt": attempt + 1,
        "audio_s": level * options.hold_s,
        "cpu_load": held.cpu_load,
        "rss_mb": held.rss_mb,
        "waited_s": held.waited_s,
        "deadline_ms": options.deadline_s * 1e3,
        "misses": misses,
        "cores": cores,
        "input": f"blocks of {options.block_s * 1e3:g} ms in real time; latency from capture to all events of a block",
        **percentiles(held.seconds),
    }


def _growth_row(
    load: Load,
    bundle: Bundle,
    options: LoadOptions,
    cores: list[int],
    passed: Sequence[tuple[int, Held]],
    missed_at: int | None,
) -> Row:
    numbers = [float(n) for n, _ in passed]
    cpu = linear_fit(numbers, [held.cpu_load for _, held in passed])
    known = [(n, held.rss_mb) for n, held in zip(numbers, (h for _, h in passed), strict=True) if held.rss_mb]
    memory = linear_fit([n for n, _ in known], [m for _, m in known])
    return {
        "benchmark": "stream",
        "subject": subject(bundle, f"growth of {load.kind}"),
        "segmenter": bundle.segmenter.kind,
        "most_without_miss": max((n for n, _ in passed), default=0),
        "missed_at": missed_at,  # null: the largest level asked for was still carried
        "deadline_ms": options.deadline_s * 1e3,
        "cores": cores,
        "cpu_load_per_stream": cpu.slope if cpu else None,
        "cpu_r2": cpu.r2 if cpu else None,
        "mb_per_stream": memory.slope if memory else None,
        "memory_r2": memory.r2 if memory else None,
        "n": len(passed),
    }


def _time_row(load: Load, bundle: Bundle, options: LoadOptions, cores: list[int], level: int) -> Row:
    """The same level again and again: neither CPU nor memory may grow."""
    parts = 5
    held = [load.hold(level, options.steady_s / parts) for _ in range(parts)]
    times = [(k + 1) * options.steady_s / parts for k in range(parts)]
    memory = linear_fit(times, [h.rss_mb or 0.0 for h in held])
    cpu = linear_fit(times, [h.cpu_load for h in held])
    late = [s for h in held for s in h.seconds]
    return {
        "benchmark": "stream",
        "subject": subject(bundle, f"time of {load.kind}"),
        "streams": level,
        "audio_s": level * options.steady_s,
        "cpu_load": float(np.mean([h.cpu_load for h in held])),
        "cpu_drift_pct": 100 * cpu.slope * options.steady_s / float(np.mean([h.cpu_load for h in held]))
        if cpu
        else None,
        "rss_mb": held[-1].rss_mb,
        "rss_slope_mb_per_hour": memory.slope * 3600 if memory and held[0].rss_mb else None,
        "deadline_ms": options.deadline_s * 1e3,
        "misses": deadline_misses(late, options.deadline_s),
        "cores": cores,
        **percentiles(late),
    }
