"""``stetho bench report``, ``compare`` and ``ratios``: pages, differences and ratios from results files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_sdk.cli.bench.rows_output import command_line
from edge_sdk.cli.messages import emit_json
from edge_sdk.cli.options import JsonOption

if TYPE_CHECKING:
    from benchmarks.compare import Difference

Row = Mapping[str, Any]

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
    before: Annotated[Path, typer.Argument(help="Results file, or file of ratios.", metavar="BEFORE")],
    after: Annotated[list[Path], typer.Argument(help="Results files of the same benchmarks.", metavar="AFTER")],
    margin: Annotated[
        float, typer.Option("--margin", min=0.0, max=1.0, help="Share by which two equal runs may differ.")
    ] = 0.05,
    gate: Annotated[
        float | None,
        typer.Option(
            "--gate",
            min=0.0,
            metavar="SHARE",
            help="Compare the ratios between rows of one run, which hold across machines; exit status 1 where one got "
            "worse by more than this share.",
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Show what got better and worse between results files, beyond the noise.

    A finding, not an exit status, except with --gate.
    """
    from dataclasses import asdict

    from benchmarks.compare import compare_results, unmatched
    from benchmarks.core.rows import read_results

    first = read_results(before).rows
    second = [row for path in after for row in read_results(path).rows]
    if gate is not None:
        _gate(first, second, gate, json_)
        return
    found = compare_results(first, second, margin=margin)
    if json_:
        for one in found:
            emit_json({"benchmark": "compare", **asdict(one)})
        return
    _print_differences(found, *unmatched(first, second))
    _print_machines(first, second)


def ratios_command(
    results: Annotated[list[Path], typer.Argument(help="Results files.", metavar="RESULTS")],
    out: Annotated[Path, typer.Option("--out", help="File of ratios; what was not measured again stays in it.")] = (
        _RESULTS / "ratios.json"
    ),
    json_: JsonOption = False,
) -> None:
    """Keep the ratios between rows of one run, for 'stetho bench compare RATIOS RESULTS... --gate SHARE'."""
    from benchmarks.core.rows import cell, read_results, subject_name
    from benchmarks.ratios import doubts, keep_ratios
    from edge_sdk.cli.tables import Column, print_table, stdout_console

    found = keep_ratios(out, results, command_line())
    for line in (line for path in results for line in doubts(read_results(path).rows)):
        typer.echo(line, err=True)
    if json_:
        for row in found:
            emit_json(row)
        return
    columns = [Column("ratio", "name"), Column("ours / reference"), Column("95 %"), Column("machine", "text")]
    cells = []
    for row in found:
        ends = [cell(row[k]) for k in ("cpu_ratio_low", "cpu_ratio_high") if k in row]
        cells.append([subject_name(row), cell(row["cpu_ratio"]), " – ".join(ends) or "–", str(row["machine"])])
    print_table(columns, cells, title="Ratios of this run", console=stdout_console())


def _gate(committed: Sequence[Row], rows: Sequence[Row], tolerance: float, json_: bool) -> None:
    from dataclasses import asdict

    from benchmarks.ratios import check_ratios, doubts

    found = check_ratios(committed, rows, tolerance=tolerance)
    for one in found:
        if json_:
            emit_json({"benchmark": "compare", **asdict(one)})
        elif one.verdict != "worse":
            typer.echo(one.line)
    worse = [one for one in found if one.verdict == "worse"]
    for one in worse:
        typer.echo(one.line, err=True)
    for line in doubts([*committed, *rows]):
        typer.echo(line, err=True)
    if worse:
        raise typer.Exit(1)


def _print_machines(first: Sequence[Row], second: Sequence[Row]) -> None:
    """Times of two machines compare the machines; nobody should take that for a change of the code."""
    from benchmarks.core.machine import machine_name

    names = [{machine_name(r) for r in rows if r.get("benchmark") == "machine"} for rows in (first, second)]
    if all(names) and names[0] != names[1]:
        what = " against ".join(" and ".join(sorted(group)) for group in names)
        typer.echo(f"different machines: {what}; only ratios hold across machines (--gate)", err=True)


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
