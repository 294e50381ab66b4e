"""Timing harness: warm-up, interleaved rounds, whole-tail percentiles, and the machine they were measured on."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
"""One line of benchmark JSON."""

_PACKAGES = ("numpy", "onnxruntime", "soxr", "soundfile", "torch", "torchaudio", "onnx", "tensorrt")


def machine_row() -> Row:
    """The first line of every benchmark: what the figures below it were measured on."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "benchmark": "machine",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_mb": _memory_mb(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions,
        "load_average": list(os.getloadavg()),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _first_line(path: str) -> str | None:
    try:
        return Path(path).read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        return None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _memory_mb() -> int | None:
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20)
    except (ValueError, OSError, AttributeError):
        return None


def peak_rss_mb() -> float:
    """Peak resident memory of this process, MiB."""
    try:
        # Unlike getrusage, the kernel's high-water mark does not inherit the parent's size across fork and exec.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def percentiles(seconds: Sequence[float]) -> Row:
    """P50, P90, P95, P99 and maximum in ms, nothing clipped."""
    ms = np.asarray(seconds, dtype=np.float64) * 1e3
    p50, p90, p95, p99 = np.percentile(ms, (50, 90, 95, 99))
    return {
        "p50_ms": float(p50),
        "p90_ms": float(p90),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "max_ms": float(ms.max()),
        "n": int(ms.size),
    }


def interleave(
    subjects: Mapping[str, Callable[[int], object]],
    *,
    rounds: int,
    warm_up: int = 10,
    on_round: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Time several callables in turn, so that a busy moment of the machine hits all of them alike.

    Parameters
    ----------
    subjects
        Name → function of the round number; every function does one unit of work.
    rounds
        Timed calls of each subject.
    warm_up
        Untimed calls of each subject first.
    on_round
        Called with (done, total) after each round.

    Returns
    -------
    dict
        Name → ``{"seconds": [rounds], "cpu_s": CPU seconds of the timed calls}``.
    """
    for index in range(warm_up):
        for call in subjects.values():
            call(index)
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    cpu = dict.fromkeys(subjects, 0.0)
    names = list(subjects)
    for index in range(rounds):
        # The order turns with every round: nobody always runs on the cache its neighbour left.
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            cpu_before, before = time.process_time_ns(), time.perf_counter_ns()
            subjects[name](index)
            after, cpu_after = time.perf_counter_ns(), time.process_time_ns()
            seconds[name].append((after - before) / 1e9)
            cpu[name] += (cpu_after - cpu_before) / 1e9
        if on_round is not None:
            on_round(index + 1, rounds)
    return {name: {"seconds": seconds[name], "cpu_s": cpu[name]} for name in subjects}


def median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median of the per-round ratios slow / fast of interleaved timings."""
    return float(np.median(np.asarray(slow) / np.asarray(fast)))
