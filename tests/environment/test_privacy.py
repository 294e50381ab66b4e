"""Nothing leaves the machine and nothing is left in HOME: proven by the system calls of a run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_sdk.privacy import SWITCHES
from tests.environment.conftest import COMMAND, Place

CALLS = "connect,sendto,sendmsg,sendmmsg,openat,open,creat,mkdir,mkdirat"
NETWORK = re.compile(r"\b(?:connect|send\w+)\(.*(?:AF_INET|sin6?_)")
IMPORTS_IT = {"edge_sdk/runtime/engines/library.py", "tests/support/predictions.py"}
"""The one place, and a script for Pythons without this SDK, which sets the variable itself."""


def trace(place: Place, *arguments: object, **variables: str) -> list[str]:
    """System calls of a run of ``stetho`` and its children that touch the network or create something."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed; it comes with the package strace")
    log = place.home.parent / "calls"
    command = [strace, "-f", "-qq", "-s", "300", "-e", f"trace={CALLS}", "-o", str(log), *COMMAND, *map(str, arguments)]
    environment = {**place.environment, **variables}
    done = subprocess.run(command, capture_output=True, cwd=place.work, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr.decode()
    lines = log.read_text(errors="replace").splitlines()
    assert len(lines) > 100
    return lines


def created(lines: list[str]) -> set[str]:
    """Files and folders that a run has created or opened to write, without devices."""
    writing = (line for line in lines if "O_CREAT" in line or "mkdir" in line or "creat(" in line)
    paths = {found[1] for line in writing if " = -1" not in line and (found := re.search(r'"([^"]+)"', line))}
    return {path for path in paths if not path.startswith(("/dev/", "/proc/"))}


def connections(lines: list[str]) -> list[str]:
    return [line for line in lines if NETWORK.search(line)]


def test_the_trace_finds_what_it_looks_for() -> None:
    found = [
        '17 connect(5, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("10.0.0.2")}, 16) = 0',
        '17 sendto(5, "x", 33, 0, {sa_family=AF_INET6, sin6_port=htons(53)}, 16) = 33',
        '17 connect(5, {sa_family=AF_UNIX, sun_path="/run/nscd/socket"}, 110) = -1 ENOENT',
        '17 openat(AT_FDCWD, "/home/a/.cache/deviceid", O_RDWR|O_CREAT|O_EXCL, 0600) = 7',
        '17 openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 7',
        '17 mkdir("/home/a/.cache/Microsoft", 0700) = 0',
        '17 mkdir("/home/a/.cache", 0700) = -1 EEXIST (File exists)',
    ]
    assert len(connections(found)) == 2
    assert created(found) == {"/home/a/.cache/deviceid", "/home/a/.cache/Microsoft"}


def test_screening_creates_nothing_and_connects_to_nothing(place: Place, recording: Path) -> None:
    # As a user who had switched it on: telemetry is not theirs to allow here.
    lines = trace(place, "screen", recording, recording.parent, "--json", ORT_DISABLE_TELEMETRY="0")
    assert connections(lines) == []
    assert created(lines) == set()
    assert place.files() == []


def test_the_case_of_a_device_id_in_home(place: Place, data_root: Path) -> None:
    done = place.shell(data_root / "cases" / "onnxruntime_telemetry.sh")
    assert (done.stdout, done.stderr) == (b"", b"")  # the files that lie in HOME


def test_listening_creates_its_recording_only(place: Place) -> None:
    lines = trace(place, "listen", "phantom", "--duration", 2, "--record", place.work / "kept", "--json")
    assert connections(lines) == []
    foreign = [path for path in map(Path, created(lines)) if path.is_absolute() and place.work not in path.parents]
    assert foreign == []
    assert {path.name for path in place.files()} >= {"kept"}
    assert not list(place.home.iterdir()) and not list(place.tmp.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("command", [["listen", "phantom", "--duration", 30], ["screen", "--jobs", 2]])
def test_half_a_minute_of_listening_and_workers_do_the_same(place: Place, recording: Path, command: list[str]) -> None:
    if command[0] == "screen":
        shutil.copy(recording, recording.with_name("second.wav"))
        command = [*command, str(recording.parent)]
    lines = trace(place, *command, "--json")  # the collector was looked up after 20 s
    assert connections(lines) == []
    assert created(lines) == set()
    assert place.files() == []


def test_every_import_of_onnxruntime_goes_through_the_place_that_silences_it(repo_root: Path) -> None:
    direct = re.compile(r"^\s*(?:import|from)\s+onnxruntime\b", re.MULTILINE)
    folders = ("edge_sdk", "export", "firmware_bridge", "benchmarks", "tests", "docs", ".github")
    modules = [path for folder in folders for path in (repo_root / folder).rglob("*.py")]
    found = {path.relative_to(repo_root).as_posix() for path in modules if direct.search(path.read_text("utf-8"))}
    assert found == IMPORTS_IT
    assert 'os.environ["ORT_DISABLE_TELEMETRY"] = "1"' in (repo_root / "tests/support/predictions.py").read_text()


def test_importing_the_sdk_switches_telemetry_off_before_any_dependency_is_there() -> None:
    program = (
        "import sys; before = set(sys.modules); import edge_sdk, os;"
        f"print(all(os.environ[k] == v for k, v in {SWITCHES!r}.items()));"
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before} & {'onnxruntime', 'ray', 'numpy'}))"
    )
    environment = {**os.environ, **dict.fromkeys(SWITCHES, "")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines() == ["True", "[]"], done.stderr
