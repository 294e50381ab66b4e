"""The sections of the report, in their order; results of benchmarks that have none stand in a table at the end."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.report.models import (
    conversion_section,
    latency_section,
    networks_section,
    pareto_section,
    peers_section,
    ratios_section,
    reliability_section,
    stages_section,
)
from benchmarks.report.pipeline import (
    delay_section,
    faults_section,
    look_ahead_section,
    pipeline_section,
    screening_section,
    soak_section,
    streams_section,
)
from benchmarks.report.results import ResultSet
from benchmarks.report.section import COMMANDS, Section, make_section

__all__ = ["COMMANDS", "SECTIONS", "Section"]

_SHOWN = {
    "accuracy", "networks", "latency", "stream", "segmentation", "look-ahead", "screening", "conversion", "soak",
    "faults", "peers", "ratio", "machine", "roofline",
}  # fmt: skip
_MOST = 12  # columns of a table whose figures are not known beforehand


def other_section(results: ResultSet) -> Section:
    """Figures of any other benchmark, as they come."""
    rows = [r for r in results.rows if r["benchmark"] not in _SHOWN and not r.get("failed")]
    simple = [
        key
        for key in dict.fromkeys(
            k for r in rows for k in r if k not in ("benchmark", "subject", "input", "command", "machine")
        )
        if all(isinstance(r.get(key), (int, float, str, bool, type(None))) and len(str(r.get(key))) < 60 for r in rows)
    ]
    return make_section(
        "Other results",
        "Benchmarks without a section of their own.",
        rows,
        " ".join(simple[:_MOST]),
        "python -m benchmarks.studies.scan_forms",
    )


SECTIONS: tuple[Callable[[ResultSet], Section], ...] = (
    pareto_section,
    latency_section,
    stages_section,
    delay_section,
    look_ahead_section,
    streams_section,
    pipeline_section,
    screening_section,
    reliability_section,
    networks_section,
    conversion_section,
    soak_section,
    faults_section,
    peers_section,
    ratios_section,
    other_section,
)
