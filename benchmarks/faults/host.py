"""Faults of this computer: a busy CPU, a slow consumer, clocks that leap."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from unittest import mock

from benchmarks.core.harness import Row
from benchmarks.core.live_audio import LiveSound, patient
from benchmarks.faults.child import Trace
from benchmarks.faults.row import LEAST_PATIENT_S, RATE_HZ, RECOVERY_BOUND_S, FaultOptions, fault_row, recovery_s
from edge_sdk.events import CycleResult, Event, Health, StreamStats
from edge_sdk.runtime.bundle.load import Bundle
from edge_sdk.runtime.session import Session

_BLOCK_S = 0.05
_JOINED_S = 0.25  # of blocks that a session hands over at once when it is behind


class _Played:
    """A live session that was disturbed for a while."""

    def __init__(
        self,
        bundle: Bundle,
        options: FaultOptions,
        *,
        begin: Callable[[Trace], object],
        end: Callable[[Trace], object],
        clock_ns: Callable[[], int] = time.monotonic_ns,
        queue_s: float = 2.0,
    ) -> None:
        self.sound = patient("asthma", RATE_HZ, max(LEAST_PATIENT_S, 2 * options.calm_s + options.fault_s))
        self.source = LiveSound([self.sound], RATE_HZ, seconds=2 * options.calm_s + options.fault_s, block_s=_BLOCK_S)
        self.trace = Trace()
        self.health: list[Health] = []
        self.begin_ns = self.end_ns = 0
        session = Session(
            self.source, bundle, [self.trace], on_health=self.health.append, clock_ns=clock_ns, queue_s=queue_s
        )

        def disturb() -> None:
            time.sleep(options.calm_s)
            self.begin_ns = time.monotonic_ns()
            begin(self.trace)
            time.sleep(options.fault_s)
            end(self.trace)
            self.end_ns = time.monotonic_ns()

        hand = threading.Thread(target=disturb, name="fault", daemon=True)
        hand.start()
        try:
            self.stats: StreamStats = session.run()
        finally:
            hand.join()
        self.overload = session.overload

    @property
    def accounted(self) -> bool:
        return self.stats.samples_in + self.stats.samples_lost == self.source.delivered

    @property
    def recovery_s(self) -> float | None:
        return recovery_s(self.trace.arrivals, self.end_ns)

    def same_events_as_calm(self, bundle: Bundle) -> bool:
        """The breaths are those that the same samples give without time and threads."""
        stream = bundle.stream(RATE_HZ)
        calm = [*stream.accept(self.sound[: self.source.delivered]), *stream.finish()]
        return _breaths(calm) == _breaths(self.trace.events)


def _breaths(events: Sequence[Event]) -> list[tuple[int, int, str | None]]:
    return [(e.cycle.onset, e.cycle.end, e.label) for e in events if isinstance(e, CycleResult)]


def cpu_hog(bundle: Bundle, options: FaultOptions) -> Row:
    """Twice as many busy processes as cores."""
    count = 2 * (os.cpu_count() or 1)
    hogs: list[subprocess.Popen[bytes]] = []

    def begin(_: Trace) -> None:
        hogs.extend(subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(count))

    def end(_: Trace) -> None:
        for hog in hogs:
            hog.kill()
            hog.wait()

    try:
        played = _Played(bundle, options, begin=begin, end=end)
    finally:
        end(Trace())
    return fault_row(
        f"{count} busy processes for {options.fault_s:g} s",
        recovery_s=played.recovery_s,
        recovery_bound_s=RECOVERY_BOUND_S,
        lost=played.stats.samples_lost,
        lost_bound=0,
        accounted=played.accounted,
        arrivals=played.trace.arrivals,
        skipped=played.stats.skipped,
    )


def slow_consumer(bundle: Bundle, options: FaultOptions) -> Row:
    """A sink that takes four times as long as the sound: answers go first, then the oldest sound, counted."""
    queue_s = min(2.0, options.fault_s / 2)

    def slow(trace: Trace) -> None:
        trace.slowness = 4.0

    def quick(trace: Trace) -> None:
        trace.slowness = 0.0

    played = _Played(bundle, options, begin=slow, end=quick, queue_s=queue_s)
    return fault_row(
        f"a sink at a quarter of the speed of life for {options.fault_s:g} s, {queue_s:g} s of queue",
        recovery_s=played.recovery_s,
        recovery_bound_s=RECOVERY_BOUND_S,
        lost=played.stats.samples_lost,
        lost_bound=round(max(0.0, options.fault_s + 4 * _JOINED_S - queue_s) * RATE_HZ),
        accounted=played.accounted,
        arrivals=played.trace.arrivals,
        skipped=played.stats.skipped,
        dropped=played.overload.dropped,
    )


def wall_clock(bundle: Bundle, options: FaultOptions) -> Row:
    """The time of day leaps an hour ahead, then two back."""
    leap_s = [0.0]
    real, real_ns = time.time, time.time_ns

    def begin(_: Trace) -> None:
        leap_s[0] = 3600.0

    def end(_: Trace) -> None:
        leap_s[0] = -3600.0

    def told() -> float:
        return real() + leap_s[0]

    def told_ns() -> int:
        return real_ns() + round(leap_s[0] * 1e9)

    with mock.patch("time.time", told), mock.patch("time.time_ns", told_ns):
        played = _Played(bundle, options, begin=begin, end=end)
    same = played.same_events_as_calm(bundle)
    return fault_row(
        "the time of day, as this process is told it, is set 1 h ahead, then 2 h back",
        recovery_s=played.recovery_s,
        recovery_bound_s=RECOVERY_BOUND_S,
        lost=played.stats.samples_lost,
        lost_bound=0,
        accounted=played.accounted,
        arrivals=played.trace.arrivals,
        same_events=same,
        wrong=[] if same else ["the events differ from those of an undisturbed run"],
    )


def monotonic_clock(bundle: Bundle, options: FaultOptions) -> Row:
    """The session's clock leaps ahead, as after a suspended computer wakes."""
    leap_ns = [0]

    def begin(_: Trace) -> None:
        leap_ns[0] = 30_000_000_000

    played = _Played(
        bundle, options, begin=begin, end=lambda _: None, clock_ns=lambda: time.monotonic_ns() + leap_ns[0]
    )
    well = not played.health or played.health[-1].state == "healthy"
    back = [h.at_ns - 30_000_000_000 for h in played.health if h.state == "healthy"]
    same = played.same_events_as_calm(bundle)
    return fault_row(
        "the monotonic clock leaps 30 s ahead",
        recovery_s=((back[-1] - played.begin_ns) / 1e9 if back else 0.0) if well else None,
        recovery_bound_s=RECOVERY_BOUND_S,
        lost=played.stats.samples_lost,
        lost_bound=0,
        accounted=played.accounted,
        arrivals=played.trace.arrivals,
        same_events=same,
        wrong=[] if same else ["the events differ from those of an undisturbed run"],
    )
