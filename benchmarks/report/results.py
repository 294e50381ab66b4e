"""The results of a folder, as the report takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.core.machine import machine_name
from benchmarks.core.rows import read_results
from edge_sdk.errors import StethoError

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ResultSet:
    """What a folder of results holds."""

    rows: tuple[Row, ...]  # measured, in the order of the files
    machines: tuple[Row, ...]  # with the ``file`` that names each
    commands: Mapping[str, str]  # file → the command that made it
    unread: Mapping[str, str] = field(default_factory=dict)  # file → the reason

    def of(self, benchmark: str, *parts: str) -> list[Row]:
        """Rows of a benchmark, without those that failed; of the parts, where given."""
        rows = [r for r in self.rows if r["benchmark"] == benchmark and not r.get("failed")]
        return [r for r in rows if not parts or (r.get("subject") or {}).get("part") in parts]

    def failed(self, benchmark: str) -> list[Row]:
        """Rows of a benchmark that hold a reason instead of figures."""
        return [r for r in self.rows if r["benchmark"] == benchmark and r.get("failed")]


def read_folder(folder: Path) -> ResultSet:
    """Every results file of a folder; files of another kind are passed over with the reason.

    Raises
    ------
    StethoError
        There is no such folder.
    """
    if not folder.is_dir():
        raise StethoError(f"{folder} is no folder; benchmarks write into one with --out {folder}/NAME.json")
    rows: list[Row] = []
    machines: list[Row] = []
    commands, unread = {}, {}
    for path in sorted(folder.glob("*.json")):
        try:
            results = read_results(path)
        except StethoError as error:
            unread[path.name] = str(error).replace(str(path), path.name)
            continue
        valid = [r for r in (_as_benchmark(row, path.stem) for row in results.rows) if r is not None]
        if not valid:
            unread[path.name] = f"{path.name} holds no rows of a benchmark"
            continue
        commands[path.name] = results.command or str(valid[-1].get("command") or "")
        machines += [{**r, "file": path.name} for r in valid if r["benchmark"] == "machine"]
        rows += _on_machines(valid)
    return ResultSet(tuple(rows), tuple(machines), commands, unread)


def _on_machines(rows: Sequence[Row]) -> list[Row]:
    """The measured rows; ``machine`` is the name of the one in the row before them."""
    found: list[Row] = []
    name: str | None = None
    for row in rows:
        if row["benchmark"] == "machine":
            name = machine_name(row)
        else:
            found.append(row if name is None else {**row, "machine": name})
    return found


def _as_benchmark(row: Row, file: str) -> Row | None:
    """The row itself, or the output of another command as a row of a benchmark; None where it is neither."""
    if file == "look_ahead" and "look_ahead_s" in row:
        return {"subject": {"model": _named(row)}, **row, "benchmark": "look-ahead"}
    if "benchmark" in row:
        return row
    if "recipe" in row and "auroc" in row:  # of benchmarks.studies.training
        words = [row["recipe"], row.get("size"), f"seed {row['seed']}" if row.get("seed") else "", row.get("note")]
        split = str(row.get("protocol", "")).partition("→")[2].partition(",")[0]
        name = " ".join(str(word) for word in words if word)
        return {"benchmark": "networks", "subject": {"model": name}, "split": split, "p50_ms": row.get("ms"), **row}
    if "event_f1" in row:  # of stetho segment-eval
        return {"benchmark": "segmentation", "subject": {"model": _named(row), "part": row.get("segmenter")}, **row}
    if "corpus" in row and "score" in row:  # of stetho evaluate
        return {"benchmark": "accuracy", "subject": {"model": _named(row), "artefact": row.get("artefact")}, **row}
    if "agreement" in row and "format" in row:  # of stetho export
        return {"benchmark": "conversion", "subject": {"model": row.get("model"), "artefact": row["format"]}, **row}
    return None


def _named(row: Row) -> str:
    return " ".join(str(row[k]) for k in ("name", "version") if row.get(k))
