"""A number of real-time streams at work: in one thread, or as full sessions with threads of their own."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.core.audio import Sound
from benchmarks.core.harness import resident_mb
from benchmarks.core.machine import usable_cores
from benchmarks.core.paced import LoopSource, Samples, loop_slice
from edge_sdk.events import AudioBlock, Event, StreamStats
from edge_sdk.runtime.bundle.load import Bundle
from edge_sdk.runtime.session import Session

SETTLE_S = 0.5  # of every level before anything counts: all streams have begun, threads run, caches are full
_SPREAD_S = 0.4  # over which streams begin: a whole number of blocks and of the segmenter's steps
_GOLDEN = 0.6180339887  # its multiples spread evenly over 0 … 1, however many there are
_LEAD_NS = 50_000_000
_TICK_S = 0.01  # of the kernel's account of a core


@dataclass(frozen=True, slots=True)
class Held:
    """One level held for some time; what came before it had settled is left out."""

    seconds: tuple[float, ...]  # lateness of every block
    cpu_load: float  # CPU seconds of this process a second
    rss_mb: float | None
    others_load: float | None = None  # seconds a second that others had the cores; None where the system hides it


class Load(Protocol):
    """A number of streams at work."""

    kind: str

    def hold(self, count: int, seconds: float) -> Held:
        """Run so many in real time for so long."""


class Meter:
    """What this process took of its cores over a span, and what all others took, the host of a virtual one included."""

    def __init__(self) -> None:
        self._cores = usable_cores()
        self.start()

    def start(self) -> None:
        """Count from here."""
        self._wall, self._cpu, self._busy = time.perf_counter(), time.process_time(), busy_s(self._cores)

    def loads(self) -> tuple[float, float | None]:
        """Seconds a second since the start: ours, and the others'."""
        wall, own = time.perf_counter() - self._wall, time.process_time() - self._cpu
        busy = busy_s(self._cores)
        others = None if busy is None or self._busy is None else max(0.0, busy - self._busy - own) / wall
        return own / wall, others


def busy_s(cores: Sequence[int], account: Path = Path("/proc/stat")) -> float | None:
    """Seconds since boot that these cores were not free, for whomever."""
    total = 0.0
    try:
        for line in account.read_text().splitlines():
            name, *ticks = line.split()
            if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cores:
                user, nice, system, _idle, _waiting, irq, soft_irq, steal = map(int, ticks[:8])
                total += (user + nice + system + irq + soft_irq + steal) * _TICK_S
    except (OSError, ValueError):
        return None
    return total


