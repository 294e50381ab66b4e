"""What the benchmark commands share: options, rows as table, JSON lines and file, progress, Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_sdk.cli.options import emit_json, note_line

QuickOption = Annotated[bool, typer.Option("--quick", help="A short run: proves that it works, no figures to quote.")]
BundleArgument = Annotated[str | None, typer.Argument(metavar="[BUNDLE]", help="The bundle; the same as --bundle.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Also write the rows as a JSON file.")]
MarkdownOption = Annotated[Path | None, typer.Option("--markdown", help="Also write the table as Markdown.")]

Rows = list[dict[str, Any]]

INTERRUPTED = " (interrupted)"
"""Stands behind the command of results that Ctrl-C cut short."""


def show(
    rows: Iterable[dict[str, Any]],
    title: str,
    columns: Sequence[str],
    out: Path | None,
    json_: bool,
    markdown: Path | None = None,
    *,
    in_table: Callable[[dict[str, Any]], bool] = lambda row: True,
) -> Rows:
    """Pass rows on as they come and keep them; Ctrl-C ends the run, and what was measured until then is kept.

    The file is written anew with each row: one that cannot be written is told at the first, and even a kill keeps what
    was measured.

    Raises
    ------
    KeyboardInterrupt
        After everything is written.
    """
    from benchmarks.core.rows import markdown_table, write_results

    kept: Rows = []
    interrupted = False
    try:
        for row in rows:
            kept.append(row)
            if out is not None:
                write_results(out, command_line(), kept)
            if json_:
                emit_json(row)
    except KeyboardInterrupt:
        interrupted = True
        if out is not None and kept:
            write_results(out, command_line() + INTERRUPTED, kept)
    if markdown is not None and kept:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text(f"`{command_line()}`\n\n{markdown_table(kept, columns)}", encoding="utf-8")
    if not json_ and kept:
        _table([row for row in kept if in_table(row)], title, columns)
    if interrupted:
        note_line("interrupted; the rows above are what was measured until then")
        raise KeyboardInterrupt
    return kept


def command_line() -> str:
    """The command line as a person would type it again: without the directories of this machine."""
    return " ".join(["stetho", *(Path(a).name if a.startswith("/") else a for a in sys.argv[1:])])


def tell(json_: bool) -> Callable[[str], None] | None:
    """Steps as lines on stderr, where a person watches."""
    if json_ or not sys.stderr.isatty():
        return None
    return lambda step: typer.echo(f"· {step}", err=True)


@contextmanager
def rounds_bar(json_: bool, what: str = "rounds") -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr, where a person watches; else nothing."""
    if json_ or not sys.stderr.isatty():
        yield None
        return
    from edge_sdk.evaluation.predict import progress_bar

    with progress_bar() as progress:
        yield lambda done, total: progress(what, done, total)


def _table(rows: Rows, title: str, columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from benchmarks.core.rows import cell, subject_name

    machine, *measured = rows
    models = {(row.get("subject") or {}).get("model") for row in measured} - {None}
    table = Table(title=title, title_justify="left")
    table.add_column("subject", no_wrap=True)
    shown = [c for c in columns if any(row.get(c) is not None for row in measured)]
    for column in shown:
        table.add_column(column.replace("_", " "), justify="right")
    notes = []
    for row in measured:
        subject = dict(row.get("subject") or {})
        if len(models) < 2:
            subject["model"] = None  # the same in every line
        name = subject_name({**row, "subject": subject})
        if row.get("failed"):
            notes.append(f"{name}: {row['failed']}")
        else:
            table.add_row(name, *(cell(row.get(c)) for c in shown))
    console = Console()
    if not console.is_terminal:
        console.width = 180  # a file or a pipe has no edge to fold at
    load = (machine.get("load_average") or [0.0])[0]
    console.print(f"{machine['cpu']}, {machine['cores']} cores, load {load:.1f}", highlight=False)
    if len(models) == 1:
        console.print(str(next(iter(models))), highlight=False, markup=False)
    console.print(table)
    for note in notes:
        console.print(f"not measured: {note}", highlight=False, markup=False)
