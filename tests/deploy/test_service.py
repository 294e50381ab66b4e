"""The service unit is locked in and watched; ``stetho listen`` keeps its watchdog; a kill costs less than a second."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from edge_sdk.cli.runtime.watchdog import ServiceNotifier

_ROOT = Path(__file__).resolve().parents[2]
UNIT = _ROOT / "deploy/stetho-listen.service"
MOST_EXPOSED = 3.0  # of 10, as 'systemd-analyze security' counts


def _listening(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(path))
    server.settimeout(30)
    return server


def _received(server: socket.socket) -> list[str]:
    server.setblocking(False)
    found = []
    try:
        while True:
            found.append(server.recv(100).decode())
    except BlockingIOError:
        return found


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="the Debian package systemd brings systemd-analyze")
def test_the_unit_is_valid_and_locked_in(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/stetho/bin/stetho", sys.executable))
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert UNIT.name not in verified.stderr, verified.stderr
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", unit], capture_output=True, text=True, check=False
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= MOST_EXPOSED


def test_the_unit_restarts_what_dies_or_hangs_and_the_command_in_it_exists() -> None:
    lines = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.M))
    assert lines["Type"] == "notify" and lines["Restart"] == "always" and int(lines["WatchdogSec"]) <= 60
    command = lines["ExecStart"].split()
    assert command[1] == "listen" and {"--record", "--json"} <= set(command)


def test_the_notifier_reports_ready_once_then_a_sign_of_life_in_time(tmp_path: Path) -> None:
    server = _listening(tmp_path / "notify")
    notifier = ServiceNotifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000"})
    for _ in range(5):
        notifier.alive()
    first = _received(server)
    assert first == ["READY=1", "WATCHDOG=1"]  # not at every turn
    time.sleep(0.03)
    notifier.alive()
    notifier.stopping()
    assert _received(server) == ["WATCHDOG=1", "STOPPING=1"]
    server.close()
    notifier.alive()  # nobody listens any more: no reason to fail
    ServiceNotifier({}).alive()


def test_listen_under_a_service_manager_is_ready_alive_and_a_kill_costs_less_than_a_second(tmp_path: Path) -> None:
    server = _listening(tmp_path / "notify")
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
    environment["PYTHONPATH"] = str(_ROOT)
    code = "from edge_sdk.cli.main import run; run()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "listen", "phantom:asthma", "--record", str(tmp_path / "kept"), "--json"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert server.recv(100) == b"READY=1" and server.recv(100) == b"WATCHDOG=1"
        began = time.monotonic()
        while time.monotonic() - began < 3.0:
            assert server.recv(100) == b"WATCHDOG=1"
        played = time.monotonic() - began
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (kept,) = (tmp_path / "kept").glob("*.flac")
    samples, rate = soundfile.read(kept)
    assert len(samples) / rate >= played - 1.0
    session = json.loads(next((tmp_path / "kept").glob("*.session.json")).read_text())
    assert session["complete"] is False
