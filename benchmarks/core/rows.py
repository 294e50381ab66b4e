"""Benchmark rows: their schema, the results file, and the Markdown table."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.core.machine import machine_name
from edge_sdk.errors import StethoError
from edge_sdk.files import whole_file
from edge_sdk.json_lines import jsonable

if TYPE_CHECKING:
    from edge_sdk.runtime.bundle.load import Bundle


class BenchmarkedModel(msgspec.Struct, kw_only=True):
    """What was measured, JSON key ``subject``; ``part`` where a benchmark has several parts."""

    model: str | None = None  # name and version of the bundle
    artefact: str | None = None  # format, for example onnx-int8-cpu
    engine: str | None = None
    threads: int | None = None  # intra-op threads of the engine
    batch: int | None = None
    part: str | None = None


class MeasuredRow(msgspec.Struct, kw_only=True):
    """The fields that all benchmarks share; each benchmark adds its own."""

    benchmark: str  # latency, roofline, accuracy, stream, soak, faults, peers, ...
    subject: BenchmarkedModel = msgspec.field(default_factory=BenchmarkedModel)
    p50_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None  # nothing is clipped
    n: int | None = None  # measurements behind the percentiles (accuracy: scored items)
    rss_mb: float | None = None  # peak resident memory, MiB
    cpu_s: float | None = None  # CPU seconds of all measured calls
    load_s: float | None = None  # from files to a usable engine
    joules: float | None = None  # of the whole machine; absent without a meter
    energy_source: str | None = None
    deadline_ms: float | None = None
    misses: int | None = None  # of the deadline
    cores: list[int] | None = None  # the measured threads were pinned to them; empty: not pinned
    input: str | None = None  # the audio
    failed: str | None = None  # why there are no figures


class MachineRow(msgspec.Struct, kw_only=True):
    """The first row."""

    benchmark: str
    cpu: str
    cores: int | None
    architecture: str
    os: str
    python: str
    versions: dict[str, str]
    when: str
    usable_cores: list[int] = []
    gpu: dict[str, str] | None = None
    board: str | None = None
    governor: str | None = None
    memory_mb: int | None = None
    load_average: list[float] = []


def benchmarked_model(bundle: Bundle, part: str | None = None) -> dict[str, Any]:
    """The ``subject`` of a row about a bundle on one thread, one cycle at a time."""
    entry = {
        "model": f"{bundle.manifest.name} {bundle.manifest.version}",
        "artefact": bundle.artefact.format,
        "engine": bundle.engine.name,
        "threads": 1,
        "batch": 1,
    }
    return entry if part is None else {**entry, "part": part}


@dataclass(frozen=True, slots=True)
class Results:
    """A results file."""

    command: str  # the command line that wrote it
    rows: tuple[dict[str, Any], ...]


def json_schema() -> dict[str, Any]:
    """JSON Schema of the rows; additional fields are allowed."""
    schemas, components = msgspec.json.schema_components((MachineRow, MeasuredRow), ref_template="#/definitions/{name}")
    return {"oneOf": list(schemas), "definitions": components}


def check_row(row: Mapping[str, Any]) -> None:
    """Compare a row with the schema; numpy scalars count as the numbers that JSON holds.

    Raises
    ------
    StethoError
        A field is missing or has another type; the message names the row and the field.
    """
    _check(jsonable(row))


def _check(row: Mapping[str, Any], place: str = "row") -> None:
    schema = MachineRow if row.get("benchmark") == "machine" else MeasuredRow
    try:
        msgspec.convert(row, schema)
    except msgspec.ValidationError as error:
        raise StethoError(
            f"{place} ({_row_name(row)}) does not fit the schema of benchmark rows: {error}; "
            "this is a defect of that benchmark"
        ) from error


def _row_name(row: Mapping[str, Any]) -> str:
    benchmark, subject = row.get("benchmark"), row.get("subject")
    return f"{benchmark}: {subject_name(row)}" if isinstance(subject, Mapping) else str(benchmark)


def write_results(path: Path, command: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a JSON file, completely or not at all.

    Raises
    ------
    StethoError
        A row does not fit the schema; an existing file stays as it was.
    """
    checked = jsonable(list(rows))
    for number, row in enumerate(checked, start=1):
        _check(row, f"row {number}")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"command": command, "rows": checked}, indent=2, ensure_ascii=False, allow_nan=False)
    with whole_file(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


def own_results_file(out: Path, machine: Mapping[str, Any], benchmark: str) -> Path:
    """File for the results of this machine, so that results of several machines stay side by side.

    Parameters
    ----------
    out
        A file; or a folder, for ``BENCHMARK.MACHINE.json`` in it.
    machine
        First row of the results.

    Raises
    ------
    StethoError
        The file holds results of another machine.
    """
    name = machine_name(machine)
    own = f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    if out.is_dir():
        return out / f"{benchmark}.{own}"
    for row in _machines_of(out):
        if machine_name(row) != name:
            other = out.with_name(f"{out.stem}.{own}")
            raise StethoError(
                f"{out} holds results of another machine ({machine_name(row)}); write those of this one ({name}) "
                f"with --out {other}"
            )
    return out


def _machines_of(path: Path) -> list[dict[str, Any]]:
    try:
        return [row for row in read_results(path).rows if row.get("benchmark") == "machine"]
    except StethoError:  # no results yet, or another file that the caller wants to replace
        return []


def read_results(path: Path) -> Results:
    """Read a file of :func:`write_results`, or one in which every row carries its own command.

    Raises
    ------
    StethoError
        The file cannot be read or is no results file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = content["rows"]
        if not all(isinstance(row, dict) for row in rows):
            raise TypeError("rows must be objects")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StethoError(f"{path} holds no benchmark results ({error}); write it with --out") from error
    return Results(str(content.get("command", "")), tuple(rows))


def subject_name(row: Mapping[str, Any]) -> str:
    """Short name of a row: model, part or artefact, threads and batch where they are not 1."""
    subject = row.get("subject") or {}
    words = [subject.get("model"), subject.get("part") or subject.get("artefact") or row.get("benchmark")]
    name = " · ".join(str(word) for word in words if word)
    if (threads := subject.get("threads") or 1) != 1:
        name += f" · {threads} threads"
    if (batch := subject.get("batch") or 1) != 1:
        name += f" × {batch}"
    return name


def cell(value: Any) -> str:
    """A figure as text with three significant digits."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):  # an interval
        return " – ".join(cell(v) for v in value)
    if isinstance(value, float):
        if 0 < abs(value) < 0.001:
            return f"{value:.1e}"
        return (
            "0"
            if value == 0
            else f"{value:.3f}"
            if abs(value) < 1
            else f"{value:.2f}"
            if abs(value) < 100
            else f"{value:.0f}"
        )
    return str(value)


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """GitHub table of the measured rows; failed rows are listed below it with the reason."""
    measured = [row for row in rows if row.get("benchmark") != "machine"]
    lines = ["| subject | " + " | ".join(c.replace("_", " ") for c in columns) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    failed = []
    for row in measured:
        if row.get("failed"):
            failed.append(f"* {subject_name(row)}: {row['failed']}")
        else:
            lines.append(f"| {subject_name(row)} | " + " | ".join(cell(row.get(c)) for c in columns) + " |")
    return "\n".join([*lines, *([""] if failed else []), *failed]) + "\n"
