"""``stetho data``: what a corpus folder holds, beside what its publisher says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_sdk.cli.options import JsonOption, emit_json
from edge_sdk.corpora.registry import corpus_names

if TYPE_CHECKING:
    from edge_sdk.corpora.check import CheckReport, Progress

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Corpora on disk.")


@app.callback()
def _data() -> None:
    """Corpora on disk."""


@app.command()
def check(
    corpus: Annotated[str, typer.Argument(help=f"One of {corpus_names()}.", metavar="CORPUS")],
    root: Annotated[Path, typer.Argument(help="The publisher's folder.", metavar="ROOT")],
    partial: Annotated[bool, typer.Option("--partial", help="Accept a copy that is not complete.")] = False,
    json: JsonOption = False,
) -> None:
    """Count a corpus against its publication and name every problem.

    A copy that is not complete is refused without --partial. Problems of single files never change the exit status.
    """
    from edge_sdk.corpora.check import check_corpus

    with _progress() as progress:
        report = check_corpus(corpus, root, progress=progress)
    if json:
        emit_json(report.to_dict())
    else:
        _show(report)
    if not partial:
        report.refuse_partial()


@contextmanager
def _progress() -> Iterator[Progress]:
    from edge_sdk.evaluation.predict import progress_bar

    with progress_bar() as advance:
        yield advance


def _show(report: CheckReport) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console.width = 160  # a file or a pipe has no edge to fold at
    table = Table(
        box=None, pad_edge=False, header_style="bold", title=f"{report.title} at {report.root}", title_justify="left"
    )
    table.add_column("")
    for name in ("found", "published"):
        table.add_column(name, justify="right")
    for name, found, published in _rows(report):
        differs = published not in ("", found)
        table.add_row(name, Text(found, "yellow" if differs else ""), published)
    console.print(table)
    for title, lines in (("differs from the publication", report.discrepancies), ("problems", report.problems)):
        console.print(f"\n{title}: {len(lines) or 'none'}", style="bold", highlight=False)
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
        there, said = counts["splits_published"].get(split), stated.get(split)
        yield f"split {split}", _split(there, said or there), _split(said, said)
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
        found, said = counts.get(key, {}), published.get(key, {})
        for name in dict.fromkeys((*found, *said)):
            yield f"{title}: {name}", str(found.get(name, 0)), str(said.get(name, ""))


def _tally(counts: dict[str, int], unit: str) -> str:
    if len(counts) == 1:
        return f"{next(iter(counts))}{unit}"
    return ", ".join(f"{value}{unit} × {count}" for value, count in counts.items()) or "–"


def _split(row: dict[str, int] | None, shown: dict[str, int] | None) -> str:
    """Those counts of a split that ``shown`` has, so that found and published read alike."""
    if row is None:
        return "–"
    names = [name for name in ("recordings", "patients", "events") if shown and shown.get(name)]
    return ", ".join(f"{row.get(name, 0)} {name}" for name in names) or "–"
