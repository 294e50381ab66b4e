"""How many real-time streams one core carries: more and more of them until one misses its deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from benchmarks.core.harness import Row, deadline_misses, give_back_free_memory, linear_fit, percentiles, pinned
from benchmarks.stream.load_generators import SETTLE_S, Held, Load
from benchmarks.stream.replay import subject
from edge_sdk.runtime.bundle.load import Bundle

_DISTURBED = 0.05  # of the cores in the hands of others: a miss may be theirs
_GROWTH_LEVELS = 6
_SLOPE_FROM_S = 60.0  # memory and CPU over less time say nothing of an hour

Tell = Callable[[str], None]
Passed: TypeAlias = Sequence[tuple[int, Held]]
"""Levels without a miss."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """A load test."""

    levels: tuple[int, ...]  # numbers of streams, growing
    hold_s: float = 10.0  # real time at each level
    deadline_s: float = 0.1  # from the capture of a block's last sample until its events are out
    block_s: float = 0.05
    cores: int = 1
    attempts: int = 2  # a level is missed when all of them miss: others use this machine too
    fill_s: float = 25.0  # of sound pushed through every new stream before it counts
    repeats: int = 3  # of the levels that growth is told from, in turns; 0: the ramp's own levels once
    growth_to: int = 64  # streams at most, for the growth with their number
    steady_s: float = 60.0  # at the largest wanted level, for growth with time; 0 leaves it out
    steady_at: int = 50


@dataclass(frozen=True, slots=True)
class _Test:
    """What every row of one load test says."""

    load: Load
    bundle: Bundle
    options: LoadOptions
    cores: list[int]

    def row(self, part: str, **figures: Any) -> Row:
        return {
            "benchmark": "stream",
            "subject": subject(self.bundle, part),
            "segmenter": self.bundle.segmenter.kind,
            "deadline_ms": self.options.deadline_s * 1e3,
            "cores": self.cores,
            **figures,
        }

    def misses(self, held: Held) -> int:
        return deadline_misses(held.seconds, self.options.deadline_s)


def ramp(load: Load, bundle: Bundle, options: LoadOptions, tell: Tell) -> Iterator[Row]:
    """A row a level until one misses its deadline, then how CPU and memory grew with the number, then with time."""
    passed: list[tuple[int, Held]] = []
    missed_at: int | None = None
    give_back_free_memory()  # else the first streams live in what others left, and seem to take nothing
    with pinned(options.cores) as cores:
        test = _Test(load, bundle, options, cores)
        try:
            for level in options.levels:
                for attempt in range(options.attempts):
                    tell(f"{level} {load.kind} in real time for {options.hold_s:g} s")
                    held = load.hold(level, options.hold_s)
                    yield _level_row(test, level, held, attempt)
                    if test.misses(held) == 0:
                        passed.append((level, held))
                        break
                else:
                    missed_at = level
                    break
            cpu = _loads_in_turns(test, passed, tell)
        except KeyboardInterrupt:
            yield _growth_row(test, passed, missed_at, _ramp_loads(test, passed))
            raise
        yield _growth_row(test, passed, missed_at, cpu)
        if passed and options.steady_s > 0:
            level = max((n for n, _ in passed if n <= options.steady_at), default=passed[0][0])
            tell(f"{level} {load.kind} for {options.steady_s:g} s")
            yield _time_row(test, level)


def _level_row(test: _Test, level: int, held: Held, attempt: int) -> Row:
    options, misses = test.options, test.misses(held)
    return test.row(
        test.load.kind,
        streams=level,
        attempt=attempt + 1,
        audio_s=level * options.hold_s,
        cpu_load=held.cpu_load,
        others_load=held.others_load,
        # A miss while others had the core is no finding about this SDK: measure again on a quiet machine.
        disturbed=bool(misses) and (held.others_load or 0.0) > _DISTURBED * options.cores,
        rss_mb=held.rss_mb,
        misses=misses,
        input=f"blocks of {options.block_s * 1e3:g} ms in real time; latency from capture to all events of a block",
        warm_up=f"{options.fill_s:g} s of sound through a new stream, then {SETTLE_S:g} s of every level"
        if test.load.kind == "streams"
        else f"{SETTLE_S:g} s of every level",
        **percentiles(held.seconds),
    )


def even_levels(top: int, count: int = _GROWTH_LEVELS) -> list[int]:
    """Numbers from 1 to ``top``, evenly spaced: each weighs the same in a straight line."""
    return sorted({round(n) for n in np.linspace(1, top, count).tolist()})


def _growth_row(test: _Test, passed: Passed, missed_at: int | None, cpu: dict[int, list[float]]) -> Row:
    middle = linear_fit(list(cpu), [float(np.median(loads)) for loads in cpu.values()])
    singly = linear_fit([n for n, loads in cpu.items() for _ in loads], [c for loads in cpu.values() for c in loads])
    known = [(float(n), held.rss_mb) for n, held in passed if held.rss_mb]
    memory = linear_fit([n for n, _ in known], [m for _, m in known])
    return test.row(
        f"growth of {test.load.kind}",
        most_without_miss=max((n for n, _ in passed), default=0),
        missed_at=missed_at,  # null: the largest level asked for was still carried
        levels=list(cpu),
        repeats=max(map(len, cpu.values()), default=0),
        cpu_loads=list(cpu.values()),  # of each level, in the order of the turns
        cpu_load_per_stream=middle.slope if middle else None,
        cpu_load_at_none=middle.intercept if middle else None,
        cpu_r2=middle.r2 if middle else None,  # of the medians of the turns
        cpu_r2_single=singly.r2 if singly else None,  # of every turn
        mb_per_stream=memory.slope if memory else None,
        memory_r2=memory.r2 if memory else None,
        n=sum(map(len, cpu.values())),
    )


def _ramp_loads(test: _Test, passed: Passed) -> dict[int, list[float]]:
    return {n: [held.cpu_load] for n, held in passed if n <= test.options.growth_to}


def _loads_in_turns(test: _Test, passed: Passed, tell: Tell) -> dict[int, list[float]]:
    """CPU load of each level, all levels in turn: a clock that drifts with time must not look like growth."""
    top = min(max((n for n, _ in passed), default=0), test.options.growth_to)
    if test.options.repeats == 0 or top < 2:
        return _ramp_loads(test, passed)
    levels = even_levels(top)
    found: dict[int, list[float]] = {n: [] for n in levels}
    for turn in range(test.options.repeats):
        for level in levels if turn % 2 == 0 else reversed(levels):
            tell(f"CPU of {level} {test.load.kind} for {test.options.hold_s:g} s, turn {turn + 1}")
            found[level].append(test.load.hold(level, test.options.hold_s).cpu_load)
    return found


def _time_row(test: _Test, level: int) -> Row:
    """The same level again and again: neither CPU nor memory may grow."""
    parts, options = 5, test.options
    held = [test.load.hold(level, options.steady_s / parts) for _ in range(parts)]
    times = [(k + 1) * options.steady_s / parts for k in range(parts)]
    long = options.steady_s >= _SLOPE_FROM_S
    memory = linear_fit(times, [h.rss_mb or 0.0 for h in held]) if long and held[0].rss_mb else None
    loads = [h.cpu_load for h in held]
    cpu = linear_fit(times, loads) if long else None
    late = [s for h in held for s in h.seconds]
    return test.row(
        f"time of {test.load.kind}",
        streams=level,
        audio_s=level * options.steady_s,
        cpu_load=float(np.mean(loads)),
        cpu_drift_pct=100 * cpu.slope * options.steady_s / float(np.mean(loads)) if cpu else None,
        others_load=held[-1].others_load,
        rss_mb=held[-1].rss_mb,
        rss_slope_mb_per_hour=memory.slope * 3600 if memory else None,
        misses=deadline_misses(late, options.deadline_s),
        **percentiles(late),
    )
