"""``stetho bench report`` and ``stetho bench compare``: pages and differences from results files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_sdk.cli.messages import emit_json
from edge_sdk.cli.options import JsonOption

if TYPE_CHECKING:
    from benchmarks.compare import Difference

_RESULTS = Path("benchmarks/results")


def report_command(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder of results files.")] = _RESULTS,
    out: Annotated[Path, typer.Option("--out", help="Folder to write index.html and report.md into.")] = Path(
        "benchmark-report"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Takes no time anyway.", hidden=True)] = False,
    json_: JsonOption = False,
) -> None:
    """Write all results on one self-contained HTML page with plots, and one Markdown page."""
    from benchmarks.report.page import write_report

    html, markdown = write_report(results, out)
    if json_:
        emit_json({"benchmark": "report", "html": str(html), "markdown": str(markdown)})
    else:
        typer.echo(f"{html}\n{markdown}")


def compare_command(
    before: Annotated[Path, typer.Argument(help="Results file.", metavar="BEFORE")],
    after: Annotated[Path, typer.Argument(help="Results file of the same benchmark.", metavar="AFTER")],
    margin: Annotated[
        float, typer.Option("--margin", min=0.0, max=1.0, help="Share by which two equal runs may differ.")
    ] = 0.05,
    json_: JsonOption = False,
) -> None:
    """Show what got better and worse between two results files, beyond the noise. A finding, not an exit status."""
    from dataclasses import asdict

    from benchmarks.compare import compare_results, unmatched
    from benchmarks.core.rows import read_results

    first, second = read_results(before).rows, read_results(after).rows
    found = compare_results(first, second, margin=margin)
    if json_:
        for one in found:
            emit_json({"benchmark": "compare", **asdict(one)})
        return
    _print_differences(found, *unmatched(first, second))


def _print_differences(found: list[Difference], gone: list[str], new: list[str]) -> None:
    from benchmarks.core.rows import cell
    from edge_sdk.cli.tables import Column, print_table, stdout_console

    console = stdout_console()
    columns = [
        Column("subject", "name"),
        Column("figure", "name"),
        Column("verdict", "text", keep=True),
        *(Column(title) for title in ("ratio", "before", "after", "95 %")),
    ]
    rows = []
    for one in found:
        interval = "–" if one.interval is None else " – ".join(cell(v) for v in one.interval)
        rows.append(
            [one.subject, one.figure, one.verdict, cell(one.ratio), cell(one.before), cell(one.after), interval]
        )
    print_table(columns, rows, title="From the first to the second", console=console)
    for word, names in (("only in the first", gone), ("only in the second", new)):
        for name in names:
            console.print(f"{word}: {name}", markup=False)
    if not found:
        console.print("the files have no figure in common; compare results of the same benchmark")
