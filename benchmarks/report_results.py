"""The results of a folder, as the report takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.rows import read_results
from edge_sdk.errors import StethoError

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """What a folder of results holds."""

    rows: tuple[Row, ...]  # measured, in the order of the files
    machines: tuple[Row, ...]
    commands: Mapping[str, str]  # file → what made it
    unread: Mapping[str, str] = field(default_factory=dict)  # file → why not

    def of(self, benchmark: str, *parts: str) -> list[Row]:
        """Rows of a benchmark, without those that failed; of the parts, where given."""
        rows = [r for r in self.rows if r["benchmark"] == benchmark and not r.get("failed")]
        return [r for r in rows if not parts or (r.get("subject") or {}).get("part") in parts]

    def failed(self, benchmark: str) -> list[Row]:
        return [r for r in self.rows if r["benchmark"] == benchmark and r.get("failed")]


def read_folder(folder: Path) -> Kept:
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
        known = [r for r in map(_as_benchmark, results.rows) if r is not None]
        if not known:
            unread[path.name] = f"{path.name} holds no rows of a benchmark"
            continue
        commands[path.name] = results.command or str(known[-1].get("command") or "")
        machines += [r for r in known if r["benchmark"] == "machine"]
        rows += [r for r in known if r["benchmark"] != "machine"]
    return Kept(tuple(rows), tuple(machines), commands, unread)


def _as_benchmark(row: Row) -> Row | None:
    """The row itself, or what ``stetho evaluate`` said as a row of ``bench accuracy``."""
    if "benchmark" in row:
        return row
    if "corpus" in row and "score" in row:
        name = " ".join(str(row[k]) for k in ("name", "version") if row.get(k))
        return {"benchmark": "accuracy", "subject": {"model": name, "artefact": row.get("artefact")}, **row}
    return None
