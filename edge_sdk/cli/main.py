"""Entry point of ``stetho``: the names of the commands, and a start that a signal ends without a traceback.

Imports next to nothing itself: what is loaded here is loaded before signals are handled.
"""

from __future__ import annotations

import sys

from edge_sdk.cli.ending import Ending
from edge_sdk.cli.surroundings import calm_libraries, name_user, prepare_streams, spare_loaded

TYPE_CHECKING = False  # typing takes longer to load than this module
if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "demo": "edge_sdk.cli.runtime.demo",
    "devices": "edge_sdk.cli.runtime.devices",
    "device-sim": "edge_sdk.cli.runtime.device_sim",
    "listen": "edge_sdk.cli.runtime.listen",
    "screen": "edge_sdk.cli.runtime.screen",
    "report": "edge_sdk.cli.runtime.report",
    "serve": "edge_sdk.cli.runtime.serve",
    "adapt": "edge_sdk.cli.runtime.adapt",
    "convert": "edge_sdk.cli.runtime.convert",
    "data": "edge_sdk.cli.training.data",
    "train": "edge_sdk.cli.training.train",
    "evaluate": "edge_sdk.cli.training.evaluate",
    "segment-eval": "edge_sdk.cli.training.segment_eval",
    "figures": "edge_sdk.cli.training.figures",
    "export": "edge_sdk.cli.export.export",
    "compile": "edge_sdk.cli.export.compile",
    "triton": "edge_sdk.cli.export.triton",
    "keys": "edge_sdk.cli.export.keys",
    "verify": "edge_sdk.cli.export.verify",
    "bench": "edge_sdk.cli.bench.group",
    "doctor": "edge_sdk.cli.doctor.command",
}
"""Sub-command → module that holds ``NAME_command`` or ``NAME``, or for a group a ``typer.Typer`` named ``app``."""

_DEVICE_BENCHMARKS = frozenset({"stream", "soak", "faults"})


def take_flags(arguments: Sequence[str]) -> tuple[list[str], bool, bool]:
    """Take ``--debug`` out of the arguments, where it may stand anywhere before ``--``, and look for ``--json``."""
    head = list(arguments)
    tail: list[str] = []
    if "--" in head:
        cut = head.index("--")
        head, tail = head[:cut], head[cut:]
    debug, json = "--debug" in head, "--json" in head
    return [a for a in head if a != "--debug"] + tail, debug, json


def runs_on_device(arguments: Sequence[str]) -> bool:
    """Whether the command is one of the device's; no option before its name takes a value."""
    name = next((word for word in arguments if not word.startswith("-")), "")
    return COMMANDS.get(name, "").startswith("edge_sdk.cli.runtime.")


def measures_device(arguments: Sequence[str]) -> bool:
    """Whether the command is a benchmark that runs in this process what a command of the device does."""
    group, name, *_ = [word for word in arguments if not word.startswith("-")] + ["", ""]
    return group == "bench" and name in _DEVICE_BENCHMARKS


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed (one line on stderr), 2 usage, 128 + signal where stopped."""
    prepare_streams()  # first: nothing else may take the number of a closed stream
    own_process = arguments is None
    with Ending(last=own_process) as ending:
        name_user()
        args, debug, json = take_flags(sys.argv[1:] if arguments is None else arguments)
        on_device = runs_on_device(args) or measures_device(args)
        if on_device:
            calm_libraries()

        def begin() -> None:
            if on_device and own_process:
                spare_loaded()
            ending.started()

        from edge_sdk.cli.commands import run_command
        from edge_sdk.cli.messages import guard

        with guard(debug=debug, json=json, ending=ending):
            status = run_command(COMMANDS, args, on_start=begin)
    raise SystemExit(status)


if __name__ == "__main__":
    run()
