"""A real server in a process of its own, and small clients for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx


class Served:
    """``stetho serve`` on a free port of loopback; ends with SIGTERM unless a test ended it before."""

    def __init__(self, recordings: Path, *arguments: str, token: str | None = None, **environment: str) -> None:
        self.recordings = recordings
        command = [sys.executable, "-m", "edge_sdk.cli.main", "serve", "--json", "--port", "0"]
        given = {**os.environ, **environment} | ({} if token is None else {"STETHO_TOKEN": token})
        self.process = subprocess.Popen(
            [*command, "--recordings", str(recordings), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=given,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.announced: dict[str, Any] = json.loads(line)
        self.url = str(self.announced["url"]).rstrip("/")
        self.ws_url = "ws" + self.url.removeprefix("http")
        self.token = self.announced["token"]

    def __enter__(self) -> Served:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.stop()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, **options: Any) -> httpx.Client:
        """An HTTP client that sends the token."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, **options)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Exit status, the rest of stdout, and stderr."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err

    def audit(self) -> list[dict[str, Any]]:
        """Lines of the audit log."""
        text = (self.recordings / "audit.jsonl").read_text("utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def rss_mb(self) -> float:
        """Resident memory, MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


def eventually(check: Any, timeout_s: float = 20.0, every_s: float = 0.05) -> Any:
    """First true result of ``check``; fails after ``timeout_s``."""
    end = time.monotonic() + timeout_s
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(every_s)
