"""Soak: one real-time session for minutes to days; memory, drift, lost samples, missed deadlines, temperature."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core.audio import LiveLoopSource, every_phantom, folder_samples
from benchmarks.core.harness import Row, machine_row, percentiles, resident_mb
from benchmarks.core.rows import benchmarked_model
from edge_sdk.events import AudioBlock, Event, StreamStats
from edge_sdk.runtime.bundle.load import load_bundle
from edge_sdk.runtime.session import Session

WARM_UP_S = 600.0
"""Left out of the slopes, but at most half of the run: caches fill and allocators settle."""

JUDGED_FROM_S = 1200.0
"""A shorter run reports its slopes but is not judged by them."""

SLOPE_LIMIT_MB_PER_HOUR = 1.0

_FEWEST_INTERVALS = 4  # needed for a slope
_JUDGED = (
    "t_s", "rss_mb", "drift_ms", "audio_s", "lost_samples", "skipped", "misses", "p99_ms", "max_ms", "n", "cpu_s",
    "temperature_c", "throttled",
)  # fmt: skip
"""Fields of an interval that the verdict needs."""


@dataclass(frozen=True, slots=True)
class SoakOptions:
    """What to run and for how long."""

    bundle: str = "default"
    seconds: float = 3600.0  # wall clock
    root: Path | None = None  # folder of recordings; simulated patients where absent
    speed: float = 1.0  # 2 plays twice as fast as real time: two hours of audio in one
    rate_hz: int = 8000
    deadline_ms: float = 100.0  # from the capture of a block's last sample until the sink has the block and its events
    interval_s: float | None = None  # between rows; None: 30 s, more for long runs

    @property
    def every_s(self) -> float:
        """Seconds per row: at most about 120 rows, because this process keeps them and its memory is measured."""
        return self.interval_s or min(max(30.0, self.seconds / 120), self.seconds / _FEWEST_INTERVALS)


class _LatenessSink:
    """A sink that measures the delay at the end of the pipeline; another thread reads it."""

    def __init__(self, deadline_ms: float) -> None:
        self.failure: BaseException | None = None
        self._deadline_s = deadline_ms / 1e3
        self._lock = threading.Lock()
        self._lateness: list[float] = []  # seconds, since the last call of ``take``
        self._events = 0

    def open(self, source: str, sample_rate: int) -> None:
        pass

    def audio(self, block: AudioBlock) -> None:
        late = (time.monotonic_ns() - block.host_ns) / 1e9
        with self._lock:
            self._lateness.append(late)

    def event(self, event: Event, latency_ms: float | None) -> None:
        with self._lock:
            self._events += 1

    def close(self, stats: StreamStats) -> None:
        pass

    def take(self) -> Row:
        """Figures since the last call."""
        with self._lock:
            lateness, self._lateness = self._lateness, []
            events, self._events = self._events, 0
        row: Row = {"events": events, "misses": sum(s > self._deadline_s for s in lateness)}
        return row | (percentiles(lateness) if lateness else {"n": 0})


def run_soak(options: SoakOptions, on_step: Callable[[str], None] | None = None) -> Iterator[Row]:
    """Rows: the machine, one per interval during the run, and the verdict.

    Ctrl-C ends the session; it is raised after the verdict on the intervals before it.
    """
    yield machine_row()
    bundle = load_bundle(options.bundle, allow_untrained=True)
    rate_hz = options.rate_hz
    audio = folder_samples(options.root, rate_hz) if options.root else every_phantom(rate_hz, _each_s(options))
    source = LiveLoopSource(audio, options.rate_hz, speed=options.speed)
    sink = _LatenessSink(options.deadline_ms)
    session = Session(source, bundle, [sink])
    player = threading.Thread(target=_play, args=(session, sink), name="soak", daemon=True)
    rows: list[Row] = []
    stopped: KeyboardInterrupt | None = None
    player.start()
    begin = time.monotonic()
    cpu = time.process_time()
    try:
        while player.is_alive() and time.monotonic() - begin < options.seconds:
            due = begin + min(options.seconds, (len(rows) + 1) * options.every_s)
            player.join(max(0.0, due - time.monotonic()))
            now, used = time.monotonic() - begin, time.process_time()
            row = _interval(now, session, source, sink, options) | {"cpu_s": used - cpu}
            row["cpu_load"] = row["cpu_s"] / (now - (rows[-1]["t_s"] if rows else 0.0))
            cpu = used
            rows.append({name: row.get(name) for name in _JUDGED})
            yield {"benchmark": "soak", "subject": benchmarked_model(bundle, "interval"), **row}
            if on_step is not None:
                on_step(_progress(row, options.seconds))
    except KeyboardInterrupt as interrupt:
        stopped = interrupt
    finally:
        source.close()
        player.join(5.0)
    verdict = soak_verdict(rows, options, sink.failure)
    yield {"benchmark": "soak", "subject": benchmarked_model(bundle, "verdict"), **verdict}
    if stopped is not None:
        raise stopped


def _each_s(options: SoakOptions) -> float:
    """Length of one simulated patient; shorter for a short soak, to save synthesis time."""
    return min(60.0, max(8.0, options.seconds / 4))


def _play(session: Session, sink: _LatenessSink) -> None:
    try:
        session.run()
    except BaseException as error:  # reported in the verdict
        sink.failure = error


def _interval(t_s: float, session: Session, source: LiveLoopSource, sink: _LatenessSink, options: SoakOptions) -> Row:
    stats = session.stats
    return {
        "t_s": t_s,
        "rss_mb": resident_mb(),
        "threads_alive": threading.active_count(),
        "open_files": _open_files(),
        # Delivered audio minus elapsed time: grows when a clock is slow or skips.
        "drift_ms": (source.delivered / source.sample_rate / options.speed - t_s) * 1e3,
        "audio_s": stats.samples_in / source.sample_rate,
        "cycles": stats.cycles,
        "lost_samples": stats.samples_lost,
        "skipped": stats.skipped,
        **sink.take(),
        **heat(),
    }


def _progress(row: Row, seconds: float) -> str:
    return (
        f"{row['t_s'] / 60:.1f} of {seconds / 60:.1f} min: RSS {row['rss_mb'] or math.nan:.1f} MB, "
        f"{row['lost_samples']} samples lost, {row['misses']} deadlines missed in this interval"
    )


def soak_verdict(rows: list[Row], options: SoakOptions, failure: BaseException | None = None) -> Row:
    """Slopes over the intervals after the warm-up, totals, and whether the bounds hold.

    ``rss_slope_mb_per_hour`` is null below four intervals after the warm-up; ``passed`` is null, with ``why``, where
    the run was too short to judge, unless samples were lost.
    """
    if not rows:
        return {"passed": None, "why": "stopped before the first interval ended", "n": 0}
    warm_s = min(WARM_UP_S, rows[-1]["t_s"] / 2)
    settled = [r for r in rows if r["t_s"] > warm_s]
    rss, rss_error = slope_per_hour(settled, "rss_mb")
    drift, _ = slope_per_hour(settled, "drift_ms")
    lost = rows[-1]["lost_samples"]
    misses = sum(r["misses"] for r in rows)
    passed, why = _judge(rows[-1]["t_s"], rss, lost, failure)
    return {
        "t_s": rows[-1]["t_s"],
        "audio_s": rows[-1]["audio_s"],
        "speed": options.speed,
        "input": "simulated patients" if options.root is None else f"recordings under {options.root.name}",
        "warm_up_s": warm_s,
        "rss_mb": rows[-1]["rss_mb"],
        "rss_slope_mb_per_hour": rss,
        "rss_slope_error": rss_error,
        "rss_slope_limit": SLOPE_LIMIT_MB_PER_HOUR,
        "drift_ppm": None if drift is None else drift / 3.6,  # ms an hour → millionths
        "lost_samples": lost,
        "skipped": rows[-1]["skipped"],
        "misses": misses,
        "deadline_ms": options.deadline_ms,
        "p99_ms": max(
            (r["p99_ms"] for r in rows if r.get("p99_ms") is not None), default=None
        ),  # of the worst interval
        "max_ms": max((r["max_ms"] for r in rows if r.get("max_ms") is not None), default=None),
        "n": sum(r["n"] for r in rows),
        "cpu_s": sum(r["cpu_s"] for r in rows),
        "cpu_load": sum(r["cpu_s"] for r in rows) / rows[-1]["t_s"],
        "temperature_c": max((r["temperature_c"] for r in rows if r["temperature_c"] is not None), default=None),
        "throttled": any(r["throttled"] for r in rows if r["throttled"] is not None) if _reports_heat(rows) else None,
        "failure": None if failure is None else f"{type(failure).__name__}: {failure}",
        "passed": passed,
        "why": why,
    }


def _judge(t_s: float, rss_slope: float | None, lost: int, failure: BaseException | None) -> tuple[bool | None, str]:
    if failure is not None:
        return False, f"the session failed after {t_s:.0f} s"
    if lost:
        return False, f"{lost} samples were lost"
    if rss_slope is None or t_s < JUDGED_FROM_S:
        return None, f"no sample was lost; the slope is judged only in runs of {JUDGED_FROM_S / 60:g} minutes or more"
    if rss_slope > SLOPE_LIMIT_MB_PER_HOUR:
        return False, f"memory grows by {rss_slope:.2f} MB an hour"
    return True, f"memory grows by {rss_slope:.2f} MB an hour, no sample was lost"


def slope_per_hour(rows: list[Row], name: str) -> tuple[float | None, float | None]:
    """Least-squares slope of a figure over time and its standard error; None with fewer than four values."""
    points = [(r["t_s"] / 3600, r[name]) for r in rows if r[name] is not None]
    if len(points) < _FEWEST_INTERVALS:
        return None, None
    t, y = np.asarray(points, dtype=np.float64).T
    centred = t - t.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread
    rest = y - y.mean() - slope * centred
    return slope, math.sqrt(float(rest @ rest) / (len(points) - 2) / spread)


def _reports_heat(rows: list[Row]) -> bool:
    return any(r["throttled"] is not None for r in rows)


# -- figures of the system ---------------------------------------------------------------------------------------------


def _open_files() -> int | None:
    try:
        return len(list(Path("/proc/self/fd").iterdir()))
    except OSError:
        return None


def heat(system: Path = Path("/sys")) -> dict[str, Any]:
    """Hottest zone, slowest core and whether the kernel counted throttling; None where the system hides it."""
    zones = _numbers(system.glob("class/thermal/thermal_zone*/temp"))
    clocks = _numbers(system.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
    events = _numbers(system.glob("devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"))
    return {
        "temperature_c": max(zones) / 1000 if zones else None,
        "slowest_core_mhz": min(clocks) / 1000 if clocks else None,
        "throttled": sum(events) > 0 if events else None,
    }


def _numbers(paths: Iterator[Path]) -> list[float]:
    found = []
    for path in paths:
        try:
            found.append(float(path.read_text()))
        except (OSError, ValueError):
            continue
    return found
