"""What the report shows of the whole pipeline: delay, look-ahead, streams, archives, soak, faults."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.results import Kept, Row
from benchmarks.report.section import COMMANDS, Section, number, part_of, reasons, section, short, where
from benchmarks.report.svg import Axes, Series, plot

_F1 = "event F1 (IoU ≥ 0.5)"


def delay(kept: Kept) -> Section:
    """Replays in real time, and segmenters scored as fast as possible: their delay is of the samples, not the clock."""
    replayed = [r for r in kept.of("stream") if part_of(r).startswith("replay")]
    scored = kept.of("segmentation")
    points: dict[str, list[tuple[float, float]]] = {}
    names: dict[str, list[str]] = {}
    bars: dict[str, list[object]] = {}
    for row, what in [
        *((r, "replay in real time") for r in _first_of_each(replayed)),
        *((r, where(r)) for r in scored),
    ]:
        x, y = number(row.get("detection_delay_p50_s")), number(row.get("event_f1"))
        if x is not None and y is not None:
            points.setdefault(what, []).append((x, y))
            names.setdefault(what, []).append(_delay_name(row))
            bars.setdefault(what, []).append(row.get("event_f1_ci"))
    series = [Series(what, points[what], names[what], line=False, intervals=bars[what]) for what in points]
    return section(
        "Event F1 against delay",
        "Annotated recordings through the whole session. Delay: from the true onset of a breath to its announcement, "
        "look-ahead included. Bars are 95 % patient bootstrap. Percentiles in ms are of capture to event; a P99 is "
        "told from 100 events on.",
        [*scored, *replayed],
        "corpus split event_f1 event_f1_ci event_f1_iou70 detection_delay_p50_s detection_delay_p95_s revision_rate "
        "look_ahead_s p50_ms p99_ms n",
        COMMANDS["stream"],
        plots=[plot(series, Axes("median detection delay, s", _F1, x_from=0.0))] if series else [],
    )


def _first_of_each(replayed: Sequence[Row]) -> list[Row]:
    """Rows of one replay differ in their latencies, not in what was found."""
    found = {(short(r), r.get("event_f1"), r.get("detection_delay_p50_s")): r for r in reversed(replayed)}
    return list(found.values())


def _delay_name(row: Row) -> str:
    look = number(row.get("look_ahead_s"))
    kind = str(row.get("segmenter") or "") or short(row)
    return kind + (f", look-ahead {look:.2g} s" if look is not None else "")


def look_ahead(kept: Kept) -> Section:
    """What waiting longer buys: one trained segmenter a look-ahead."""
    rows = sorted(
        (r for r in kept.of("look-ahead") if number(r.get("look_ahead_s")) is not None),
        key=lambda r: float(r["look_ahead_s"]),
    )
    scored = [r for r in rows if number(r.get("event_f1")) is not None]
    plots = []
    if scored:
        by_look = Series(
            "", [(r["look_ahead_s"], r["event_f1"]) for r in scored], intervals=[r.get("event_f1_ci") for r in scored]
        )
        plots.append(plot([by_look], Axes("look-ahead, s", _F1, x_from=0.0)))
    by_delay = []
    for percent, name in ((50, "median delay"), (95, "P95 of the delay")):
        told = [r for r in scored if number(r.get(f"detection_delay_p{percent}_s")) is not None]
        if told:
            points = [(float(r[f"detection_delay_p{percent}_s"]), float(r["event_f1"])) for r in told]
            labels = [f"{r['look_ahead_s']:.2g} s" for r in told]
            bars = [r.get("event_f1_ci") for r in told]
            by_delay.append(Series(name, points, labels, intervals=bars))
    if by_delay:
        plots.append(plot(by_delay, Axes("detection delay, s (points named by their look-ahead)", _F1, x_from=0.0)))
    return section(
        "Event F1 against look-ahead",
        "Sound beyond a moment that must have been heard before the segmenter speaks of it, against what is found and "
        "when it is announced. Bars are 95 % patient bootstrap.",
        rows,
        "corpus split event_f1 event_f1_ci event_f1_iou70 detection_delay_p50_s detection_delay_p95_s "
        "onset_error_p50_s revision_rate rate_mae_bpm n_true",
        COMMANDS["look-ahead"],
        plots=plots,
        name=lambda r: f"look-ahead {float(r['look_ahead_s']):.3g} s",
    )


def streams(kept: Kept) -> Section:
    levels = [r for r in kept.of("stream", "streams", "sessions") if r.get("streams")]
    plots = []
    for figure, label in (("cpu_load", "CPU seconds a second"), ("p99_ms", "P99 from capture to events, ms")):
        series = []
        for part in ("streams", "sessions"):
            points = [
                (float(r["streams"]), float(r[figure]))
                for r in levels
                if part_of(r) == part and r.get(figure) is not None
            ]
            if points:
                series.append(Series(part, sorted(points)))
        if series:
            plots.append(plot(series, Axes("parallel streams", label, x_from=0.0, y_from=0.0)))
    return section(
        "Streams against CPU",
        "Paced real-time streams on one core; a load of 1 is one core. Missed: more than the deadline late. Disturbed: "
        "missed while others had the core.",
        levels,
        "streams attempt cpu_load others_load rss_mb misses disturbed deadline_ms p50_ms p95_ms p99_ms max_ms n",
        COMMANDS["stream"],
        plots=plots,
        notes=reasons(kept.failed("stream")),
    )


def pipeline(kept: Kept) -> Section:
    kinds = ("throughput", "growth", "time", "cold start", "import")
    return section(
        "The whole pipeline",
        "Throughput, start, and how CPU and memory grow: with the number of streams, and of one number with time.",
        [r for r in kept.of("stream") if part_of(r).startswith(kinds)],
        "cpu_s_per_hour times_real_time most_without_miss missed_at cpu_load_per_stream cpu_r2 mb_per_stream streams "
        "cpu_drift_pct rss_slope_mb_per_hour rss_mb p50_ms p99_ms n",
        COMMANDS["stream"],
    )


def screening(kept: Kept) -> Section:
    rows = kept.of("screening")
    by_engine: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        engine = str((row.get("subject") or {}).get("engine") or "")
        by_engine.setdefault(engine, []).append((float(row["workers"]), float(row["recordings_per_s"])))
    series = [Series(engine, sorted(points)) for engine, points in by_engine.items()]
    return section(
        "Archives",
        "Recordings screened as fast as possible, after the first answer; the time until it is the start of the "
        "processes or of the cluster.",
        rows,
        "workers recordings_per_s ratio times_real_time first_answer_s wall_s audio_s failed_recordings n",
        COMMANDS["screening"],
        plots=[plot(series, Axes("workers", "recordings a second", x_from=0.0, y_from=0.0, whole_x=True))]
        if series
        else [],
    )


def soak(kept: Kept) -> Section:
    rows = kept.of("soak", "interval")
    plots = []
    for figure, label in (
        ("rss_mb", "resident memory, MB"),
        ("p99_ms", "P99 lateness in the interval, ms"),
        ("drift_ms", "drift of the source, ms"),
        ("temperature_c", "hottest zone, °C"),
    ):
        points = [(r["t_s"] / 60, float(r[figure])) for r in rows if r.get(figure) is not None]
        if points:
            plots.append(plot([Series("", points, dots=len(points) < 40)], Axes("minutes", label, x_from=0.0)))
    return section(
        "Soak",
        "One paced session for as long as asked; slopes by least squares after the warm-up, ± their standard error.",
        kept.of("soak", "verdict"),
        "passed why t_s speed rss_slope_mb_per_hour rss_slope_error rss_slope_limit rss_mb lost_samples misses "
        "p99_ms max_ms drift_ppm "
        "cpu_load temperature_c throttled",
        COMMANDS["soak"],
        plots=plots,
    )


def faults(kept: Kept) -> Section:
    return section(
        "Faults",
        "Each against a stated bound. Accounted: samples heard and samples told as lost are all there were.",
        kept.of("faults"),
        "passed why fault recovery_s recovery_bound_s lost_samples lost_bound_samples accounted p99_ms",
        COMMANDS["faults"],
        notes=reasons(kept.failed("faults")),
    )
