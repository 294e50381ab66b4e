"""``stetho`` itself: every sub-command is listed, errors are one line, and nothing heavy is loaded without need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_sdk.cli.commands import load_command
from edge_sdk.cli.main import COMMANDS
from tests.cli.conftest import Stetho


def test_every_command_is_listed_and_explains_itself(stetho: Stetho) -> None:
    listed = stetho("--help")
    assert listed.status == 0
    for name in COMMANDS:
        assert f" {name} " in listed.out, name
        page = stetho(name, "--help")
        assert page.status == 0, page.err
        assert "Usage: stetho" in page.out


@pytest.mark.parametrize("group", ["data", "bench"])
def test_every_member_of_a_group_explains_itself(stetho: Stetho, group: str) -> None:
    members = list(load_command(group, COMMANDS[group]).commands)
    assert members
    for name in members:
        page = stetho(group, name, "--help")
        assert page.status == 0, page.err
        assert f"{group} {name}" in page.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_a_verb_or_the_thing_itself(name: str) -> None:
    pending = [load_command(name, COMMANDS[name])]
    while pending:
        command = pending.pop()
        pending += getattr(command, "commands", {}).values()
        texts = {option.name: getattr(option, "help", None) for option in command.params if option.name != "help"}
        for option, text in {"the command": command.help, **texts}.items():
            assert text and not text.startswith(("Of ", "Whose ", "What ")), (command.name, option, text)


@pytest.mark.parametrize(
    "line", [["nonsense"], ["screen"], ["screen", "x.wav", "--jobs", "0"], ["screen", "x.wav", "--channel", "left"]]
)
def test_wrong_usage_ends_with_status_2(stetho: Stetho, line: list[str]) -> None:
    outcome = stetho(*line)
    assert outcome.status == 2
    assert outcome.out == ""
    assert outcome.err


def test_version(stetho: Stetho) -> None:
    from edge_sdk import __version__

    assert stetho("--version").out == f"stetho {__version__}\n"


def test_debug_shows_the_traceback_wherever_it_stands(tmp_path: Path) -> None:
    for line in (["--debug", "verify", str(tmp_path)], ["verify", str(tmp_path), "--debug"]):
        ended = subprocess.run([sys.executable, "-m", "edge_sdk.cli.main", *line], capture_output=True, text=True)
        assert ended.returncode == 1
        assert "Traceback" in ended.stderr and "BundleError" in ended.stderr


def test_a_closed_pipe_is_no_error(recording: Path) -> None:
    command = f"{sys.executable} -m edge_sdk.cli.main screen {recording} --json | head -n 1"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert ended.stderr == ""
    assert ended.stdout.count("\n") == 1


NOT_FOR_ONE_RECORDING = (
    "asyncio", "concurrent.futures", "cryptography", "email", "hmac", "http", "importlib.metadata", "jinja2",
    "matplotlib", "multiprocessing", "numpy.ma", "onnx", "packaging", "pandas", "pydantic", "rich", "scipy", "secrets",
    "sklearn", "socket", "sounddevice", "ssl", "starlette", "statistics", "torch", "unittest", "yaml",
    "edge_sdk.audit", "edge_sdk.cli.tables", "edge_sdk.runtime.bundle.engine_trust", "edge_sdk.runtime.session",
    "edge_sdk.screening.archive", "edge_sdk.screening.results", "edge_sdk.server", "edge_sdk.sinks.live",
)  # fmt: skip
"""Modules that screening one recording to JSON lines needs nothing of; each would be milliseconds of every start."""


def test_screening_loads_no_torch_and_little_else(recording: Path) -> None:
    program = (
        "import sys\n"
        "from edge_sdk.cli.main import run\n"
        "try:\n"
        f"    run(['screen', {str(recording)!r}, '--json'])\n"
        "except SystemExit as ended:\n"
        f"    print(ended.code, [name for name in {NOT_FOR_ONE_RECORDING!r} if name in sys.modules], file=sys.stderr)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1] == "0 []"


def test_naming_the_commands_loads_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from edge_sdk.cli.main import run\n"
        "try:\n"
        "    run(['--help'])\n"
        "except SystemExit:\n"
        "    heavy = {'torch', 'onnxruntime', 'soxr', 'soundfile', 'msgspec'}\n"
        "    print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stderr == "[]\n"
