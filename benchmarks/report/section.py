"""A section of the report, and how its tables are made from rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.core.rows import subject_name
from benchmarks.report.charts import Chart
from benchmarks.report.results import Row
from benchmarks.report.tables import Table

COMMANDS = {
    "latency": "stetho bench latency --out benchmarks/results/latency.json",
    "accuracy": "stetho bench accuracy default sprsound $STETHO_DATA/sprsound --out benchmarks/results/accuracy.json",
    "stream": "stetho bench stream --root $STETHO_DATA/sprsound --out benchmarks/results/stream.json",
    "look-ahead": "stetho segment-eval BUNDLE sprsound $STETHO_DATA/sprsound --split val --json",
    "screening": "python -m benchmarks.studies.screening $STETHO_DATA/sprsound --out benchmarks/results/screening.json",
    "networks": "python -m benchmarks.studies.training RUN... --root ROOT --out benchmarks/results/training.json",
    "conversion": "stetho export RUN/checkpoint.pt --out OUT --corpus sprsound --root $STETHO_DATA/sprsound --json",
    "soak": "stetho bench soak --minutes 60 --out benchmarks/results/soak.json",
    "faults": "stetho bench faults --out benchmarks/results/faults.json",
    "peers": "stetho bench peers --out benchmarks/results",
    "ratio": "stetho bench ratios benchmarks/results/*.json --out benchmarks/results/ratios.json",
}


@dataclass(frozen=True, slots=True)
class Section:
    """One heading with what stands below it; the same for both pages."""

    title: str
    lead: str
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    missing: str = ""  # the command that makes the results

    @property
    def anchor(self) -> str:
        """Identifier of the section on the page."""
        return self.title.lower().replace(" ", "-")


def make_section(
    title: str,
    lead: str,
    rows: Sequence[Row],
    columns: str,  # with blanks between them
    missing: str,
    *,
    charts: Sequence[Chart] = (),
    notes: Sequence[str] = (),
    name: Callable[[Row], str] = subject_name,
    group: Callable[[Row], str] = lambda row: "",
) -> Section:
    """Make a section; rows of one group and machine share a table. A column or table without figures is left out."""
    if not rows:
        return Section(title, lead, notes=notes, missing=missing)
    groups: dict[str, list[Row]] = {}
    several = len(machines_of(rows)) > 1
    for row in rows:
        words = (group(row), str(row.get("machine") or "") if several else "")
        groups.setdefault(" · ".join(word for word in words if word), []).append(row)
    tables = []
    for caption, members in groups.items():
        used = [c for c in columns.split() if any(r.get(c) not in (None, "") for r in members)]
        if used:
            tables.append(Table(used, [(name(r), r) for r in members], caption[:1].upper() + caption[1:]))
    return Section(title, lead, charts, tables, notes)


def machines_of(rows: Iterable[Row]) -> list[str]:
    """Machines that rows were measured on, in their order."""
    return list(dict.fromkeys(str(row["machine"]) for row in rows if row.get("machine")))


def on_machine(row: Row, rows: Iterable[Row]) -> str:
    """`` · MACHINE`` where the rows are of several, else empty; for the names of series and plots."""
    return f" · {row.get('machine')}" if len(machines_of(rows)) > 1 else ""


def reasons(rows: Iterable[Row]) -> list[str]:
    """Why rows hold no figures."""
    return [f"not measured: {subject_name(r)}: {r['failed']}" for r in rows]


def part_of(row: Row) -> str:
    """What of a model or pipeline a row is about; empty where it is about the whole."""
    return str((row.get("subject") or {}).get("part") or "")


def short(row: Row) -> str:
    """Model without its version, and artefact."""
    subject = row.get("subject") or {}
    return f"{str(subject.get('model') or '').split(' ')[0]} {subject.get('artefact') or ''}".strip()


def where(row: Row) -> str:
    """Corpus and split in words."""
    return f"{row.get('corpus') or ''} {row.get('split') or ''}".strip()


def number(value: Any) -> float | None:
    """A figure that can be drawn."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
