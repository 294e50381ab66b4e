"""Number of real-time streams that one core carries: the load grows until a block misses its deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from benchmarks.core.energy import EnergyMeter
from benchmarks.core.harness import Row, deadline_misses, give_back_free_memory, linear_fit, percentiles, pinned
from benchmarks.core.rows import benchmarked_model
from benchmarks.stream.load_generators import SETTLE_S, LevelResult, LoadGenerator
from edge_sdk.runtime.bundle.load import Bundle

_DISTURBED = 0.05  # share of the cores in use by others above which a miss may be their fault
_GROWTH_LEVELS = 6
_SLOPE_FROM_S = 60.0  # a shorter time gives no usable slope

OnStep = Callable[[str], None]
Passed: TypeAlias = Sequence[tuple[int, LevelResult]]
"""Levels without a miss."""


@dataclass(frozen=True, slots=True)
class RampOptions:
    """Settings of a load test."""

    levels: tuple[int, ...]  # numbers of streams, increasing
    hold_s: float = 10.0  # real time at each level
    deadline_s: float = 0.1  # from the capture of a block's last sample until its events are out
    block_s: float = 0.05
    cores: int = 1
    attempts: int = 2  # a level is missed only when all attempts miss, since other processes use this machine too
    fill_s: float = 25.0  # of audio through every new stream before it is measured
    repeats: int = 3  # of the levels for the growth figures, in turns; 0: use the levels of the ramp
    growth_to: int = 64  # streams at most, for the growth with the number of streams
    steady_s: float = 60.0  # at ``steady_at`` streams, for the growth with time; 0: no such row
    steady_at: int = 50


@dataclass(frozen=True, slots=True)
class _Test:
    """What all rows of one load test have in common."""

    generator: LoadGenerator
    bundle: Bundle
    options: RampOptions
    cores: list[int]

    def row(self, part: str, **figures: Any) -> Row:
        return {
            "benchmark": "stream",
            "subject": benchmarked_model(self.bundle, part),
            "segmenter": self.bundle.segmenter.kind,
            "deadline_ms": self.options.deadline_s * 1e3,
            "cores": self.cores,
            **figures,
        }

    def misses(self, result: LevelResult) -> int:
        return deadline_misses(result.seconds, self.options.deadline_s)


def ramp(generator: LoadGenerator, bundle: Bundle, options: RampOptions, on_step: OnStep) -> Iterator[Row]:
    """Rows: each level until one misses its deadline, then CPU and memory against the number of streams and time."""
    passed: list[tuple[int, LevelResult]] = []
    missed_at: int | None = None
    give_back_free_memory()  # else the first streams use memory freed before, and seem to need none
    with pinned(options.cores) as cores:
        test = _Test(generator, bundle, options, cores)
        try:
            for level in options.levels:
                for attempt in range(options.attempts):
                    on_step(f"{level} {generator.kind} in real time for {options.hold_s:g} s")
                    result = generator.hold(level, options.hold_s)
                    yield _level_row(test, level, result, attempt)
                    if test.misses(result) == 0:
                        passed.append((level, result))
                        break
                else:
                    missed_at = level
                    break
            cpu = _loads_in_turns(test, passed, on_step)
        except KeyboardInterrupt:
            yield _growth_row(test, passed, missed_at, _ramp_loads(test, passed))
            raise
        yield _growth_row(test, passed, missed_at, cpu)
        if passed and options.steady_s > 0:
            level = max((n for n, _ in passed if n <= options.steady_at), default=passed[0][0])
            on_step(f"{level} {generator.kind} for {options.steady_s:g} s")
            yield _time_row(test, level)


def _level_row(test: _Test, level: int, result: LevelResult, attempt: int) -> Row:
    options, misses = test.options, test.misses(result)
    return test.row(
        test.generator.kind,
        streams=level,
        attempt=attempt + 1,
        audio_s=level * options.hold_s,
        cpu_load=result.cpu_load,
        others_load=result.others_load,
        # A miss while others used the cores is no finding about this SDK: measure again on a quiet machine.
        disturbed=bool(misses) and (result.others_load or 0.0) > _DISTURBED * options.cores,
        rss_mb=result.rss_mb,
        misses=misses,
        input=f"blocks of {options.block_s * 1e3:g} ms in real time; latency from capture to all events of a block",
        warm_up=f"{options.fill_s:g} s of audio through a new stream, then {SETTLE_S:g} s of every level"
        if test.generator.kind.endswith("streams")
        else f"{SETTLE_S:g} s of every level",
        **percentiles(result.seconds),
    )


def even_levels(top: int, count: int = _GROWTH_LEVELS) -> list[int]:
    """Evenly spaced numbers from 1 to ``top``, so that all have the same weight in a straight line."""
    return sorted({round(n) for n in np.linspace(1, top, count).tolist()})


def _growth_row(test: _Test, passed: Passed, missed_at: int | None, cpu: dict[int, list[float]]) -> Row:
    middle = linear_fit(list(cpu), [float(np.median(loads)) for loads in cpu.values()])
    singly = linear_fit([n for n, loads in cpu.items() for _ in loads], [c for loads in cpu.values() for c in loads])
    sizes = [(float(n), result.rss_mb) for n, result in passed if result.rss_mb]
    memory = linear_fit([n for n, _ in sizes], [m for _, m in sizes])
    return test.row(
        f"growth of {test.generator.kind}",
        most_without_miss=max((n for n, _ in passed), default=0),
        missed_at=missed_at,  # null: no level was missed
        levels=list(cpu),
        repeats=max(map(len, cpu.values()), default=0),
        cpu_loads=list(cpu.values()),  # of each level, in order of the turns
        cpu_load_per_stream=middle.slope if middle else None,
        cpu_load_at_none=middle.intercept if middle else None,
        cpu_r2=middle.r2 if middle else None,  # of the medians of the turns
        cpu_r2_single=singly.r2 if singly else None,  # of every turn
        mb_per_stream=memory.slope if memory else None,
        memory_r2=memory.r2 if memory else None,
        n=sum(map(len, cpu.values())),
    )


def _ramp_loads(test: _Test, passed: Passed) -> dict[int, list[float]]:
    return {n: [result.cpu_load] for n, result in passed if n <= test.options.growth_to}


def _loads_in_turns(test: _Test, passed: Passed, on_step: OnStep) -> dict[int, list[float]]:
    """CPU load of each level, measured in turns, so that a drift of the CPU clock does not look like growth."""
    top = min(max((n for n, _ in passed), default=0), test.options.growth_to)
    if test.options.repeats == 0 or top < 2:
        return _ramp_loads(test, passed)
    levels = even_levels(top)
    found: dict[int, list[float]] = {n: [] for n in levels}
    for turn in range(test.options.repeats):
        for level in levels if turn % 2 == 0 else reversed(levels):
            on_step(f"CPU of {level} {test.generator.kind} for {test.options.hold_s:g} s, turn {turn + 1}")
            found[level].append(test.generator.hold(level, test.options.hold_s).cpu_load)
    return found


def _time_row(test: _Test, level: int) -> Row:
    """One level measured several times, for the growth of CPU and memory with time."""
    parts, options = 5, test.options
    with EnergyMeter() as meter:
        result = [test.generator.hold(level, options.steady_s / parts) for _ in range(parts)]
    times = [(k + 1) * options.steady_s / parts for k in range(parts)]
    long = options.steady_s >= _SLOPE_FROM_S
    memory = linear_fit(times, [h.rss_mb or 0.0 for h in result]) if long and result[0].rss_mb else None
    loads = [h.cpu_load for h in result]
    cpu = linear_fit(times, loads) if long else None
    late = [s for h in result for s in h.seconds]
    return test.row(
        f"time of {test.generator.kind}",
        streams=level,
        audio_s=level * options.steady_s,
        cpu_load=float(np.mean(loads)),
        cpu_drift_pct=100 * cpu.slope * options.steady_s / float(np.mean(loads)) if cpu else None,
        others_load=result[-1].others_load,
        rss_mb=result[-1].rss_mb,
        rss_slope_mb_per_hour=memory.slope * 3600 if memory else None,
        misses=deadline_misses(late, options.deadline_s),
        **meter.figures(),
        **percentiles(late),
    )
