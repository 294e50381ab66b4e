"""What the report shows of models: accuracy against latency, calibration, networks, conversions, peers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from benchmarks.core.rows import subject_name
from benchmarks.report.results import Kept, Row
from benchmarks.report.section import COMMANDS, Section, number, part_of, reasons, section, short, where
from benchmarks.report.svg import Axes, Series, bars, plot


def pareto(kept: Kept) -> Section:
    """Artefacts beside the networks of the side-by-side training, each with its own latency."""
    timed: dict[Any, Row] = {
        _artefact(r): r for r in kept.of("latency") if (r.get("subject") or {}).get("batch", 1) == 1
    }
    joined: list[Row] = [{"p50_ms": timed.get(_artefact(r), {}).get("p50_ms"), **r} for r in kept.of("accuracy")]
    drawn: dict[str, list[tuple[float, float, str, Any]]] = {}
    for row in joined:
        if row.get("p50_ms") and row.get("auroc") is not None:
            drawn.setdefault(f"artefacts, {where(row)}", []).append(_point(row, row["p50_ms"]))
    for row in kept.of("networks"):
        if row.get("p50_ms") and row.get("auroc") is not None:
            drawn.setdefault(f"torch eager, {where(row)}", []).append(_point(row, row["p50_ms"]))
    series = [
        Series(name, [p[:2] for p in points], _told_once(points), line=False, intervals=[p[3] for p in points])
        for name, points in drawn.items()
    ]
    best = _front([p[:3] for points in drawn.values() for p in points])
    if len(best) > 1:
        series.append(Series("Pareto front", best, dots=False))
    axes = Axes("P50 of one breath, ms (logarithmic)", "AUROC, abnormal against normal", log_x=True)
    return section(
        "Latency against accuracy",
        "Every model where both were measured; up and to the left is better. Bars are 95 % patient bootstrap. Compare "
        "points of one colour: latencies of different files are of different runs, perhaps of different machines.",
        joined,
        "corpus split n p50_ms auroc auroc_ci score score_ci score_2class ece passed",
        COMMANDS["accuracy"],
        plots=[plot(series, axes)] if series else [],
        notes=reasons(kept.failed("accuracy")),
    )


def _told_once(points: Sequence[tuple[float, float, str, Any]]) -> list[str]:
    """Names of points; of several with one name (seeds of a network) only the best carries it."""
    best = {name: max(y for _, y, other, _ in points if other == name) for _, _, name, _ in points}
    return [name if best[name] == y else "" for _, y, name, _ in points]


def _point(row: Row, ms: float) -> tuple[float, float, str, Any]:
    return float(ms), float(row["auroc"]), short(row), row.get("auroc_ci")


def _artefact(row: Row) -> tuple[Any, Any]:
    subject = row.get("subject") or {}
    return subject.get("model"), subject.get("artefact")


def _front(points: Sequence[tuple[float, float, str]]) -> list[tuple[float, float]]:
    """Points that no other beats in both."""
    best: list[tuple[float, float]] = []
    for x, y, _ in sorted(points, key=lambda p: (p[0], -p[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best


def latency(kept: Kept) -> Section:
    return section(
        "Latency of the model",
        "One breath in, logits out; all artefacts in the same interleaved rounds, nothing clipped.",
        [r for r in kept.of("latency") if not part_of(r).startswith("stage")],
        "p50_ms p95_ms p99_ms max_ms n ratio_to_torch roofline_pct bound cycles_per_s rss_mb load_s",
        COMMANDS["latency"],
        notes=reasons(kept.failed("latency")),
    )


def stages(kept: Kept) -> Section:
    rows = [r for r in kept.of("latency") if part_of(r).startswith("stage")]
    shares = [
        (str(r["subject"]["part"]).removeprefix("stage "), float(r["cpu_s_per_hour"]))
        for r in rows
        if r.get("cpu_s_per_hour") is not None
    ]
    return section(
        "Stages of the stream",
        "CPU seconds of each stage for an hour of sound.",
        rows,
        "share cpu_s_per_hour p50_ms p99_ms n",
        COMMANDS["latency"],
        plots=[bars(shares, "CPU s an hour")] if shares else [],
    )


def reliability(kept: Kept) -> Section:
    rows = [r for r in kept.of("accuracy") if r.get("reliability")]
    series = [Series(f"{short(row)}, {where(row)}".strip(", "), _bins(row["reliability"])) for row in rows]
    axes = Axes("confidence in the answer", "share of right answers", False, 0.0, 1.0, 0.0, 1.0, diagonal=True)
    return section(
        "Reliability",
        "Of answers given with a confidence, how many are right: the diagonal is calibrated, below is overconfident.",
        rows,
        "corpus split n ece ece_ci",
        COMMANDS["accuracy"],
        plots=[plot(series, axes)] if series else [],
    )


def _bins(table: Any) -> list[tuple[float, float]]:
    """Confidence and share of right answers; bins as a list of objects, or as one object of lists."""
    if isinstance(table, dict):
        pairs = list(zip(table.get("confidence", []), table.get("accuracy", []), strict=False))
    else:
        pairs = [(one.get("confidence"), one.get("accuracy")) for one in table]
    return [(float(c), float(a)) for c, a in pairs if number(c) is not None and number(a) is not None]


def networks(kept: Kept) -> Section:
    return section(
        "Networks side by side",
        "Fresh networks, the same training data and the same protocol; the latency is of torch eager.",
        kept.of("networks"),
        "corpus split score score_ci auroc auroc_ci ece parameters p50_ms minutes",
        COMMANDS["networks"],
        name=lambda r: str((r.get("subject") or {}).get("model") or ""),
    )


def conversion(kept: Kept) -> Section:
    return section(
        "What the conversion costs",
        "Artefacts beside their torch model on the same annotated breaths; drops with 95 % paired patient bootstrap.",
        kept.of("conversion"),
        "verified n agreement max_abs_error auroc_drop auroc_drop_ci score_drop score_drop_ci bytes",
        COMMANDS["conversion"],
    )


def peers(kept: Kept) -> Section:
    rows = kept.of("peers")
    plots = []
    for row in rows:
        if row.get("stages"):
            shares = sorted(((k, 100 * float(v)) for k, v in row["stages"].items()), key=lambda s: -s[1])
            plots.append(f"<h3>Where the time of {escape(subject_name(row))} goes</h3>" + bars(shares, "%"))
    return section(
        "Peers",
        "CPU ratio: ours by the peer's, median of interleaved rounds with its 95 % interval; below 1 ours takes less.",
        rows,
        "cpu_ratio cpu_ratio_low cpu_ratio_high wall_ratio p50_ms cpu_s_per_hour "
        "largest_difference f1 agrees environment n",
        COMMANDS["peers"],
        plots=plots,
        notes=reasons(kept.failed("peers")),
    )
