"""Faults of this computer: a busy CPU, a slow consumer, clocks that jump."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from unittest import mock

from benchmarks.core.audio import LiveLoopSource, phantom_samples
from benchmarks.core.harness import Row
from benchmarks.faults.child import ArrivalSink
from benchmarks.faults.row import LEAST_PATIENT_S, RATE_HZ, RECOVERY_BOUND_S, FaultOptions, fault_row, recovery_s
from edge_sdk.events import CycleResult, Event, Health, StreamStats
from edge_sdk.runtime.bundle.load import Bundle
from edge_sdk.runtime.session import Session

_BLOCK_S = 0.05
_JOINED_S = 0.25  # of blocks that a session joins when it is behind


class _DisturbedSession:
    """A live session that has run with a disturbance of ``fault_s``."""

    def __init__(
        self,
        bundle: Bundle,
        options: FaultOptions,
        *,
        begin: Callable[[ArrivalSink], object],
        end: Callable[[ArrivalSink], object],
        clock_ns: Callable[[], int] = time.monotonic_ns,
        queue_s: float = 2.0,
    ) -> None:
        self.samples = phantom_samples("asthma", RATE_HZ, max(LEAST_PATIENT_S, 2 * options.calm_s + options.fault_s))
        self.source = LiveLoopSource(
            [self.samples], RATE_HZ, seconds=2 * options.calm_s + options.fault_s, block_s=_BLOCK_S
        )
        self.sink = ArrivalSink()
        self.health: list[Health] = []
        self.begin_ns = self.end_ns = 0
        session = Session(
            self.source, bundle, [self.sink], on_health=self.health.append, clock_ns=clock_ns, queue_s=queue_s
        )

        def disturb() -> None:
            time.sleep(options.calm_s)
            self.begin_ns = time.monotonic_ns()
            begin(self.sink)
            time.sleep(options.fault_s)
            end(self.sink)
            self.end_ns = time.monotonic_ns()

        disturber = threading.Thread(target=disturb, name="fault", daemon=True)
        disturber.start()
        try:
            self.stats: StreamStats = session.run()
        finally:
            disturber.join()
        self.overload = session.overload

    @property
    def accounted(self) -> bool:
        """Whether received and lost samples add up to the delivered ones."""
        return self.stats.samples_in + self.stats.samples_lost == self.source.delivered

    @property
    def recovery_s(self) -> float | None:
        """Seconds until every block was on time again."""
        return recovery_s(self.sink.arrivals, self.end_ns)

    def same_events_as_undisturbed(self, bundle: Bundle) -> bool:
        """Whether the cycles equal those of the same samples without threads and real time."""
        stream = bundle.stream(RATE_HZ)
        undisturbed = [*stream.accept(self.samples[: self.source.delivered]), *stream.finish()]
        return _cycles(undisturbed) == _cycles(self.sink.events)


def _cycles(events: Sequence[Event]) -> list[tuple[int, int, str | None]]:
    return [(e.cycle.onset, e.cycle.end, e.label) for e in events if isinstance(e, CycleResult)]


def cpu_hog(bundle: Bundle, options: FaultOptions) -> Row:
    """Twice as many busy processes as cores."""
    count = 2 * (os.cpu_count() or 1)
    hogs: list[subprocess.Popen[bytes]] = []

    def begin(_: ArrivalSink) -> None:
        hogs.extend(subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(count))

    def end(_: ArrivalSink) -> None:
        for hog in hogs:
            hog.kill()
            hog.wait()

    try:
        session = _DisturbedSession(bundle, options, begin=begin, end=end)
    finally:
        end(ArrivalSink())
    return fault_row(
        f"{count} busy processes for {options.fault_s:g} s",
        recovery_s=session.recovery_s,
        recovery_bound_s=RECOVERY_BOUND_S,
        lost=session.stats.samples_lost,
        lost_bound=0,
        accounted=session.accounted,
        arrivals=session.sink.arrivals,
        skipped=session.stats.skipped,
    )


def slow_consumer(bundle: Bundle, options: FaultOptions) -> Row:
    """A sink four times slower than real time: labels are skipped, then the oldest audio is dropped and counted."""
    queue_s = min(2.0, options.fault_s / 2)

    def slow(sink: ArrivalSink) -> None:
        sink.slowness = 4.0

    def fast(sink: ArrivalSink) -> None:
        sink.slowness = 0.0

    session = _DisturbedSession(bundle, options, begin=slow, end=fast, queue_s=queue_s)
    return fault_row(
        f"a sink at a quarter of real-time speed for {options.fault_s:g} s, {queue_s:g} s of queue",
        recovery_s=session.recovery_s,
        recovery_bound_s=RECOVERY_BOUND_S,
        lost=session.stats.samples_lost,
        lost_bound=round(max(0.0, options.fault_s + 4 * _JOINED_S - queue_s) * RATE_HZ),
        accounted=session.accounted,
        arrivals=session.sink.arrivals,
        skipped=session.stats.skipped,
        dropped=session.overload.dropped,
    )


def wall_clock(bundle: Bundle, options: FaultOptions) -> Row:
    """The time of day jumps one hour ahead, then two hours back."""
    jump_s = [0.0]
    real, real_ns = time.time, time.time_ns

    def begin(_: ArrivalSink) -> None:
        jump_s[0] = 3600.0

    def end(_: ArrivalSink) -> None:
        jump_s[0] = -3600.0

    def shifted_time() -> float:
        return real() + jump_s[0]

    def shifted_time_ns() -> int:
        return real_ns() + round(jump_s[0] * 1e9)

    with mock.patch("time.time", shifted_time), mock.patch("time.time_ns", shifted_time_ns):
        session = _DisturbedSession(bundle, options, begin=begin, end=end)
    same = session.same_events_as_undisturbed(bundle)
    return fault_row(
        "the time of day, as this process reads it, is set 1 h ahead, then 2 h back",
        recovery_s=session.recovery_s,
        recovery_bound_s=RECOVERY_BOUND_S,
        lost=session.stats.samples_lost,
        lost_bound=0,
        accounted=session.accounted,
        arrivals=session.sink.arrivals,
        same_events=same,
        wrong=[] if same else ["the events differ from those of an undisturbed run"],
    )


def monotonic_clock(bundle: Bundle, options: FaultOptions) -> Row:
    """The session's clock jumps ahead, as after a suspend of the computer."""
    jump_ns = [0]

    def begin(_: ArrivalSink) -> None:
        jump_ns[0] = 30_000_000_000

    session = _DisturbedSession(
        bundle, options, begin=begin, end=lambda _: None, clock_ns=lambda: time.monotonic_ns() + jump_ns[0]
    )
    healthy = not session.health or session.health[-1].state == "healthy"
    back = [h.at_ns - 30_000_000_000 for h in session.health if h.state == "healthy"]
    same = session.same_events_as_undisturbed(bundle)
    return fault_row(
        "the monotonic clock jumps 30 s ahead",
        recovery_s=((back[-1] - session.begin_ns) / 1e9 if back else 0.0) if healthy else None,
        recovery_bound_s=RECOVERY_BOUND_S,
        lost=session.stats.samples_lost,
        lost_bound=0,
        accounted=session.accounted,
        arrivals=session.sink.arrivals,
        same_events=same,
        wrong=[] if same else ["the events differ from those of an undisturbed run"],
    )
