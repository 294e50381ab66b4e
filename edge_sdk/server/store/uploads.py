"""Uploaded recordings: streamed to the disk, then screened one after another by a process of their own."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import sys
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_sdk.json_lines import json_line
from edge_sdk.server.metrics import ServerMetrics
from edge_sdk.server.settings import RequestError, ServerLimits

_log = logging.getLogger(__name__)

_KEPT = 500  # finished uploads that can be asked for
_IDLE_S = 30.0  # then the screening process ends and gives its memory back
_JOB_S = 900.0  # without progress: the process is ended


class Uploads:
    """The queue of uploaded files. Lives in the server's event loop.

    Parameters
    ----------
    folder
        Of the recordings; the files wait in ``.incoming`` below it, and are screened after a restart too.
    about
        Fields of every recording's session: SDK, bundle, notice.
    bundle, artefact
        What the process loads.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        bundle: str,
        artefact: str | None,
        limits: ServerLimits,
        metrics: ServerMetrics,
    ) -> None:
        self._folder, self._about, self._limits, self._metrics = folder, dict(about), limits, metrics
        self._options = {"bundle": bundle, "artefact": artefact}
        self._incoming = folder / ".incoming"
        self._jobs: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._waiting: asyncio.Queue[str] = asyncio.Queue()
        self._arrivals: deque[float] = deque(maxlen=limits.uploads_per_minute)
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work; files of an earlier run come first."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        for part in self._incoming.glob("*.part"):
            part.unlink(missing_ok=True)
        for description in sorted(self._incoming.glob("*.json")):
            with suppress(OSError, ValueError, KeyError):
                job = json.loads(description.read_text("utf-8"))
                if Path(job["path"]).is_file():
                    self._enqueue(job)
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Stop; what is not screened yet waits for the next start."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._end_process()

    def rows(self) -> list[dict[str, Any]]:
        """Uploads of this run, newest first, without what is internal."""
        return [self._public(job) for job in reversed(self._jobs.values())]

    def row(self, upload_id: str) -> dict[str, Any]:
        """State of one upload.

        Raises
        ------
        RequestError
            There is none of this id.
        """
        if upload_id not in self._jobs:
            raise RequestError(404, "no such upload")
        return self._public(self._jobs[upload_id])

    async def wait(self, upload_id: str) -> dict[str, Any]:
        """State of an upload once it is ``done`` or ``failed``."""
        while self._jobs[upload_id]["state"] not in ("done", "failed"):
            await asyncio.sleep(0.05)
        return self.row(upload_id)

    async def take(self, name: str, chunks: AsyncIterator[bytes], session: Mapping[str, Any]) -> dict[str, Any]:
        """Write a file to the disk and queue it.

        Parameters
        ----------
        name
            As the client calls it; only for messages.
        chunks
            Its content.
        session
            Fields of the recording's session: patient, metadata.

        Raises
        ------
        RequestError
            Too many (429), too large (413), empty (422), or the disk is full (507).
        """
        self._admit()
        upload_id = f"u{time.strftime('%Y%m%d%H%M%S')}{secrets.token_hex(5)}"
        suffix = re.sub(r"[^a-z0-9]", "", Path(name).suffix.lower())[:8] or "bin"
        part, path = self._incoming / f"{upload_id}.part", self._incoming / f"{upload_id}.{suffix}"
        size = 0
        try:
            with part.open("xb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > self._limits.upload_mb * (1 << 20):
                        raise RequestError(413, f"{name} is larger than {self._limits.upload_mb:g} MiB")
                    file.write(chunk)
            if size == 0:
                raise RequestError(422, f"{name} is empty")
            part.replace(path)
        except OSError as error:
            raise RequestError(507, f"{name} cannot be kept: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)
        job = {
            "id": upload_id,
            "name": name[:200],
            "path": str(path),
            "folder": str(self._folder),
            "about": {**self._about, **session},
            "longest_s": self._limits.recording_s,
            "channels": self._limits.channels,
        }
        (self._incoming / f"{upload_id}.json").write_text(json_line(job), "utf-8")
        self._enqueue(job)
        return self.row(upload_id)

    # -- the queue -----------------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        now = time.monotonic()
        if len(self._arrivals) == self._arrivals.maxlen and now - self._arrivals[0] < 60:
            raise RequestError(429, f"more than {self._limits.uploads_per_minute} uploads a minute; wait and go on")
        if sum(job["state"] in ("waiting", "screening") for job in self._jobs.values()) >= self._limits.uploads_waiting:
            raise RequestError(429, "too many uploads wait for screening; wait and go on")
        self._arrivals.append(now)

    def _enqueue(self, job: dict[str, Any]) -> None:
        self._jobs[job["id"]] = {**job, "state": "waiting", "progress": 0.0, "message": None, "recording": None}
        finished = [key for key, kept in self._jobs.items() if kept["state"] in ("done", "failed")]
        for key in finished[: max(0, len(self._jobs) - _KEPT)]:
            del self._jobs[key]
        self._waiting.put_nowait(job["id"])

    @staticmethod
    def _public(job: Mapping[str, Any]) -> dict[str, Any]:
        return {key: job[key] for key in ("id", "name", "state", "progress", "message", "recording")}

    async def _work(self) -> None:
        while True:
            try:
                upload_id = await asyncio.wait_for(self._waiting.get(), None if self._process is None else _IDLE_S)
            except asyncio.TimeoutError:
                await self._end_process()
                continue
            job = self._jobs[upload_id]
            job["state"] = "screening"
            try:
                await self._screen(job)
            except (OSError, ValueError, asyncio.TimeoutError) as error:
                _log.warning("screening of an upload failed: %r", error)
                await self._end_process()
                self._fail(job, f"{job['name']} could not be screened: the process that reads it failed")
            Path(job["path"]).unlink(missing_ok=True)
            (self._incoming / f"{upload_id}.json").unlink(missing_ok=True)

    async def _screen(self, job: dict[str, Any]) -> None:
        process = await self._running()
        assert process.stdin is not None and process.stdout is not None
        keys = ("id", "name", "path", "folder", "about", "longest_s", "channels")
        process.stdin.write(json_line({key: job[key] for key in keys}).encode())
        await process.stdin.drain()
        while True:
            line = await asyncio.wait_for(process.stdout.readline(), _JOB_S)
            if not line:
                raise OSError("the process ended")
            record = json.loads(line)
            job["progress"] = record.get("progress", job["progress"])
            if "error" in record:
                name = job["name"]
                self._fail(job, record["error"] if name in record["error"] else f"{name}: {record['error']}")
                return
            if "recording" in record:
                job |= {"state": "done", "progress": 1.0, "recording": record["recording"]}
                self._metrics.uploads.labels("screened").inc()
                return

    def _fail(self, job: dict[str, Any], message: str) -> None:
        job |= {"state": "failed", "message": message}
        self._metrics.uploads.labels("failed").inc()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "edge_sdk.server.store.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal is for the server, which ends it
            )
            assert self._process.stdin is not None
            self._process.stdin.write(json_line(self._options).encode())
        return self._process

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
