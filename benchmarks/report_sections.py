"""What the report shows of each benchmark: a plot, a table, or the command that makes its results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from benchmarks.report_results import Kept, Row
from benchmarks.rows import subject_name
from benchmarks.svg import Axes, Series, bars, plot

COMMANDS = {
    "latency": "stetho bench latency --out benchmarks/results/latency.json",
    "accuracy": "stetho bench accuracy default sprsound $STETHO_DATA/sprsound --out benchmarks/results/accuracy.json",
    "stream": "stetho bench stream --root $STETHO_DATA/sprsound --out benchmarks/results/stream.json",
    "soak": "stetho bench soak --minutes 60 --out benchmarks/results/soak.json",
    "faults": "stetho bench faults --out benchmarks/results/faults.json",
    "peers": "stetho bench peers --out benchmarks/results/peers.json",
}


@dataclass(frozen=True, slots=True)
class Section:
    """One heading with what stands below it; the same for both pages."""

    title: str
    lead: str
    plots: Sequence[str] = ()  # HTML
    columns: Sequence[str] = ()
    table: Sequence[tuple[str, Row]] = ()
    notes: Sequence[str] = ()
    missing: str = ""  # the command that makes it


def _section(
    title: str,
    lead: str,
    rows: Sequence[Row],
    columns: str,  # with blanks between them
    missing: str,
    *,
    plots: Sequence[str] = (),
    notes: Sequence[str] = (),
    name: Callable[[Row], str] = subject_name,
) -> Section:
    if not rows:
        return Section(title, lead, notes=notes, missing=missing)
    used = [c for c in columns.split() if any(r.get(c) not in (None, "") for r in rows)]
    return Section(title, lead, plots, used, [(name(r), r) for r in rows], notes)


def _reasons(rows: Iterable[Row]) -> list[str]:
    return [f"not measured: {subject_name(r)}: {r['failed']}" for r in rows]


def _pareto(kept: Kept) -> Section:
    rows = kept.of("accuracy")
    timed = {_artefact(r): r for r in kept.of("latency") if (r.get("subject") or {}).get("batch", 1) == 1}
    joined = [{"p50_ms": timed.get(_artefact(r), {}).get("p50_ms"), **r} for r in rows]
    drawn: dict[str, list[tuple[float, float, str]]] = {}
    for row in joined:
        if row.get("p50_ms") and row.get("auroc") is not None:
            where = f"{row.get('corpus')} {row.get('split') or ''}".strip()
            drawn.setdefault(where, []).append((row["p50_ms"], row["auroc"], _short(row)))
    series = [
        Series(where, [p[:2] for p in points], [p[2] for p in points], line=False) for where, points in drawn.items()
    ]
    best = _front([p for points in drawn.values() for p in points]) if len(drawn) == 1 else []
    if len(best) > 1:
        series.append(Series("Pareto front", best, dots=False))
    axes = Axes("P50 of one breath, ms (logarithmic)", "AUROC, abnormal against normal", log_x=True)
    return _section(
        "Latency against accuracy",
        "Every artefact where both were measured; up and to the left is better. Intervals are 95 % patient bootstrap.",
        joined,
        "corpus split n p50_ms auroc auroc_ci score score_ci score_2class ece passed",
        COMMANDS["accuracy"],
        plots=[plot(series, axes)] if series else [],
        notes=_reasons(kept.failed("accuracy")),
    )


def _artefact(row: Row) -> tuple[Any, Any]:
    subject = row.get("subject") or {}
    return subject.get("model"), subject.get("artefact")


def _short(row: Row) -> str:
    subject = row.get("subject") or {}
    return f"{str(subject.get('model') or '').split(' ')[0]} {subject.get('artefact') or ''}".strip()


def _front(points: Sequence[tuple[float, float, str]]) -> list[tuple[float, float]]:
    """Points that no other beats in both."""
    best: list[tuple[float, float]] = []
    for x, y, _ in sorted(points, key=lambda p: (p[0], -p[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best


def _latency(kept: Kept) -> Section:
    return _section(
        "Latency of the model",
        "One breath in, logits out; all artefacts in the same interleaved rounds, nothing clipped.",
        [r for r in kept.of("latency") if not str((r.get("subject") or {}).get("part") or "").startswith("stage")],
        "p50_ms p95_ms p99_ms max_ms n ratio_to_torch roofline_pct bound cycles_per_s rss_mb load_s",
        COMMANDS["latency"],
        notes=_reasons(kept.failed("latency")),
    )


def _stages(kept: Kept) -> Section:
    rows = [r for r in kept.of("latency") if str((r.get("subject") or {}).get("part") or "").startswith("stage")]
    shares = [
        (str(r["subject"]["part"]).removeprefix("stage "), float(r["cpu_s_per_hour"]))
        for r in rows
        if r.get("cpu_s_per_hour") is not None
    ]
    return _section(
        "Stages of the stream",
        "CPU seconds of each stage for an hour of sound.",
        rows,
        "share cpu_s_per_hour p50_ms p99_ms n",
        COMMANDS["latency"],
        plots=[bars(shares, "CPU s an hour")] if shares else [],
    )


def _delay(kept: Kept) -> Section:
    rows = kept.of("stream", "replay")
    points = [
        (r["detection_delay_p50_s"], r["event_f1"], _delay_name(r))
        for r in rows
        if r.get("detection_delay_p50_s") is not None and r.get("event_f1") is not None
    ]
    series = [Series("", [p[:2] for p in points], [p[2] for p in points], line=False)]
    return _section(
        "Event F1 against delay",
        "Annotated recordings replayed in real time through the whole session. Delay: from the true onset of a breath "
        "to its announcement, look-ahead included.",
        rows,
        "event_f1 event_f1_iou70 detection_delay_p50_s detection_delay_p95_s look_ahead_s p50_ms p95_ms p99_ms "
        "lost_samples n",
        COMMANDS["stream"],
        plots=[plot(series, Axes("median detection delay, s", "event F1 (IoU ≥ 0.5)", x_from=0.0))] if points else [],
    )


def _delay_name(row: Row) -> str:
    look = row.get("look_ahead_s")
    return _short(row) + (f", look-ahead {look:.2g} s" if isinstance(look, (int, float)) else "")


def _streams(kept: Kept) -> Section:
    rows = kept.of("stream", "streams", "sessions")
    series = []
    for part in ("streams", "sessions"):
        points = [
            (float(r["streams"]), float(r["cpu_load"]))
            for r in kept.of("stream", part)
            if r.get("streams") and r.get("cpu_load") is not None
        ]
        if points:
            series.append(Series(part, sorted(points)))
    others = kept.of("stream", "throughput", "paced", "growth", "time", "cold start", "import edge_sdk")
    return _section(
        "Streams against CPU",
        "Paced real-time streams on one machine; a load of 1 is one core. Missed: more than the deadline late.",
        [*rows, *others],
        "streams cpu_load rss_mb misses deadline_ms p50_ms p99_ms most_without_miss "
        "cpu_r2 mb_per_stream cpu_s_per_hour times_real_time lost_samples",
        COMMANDS["stream"],
        plots=[plot(series, Axes("parallel streams", "CPU seconds a second", x_from=0.0, y_from=0.0))]
        if series
        else [],
        notes=_reasons(kept.failed("stream")),
    )


def _reliability(kept: Kept) -> Section:
    rows = [r for r in kept.of("accuracy") if r.get("reliability")]
    series = []
    for row in rows:
        table = row["reliability"]
        points = [
            (float(c), float(a))
            for c, a in zip(table.get("confidence", []), table.get("accuracy", []), strict=False)
            if c is not None and a is not None
        ]
        series.append(Series(f"{_short(row)}, {row.get('corpus')} {row.get('split') or ''}".strip(), points))
    axes = Axes("confidence in the answer", "share of right answers", False, 0.0, 1.0, 0.0, 1.0, diagonal=True)
    return _section(
        "Reliability",
        "Of answers given with a confidence, how many are right: the diagonal is calibrated, below is overconfident.",
        rows,
        "corpus split n ece ece_ci",
        COMMANDS["accuracy"],
        plots=[plot(series, axes)] if series else [],
    )


def _soak(kept: Kept) -> Section:
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
    return _section(
        "Soak",
        "One paced session for as long as asked; slopes by least squares after the warm-up, ± their standard error.",
        kept.of("soak", "verdict"),
        "passed why t_s speed rss_slope_mb_per_hour rss_slope_error rss_slope_limit rss_mb lost_samples misses "
        "p99_ms max_ms drift_ppm "
        "cpu_load temperature_c throttled",
        COMMANDS["soak"],
        plots=plots,
    )


def _faults(kept: Kept) -> Section:
    return _section(
        "Faults",
        "Each against a stated bound. Accounted: samples heard and samples told as lost are all there were.",
        kept.of("faults"),
        "passed why fault recovery_s recovery_bound_s lost_samples lost_bound_samples accounted p99_ms",
        COMMANDS["faults"],
        notes=_reasons(kept.failed("faults")),
    )


def _peers(kept: Kept) -> Section:
    rows = kept.of("peers")
    plots = []
    for row in rows:
        if row.get("stages"):
            shares = sorted(((k, 100 * float(v)) for k, v in row["stages"].items()), key=lambda s: -s[1])
            plots.append(f"<h3>Where the time of {escape(subject_name(row))} goes</h3>" + bars(shares, "%"))
    return _section(
        "Peers",
        "CPU ratio: ours by the peer's, median of interleaved rounds with its 95 % interval; below 1 ours takes less.",
        rows,
        "cpu_ratio cpu_ratio_low cpu_ratio_high wall_ratio p50_ms cpu_s_per_hour "
        "largest_difference f1 agrees environment n",
        COMMANDS["peers"],
        plots=plots,
        notes=_reasons(kept.failed("peers")),
    )


SECTIONS: tuple[Callable[[Kept], Section], ...] = (
    _pareto,
    _latency,
    _stages,
    _delay,
    _streams,
    _reliability,
    _soak,
    _faults,
    _peers,
)
