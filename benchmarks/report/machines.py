"""The machines that the results come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.report.results import ResultSet, Row

_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class MachineText:
    """One machine in words."""

    facts: Sequence[tuple[str, str]]  # label, value

    @property
    def line(self) -> str:
        """The facts in one line."""
        return "; ".join(f"{label} {value}" for label, value in self.facts)


def machine_texts(results: ResultSet) -> list[MachineText]:
    """One text a machine; results files of equal machines share it."""
    files: dict[tuple[tuple[str, str], ...], list[str]] = {}
    days: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for row in results.machines:
        facts = _facts(row)
        files.setdefault(facts, []).append(str(row.get("file", "")))
        days.setdefault(facts, []).append(str(row.get("when") or "").partition("T")[0])
    texts = []
    for facts in files:
        measured = sorted(day for day in days[facts] if day)
        span = " to ".join(dict.fromkeys((measured[0], measured[-1]))) if measured else _UNKNOWN
        short, packages = facts[:-1], facts[-1]
        texts.append(MachineText([*short, ("Measured", span), packages, ("Results", ", ".join(files[facts]))]))
    return texts


def _facts(row: Row) -> tuple[tuple[str, str], ...]:
    gpu = row.get("gpu")
    memory = row.get("memory_mb")
    facts = (
        ("Processor", f"{row.get('cpu')}, {row.get('cores')} cores"),
        ("Memory", _UNKNOWN if memory is None else f"{memory} MB"),
        ("Board", str(row.get("board") or "")),
        ("GPU", str(gpu.get("name") or "GPU") if isinstance(gpu, Mapping) else "none"),
        ("System", f"{row.get('os')}, Python {row.get('python')}"),
        ("Governor", str(row.get("governor") or _UNKNOWN)),
        ("Packages", ", ".join(f"{k} {v}" for k, v in (row.get("versions") or {}).items()) or _UNKNOWN),
    )
    return tuple((label, value) for label, value in facts if value)
