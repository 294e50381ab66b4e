"""``stetho bench``: timings of this machine, as a table or as JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_sdk.cli._common import BundleOption, JsonOption, emit_json, jsonable

app = typer.Typer(help="Latency of models and of the whole pipeline.", no_args_is_help=True, add_completion=False)

QuickOption = Annotated[bool, typer.Option("--quick", help="A short run: proves that it works, no figures to quote.")]
BundleArgument = Annotated[str | None, typer.Argument(metavar="[BUNDLE]", help="The bundle; the same as --bundle.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Also write the rows as a JSON file.")]


@app.command()
def latency(
    subject: BundleArgument = None,
    bundle: BundleOption = "default",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Intra-op threads of every engine.")] = 1,
    batch: Annotated[list[int] | None, typer.Option("--batch", min=1, help="Batch size; may be repeated.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Timed calls of every subject.")] = 300,
    quick: QuickOption = False,
    out: OutOption = None,
    json_: JsonOption = False,
) -> None:
    """Model latency per breath: every artefact of a bundle, and the same network in torch eager where installed."""
    from benchmarks.latency import LatencyOptions, run

    options = LatencyOptions(
        bundle=subject or bundle,
        threads=threads,
        batches=tuple(batch or [1]),
        rounds=20 if quick else rounds,
        warm_up=3 if quick else 20,
    )
    columns = ("p50_ms", "p95_ms", "p99_ms", "max_ms", "n", "ratio_to_torch", "rss_mb")
    _show(run(options), "Model latency per breath (PCM in, logits out)", columns, out, json_)


@app.command()
def stream(
    subject: BundleArgument = None,
    bundle: BundleOption = "default",
    artefact: Annotated[str | None, typer.Option("--artefact", help="Format of the classifier to load.")] = None,
    root: Annotated[
        Path | None, typer.Option("--root", help="Folder of recordings; simulated patients where absent.")
    ] = None,
    minutes: Annotated[float, typer.Option("--minutes", min=0.05, help="Sound pushed through at full speed.")] = 10.0,
    paced: Annotated[float, typer.Option("--paced", min=0, help="Seconds replayed in real time.")] = 20.0,
    starts: Annotated[int, typer.Option("--starts", min=0, help="Cold starts of 'stetho screen'.")] = 5,
    quick: QuickOption = False,
    out: OutOption = None,
    json_: JsonOption = False,
) -> None:
    """The whole pipeline: CPU seconds per hour of sound, delay in real time, cold start and memory."""
    from benchmarks.stream import StreamOptions, run

    options = StreamOptions(
        bundle=subject or bundle,
        artefact=artefact,
        root=root,
        minutes=0.25 if quick else minutes,
        paced_s=3.0 if quick else paced,
        starts=1 if quick else starts,
    )
    columns = ("cpu_s_per_hour", "times_real_time", "cycles", "p50_ms", "p95_ms", "max_ms", "n", "rss_mb")
    _show(run(options, _tell(json_)), "Pipeline", columns, out, json_)


def _tell(json_: bool) -> Any:
    if json_ or not sys.stderr.isatty():
        return None
    return lambda step: typer.echo(f"· {step}", err=True)


def _show(rows: Iterable[dict[str, Any]], title: str, columns: tuple[str, ...], out: Path | None, json_: bool) -> None:
    kept = []
    for row in rows:
        kept.append(row)
        if json_:
            emit_json(row)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"command": _command(), "rows": jsonable(kept)}, indent=2)
        out.write_text(text + "\n", encoding="utf-8")
    if not json_:
        _table(kept, title, columns)


def _command() -> str:
    """The command line as a person would type it again: without the directories of this machine."""
    return " ".join(["stetho", *(Path(a).name if a.startswith("/") else a for a in sys.argv[1:])])


def _table(rows: list[dict[str, Any]], title: str, columns: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    machine, *measured = rows
    table = Table(title=title, title_justify="left")
    table.add_column("subject", no_wrap=True)
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    notes = []
    for row in measured:
        subject = row["subject"]
        name = str(subject.get("part") or subject.get("artefact"))
        if subject.get("batch", 1) != 1:
            name += f" × {subject['batch']}"
        if "failed" in row:
            notes.append(f"{name}: {row['failed']}")
        else:
            table.add_row(name, *(_cell(row.get(c)) for c in columns))
    console = Console()
    console.print(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_average'][0]:.1f}", highlight=False)
    console.print(table)
    for note in notes:
        console.print(f"not measured: {note}", highlight=False, markup=False)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) and abs(value) < 100 else f"{value:.0f}"
