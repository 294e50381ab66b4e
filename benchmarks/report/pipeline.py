"""What the report shows of the whole pipeline: delay, look-ahead, streams, archives, soak, faults."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.charts import Axes, LineChart, Series
from benchmarks.report.results import ResultSet, Row
from benchmarks.report.section import (
    COMMANDS,
    Section,
    make_section,
    number,
    on_machine,
    part_of,
    reasons,
    short,
    where,
)

_F1 = "Event F1 (IoU ≥ 0.5)"


def delay_section(results: ResultSet) -> Section:
    """Replays in real time, and segmenters scored as fast as possible: their delay is of the samples, not the clock."""
    replayed = [r for r in results.of("stream") if part_of(r).startswith("replay")]
    scored = results.of("segmentation")
    points: dict[str, list[tuple[float, float]]] = {}
    names: dict[str, list[str]] = {}
    bars: dict[str, list[object]] = {}
    for row, what in [
        *((r, "replay in real time" + on_machine(r, replayed)) for r in _first_of_each(replayed)),
        *((r, where(r)) for r in scored),
    ]:
        x, y = number(row.get("detection_delay_p50_s")), number(row.get("event_f1"))
        if x is not None and y is not None:
            points.setdefault(what, []).append((x, y))
            names.setdefault(what, []).append(_delay_name(row))
            bars.setdefault(what, []).append(row.get("event_f1_ci"))
    series = [Series(what, points[what], names[what], line=False, intervals=bars[what]) for what in points]
    return make_section(
        "Event F1 against delay",
        "Annotated recordings through the whole session. Delay: from the true onset of a breath to its announcement, "
        "look-ahead included. Bars are 95 % patient bootstrap. Percentiles in ms are from capture to event; a P99 is "
        "given from 100 events on.",
        [*scored, *replayed],
        "corpus split event_f1 event_f1_ci event_f1_iou70 detection_delay_p50_s detection_delay_p95_s revision_rate "
        "look_ahead_s p50_ms p99_ms n",
        COMMANDS["stream"],
        charts=[LineChart(series, Axes("median detection delay, s", _F1, x_from=0.0))] if series else [],
        group=lambda r: "Replay in real time" if part_of(r).startswith("replay") else "As fast as possible",
    )


def _first_of_each(replayed: Sequence[Row]) -> list[Row]:
    """Rows of one replay differ in their latencies, not in what was found."""
    found = {(short(r), r.get("event_f1"), r.get("detection_delay_p50_s")): r for r in reversed(replayed)}
    return list(found.values())


def _delay_name(row: Row) -> str:
    look = number(row.get("look_ahead_s"))
    kind = str(row.get("segmenter") or "") or short(row)
    return kind + (f", look-ahead {look:.2g} s" if look is not None else "")


def look_ahead_section(results: ResultSet) -> Section:
    """What waiting longer buys: one trained segmenter a look-ahead."""
    rows = sorted(
        (r for r in results.of("look-ahead") if number(r.get("look_ahead_s")) is not None),
        key=lambda r: float(r["look_ahead_s"]),
    )
    scored = [r for r in rows if number(r.get("event_f1")) is not None]
    charts = []
    if scored:
        by_look = Series(
            "", [(r["look_ahead_s"], r["event_f1"]) for r in scored], intervals=[r.get("event_f1_ci") for r in scored]
        )
        charts.append(LineChart([by_look], Axes("look-ahead, s", _F1, x_from=0.0)))
    by_delay = []
    for percent, name in ((50, "median delay"), (95, "P95 of the delay")):
        delayed = [r for r in scored if number(r.get(f"detection_delay_p{percent}_s")) is not None]
        if delayed:
            points = [(float(r[f"detection_delay_p{percent}_s"]), float(r["event_f1"])) for r in delayed]
            labels = [f"{r['look_ahead_s']:.2g} s" for r in delayed]
            bars = [r.get("event_f1_ci") for r in delayed]
            by_delay.append(Series(name, points, labels, intervals=bars))
    if by_delay:
        axes = Axes("detection delay, s; points carry their look-ahead", _F1, x_from=0.0)
        charts.append(LineChart(by_delay, axes))
    return make_section(
        "Event F1 against look-ahead",
        "Look-ahead: audio after a moment that the segmenter needs before it decides about that moment; against what "
        "is found and when it is announced. Bars are 95 % patient bootstrap.",
        rows,
        "corpus split event_f1 event_f1_ci event_f1_iou70 detection_delay_p50_s detection_delay_p95_s "
        "onset_error_p50_s revision_rate rate_mae_bpm n_true",
        COMMANDS["look-ahead"],
        charts=charts,
        name=lambda r: f"look-ahead {float(r['look_ahead_s']):.3g} s",
    )


def streams_section(results: ResultSet) -> Section:
    """Load and lateness of parallel streams and sessions."""
    parts = ("streams", "batched streams", "sessions", "batched sessions")
    levels = [r for r in results.of("stream", *parts) if r.get("streams")]
    charts = []
    for figure, label, log in (
        ("cpu_load", "CPU seconds per second", False),
        ("p99_ms", "P99 from capture to events, ms (logarithmic)", True),
    ):
        series = []
        for part in parts:
            points: dict[str, list[tuple[float, float]]] = {}
            for row in (r for r in levels if part_of(r) == part and r.get(figure) is not None):
                name = part + on_machine(row, levels)
                points.setdefault(name, []).append((float(row["streams"]), float(row[figure])))
            series += [Series(name, sorted(levels_of)) for name, levels_of in points.items()]
        deadlines = {float(r["deadline_ms"]) for r in levels if number(r.get("deadline_ms"))} if log else set()
        if series:
            most = max(x for one in series for x, _ in one.points)
            series += [
                Series(f"deadline {d:g} ms", [(0.0, d), (most, d)], dots=False, dashed=True) for d in sorted(deadlines)
            ]
            axes = Axes("parallel streams", label, x_from=0.0, y_from=None if log else 0.0, log_y=log, whole_x=True)
            charts.append(LineChart(series, axes))
    return make_section(
        "Streams against CPU",
        "Paced real-time streams on one core; a load of 1 is one core. Missed: more than the deadline late. Disturbed: "
        "missed while others had the core.",
        levels,
        "streams attempt cpu_load others_load rss_mb misses disturbed deadline_ms p50_ms p95_ms p99_ms max_ms n",
        COMMANDS["stream"],
        charts=charts,
        notes=reasons(results.failed("stream")),
        group=part_of,
    )


_PIPELINE_GROUPS = {
    "throughput": "Throughput",
    "live": "Live and files",
    "files": "Live and files",
    "growth": "Growth with the number of streams",
    "time": "Growth with time",
    "cold start": "Start",
    "import": "Start",
}


def pipeline_section(results: ResultSet) -> Section:
    """Throughput, start and growth."""
    kinds = tuple(_PIPELINE_GROUPS)
    return make_section(
        "The whole pipeline",
        "Throughput, start, and how CPU and memory grow: with the number of streams, and of one number with time.",
        [r for r in results.of("stream") if part_of(r).startswith(kinds)],
        "cpu_s_per_hour cpu_ratio cpu_ratio_low cpu_ratio_high times_real_time joules_per_hour cpu_ms "
        "most_without_miss missed_at cpu_load_per_stream cpu_r2 mb_per_stream streams "
        "cpu_drift_pct rss_slope_mb_per_hour rss_mb p50_ms p99_ms n",
        COMMANDS["stream"],
        group=lambda r: next(name for kind, name in _PIPELINE_GROUPS.items() if part_of(r).startswith(kind)),
    )


def screening_section(results: ResultSet) -> Section:
    """Archives by number of workers and engine."""
    rows = results.of("screening")
    by_engine: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        engine = str((row.get("subject") or {}).get("engine") or "") + on_machine(row, rows)
        by_engine.setdefault(engine, []).append((float(row["workers"]), float(row["recordings_per_s"])))
    series = [Series(engine, sorted(points)) for engine, points in by_engine.items()]
    axes = Axes("workers", "Recordings per second", x_from=0.0, y_from=0.0, whole_x=True)
    return make_section(
        "Archives",
        "Recordings screened as fast as possible, after the first result; the time until it is the start of the "
        "processes or of the cluster.",
        rows,
        "workers recordings_per_s ratio times_real_time first_answer_s wall_s audio_s failed_recordings n",
        COMMANDS["screening"],
        charts=[LineChart(series, axes)] if series else [],
    )


def soak_section(results: ResultSet) -> Section:
    """One long session."""
    rows = results.of("soak", "interval")
    charts = []
    for figure, label in (
        ("rss_mb", "Resident memory, MB"),
        ("p99_ms", "P99 lateness in the interval, ms"),
        ("drift_ms", "Drift of the source, ms"),
        ("temperature_c", "Hottest zone, °C"),
    ):
        points: dict[str, list[tuple[float, float]]] = {}
        for row in (r for r in rows if r.get(figure) is not None):
            points.setdefault(on_machine(row, rows).lstrip(" ·"), []).append((row["t_s"] / 60, float(row[figure])))
        if points:
            series = [Series(name, found, dots=len(found) < 40) for name, found in points.items()]
            charts.append(LineChart(series, Axes("minutes", label, x_from=0.0)))
    return make_section(
        "Soak",
        "One paced session for as long as asked; slopes by least squares after the warm-up, ± their standard error.",
        results.of("soak", "verdict"),
        "passed why t_s speed rss_slope_mb_per_hour rss_slope_error rss_slope_limit rss_mb lost_samples misses "
        "p99_ms max_ms drift_ppm "
        "cpu_load temperature_c throttled",
        COMMANDS["soak"],
        charts=charts,
    )


def faults_section(results: ResultSet) -> Section:
    """Faults and their bounds."""
    return make_section(
        "Faults",
        "Each against a stated bound. Accounted: received and dropped samples together are all that were sent.",
        results.of("faults"),
        "passed why fault recovery_s recovery_bound_s lost_samples lost_bound_samples accounted p99_ms",
        COMMANDS["faults"],
        notes=reasons(results.failed("faults")),
    )
