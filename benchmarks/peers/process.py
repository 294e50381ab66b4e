"""A workload of ``bench peers`` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

_TIMEOUT_S = 900.0  # for a start or a unit of work; torch.compile takes minutes on busy cores
_WORKER = Path(__file__).with_name("worker.py")


class WorkerProcess:
    """A workload in a process of its own."""

    def __init__(self, python: str, workload: str, settings: dict[str, Any], folder: Path) -> None:
        path = folder / f"{workload.replace('/', '-')}.json"
        path.write_text(json.dumps(settings), encoding="utf-8")
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | one_thread
        self._process = subprocess.Popen(
            [python, str(_WORKER), workload, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C must not reach it: the parent keeps the rounds so far and then kills it
        )

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def receive(self) -> dict[str, Any]:
        """The next response; ``{"failed": ...}`` where the process died."""
        assert self._process.stdout is not None
        limit = threading.Timer(_TIMEOUT_S, self._process.kill)
        limit.start()
        try:
            for line in self._process.stdout:
                if line.startswith("{"):  # libraries may print
                    response: dict[str, Any] = json.loads(line)
                    return response
        finally:
            limit.cancel()
        return {
            "failed": f"its process ended with status {self._process.wait()}, or gave no response for {_TIMEOUT_S:g} s"
        }

    def request(self, command: str) -> dict[str, Any]:
        """Send a command and return the response."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except OSError as error:
            return {"failed": str(error)}
        return self.receive()
