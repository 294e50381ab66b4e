"""Entry point of ``stetho``: lists every sub-command, imports only the one that is called."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from edge_sdk.cli.messages import guard
from edge_sdk.notices import RESEARCH_USE

COMMANDS = {
    "demo": "edge_sdk.cli.runtime.demo",
    "devices": "edge_sdk.cli.runtime.devices",
    "device-sim": "edge_sdk.cli.runtime.device_sim",
    "listen": "edge_sdk.cli.runtime.listen",
    "screen": "edge_sdk.cli.runtime.screen",
    "report": "edge_sdk.cli.runtime.report",
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


def _load(name: str) -> Any:
    module = importlib.import_module(COMMANDS[name])
    group = getattr(module, "app", None)
    if group is None:
        group = typer.Typer(add_completion=False)
        function = name.replace("-", "_")
        command = getattr(module, f"{function}_command", None) or getattr(module, function)
        group.command(name=name, no_args_is_help=False)(command)
    loaded = typer.main.get_command(group)
    _reflow(loaded)
    return loaded


def _reflow(command: Any) -> None:
    """Join the lines of each paragraph of the help: the terminal breaks them, not the docstring."""
    command.help = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    for member in getattr(command, "commands", {}).values():
        _reflow(member)


class _LazyGroup(TyperGroup):
    """A group whose members are imported when they are called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name, module in COMMANDS.items() if importlib.util.find_spec(module)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = _load(cmd_name)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=_LazyGroup,
    name="stetho",
    help=f"Screen breath sounds on the device: audio in, labelled respiratory cycles out. {RESEARCH_USE}",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from edge_sdk._version import __version__

        typer.echo(f"stetho {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


def take_debug_flag(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Take ``--debug`` out of the arguments; it may stand anywhere before ``--``."""
    head = list(arguments)
    tail: list[str] = []
    if "--" in head:
        cut = head.index("--")
        head, tail = head[:cut], head[cut:]
    debug = "--debug" in head
    return [a for a in head if a != "--debug"] + tail, debug


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed (one line on stderr), 2 usage."""
    args, debug = take_debug_flag(sys.argv[1:] if arguments is None else arguments)
    with guard(debug=debug):
        typer.main.get_command(app).main(args=args, prog_name="stetho")


if __name__ == "__main__":
    run()
