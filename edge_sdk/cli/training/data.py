"""``stetho data``: the content of a corpus folder beside the publisher's counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_sdk.cli.messages import emit_json
from edge_sdk.cli.options import JsonOption
from edge_sdk.cli.progress import progress_bar
from edge_sdk.corpora.registry import corpus_names

if TYPE_CHECKING:
    from edge_sdk.corpora.check import CheckReport

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Check corpora on disk.")


@app.callback()
def _group() -> None:
    """Check corpora on disk."""


@app.command("check")
def check_command(
    corpus: Annotated[str, typer.Argument(help=f"One of {corpus_names()}.", metavar="CORPUS")],
    root: Annotated[Path, typer.Argument(help="The publisher's folder.", metavar="ROOT")],
    partial: Annotated[bool, typer.Option("--partial", help="Accept a copy that is not complete.")] = False,
    json: JsonOption = False,
) -> None:
    """Count a corpus against its publication and name every problem.

    A copy that is not complete is refused without --partial. Problems of single files never change the exit status.
    """
    from edge_sdk.corpora.check import check_corpus

    with progress_bar("reading files", quiet=json) as progress:
        report = check_corpus(corpus, root, progress=progress)
    if json:
        emit_json(report.to_dict())
    else:
        _print(report)
    if not partial:
        report.refuse_partial()


def _print(report: CheckReport) -> None:
    from rich.text import Text

    from edge_sdk.cli.tables import Column, print_table, stdout_console

    console = stdout_console()
    rows: list[list[str | Text]] = []
    for name, found, published in _rows(report):
        differs = published not in ("", found)
        rows.append([name, Text(found, "yellow" if differs else ""), published])
    columns = [
        Column("", "name"),
        Column("found", "text", keep=True, right=True),
        Column("published", "text", keep=True, right=True),
    ]
    print_table(columns, rows, title=f"{report.title} at {report.root}", console=console)
    if report.licence:
        console.print(Text(f"\nlicence: {report.licence}"))
    for title, lines in (("differs from the publication", report.discrepancies), ("problems", report.problems)):
        console.print(f"\n{title}: {len(lines) or 'none'}", style="bold")
        for line in lines:
            console.print(Text(f"  {line}"))


def _rows(report: CheckReport) -> Iterator[tuple[str, str, str]]:
    counts, published = report.counts, report.published
    for name in ("recordings", "patients", "events"):
        if counts[name] or published.get(name):
            yield name, str(counts[name]), str(published.get(name, ""))
    yield "hours", f"{counts['hours']:.2f}", ""
    yield "rates", _tally(counts["rates_hz"], " Hz"), f"{published['rate_hz']} Hz" if "rate_hz" in published else ""
    stated, classes = published.get("splits", {}), published.get("split_classes", {})
    for split in sorted({*counts["splits_published"], *stated}):
        there, expected = counts["splits_published"].get(split), stated.get(split)
        yield f"split {split}", _split(there, expected or there), _split(expected, expected)
        for label, number in classes.get(split, {}).items():
            yield f"split {split}: {label}", str(counts["split_classes"].get(split, {}).get(label, 0)), str(number)
    if "patients_in_train_and_test" in published:
        found, stated_names = (", ".join(table["patients_in_train_and_test"]) for table in (counts, published))
        yield "patients in train and test", found or "none", stated_names
    if "categories" in published:
        yield "different recording labels", str(len(counts["recording_labels"])), str(published["categories"])
    for split, row in counts.get("splits_csv", {}).items():
        yield f"split.csv {split}", _split(row, row), ""
    for title, key in (
        ("recording labels", "recording_labels"),
        ("event types", "event_types"),
        ("classes", "classes"),
        ("phases", "phases"),
        ("sounds", "sounds"),
    ):
        found, expected = counts.get(key, {}), published.get(key, {})
        for name in dict.fromkeys((*found, *expected)):
            yield f"{title}: {name}", str(found.get(name, 0)), str(expected.get(name, ""))


def _tally(counts: dict[str, int], unit: str) -> str:
    if len(counts) == 1:
        return f"{next(iter(counts))}{unit}"
    return ", ".join(f"{value}{unit} × {count}" for value, count in counts.items()) or "–"


def _split(row: dict[str, int] | None, shown: dict[str, int] | None) -> str:
    """Format the counts of a split that ``shown`` has, so that found and published are alike."""
    if row is None:
        return "–"
    names = [name for name in ("recordings", "patients", "events") if shown and shown.get(name)]
    return ", ".join(f"{row.get(name, 0)} {name}" for name in names) or "–"
