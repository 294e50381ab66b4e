"""A real server in a process of its own, and small clients for it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import websockets

from edge_sdk.audit import verify_audit


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
        """Actions and details of the audit log, whose chain is whole."""
        return audit_lines(self.recordings)

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


class ServedHere:
    """A server in a thread of this process, for tests that need other limits or a tiny bundle."""

    def __init__(self, recordings: Path, bundle: Any, **options: Any) -> None:
        from edge_sdk.server.context import ServerOptions
        from edge_sdk.server.run import Address, build

        self.recordings = recordings
        host = options.pop("host", None)
        self.built = build(ServerOptions(recordings, bundle, **options), Address(host, 0))
        self.url = str(self.built.record["url"]).rstrip("/")
        self.ws_url = "ws" + self.url.removeprefix("http")
        self.token = self.built.record["token"]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        asyncio.run(self.built.server.serve(sockets=[self.built.listener]))

    def __enter__(self) -> ServedHere:
        self._thread.start()
        eventually(lambda: self.built.server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self.built.server.should_exit = True
        self._thread.join(20)
        self.built.listener.close()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, **options: Any) -> httpx.Client:
        """An HTTP client that sends the token."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, **options)

    def audit(self) -> list[dict[str, Any]]:
        """Actions and details of the audit log, whose chain is whole."""
        return audit_lines(self.recordings)


def audit_lines(folder: Path) -> list[dict[str, Any]]:
    """Actions and details of the audit log in a folder of recordings, whose chain is whole."""
    path = folder / "audit.jsonl"
    assert verify_audit(path).problem is None
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [{**line["details"], "action": line["action"]} for line in lines]


def stream_lines(
    ws_url: str, header: Mapping[str, Any], messages: Iterable[bytes | str], *, token: str | None = None
) -> tuple[list[dict[str, Any]], int | None, str]:
    """Send a header and messages, then ``end``; the lines that came back, the close code and its reason."""

    async def talk() -> tuple[list[dict[str, Any]], int | None, str]:
        lines: list[dict[str, Any]] = []
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with websockets.connect(f"{ws_url}/api/streams", additional_headers=headers, max_queue=None) as socket:

            async def read() -> None:
                with suppress(websockets.ConnectionClosed):
                    async for text in socket:
                        lines.append(json.loads(text))

            reading = asyncio.create_task(read())
            with suppress(websockets.ConnectionClosed):
                await socket.send(json.dumps(header))
                for message in messages:
                    await socket.send(message)
                await socket.send('{"type": "end"}')
            await asyncio.wait_for(reading, 30)
        return lines, socket.close_code, socket.close_reason or ""

    return asyncio.run(talk())


def frames(
    pcm: npt.NDArray[np.int16], rate: int, *, numbered: bool = False, drop: frozenset[int] = frozenset()
) -> Iterator[bytes]:
    """100-ms messages of 16-bit PCM; ``drop``: numbers of those that are never sent."""
    size = rate // 10
    for number, begin in enumerate(range(0, len(pcm), size)):
        if number not in drop:
            data = pcm[begin : begin + size].astype("<i2").tobytes()
            yield struct.pack("<Q", begin) + data if numbered else data


def comparable(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Lines without what depends on the clock and on the name of the source."""
    own = ("stream", "point")
    return [
        {key: value for key, value in line.items() if key not in ("source", "latency_ms")}
        for line in lines
        if line["type"] not in own
    ]
