"""Ratios between rows of one run, kept per processor, and the gate that says which got worse.

A time is of one machine; the ratio of our time to that of a reference in the same rounds moves far less from machine to
machine. Of every ratio less is better.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.core.machine import machine_name
from benchmarks.core.rows import read_results, subject_name, write_results
from edge_sdk.errors import StethoError

Row = Mapping[str, Any]
RatioVerdict = Literal["worse", "better", "no difference", "not measured"]

BENCHMARK = "ratio"
"""Of the rows in a file of ratios."""

TOLERANCE = 0.2
"""Two runs of the same code on one machine, one of them busy, differ by up to this share."""

_FEWEST = 5  # rounds behind an interval
_BUSY = 1.0  # load average per core from which on ratios are called doubtful
_INTERVAL = ("cpu_ratio_low", "cpu_ratio_high")


@dataclass(frozen=True, slots=True)
class RatioCheck:
    """One committed ratio beside the same one of a new run."""

    name: str
    committed: float | None  # None: our part failed and nothing was committed for this processor
    machine: str  # of the committed ratio
    now: float | None  # None: not measured
    interval: tuple[float, float] | None  # 95 % of ``now``
    verdict: RatioVerdict
    reason: str

    @property
    def line(self) -> str:
        """For people."""
        if self.now is None or self.committed is None:
            return f"{self.verdict}: {self.name}: {self.reason}"
        ends = "" if self.interval is None else f" ({self.interval[0]:.3g} – {self.interval[1]:.3g})"
        return f"{self.verdict}: {self.name}: {self.now:.3g}{ends}, committed {self.committed:.3g}; {self.reason}"


def ratios_of(rows: Sequence[Row], command: str = "") -> Iterator[dict[str, Any]]:
    """Rows of ratios out of the rows of results files; rows that are ratios pass through.

    Every row with a ``cpu_ratio`` is one, and every artefact in the latency benchmark: its time divided by torch's.

    Parameters
    ----------
    rows
        A machine's row comes before the rows that were measured on it.
    command
        The one that wrote the rows.
    """
    measured_on: dict[str, Any] = {"machine": "unknown"}
    for row in rows:
        if row.get("benchmark") == "machine":
            measured_on = {"machine": machine_name(row), "load": _load(row), "when": row.get("when")}
            continue
        if row.get("benchmark") == BENCHMARK:
            yield dict(row)
            continue
        figures = _figures(row)
        if figures:
            yield {
                "benchmark": BENCHMARK,
                "subject": _subject(row),
                "of": row["benchmark"],
                **figures,
                "n": row.get("n"),
                **measured_on,
                "command": command,
            }


def _figures(row: Row) -> dict[str, float]:
    if row.get("failed"):
        return {}
    if row.get("cpu_ratio"):
        return {key: float(row[key]) for key in ("cpu_ratio", *_INTERVAL) if row.get(key) is not None}
    subject = row.get("subject") or {}
    ratio, ends = row.get("ratio_to_torch"), row.get("ratio_to_torch_ci")
    if row.get("benchmark") != "latency" or not ratio or "torch" in str(subject.get("artefact")):
        return {}
    figures = {"cpu_ratio": 1 / float(ratio)}
    if ends:
        figures |= {"cpu_ratio_low": 1 / float(ends[1]), "cpu_ratio_high": 1 / float(ends[0])}
    return figures


def _subject(row: Row) -> dict[str, Any]:
    """Without versions: two versions of one bundle or engine are compared with each other."""
    subject = dict(row.get("subject") or {})
    model = str(subject.get("model") or "").partition(" ")[0]
    part = subject.get("part") or f"{subject.get('artefact')} / torch eager"
    kept = {k: subject[k] for k in ("threads", "batch") if (subject.get(k) or 1) != 1}
    return {"model": model or None, "part": part, **kept}


def _name(row: Row) -> str:
    return f"{row.get('of')}: {subject_name(row)}"


def check_ratios(committed: Sequence[Row], rows: Sequence[Row], *, tolerance: float = TOLERANCE) -> list[RatioCheck]:
    """Every committed ratio beside that of a new run, in the order of the committed ones.

    Worse: more than ``tolerance`` above the committed ratio, and the 95 % interval lies above the committed one. A
    ratio of another processor is used only where none of this one is committed; of several the largest.

    Parameters
    ----------
    committed
        Rows of a file of ratios or of results.
    rows
        Of one or several results files of one machine.

    Raises
    ------
    StethoError
        Nothing is committed, or the new run holds none of the committed ratios.
    """
    now = {_name(row): row for row in ratios_of(rows)}
    here = {str(row["machine"]) for row in now.values()}
    failed = {name: str(row["failed"]) for row in rows if row.get("failed") for name in (_failed_name(row),)}
    found = []
    for name, candidates in _by_name(ratios_of(committed)).items():
        row = max(candidates, key=lambda r: (str(r["machine"]) in here, float(r["cpu_ratio"])))
        found.append(_check(name, row, now.get(name), failed, tolerance))
    if not found:
        raise StethoError("the first file holds no ratios; make one with 'stetho bench ratios'")
    if all(one.verdict == "not measured" for one in found):
        raise StethoError(
            f"the new results hold none of the committed ratios ({found[0].reason}); make them with the commands in "
            "the file of ratios"
        )
    return found


def _by_name(rows: Iterable[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_name(row), []).append(row)
    return groups


def _failed_name(row: Row) -> str:
    return _name({"of": row.get("benchmark"), "subject": _subject(row)})


def _check(name: str, committed: Row, now: Row | None, failed: Mapping[str, str], tolerance: float) -> RatioCheck:
    before, machine = float(committed["cpu_ratio"]), str(committed["machine"])
    if now is None:
        ours = _ours(committed)
        if ours in failed:
            return RatioCheck(name, before, machine, None, None, "worse", f"our part failed: {failed[ours]}")
        reason = failed.get(name, "not in the new results")
        return RatioCheck(name, before, machine, None, None, "not measured", reason)
    rounds = now.get("n")
    if rounds is not None and rounds < _FEWEST:
        reason = f"only {rounds} rounds; {_FEWEST} are needed"
        return RatioCheck(name, before, machine, None, None, "not measured", reason)
    ratio = float(now["cpu_ratio"])
    interval = (float(now[_INTERVAL[0]]), float(now[_INTERVAL[1]])) if _INTERVAL[0] in now else None
    low, high = interval or (ratio, ratio)
    verdict: RatioVerdict = "no difference"
    if ratio > before * (1 + tolerance) and low > float(committed.get(_INTERVAL[1], before)):
        verdict = "worse"
    elif ratio < before / (1 + tolerance) and high < float(committed.get(_INTERVAL[0], before)):
        verdict = "better"
    where = "" if machine == now["machine"] else f", committed on {machine}"
    return RatioCheck(name, before, machine, ratio, interval, verdict, f"tolerance {tolerance:.0%}{where}")


def _ours(row: Row) -> str:
    """Name of our own row in the contest of a peer: ``stream: silero-vad 8000 Hz`` → ``stream: ours 8000 Hz``."""
    subject = dict(row.get("subject") or {})
    contest, colon, peer = str(subject.get("part") or "").partition(": ")
    if row.get("of") != "peers" or not colon:
        return _name(row)
    rest = " ".join(peer.split(" ")[1:])
    return _name({**row, "subject": {**subject, "part": f"{contest}: ours {rest}".strip()}})


def _load(machine: Row) -> float | None:
    """Load average of a core in the minute before the run."""
    loads = machine.get("load_average")
    return float(loads[0]) / (machine.get("cores") or 1) if loads else None


def doubts(rows: Sequence[Row]) -> list[str]:
    """Why ratios of these results, or committed ones, may mislead: the machine was busy."""
    lines = []
    for row in rows:
        if row.get("benchmark") == BENCHMARK:
            name, load, what = row.get("machine"), row.get("load"), "when ratios were committed"
        elif row.get("benchmark") == "machine":
            name, load, what = machine_name(row), _load(row), "when a run began"
        else:
            continue
        if load is not None and load > _BUSY:
            lines.append(f"{name} was busy (load {load:.1f} a core) {what}: repeat it on a quiet machine")
    return list(dict.fromkeys(lines))


def keep_ratios(path: Path, files: Sequence[Path], command: str) -> list[dict[str, Any]]:
    """Write the ratios of results files; others that the file holds, and those of other processors, stay.

    Returns
    -------
    list
        The new ratios.

    Raises
    ------
    StethoError
        A file cannot be read, or there is no ratio in any.
    """
    new = [
        row for file in files for results in (read_results(file),) for row in ratios_of(results.rows, results.command)
    ]
    if not new:
        raise StethoError(
            "no ratio in these results; 'stetho bench peers', 'latency' and 'stream --part files' give some"
        )
    known = {(row["machine"], _name(row)) for row in new}
    old = read_results(path).rows if path.exists() else ()
    kept = [row for row in old if (row.get("machine"), _name(row)) not in known]
    write_results(path, command, [*kept, *new])
    return new
