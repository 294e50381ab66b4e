"""``stetho bench faults``: faults on purpose, each against its bound."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_sdk.cli.bench.options import BundleArgument, OutOption, QuickOption
from edge_sdk.cli.bench.rows_output import run_and_show
from edge_sdk.cli.options import BundleOption, JsonOption

_COLUMNS = (
    "recovery_s", "recovery_bound_s", "lost_samples", "lost_bound_samples", "accounted", "p99_ms", "passed", "why",
)  # fmt: skip


def faults_command(
    bundle_argument: BundleArgument = None,
    bundle: BundleOption = "default",
    only: Annotated[list[str] | None, typer.Option("--only", help="Name of a fault; may be repeated.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.5, max=60, help="Duration of each fault.")] = 5.0,
    quick: QuickOption = False,
    out: OutOption = None,
    json_: JsonOption = False,
) -> None:
    """Cause faults on purpose, each against a stated bound.

    Busy CPU, slow consumer, unplugged device, lost frames, full disk, leaping clocks, stopped process. A bound that
    does not hold is a finding, not an error.
    """
    from benchmarks.faults.run import FAULTS, FaultOptions, run_faults

    wrong = sorted(set(only or []) - set(FAULTS))
    if wrong:
        raise typer.BadParameter(f"no fault {', '.join(wrong)}; there are {', '.join(FAULTS)}", param_hint="--only")
    chosen = tuple(only or ())
    name = bundle_argument or bundle
    options = FaultOptions.quick(name, chosen) if quick else FaultOptions(bundle=name, fault_s=seconds, only=chosen)
    run_and_show(lambda report: run_faults(options, report), "Faults", _COLUMNS, out, json_)
