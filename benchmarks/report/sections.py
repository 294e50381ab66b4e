"""The sections of the report, in their order; results of benchmarks that have none stand in a table at the end."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.report.models import conversion, latency, networks, pareto, peers, reliability, stages
from benchmarks.report.pipeline import delay, faults, look_ahead, pipeline, screening, soak, streams
from benchmarks.report.results import Kept
from benchmarks.report.section import COMMANDS, Section, section

__all__ = ["COMMANDS", "SECTIONS", "Section"]

_SHOWN = {
    "accuracy", "networks", "latency", "stream", "segmentation", "look-ahead", "screening", "conversion", "soak",
    "faults", "peers", "machine", "roofline",
}  # fmt: skip
_MOST = 12  # columns of a table whose figures are not known beforehand


def others(kept: Kept) -> Section:
    """Figures of any other benchmark, as they come."""
    rows = [r for r in kept.rows if r["benchmark"] not in _SHOWN and not r.get("failed")]
    simple = [
        key
        for key in dict.fromkeys(k for r in rows for k in r if k not in ("benchmark", "subject", "input", "command"))
        if all(isinstance(r.get(key), (int, float, str, bool, type(None))) and len(str(r.get(key))) < 60 for r in rows)
    ]
    return section(
        "Other results",
        "Of benchmarks without a section of their own.",
        rows,
        " ".join(simple[:_MOST]),
        "python -m benchmarks.studies.scan_forms",
    )


SECTIONS: tuple[Callable[[Kept], Section], ...] = (
    pareto,
    latency,
    stages,
    delay,
    look_ahead,
    streams,
    pipeline,
    screening,
    reliability,
    networks,
    conversion,
    soak,
    faults,
    peers,
    others,
)
