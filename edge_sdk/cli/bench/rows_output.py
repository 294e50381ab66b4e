"""Rows of a benchmark as table, JSON lines and file; progress; Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from edge_sdk.cli.messages import emit_json
from edge_sdk.cli.progress import Report, progress_bar
from edge_sdk.cli.tables import Column, print_table, stdout_console

Row = dict[str, Any]

INTERRUPTED = " (interrupted)"
"""Suffix of the command in the results of a run that Ctrl-C ended."""


_COMMANDS = {"roofline": "latency"}  # rows that are named otherwise than the command that makes them


def run_and_show(
    measure: Callable[[Report], Iterable[Row]],
    title: str,
    columns: Sequence[str],
    out: Path | None,
    json_: bool,
    markdown: Path | None = None,
    *,
    in_table: Callable[[Row], bool] = lambda row: True,
) -> list[Row]:
    """Run a benchmark and write its rows as they come; Ctrl-C ends the run and keeps what was measured until then.

    The file is written anew with each row: one that cannot be written fails at the first row, and even a kill keeps
    what was measured. One that holds results of another machine is refused; in a folder each machine has its own.

    Parameters
    ----------
    measure
        Gives the rows, the machine's first, and reports its progress.
    columns
        Keys of the figures in the table.
    in_table
        Which rows the table shows.

    Raises
    ------
    KeyboardInterrupt
        After everything is written.
    """
    from benchmarks.core.rows import check_row, markdown_table, own_results_file, write_results

    file: Path | None = None
    kept: list[Row] = []
    interrupted = False
    with progress_bar(title, quiet=json_) as report:
        try:
            for row in measure(report):
                check_row(row)
                kept.append(row)
                if out is not None and (len(kept) > 1 or not out.is_dir()):  # the second row names the benchmark
                    name = str(row["benchmark"])
                    file = file or own_results_file(out, kept[0], _COMMANDS.get(name, name))
                    write_results(file, command_line(), kept)
                if json_:
                    emit_json(row)
        except KeyboardInterrupt:
            interrupted = True
            if file is not None:
                write_results(file, command_line() + INTERRUPTED, kept)
    if markdown is not None and kept:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text(f"`{command_line()}`\n\n{markdown_table(kept, columns)}", encoding="utf-8")
    if not json_ and kept:
        _print(kept[0], [row for row in kept[1:] if in_table(row)], title, columns)
    if interrupted:
        raise KeyboardInterrupt("interrupted; the rows above are what was measured until then")
    return kept


def command_line() -> str:
    """Give the command line as a person would type it again: without the directories of this machine."""
    return " ".join(["stetho", *(Path(a).name if a.startswith("/") else a for a in sys.argv[1:])])


def _print(machine: Row, measured: Sequence[Row], title: str, columns: Sequence[str]) -> None:
    from benchmarks.core.rows import cell, subject_name

    models = {(row.get("subject") or {}).get("model") for row in measured} - {None}
    shown = [c for c in columns if any(row.get(c) is not None for row in measured)]
    cells, failures = [], []
    for row in measured:
        subject = dict(row.get("subject") or {})
        if len(models) < 2:
            subject["model"] = None  # the same in every line
        name = subject_name({**row, "subject": subject})
        if row.get("failed"):
            failures.append(f"not measured: {name}: {row['failed']}")
        else:
            cells.append([name, *(cell(row.get(c)) for c in shown)])
    console = stdout_console()
    load = (machine.get("load_average") or [0.0])[0]
    console.print(f"{machine['cpu']}, {machine['cores']} cores, load {load:.1f}", markup=False)
    if len(models) == 1:
        console.print(str(next(iter(models))), markup=False)
    text = {"why", "bound"}
    figures = [Column(c.replace("_", " "), "text" if c in text else "number") for c in shown]
    print_table([Column("subject", "name"), *figures], cells, title=title, console=console)
    for line in failures:
        console.print(line, markup=False)
