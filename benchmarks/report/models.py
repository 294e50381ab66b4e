"""What the report shows of models: accuracy against latency, calibration, networks, conversions, peers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.core.rows import subject_name
from benchmarks.report.charts import Axes, BarChart, LineChart, Series
from benchmarks.report.results import ResultSet, Row
from benchmarks.report.section import (
    COMMANDS,
    Section,
    machines_of,
    make_section,
    number,
    on_machine,
    part_of,
    reasons,
    short,
    where,
)


class _Point(NamedTuple):
    """A model where latency and accuracy were measured."""

    ms: float
    auroc: float
    name: str
    interval: Any
    corpus: str


def pareto_section(results: ResultSet) -> Section:
    """Artefacts beside the networks of the side-by-side training, each with its own latency."""
    timed: dict[Any, Row] = {}
    latencies = results.of("latency")
    for row in latencies:
        if (
            row.get("machine") in (None, *machines_of(latencies)[:1])
            and (row.get("subject") or {}).get("batch", 1) == 1
            and not part_of(row)
        ):
            timed.setdefault(_artefact(row), row)
    accuracy: list[Row] = [{"p50_ms": timed.get(_artefact(r), {}).get("p50_ms"), **r} for r in results.of("accuracy")]
    drawn: dict[str, list[_Point]] = {}
    for kind, rows in (("artefacts", accuracy), ("torch eager", results.of("networks"))):
        for row in rows:
            if row.get("p50_ms") and row.get("auroc") is not None:
                drawn.setdefault(f"{kind}, {where(row)}", []).append(_point(row, rows))
    series = [
        Series(name, [p[:2] for p in points], _best_named(points), line=False, intervals=[p.interval for p in points])
        for name, points in drawn.items()
    ]
    series += _fronts([p for points in drawn.values() for p in points])
    axes = Axes("P50 of one breath, ms (logarithmic)", "AUROC, abnormal against normal", log_x=True)
    return make_section(
        "Latency against accuracy",
        "Every model where both were measured; up and to the left is better. Bars are 95 % patient bootstrap. Compare "
        "points of one colour: latencies of different files are of different runs, perhaps of different machines.",
        accuracy,
        "corpus split n p50_ms auroc auroc_ci score score_ci score_2class ece passed",
        COMMANDS["accuracy"],
        charts=[LineChart(series, axes, large=True)] if series else [],
        notes=[*(f"latencies of {name}" for name in machines_of(timed.values())), *reasons(results.failed("accuracy"))],
    )


def _best_named(points: Sequence[_Point]) -> list[str]:
    """Names of points; of several with one name (seeds of a network) only the best carries it."""
    names: list[str] = []
    for point in points:
        best = max(other.auroc for other in points if other.name == point.name)
        names.append(point.name if point.auroc == best and point.name not in names else "")
    return names


def _point(row: Row, rows: Sequence[Row]) -> _Point:
    """A row as a point; its name has a version where another row has another."""
    subject = row.get("subject") or {}
    models = {str((r.get("subject") or {}).get("model")) for r in rows if short(r) == short(row)}
    versions = {model.partition(" ")[2] for model in models}
    versioned = len(versions) > 1 and "artefact" in subject
    name = f"{subject.get('model')} {subject.get('artefact') or ''}".strip() if versioned else short(row)
    return _Point(float(row["p50_ms"]), float(row["auroc"]), name, row.get("auroc_ci"), where(row))


def _artefact(row: Row) -> tuple[Any, Any]:
    subject = row.get("subject") or {}
    return subject.get("model"), subject.get("artefact")


def _fronts(points: Sequence[_Point]) -> list[Series]:
    """Points that no other of the same corpus and split beats in both; AUROCs of two corpora are not compared."""
    series = []
    for corpus in dict.fromkeys(p.corpus for p in points):
        best: list[tuple[float, float]] = []
        for point in sorted((p for p in points if p.corpus == corpus), key=lambda p: (p.ms, -p.auroc)):
            if not best or point.auroc > best[-1][1]:
                best.append((point.ms, point.auroc))
        if len(best) > 1:
            series.append(Series(f"Pareto front, {corpus}".rstrip(", "), best, dots=False, dashed=True))
    return series


def latency_section(results: ResultSet) -> Section:
    """One cycle through every artefact."""
    return make_section(
        "Latency of the model",
        "One breath in, logits out; all artefacts in the same interleaved rounds, nothing clipped.",
        [r for r in results.of("latency") if not part_of(r).startswith("stage")],
        "p50_ms p95_ms p99_ms max_ms n ratio_to_torch ratio_to_torch_ci cpu_ratio roofline_pct bound cycles_per_s "
        "rss_mb load_s",
        COMMANDS["latency"],
        notes=reasons(results.failed("latency")),
    )


def stages_section(results: ResultSet) -> Section:
    """CPU time of each stage of the stream."""
    rows = [r for r in results.of("latency") if part_of(r).startswith("stage")]
    shares: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        if row.get("cpu_s_per_hour") is not None:
            share = (part_of(row).removeprefix("stage "), float(row["cpu_s_per_hour"]))
            model = str(row["subject"].get("model") or "") + on_machine(row, rows)
            shares.setdefault(model, []).append(share)
    return make_section(
        "Stages of the stream",
        "CPU seconds of each stage for an hour of audio.",
        rows,
        "share cpu_s_per_hour p50_ms p99_ms n",
        COMMANDS["latency"],
        charts=[BarChart(of_model, "s/h", f"CPU time by stage, {model}") for model, of_model in shares.items()],
    )


def reliability_section(results: ResultSet) -> Section:
    """Confidence against the share of correct predictions."""
    rows = [r for r in results.of("accuracy") if r.get("reliability")]
    series = [Series(f"{short(row)}, {where(row)}".strip(", "), _bins(row["reliability"])) for row in rows]
    series.append(Series("perfect calibration", [(0.0, 0.0), (1.0, 1.0)], dots=False, dashed=True))
    axes = Axes("confidence of the prediction", "Share of correct predictions", x_from=0, x_to=1, y_from=0, y_to=1)
    return make_section(
        "Reliability",
        "Of predictions with a confidence, how many are correct: the diagonal is calibrated, below is overconfident.",
        rows,
        "corpus split n ece ece_ci",
        COMMANDS["accuracy"],
        charts=[LineChart(series, axes)] if rows else [],
    )


def _bins(table: Any) -> list[tuple[float, float]]:
    """Confidence and share of correct predictions; bins as a list of objects, or as one object of lists."""
    if isinstance(table, dict):
        pairs = list(zip(table.get("confidence", []), table.get("accuracy", []), strict=False))
    else:
        pairs = [(one.get("confidence"), one.get("accuracy")) for one in table]
    return [(float(c), float(a)) for c, a in pairs if number(c) is not None and number(a) is not None]


def networks_section(results: ResultSet) -> Section:
    """Networks trained on the same data."""
    return make_section(
        "Networks side by side",
        "Fresh networks, the same training data and the same protocol; the latency is of torch eager.",
        results.of("networks"),
        "corpus split score score_ci auroc auroc_ci ece parameters p50_ms minutes",
        COMMANDS["networks"],
        name=lambda r: str((r.get("subject") or {}).get("model") or ""),
    )


def conversion_section(results: ResultSet) -> Section:
    """Artefacts beside the model they were made from."""
    return make_section(
        "What the conversion costs",
        "Artefacts beside their torch model on the same annotated breaths; drops with 95 % paired patient bootstrap.",
        results.of("conversion"),
        "verified n agreement max_abs_error auroc_drop auroc_drop_ci score_drop score_drop_ci bytes",
        COMMANDS["conversion"],
    )


def peers_section(results: ResultSet) -> Section:
    """Ours beside other projects."""
    rows = results.of("peers")
    charts = []
    for row in rows:
        if row.get("stages"):
            shares = sorted(((k, 100 * float(v)) for k, v in row["stages"].items()), key=lambda s: -s[1])
            charts.append(BarChart(shares, "%", f"Time by stage, {subject_name(row)}{on_machine(row, rows)}"))
    return make_section(
        "Peers",
        "CPU ratio: ours by the peer's, median of interleaved rounds with its 95 % interval; below 1 ours takes less.",
        rows,
        "cpu_ratio cpu_ratio_low cpu_ratio_high wall_ratio energy_ratio p50_ms cpu_s_per_hour joules "
        "largest_difference f1 agrees environment n",
        COMMANDS["peers"],
        charts=charts,
        notes=reasons(results.failed("peers")),
        name=_peer_name,
        group=lambda r: part_of(r).partition(":")[0],
    )


def ratios_section(results: ResultSet) -> Section:
    """The ratios that a new run is compared with."""
    return make_section(
        "Committed ratios",
        "CPU time of ours by that of a reference in the same rounds (latency: torch), median with its 95 % interval. "
        "Load: of a core before the run; a busy machine misleads. 'stetho bench compare RATIOS RESULTS... --gate' fails"
        " where one got worse.",
        results.of("ratio"),
        "cpu_ratio cpu_ratio_low cpu_ratio_high of load n",
        COMMANDS["ratio"],
    )


def _peer_name(row: Row) -> str:
    """Name of a row without the contest that its table names."""
    name, contest = subject_name(row), part_of(row).partition(":")[0]
    return name.replace(f"{contest}: ", "", 1)
