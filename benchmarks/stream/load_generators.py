"""Load generators: real-time streams in one thread, or full sessions with threads of their own."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.core.audio import PreloadedRecording, Samples, ScheduledLoopSource, loop_slice
from benchmarks.core.harness import resident_mb
from benchmarks.core.machine import usable_cores
from edge_sdk.events import AudioBlock, Event, StreamStats
from edge_sdk.runtime.bundle.load import Bundle
from edge_sdk.runtime.group import StreamGroup
from edge_sdk.runtime.session import Session

SETTLE_S = 0.5  # at the start of every level, not measured: streams start, caches fill
_SPREAD_S = 0.4  # over which streams start: a whole number of blocks and of the segmenter's steps
_GOLDEN = 0.6180339887  # the fractions of its multiples are evenly spread, for any number of streams
_LEAD_NS = 50_000_000
_TICK_S = 0.01  # of the kernel's CPU time counters


@dataclass(frozen=True, slots=True)
class LevelResult:
    """Measurements of one level of load, without the time in which it settled."""

    seconds: tuple[float, ...]  # lateness of every block
    cpu_load: float  # CPU seconds of this process per second
    rss_mb: float | None
    others_load: float | None = None  # CPU seconds of other processes per second; None where the system hides it


class LoadGenerator(Protocol):
    """Runs a number of streams in real time."""

    kind: str

    def hold(self, count: int, seconds: float) -> LevelResult:
        """Run ``count`` streams for ``seconds``."""


class CpuMeter:
    """CPU time of this process and of all others on its cores, the host of a virtual machine included."""

    def __init__(self) -> None:
        self._cores = usable_cores()
        self.start()

    def start(self) -> None:
        """Start to count."""
        self._wall, self._cpu, self._busy = time.perf_counter(), time.process_time(), busy_s(self._cores)

    def loads(self) -> tuple[float, float | None]:
        """CPU seconds per second since the start: of this process, and of others."""
        wall, own = time.perf_counter() - self._wall, time.process_time() - self._cpu
        busy = busy_s(self._cores)
        others = None if busy is None or self._busy is None else max(0.0, busy - self._busy - own) / wall
        return own / wall, others


def busy_s(cores: Sequence[int], counters: Path = Path("/proc/stat")) -> float | None:
    """Seconds since boot in which these cores were busy for any process; ``None`` where the system hides it."""
    total = 0.0
    try:
        for line in counters.read_text().splitlines():
            name, *ticks = line.split()
            if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cores:
                user, nice, system, _idle, _waiting, irq, soft_irq, steal = map(int, ticks[:8])
                total += (user + nice + system + irq + soft_irq + steal) * _TICK_S
    except (OSError, ValueError):
        return None
    return total


class StreamLoadGenerator:
    """Streams in one thread; each receives its blocks when they are due.

    Blocks of different streams are due at different times, and streams are at different positions in their steps, like
    streams of different patients.

    Parameters
    ----------
    bundle, recordings
        The model, and its input.
    block_s
        Seconds of a block.
    fill_s
        Seconds of audio through every new stream first, so that all its memory is in use.
    """

    kind = "streams"
    _gather_ns = 0  # a call waits for so long after its first block

    def __init__(
        self, bundle: Bundle, recordings: Sequence[PreloadedRecording], *, block_s: float, fill_s: float
    ) -> None:
        self._bundle, self._block_s, self._fill_s = bundle, block_s, fill_s
        self._rate = recordings[0].rate_hz
        self._recordings = [r.samples for r in recordings if r.rate_hz == self._rate]
        self._block = max(1, round(block_s * self._rate))
        self._streams: list[tuple[Any, Samples, int]] = []  # stream, its audio, position of the next block

    def hold(self, count: int, seconds: float) -> LevelResult:
        """Continue the streams of earlier levels and add new ones."""
        self._grow(count)
        block_ns = round(self._block_s * 1e9)
        settled = round(SETTLE_S / self._block_s)
        last = settled + max(1, round(seconds / self._block_s)) - 1
        begin_ns = time.monotonic_ns() + _LEAD_NS
        due = [(begin_ns + (k * block_ns) // count + block_ns, k, 0) for k in range(count)]
        heapq.heapify(due)
        late: list[float] = []
        meter = CpuMeter()
        while due:
            due_ns, _, number = due[0]
            if number == settled and not late:
                meter.start()
            wait_ns = due_ns + self._gather_ns - time.monotonic_ns()
            if wait_ns > 0:
                time.sleep(wait_ns / 1e9)
            taken = self._taken(due)
            self._push([k for _, k, _ in taken], self._block)
            now_ns = time.monotonic_ns()
            for due_ns, k, number in taken:
                if number >= settled:
                    late.append((now_ns - due_ns) / 1e9)
                if number < last:
                    heapq.heappush(due, (due_ns + block_ns, k, number + 1))
        cpu_load, others_load = meter.loads()
        return LevelResult(tuple(late), cpu_load, resident_mb(), others_load)

    def _taken(self, due: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        """Take what is computed next from the heap of ``(ns, stream, number of the block)``."""
        return [heapq.heappop(due)]

    def _push(self, streams: Sequence[int], size: int) -> None:
        for k in streams:
            stream, samples, at = self._streams[k]
            stream.accept(loop_slice(samples, at, size))
            self._streams[k] = (stream, samples, at + size)

    def _grow(self, count: int) -> None:
        new = range(len(self._streams), count)
        for k in new:
            self._streams.append(
                (self._bundle.stream(self._rate), self._recordings[k % len(self._recordings)], 997 * k)
            )
            self._push([k], 1 + round(k * _GOLDEN % 1.0 * _SPREAD_S * self._rate))
        for _ in range(round(self._fill_s / self._block_s)):
            self._push(new, self._block)


class GroupLoadGenerator(StreamLoadGenerator):
    """The same streams in a :class:`~edge_sdk.runtime.group.StreamGroup`: all blocks that are due are one call.

    A call begins 30 ms after the first of them, which costs each block at most so much and lets others join it.
    """

    kind = "batched streams"
    _gather_ns = 30_000_000

    def __init__(
        self, bundle: Bundle, recordings: Sequence[PreloadedRecording], *, block_s: float, fill_s: float
    ) -> None:
        super().__init__(bundle, recordings, block_s=block_s, fill_s=fill_s)
        self._group = StreamGroup()

    def _taken(self, due: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        now_ns = time.monotonic_ns()
        taken: dict[int, tuple[int, int, int]] = {}
        while due and due[0][0] <= now_ns and due[0][1] not in taken:  # a stream that is behind comes again
            found = heapq.heappop(due)
            taken[found[1]] = found
        return list(taken.values())

    def _push(self, streams: Sequence[int], size: int) -> None:
        blocks = [(self._streams[k][0], loop_slice(*self._streams[k][1:], size)) for k in streams]
        for found in self._group.accept(blocks):
            if isinstance(found, Exception):
                raise found
        for k in streams:
            stream, samples, at = self._streams[k]
            self._streams[k] = (stream, samples, at + size)


class _Lateness:
    """A sink that keeps the delay of each block that was captured within a span of the monotonic clock."""

    def __init__(self, from_ns: int, end_ns: int) -> None:
        self.seconds: list[float] = []
        self._from_ns, self._end_ns = from_ns, end_ns

    def open(self, source: str, sample_rate: int) -> None:
        """Nothing to prepare."""

    def audio(self, block: AudioBlock) -> None:
        """Count a block that the stream has processed."""
        if self._from_ns <= block.host_ns < self._end_ns:
            self.seconds.append((time.monotonic_ns() - block.host_ns) / 1e9)

    def event(self, event: Event, latency_ms: float | None) -> None:
        """Events are counted with their block."""

    def close(self, stats: StreamStats) -> None:
        """The source has ended."""


class SessionLoadGenerator:
    """Full sessions with a source thread, a queue and a worker thread each; see :class:`StreamLoadGenerator`.

    They begin before the measured time and end after it: to begin or end all sessions at once is a load of its own,
    which patients do not make.
    """

    kind = "sessions"

    def __init__(
        self, bundle: Bundle, recordings: Sequence[PreloadedRecording], *, block_s: float, kind: str = "sessions"
    ) -> None:
        self.kind = kind
        self._bundle, self._block_s = bundle, block_s
        self._recordings = list(recordings)

    def hold(self, count: int, seconds: float) -> LevelResult:
        """Start new sessions, because a session plays once."""
        begin_ns = time.monotonic_ns() + _LEAD_NS + 5_000_000 * count
        from_ns = begin_ns + round(SETTLE_S * 1e9)
        end_ns = from_ns + round(seconds * 1e9)
        sinks = [_Lateness(from_ns, end_ns) for _ in range(count)]
        problems: list[Exception] = []
        last_ns = end_ns + round(SETTLE_S * 1e9)
        players = [self._player(k, count, begin_ns, last_ns, sink, problems) for k, sink in enumerate(sinks)]
        for thread, _ in players:
            thread.start()
        try:
            _sleep_until(from_ns)
            meter = CpuMeter()
            _sleep_until(end_ns)
            (cpu_load, others_load), rss_mb = meter.loads(), resident_mb()  # while all sessions run
        except BaseException:
            for _, source in players:
                source.close()
            raise
        finally:
            for thread, _ in players:
                thread.join()
        if problems:
            raise problems[0]
        late = tuple(s for sink in sinks for s in sink.seconds)
        return LevelResult(late, cpu_load, rss_mb, others_load)

    def _player(
        self, k: int, count: int, begin_ns: int, end_ns: int, sink: _Lateness, problems: list[Exception]
    ) -> tuple[threading.Thread, ScheduledLoopSource]:
        recording = self._recordings[k % len(self._recordings)]
        blocks = int(k * _GOLDEN % 1.0 * _SPREAD_S / self._block_s)  # whole blocks; the next line adds a part of one
        start_ns = begin_ns + round((blocks + k / count) * self._block_s * 1e9)
        source = ScheduledLoopSource(
            recording.samples, recording.rate_hz, (end_ns - start_ns) / 1e9, block_s=self._block_s, start_ns=start_ns
        )
        session = Session(source, self._bundle, [sink])

        def play() -> None:
            try:
                session.run()
            except Exception as error:
                problems.append(error)

        return threading.Thread(target=play, daemon=True), source


def _sleep_until(at_ns: int) -> None:
    time.sleep(max(0.0, (at_ns - time.monotonic_ns()) / 1e9))
