"""``stetho bench soak|faults|peers|report|compare``: what takes long, and what is made of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edge_sdk.cli.bench.show import BundleArgument, OutOption, QuickOption, show, tell
from edge_sdk.cli.options import BundleOption, JsonOption, emit_json

_QUICK_SOAK_S = 3.0
_RESULTS = Path("benchmarks/results")

SOAK_COLUMNS = (
    "t_s",
    "rss_mb",
    "rss_slope_mb_per_hour",
    "rss_slope_error",
    "lost_samples",
    "misses",
    "p99_ms",
    "max_ms",
    "drift_ms",
    "drift_ppm",
    "cpu_load",
    "temperature_c",
    "passed",
    "why",
)
FAULT_COLUMNS = (
    "recovery_s",
    "recovery_bound_s",
    "lost_samples",
    "lost_bound_samples",
    "accounted",
    "p99_ms",
    "passed",
    "why",
)
PEER_COLUMNS = ("cpu_ratio", "cpu_ratio_low", "cpu_ratio_high", "wall_ratio", "p50_ms", "cpu_s_per_hour", "f1", "n")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (soak, faults, peers, report, compare):
        app.command()(command)


def soak(
    subject: BundleArgument = None,
    bundle: BundleOption = "default",
    minutes: Annotated[float | None, typer.Option("--minutes", min=0.05, help="By the clock; 60 where absent.")] = None,
    hours: Annotated[float | None, typer.Option("--hours", min=0.01, help="The same in hours.")] = None,
    days: Annotated[float | None, typer.Option("--days", min=0.01, help="The same in days.")] = None,
    root: Annotated[
        Path | None, typer.Option("--root", help="Folder of recordings; simulated patients where absent.")
    ] = None,
    speed: Annotated[
        float, typer.Option("--speed", min=0.1, max=100, help="2: two hours of sound in one; stated in the result.")
    ] = 1.0,
    rate: Annotated[int, typer.Option("--rate", min=2000, help="Hz of the source.")] = 8000,
    deadline: Annotated[float, typer.Option("--deadline", min=1, help="ms from capture to sink.")] = 100.0,
    interval: Annotated[float | None, typer.Option("--interval", min=0.5, help="Seconds between rows.")] = None,
    quick: QuickOption = False,
    out: OutOption = None,
    json_: JsonOption = False,
) -> None:
    """One paced session for minutes to days: memory, drift, losses, missed deadlines, heat. ``--out`` grows as it runs:
    Ctrl-C or a kill keeps what was measured."""
    from benchmarks.stream.soak import SoakOptions, run

    given = [(minutes, 60.0), (hours, 3600.0), (days, 86400.0)]
    asked = [number * unit for number, unit in given if number is not None]
    if len(asked) > 1:
        raise typer.BadParameter("give one of --minutes, --hours and --days")
    options = SoakOptions(
        bundle=subject or bundle,
        seconds=_QUICK_SOAK_S if quick else (asked or [3600.0])[0],
        root=root,
        speed=speed,
        rate_hz=rate,
        deadline_ms=deadline,
        interval_s=interval,
    )
    show(run(options, tell(json_)), "Soak", SOAK_COLUMNS, out, json_, in_table=_no_interval)


def _no_interval(row: dict[str, Any]) -> bool:
    """Hundreds of intervals are for files and plots."""
    return (row.get("subject") or {}).get("part") != "interval"


def faults(
    subject: BundleArgument = None,
    bundle: BundleOption = "default",
    only: Annotated[list[str] | None, typer.Option("--only", help="Name of a fault; may be repeated.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.5, max=60, help="How long each fault lasts.")] = 5.0,
    quick: QuickOption = False,
    out: OutOption = None,
    json_: JsonOption = False,
) -> None:
    """Faults on purpose, each against a stated bound: busy CPU, slow consumer, unplugged device, lost frames, full
    disk, leaping clocks, stopped process. A bound that does not hold is a finding, not an error."""
    from benchmarks.faults.run import FAULTS, FaultOptions, run

    wrong = sorted(set(only or []) - set(FAULTS))
    if wrong:
        raise typer.BadParameter(f"no fault {', '.join(wrong)}; there are {', '.join(FAULTS)}", param_hint="--only")
    chosen = tuple(only or ())
    name = subject or bundle
    options = FaultOptions.quick(name, chosen) if quick else FaultOptions(bundle=name, fault_s=seconds, only=chosen)
    show(run(options, tell(json_)), "Faults", FAULT_COLUMNS, out, json_)


def peers(
    subject: BundleArgument = None,
    bundle: BundleOption = "default",
    only: Annotated[
        list[str] | None, typer.Option("--only", help="front-end, inference, stream or events; may be repeated.")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=8, help="Of sound in one unit of work.")] = 60.0,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Of all subjects in turn.")] = 30,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder of the peers' environments; the user's cache where absent.")
    ] = None,
    quick: QuickOption = False,
    out: OutOption = None,
    json_: JsonOption = False,
) -> None:
    """Ours beside kaldi-native-fbank, torchaudio, librosa, torch, ONNX Runtime, silero-vad and sed_eval, in the same
    rounds. Each peer has an environment of its own, made at the first run; ``--quick`` makes none."""
    from benchmarks.peers.run import CONTESTS, PeerOptions, run

    wrong = sorted(set(only or []) - set(CONTESTS))
    if wrong:
        raise typer.BadParameter(f"no contest {', '.join(wrong)}; there are {', '.join(CONTESTS)}", param_hint="--only")
    options = PeerOptions(
        bundle=subject or bundle,
        seconds=8.0 if quick else seconds,
        rounds=3 if quick else rounds,
        warm_up=1 if quick else 2,
        quick=quick,
        cache=cache,
        only=tuple(only or ()),
    )
    show(run(options, tell(json_)), "Peers (ratio: ours by theirs)", PEER_COLUMNS, out, json_)


def report(
    results: Annotated[Path, typer.Argument(metavar="[RESULTS]", help="Folder of results files.")] = _RESULTS,
    out: Annotated[Path, typer.Option("--out", help="Folder to write index.html and report.md into.")] = Path(
        "benchmark-report"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Takes no time anyway.", hidden=True)] = False,
    json_: JsonOption = False,
) -> None:
    """All results on one self-contained HTML page with plots, and one Markdown page."""
    from benchmarks.report.page import write_report

    html, markdown = write_report(results, out)
    if json_:
        emit_json({"benchmark": "report", "html": str(html), "markdown": str(markdown)})
    else:
        typer.echo(f"{html}\n{markdown}")


def compare(
    before: Annotated[Path, typer.Argument(help="Results file.")],
    after: Annotated[Path, typer.Argument(help="Results file of the same benchmark.")],
    margin: Annotated[
        float, typer.Option("--margin", min=0.0, max=1.0, help="Share by which two equal runs may differ.")
    ] = 0.05,
    json_: JsonOption = False,
) -> None:
    """What got better and worse from one results file to another, beyond the noise. A finding, not an exit status."""
    from dataclasses import asdict

    from benchmarks.compare import compare as differences
    from benchmarks.compare import unmatched
    from benchmarks.core.rows import read_results

    first, second = read_results(before).rows, read_results(after).rows
    found = differences(first, second, margin=margin)
    if json_:
        for one in found:
            emit_json({"benchmark": "compare", **asdict(one)})
        return
    _verdicts(found, *unmatched(first, second))


def _verdicts(found: list[Any], gone: list[str], new: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from benchmarks.core.rows import cell

    table = Table(title="From the first to the second", title_justify="left")
    table.add_column("subject")
    for column in ("figure", "before", "after", "ratio", "95 %", "verdict"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in found:
        interval = "–" if one.interval is None else " – ".join(cell(v) for v in one.interval)
        table.add_row(
            one.subject, one.figure, cell(one.before), cell(one.after), cell(one.ratio), interval, one.verdict
        )
    console = Console()
    if not console.is_terminal:
        console.width = 180
    console.print(table)
    for word, names in (("only in the first", gone), ("only in the second", new)):
        for name in names:
            console.print(f"{word}: {name}", highlight=False, markup=False)
    if not found:
        console.print("the files have no figure in common; compare results of the same benchmark", highlight=False)
