"""Ctrl-C once, twice and during the start; SIGTERM; nothing that a command has started outlives it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.environment.conftest import COMMAND, Place

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are counted in /proc")

PATIENCE_S = 60.0  # a loaded machine; a hang is longer


def of_session(session: int) -> list[str]:
    """Command lines of the processes of a session that still run."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            state, _, _, sid = (folder / "stat").read_bytes().rpartition(b")")[2].split()[:4]
            if folder.name.isdecimal() and int(sid) == session and state != b"Z":
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (OSError, ValueError):
            continue
    return found


@pytest.fixture
def ward(tmp_path: Path, recording: Path) -> Path:
    """A folder that keeps two workers busy for a while."""
    folder = tmp_path / "ward"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number:03}.wav").hardlink_to(recording)
    return folder


def start(place: Place, *arguments: object) -> subprocess.Popen[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place.work,
        env=dict(place.environment), start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and stderr; no process of it is left then."""
    try:
        _, errors = process.communicate(timeout=PATIENCE_S)
        left = of_session(process.pid)
        assert left == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in errors, errors
    return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_one_signal_ends_the_workers_and_counts_what_is_done(place: Place, ward: Path, number: int) -> None:
    process = start(place, "screen", ward, "--jobs", 2, "--json", "--results", "kept.jsonl")
    assert process.stdout is not None
    while '"summary"' not in process.stdout.readline():
        pass
    os.kill(process.pid, number)
    status, errors = ended(process)
    assert status == 128 + number
    (line,) = errors.splitlines()
    assert line.startswith("stetho: stopped; ") and "of 200 recordings are screened" in line
    kept = [json.loads(line) for line in (place.work / "kept.jsonl").read_text().splitlines()]
    assert 1 <= sum(record["type"] == "summary" for record in kept) < 200


def test_ctrl_c_twice_leaves_no_process(place: Place, ward: Path) -> None:
    process = start(place, "screen", ward, "--jobs", 2, "--json")
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.1)
    status, _ = ended(process)
    assert status in (128 + signal.SIGINT, -signal.SIGINT)


def test_ctrl_c_twice_ends_a_command_that_is_stuck_in_a_library_with_all_its_children(tmp_path: Path) -> None:
    program = (
        "import ctypes, subprocess, sys\n"
        "from edge_sdk.cli.ending import Ending\n"
        "with Ending(last=True) as ending:\n"
        "    ending.started()\n"
        '    inner = \'import subprocess, time; subprocess.Popen(["sleep", "60"]); \'\n'
        "    inner += 'print(1, flush=True); time.sleep(60)'\n"
        "    child = subprocess.Popen([sys.executable, '-c', inner], stdout=subprocess.PIPE)\n"
        "    try:\n"
        "        print(child.stdout.readline(), flush=True)\n"
        "        ctypes.CDLL(None).sleep(60)\n"
        "    finally:\n"
        "        while ctypes.CDLL(None).sleep(60): pass\n"
    )
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    assert len(of_session(process.pid)) == 3
    begin = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    status, _ = ended(process)
    assert status == 128 + signal.SIGINT
    assert time.monotonic() - begin < 30  # the sleeps are of 60 s


@pytest.mark.parametrize(
    "module",
    ["typer", "numpy", *(pytest.param(n, marks=pytest.mark.long) for n in ("edge_sdk.cli.messages", "onnxruntime"))],
)
def test_a_signal_during_the_start_leaves_no_traceback(place: Place, recording: Path, module: str) -> None:
    program = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        f"sys.argv = ['stetho', 'screen', {str(recording)!r}]\n"
        "from edge_sdk.cli.main import run\n"
        "run()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=place.work, env=dict(place.environment)
    )
    assert done.returncode in (128 + signal.SIGINT, -signal.SIGINT)
    assert done.stderr in ("", "stetho: stopped\n")
    assert done.stdout == ""


@pytest.mark.long
def test_workers_end_when_their_parent_is_killed(place: Place, ward: Path) -> None:
    process = start(place, "screen", ward, "--jobs", 2, "--json")
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)  # the pipes are closed by the last that holds them
    deadline = time.monotonic() + PATIENCE_S
    while of_session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert of_session(process.pid) == []


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(number, marks=pytest.mark.long) for number in (signal.SIGINT, signal.SIGHUP))],
)
def test_listening_for_ever_ends_with_its_summary(place: Place, number: int) -> None:
    process = start(place, "listen", "phantom", "--duration", "inf", "--json")
    assert process.stdout is not None
    first = process.stdout.readline()
    os.kill(process.pid, number)
    out, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, "")
    assert json.loads((first + out).splitlines()[-1])["type"] == "summary"


def test_the_emulator_reports_what_it_has_sent(place: Place) -> None:
    process = start(place, "device-sim", "--duration", "inf", "--link", place.work / "port")
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, "")
    assert "0 samples in 0 frames" in out
    assert not (place.work / "port").is_symlink()


@pytest.mark.long
def test_a_command_that_its_caller_made_deaf_to_ctrl_c_stays_so(place: Place) -> None:
    script = "trap '' INT; stetho listen phantom --duration 1 --speed 2 --json & sleep 0.3; kill -INT $!; wait $!"
    done = place.shell(script)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["duration_s"] == 1.0


@pytest.mark.long
def test_the_case_of_two_ctrl_c(place: Place, data_root: Path, ward: Path) -> None:
    program = shutil.which("stetho", path=place.environment["PATH"])
    command = [sys.executable, str(data_root / "cases" / "ctrl_c_twice.py"), str(program), str(ward)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(place.environment), timeout=60)
    assert done.stdout.startswith("rc ")
    assert len(done.stdout.splitlines()) == 1  # a process that is left has a line


@pytest.mark.parametrize("value", ["nan", "-1", "0", "-inf", "1e400x"])
def test_no_duration_but_a_positive_one(place: Place, stetho: object, value: str) -> None:
    outcome = stetho("listen", "phantom", f"--duration={value}")  # type: ignore[operator]
    assert outcome.status == 2
    assert outcome.error.startswith("stetho: error: Invalid value for '--duration'")


@pytest.mark.parametrize(
    "line",
    [
        ["listen", "phantom", "--speed", "nan"], ["listen", "phantom", "--block-ms", "nan"],
        ["listen", "phantom", "--age", "nan"], ["demo", "--duration", "inf"], ["device-sim", "--rate-ppm", "nan"],
        ["device-sim", "--jitter", "inf"], ["device-sim", "--drop", "nan"], ["bench", "stream", "--paced", "inf"],
        ["bench", "faults", "--seconds", "nan"], ["bench", "soak", "--days", "inf"],
    ],
)  # fmt: skip
def test_no_option_takes_a_number_that_is_none(stetho: object, line: list[str]) -> None:
    outcome = stetho(*line)  # type: ignore[operator]
    assert outcome.status == 2
    assert f"'{line[-2]}'" in outcome.error
