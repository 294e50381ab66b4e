"""The commands as Typer runs them: every one is listed, only the one that is called is imported."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from edge_sdk.cli.ending import Stopped
from edge_sdk.notices import RESEARCH_USE

ENDLESS = "inf"
"""In the metavar of an option whose value may be infinite."""


def run_command(commands: Mapping[str, str], arguments: Sequence[str], on_start: Callable[[], None]) -> int:
    """Run a command line; return its exit status.

    Parameters
    ----------
    commands
        Name → module that holds ``NAME_command`` or ``NAME``, or for a group a ``typer.Typer`` named ``app``.
    arguments
        Without the name of the program.
    on_start
        Called when the arguments are parsed and the command itself begins.

    Raises
    ------
    Exception
        Whatever the command raises, and typer's errors of usage.
    Stopped
        ``KeyboardInterrupt`` in the command; typer would return a status instead.
    """
    group = command_line(commands, on_start)
    try:
        status = group.main(args=list(arguments), prog_name="stetho", standalone_mode=False)
    except typer.Abort:
        return 1
    except Exception as error:
        if type(error).__name__ != "NoArgsIsHelpError":
            raise
        error.show()  # type: ignore[attr-defined]  # private to typer
        return 2
    return status if isinstance(status, int) else 0


def command_line(commands: Mapping[str, str], on_start: Callable[[], None] = lambda: None) -> Any:
    """The group of all commands, for :func:`run_command` and for the reference in the docs."""

    class LazyGroup(TyperGroup):
        """A group whose members are imported when they are called."""

        def list_commands(self, ctx: Any) -> list[str]:
            return [name for name, module in commands.items() if is_installed(module)]

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if not is_installed(commands.get(cmd_name)):
                return None
            command = load_command(cmd_name, commands[cmd_name], on_start)
            command.name = cmd_name
            return command

    app = typer.Typer(
        cls=LazyGroup,
        name="stetho",
        help=f"Screen breath sounds on the device: audio in, labelled respiratory cycles out. {RESEARCH_USE}",
        no_args_is_help=True,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    return typer.main.get_command(app)


def is_installed(module: str | None) -> bool:
    """Whether there is such a module; a distributor may leave commands out."""
    return module is not None and importlib.util.find_spec(module) is not None


def load_command(name: str, module_name: str, on_start: Callable[[], None] = lambda: None) -> Any:
    """Import one command or group; see :func:`run_command`."""
    module = importlib.import_module(module_name)
    group = getattr(module, "app", None)
    if group is None:
        group = typer.Typer(add_completion=False)
        function = name.replace("-", "_")
        command = getattr(module, f"{function}_command", None) or getattr(module, function)
        group.command(name=name, no_args_is_help=False)(command)
    loaded = typer.main.get_command(group)
    _prepare(loaded, on_start)
    return loaded


def _prepare(command: Any, on_start: Callable[[], None]) -> None:
    """Join the lines of each paragraph of the help (the terminal breaks them), and check numbers before the start."""
    command.help = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    members = getattr(command, "commands", {})
    for member in members.values():
        _prepare(member, on_start)
    if not members and command.callback is not None:
        command.callback = _started(command, command.callback, on_start)


def _started(command: Any, function: Callable[..., Any], on_start: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def start(**values: Any) -> Any:
        _check_numbers(command, values)
        on_start()
        try:
            return function(**values)
        except KeyboardInterrupt as stop:
            raise Stopped(str(stop)) from None

    return start


def _check_numbers(command: Any, values: Mapping[str, Any]) -> None:
    """Refuse NaN everywhere, and infinity where the option does not offer it: no bound of a range stops them."""
    for option in command.params:
        value = values.get(option.name)
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if not isinstance(number, float) or math.isfinite(number):
                continue
            if math.isnan(number) or ENDLESS not in (option.metavar or ""):
                raise typer.BadParameter(f"{number} is not a finite number", param_hint=f"'{option.opts[0]}'")


def _show_version(wanted: bool) -> None:
    if wanted:
        from edge_sdk._version import __version__

        typer.echo(f"stetho {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass
