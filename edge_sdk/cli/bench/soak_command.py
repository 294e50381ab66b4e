"""``stetho bench soak``: one session for minutes to days."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edge_sdk.cli.bench.options import BundleArgument, OutOption, QuickOption, RootOption
from edge_sdk.cli.bench.rows_output import run_and_show
from edge_sdk.cli.options import BundleOption, JsonOption

_QUICK_S = 3.0
_COLUMNS = (
    "t_s", "rss_mb", "rss_slope_mb_per_hour", "rss_slope_error", "lost_samples", "misses", "p99_ms", "max_ms",
    "drift_ms", "drift_ppm", "cpu_load", "temperature_c", "passed", "why",
)  # fmt: skip


def soak_command(
    bundle_argument: BundleArgument = None,
    bundle: BundleOption = "default",
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.05, help="Length in minutes by the clock; 60 where absent.")
    ] = None,
    hours: Annotated[float | None, typer.Option("--hours", min=0.01, help="Length in hours.")] = None,
    days: Annotated[float | None, typer.Option("--days", min=0.01, help="Length in days.")] = None,
    root: RootOption = None,
    speed: Annotated[
        float,
        typer.Option(
            "--speed", min=0.1, max=100, help="Pace of the audio: 2 is two hours in one; stated in the result."
        ),
    ] = 1.0,
    rate: Annotated[int, typer.Option("--rate", min=2000, help="Sample rate of the source, Hz.")] = 8000,
    deadline: Annotated[float, typer.Option("--deadline", min=1, help="Deadline from capture to sink, ms.")] = 100.0,
    interval: Annotated[float | None, typer.Option("--interval", min=0.5, help="Seconds between rows.")] = None,
    quick: QuickOption = False,
    out: OutOption = None,
    json_: JsonOption = False,
) -> None:
    """Run one paced session for minutes to days: memory, drift, lost samples, missed deadlines, heat.

    The file of --out grows while it runs: Ctrl-C or a kill keeps what was measured.
    """
    from benchmarks.stream.soak import SoakOptions, run_soak

    units = ((minutes, 60.0), (hours, 3600.0), (days, 86400.0))
    given = [number * unit for number, unit in units if number is not None]
    if len(given) > 1:
        raise typer.BadParameter("give one of --minutes, --hours and --days")
    options = SoakOptions(
        bundle=bundle_argument or bundle,
        seconds=_QUICK_S if quick else (given or [3600.0])[0],
        root=root,
        speed=speed,
        rate_hz=rate,
        deadline_ms=deadline,
        interval_s=interval,
    )
    run_and_show(lambda report: run_soak(options, report), "Soak", _COLUMNS, out, json_, in_table=_is_no_interval)


def _is_no_interval(row: dict[str, Any]) -> bool:
    """Leave intervals out of the table: hundreds of them are for files and plots."""
    return (row.get("subject") or {}).get("part") != "interval"
