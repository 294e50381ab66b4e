"""A real mosquitto that a test starts, stops, kills and pauses, and an independent client that watches it."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion


def until(condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    """Wait for a condition; a test that waits in vain fails with ``what``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.01)


class Mosquitto:
    """A broker on a free port of this machine; nothing is kept over a restart."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self._program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        if not Path(self._program).exists():
            pytest.fail("install mosquitto (.ci/system-packages does), then run again")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        user = f"user {getpass.getuser()}"  # else root becomes one that cannot read the test's folder
        lines = [f"listener {self.port} 127.0.0.1", "persistence false", user, *(settings or ["allow_anonymous true"])]
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [self._program, "-c", str(self._config)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self.reachable, "mosquitto starts")

    def reachable(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Watcher:
    """Subscribes to everything; knows the retained and the live messages of every topic."""

    def __init__(self, port: int, **login: str) -> None:
        self.seen: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        if login:
            self._client.username_pw_set(login["user"], login["password"])
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(10)

    def _take(self, _client: object, _data: object, message: Any) -> None:
        with self._lock:
            self.seen.append((message.topic, message.payload.decode()))

    def of(self, topic: str) -> list[str]:
        with self._lock:
            return [payload for name, payload in self.seen if name == topic]

    def objects(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.of(topic)]

    def publish(self, topic: str, payload: str) -> None:
        self._client.publish(topic, payload, qos=1).wait_for_publish(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path)
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def watcher(mosquitto: Mosquitto) -> Iterator[Watcher]:
    watching = Watcher(mosquitto.port)
    yield watching
    watching.close()