class StreamLoad:
    """Streams in one thread, each given its blocks when they are due.

    Blocks of different streams are due at different moments, and streams are at different places of their steps, as
    those of different patients would be.

    Parameters
    ----------
    bundle, sounds
        What is run on what.
    block_s
        Seconds of a block.
    fill_s
        Of sound pushed through every new stream first, so that its memory is all in use.
    """

    kind = "streams"

    def __init__(self, bundle: Bundle, sounds: Sequence[Sound], *, block_s: float, fill_s: float) -> None:
        self._bundle, self._block_s, self._fill_s = bundle, block_s, fill_s
        self._rate = sounds[0].rate_hz
        self._sounds = [s.samples for s in sounds if s.rate_hz == self._rate]
        self._block = max(1, round(block_s * self._rate))
        self._streams: list[tuple[Any, Samples, int]] = []  # stream, its sound, where it begins

    def hold(self, count: int, seconds: float) -> Held:
        """Streams of an earlier level go on; new ones are added."""
        self._grow(count)
        block_ns = round(self._block_s * 1e9)
        settled = round(SETTLE_S / self._block_s)
        last = settled + max(1, round(seconds / self._block_s)) - 1
        begin_ns = time.monotonic_ns() + _LEAD_NS
        due = [(begin_ns + (k * block_ns) // count + block_ns, k, 0) for k in range(count)]
        heapq.heapify(due)
        late: list[float] = []
        meter = Meter()
        while due:
            due_ns, k, number = due[0]
            if number == settled and not late:
                meter.start()
            wait_ns = due_ns - time.monotonic_ns()
            if wait_ns > 0:
                time.sleep(wait_ns / 1e9)
            self._push(k, self._block)
            if number >= settled:
                late.append((time.monotonic_ns() - due_ns) / 1e9)
            if number < last:
                heapq.heapreplace(due, (due_ns + block_ns, k, number + 1))
            else:
                heapq.heappop(due)
        return Held(tuple(late), *_in_order(meter.loads(), resident_mb()))

    def _push(self, k: int, size: int) -> None:
        stream, sound, at = self._streams[k]
        stream.accept(loop_slice(sound, at, size))
        self._streams[k] = (stream, sound, at + size)

    def _grow(self, count: int) -> None:
        while len(self._streams) < count:
            k = len(self._streams)
            self._streams.append((self._bundle.stream(self._rate), self._sounds[k % len(self._sounds)], 997 * k))
            self._push(k, 1 + round(k * _GOLDEN % 1.0 * _SPREAD_S * self._rate))
            for _ in range(round(self._fill_s / self._block_s)):
                self._push(k, self._block)


def _in_order(loads: tuple[float, float | None], rss_mb: float | None) -> tuple[float, float | None, float | None]:
    return loads[0], rss_mb, loads[1]


class _Lateness:
    """A sink that keeps how late each block was done with."""

    def __init__(self, from_ns: int) -> None:
        self.seconds: list[float] = []
        self._from_ns = from_ns

    def open(self, source: str, sample_rate: int) -> None:
        """Nothing to prepare."""

    def audio(self, block: AudioBlock) -> None:
        """Called when the stream has done with the block."""
        if block.host_ns >= self._from_ns:
            self.seconds.append((time.monotonic_ns() - block.host_ns) / 1e9)

    def event(self, event: Event, latency_ms: float | None) -> None:
        """Counted by the block."""

    def close(self, stats: StreamStats) -> None:
        """The source has ended."""


class SessionLoad:
    """Full sessions: a source thread, a queue and a working thread each; parameters as of :class:`StreamLoad`."""

    kind = "sessions"

    def __init__(self, bundle: Bundle, sounds: Sequence[Sound], *, block_s: float) -> None:
        self._bundle, self._block_s = bundle, block_s
        self._sounds = list(sounds)

    def hold(self, count: int, seconds: float) -> Held:
        """New sessions each time: a session plays once."""
        begin_ns = time.monotonic_ns() + _LEAD_NS + 5_000_000 * count
        from_ns = begin_ns + round(SETTLE_S * 1e9)
        end_ns = from_ns + round(seconds * 1e9)
        sinks = [_Lateness(from_ns) for _ in range(count)]
        problems: list[Exception] = []
        players = [self._player(k, count, begin_ns, end_ns, sink, problems) for k, sink in enumerate(sinks)]
        for thread, _ in players:
            thread.start()
        try:
            _sleep_until(from_ns)
            meter = Meter()
            _sleep_until(end_ns)
            loads, rss = meter.loads(), resident_mb()  # while all of them are at work
        except BaseException:
            for _, source in players:
                source.close()
            raise
        finally:
            for thread, _ in players:
                thread.join()
        if problems:
            raise problems[0]
        return Held(tuple(s for sink in sinks for s in sink.seconds), *_in_order(loads, rss))

    def _player(
        self, k: int, count: int, begin_ns: int, end_ns: int, sink: _Lateness, problems: list[Exception]
    ) -> tuple[threading.Thread, LoopSource]:
        sound = self._sounds[k % len(self._sounds)]
        blocks = int(k * _GOLDEN % 1.0 * _SPREAD_S / self._block_s)  # whole ones, and the part of one below
        start_ns = begin_ns + round((blocks + k / count) * self._block_s * 1e9)
        source = LoopSource(
            sound.samples, sound.rate_hz, (end_ns - start_ns) / 1e9, block_s=self._block_s, start_ns=start_ns
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
