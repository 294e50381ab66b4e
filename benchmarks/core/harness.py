"""Timing harness: warm-up, interleaved rounds, whole-tail percentiles, pinned cores, memory."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core.machine import machine_row, usable_cores

__all__ = [
    "Fit",
    "Interrupted",
    "Row",
    "deadline_misses",
    "give_back_free_memory",
    "interleave",
    "linear_fit",
    "machine_row",
    "median_ratio",
    "peak_rss_mb",
    "percentiles",
    "pinned",
    "resident_mb",
    "round_order",
    "usable_cores",
]

Row = dict[str, Any]
"""One line of benchmark JSON; see :mod:`benchmarks.core.rows`."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C between two rounds; carries the whole rounds that were measured before."""

    def __init__(self, timings: dict[str, dict[str, Any]]) -> None:
        super().__init__("interrupted")
        self.timings = timings


def peak_rss_mb() -> float:
    """Peak resident memory of this process, MiB."""
    # Unlike getrusage, the kernel's high-water mark does not inherit the parent's size across fork and exec.
    found = _status_mb("VmHWM:")
    if found is not None:
        return found
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def resident_mb() -> float | None:
    """Resident memory of this process now, MiB; ``None`` where the system does not report it."""
    return _status_mb("VmRSS:")


def _status_mb(name: str) -> float | None:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


def give_back_free_memory() -> None:
    """Return freed pages to the system, where the allocator can, so that later growth is new memory."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def pinned(cores: int | None) -> Iterator[list[int]]:
    """Pin this thread, and those it starts, to the last ``cores`` cores; the first ones serve interrupts.

    Yields
    ------
    list of int
        The cores; empty where the system cannot pin; all usable cores for ``None``.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield []
        return
    before = os.sched_getaffinity(0)
    if cores is None:
        yield sorted(before)
        return
    chosen = sorted(before)[-cores:]
    os.sched_setaffinity(0, chosen)
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, before)


def percentiles(seconds: Sequence[float]) -> Row:
    """P50, P90, P95, P99 and maximum in ms, nothing clipped; only ``n = 0`` without measurements.

    A percentile is given only where a measurement can lie beyond it: P99 from 100 measurements, P95 from 20, P90 from
    10; else it is ``None``.
    """
    if len(seconds) == 0:
        return {"n": 0}
    ms = np.asarray(seconds, dtype=np.float64) * 1e3
    tail = {
        f"p{percent}_ms": float(np.percentile(ms, percent)) if ms.size * (100 - percent) >= 100 else None
        for percent in (90, 95, 99)
    }
    return {"p50_ms": float(np.median(ms)), **tail, "max_ms": float(ms.max()), "n": int(ms.size)}


def deadline_misses(seconds: Sequence[float], deadline_s: float) -> int:
    """Number of measurements above the deadline."""
    return int(np.count_nonzero(np.asarray(seconds, dtype=np.float64) > deadline_s))


def interleave(
    calls: Mapping[str, Callable[[int], object]],
    *,
    rounds: int,
    warm_up: int = 10,
    on_round: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Time several functions in turn, so that other load on the machine affects all of them alike.

    Parameters
    ----------
    calls
        Name → function of the round number; every call does one unit of work.
    rounds
        Timed calls of each function.
    warm_up
        Untimed calls of each function first.
    on_round
        Called with (done, total) after each round.

    Returns
    -------
    dict
        Name → ``{"seconds": [rounds], "cpu_seconds": [rounds], "cpu_s": CPU seconds of all timed calls}``; the CPU
        seconds are of this process.

    Raises
    ------
    Interrupted
        Ctrl-C after the first round; carries the whole rounds before it.
    """
    for index in range(warm_up):
        for call in calls.values():
            call(index)
    rows: list[dict[str, tuple[float, float]]] = []  # of each round: name → seconds, CPU seconds
    names = list(calls)
    try:
        for index in range(rounds):
            rows.append({name: _timed(calls[name], index) for name in round_order(names, index)})
            if on_round is not None:
                on_round(index + 1, rounds)
    except KeyboardInterrupt:
        if rows:
            raise Interrupted(_gathered(names, rows)) from None
        raise
    return _gathered(names, rows)


def round_order(names: Sequence[str], index: int) -> list[str]:
    """Order of round ``index``: no name always runs on the cache that the same other one left.

    Every odd round is the one before it backwards, so that a steady drift of the CPU clock cancels.
    """
    order = np.random.default_rng(index // 2).permutation(len(names))
    return [names[i] for i in (order[::-1] if index % 2 else order)]


def _timed(call: Callable[[int], object], index: int) -> tuple[float, float]:
    cpu_before, before = time.process_time_ns(), time.perf_counter_ns()
    call(index)
    after, cpu_after = time.perf_counter_ns(), time.process_time_ns()
    return (after - before) / 1e9, (cpu_after - cpu_before) / 1e9


def _gathered(names: Sequence[str], rows: Sequence[Mapping[str, tuple[float, float]]]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "seconds": [row[name][0] for row in rows],
            "cpu_seconds": [row[name][1] for row in rows],
            "cpu_s": sum(row[name][1] for row in rows),
        }
        for name in names
    }


def median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median of the per-round ratios slow / fast of interleaved timings."""
    return float(np.median(np.asarray(slow) / np.asarray(fast)))


@dataclass(frozen=True, slots=True)
class Fit:
    """A straight line through points, and how well it fits."""

    slope: float
    intercept: float
    r2: float  # 1: all points lie on the line; NaN below three points


def linear_fit(x: Sequence[float], y: Sequence[float]) -> Fit | None:
    """Least-squares line through ``[n]`` points; ``None`` below two different ``x``."""
    if len(set(x)) < 2:
        return None
    slope, intercept = np.polyfit(np.asarray(x, np.float64), np.asarray(y, np.float64), 1)
    rest = np.asarray(y) - (slope * np.asarray(x) + intercept)
    spread = float(np.sum(np.square(np.asarray(y) - np.mean(y))))
    r2 = float("nan") if len(set(x)) < 3 or spread == 0 else 1.0 - float(np.sum(np.square(rest))) / spread
    return Fit(float(slope), float(intercept), r2)
