"""Runs ``stetho`` as a process of its own, in whatever environment a test describes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import breathing, recording, stetho

__all__ = ["breathing", "recording", "stetho"]  # fixtures

COMMAND = [sys.executable, "-m", "edge_sdk.cli.main"]


@dataclass(frozen=True)
class Place:
    """A home, a folder for temporary files and a working folder of their own."""

    home: Path
    tmp: Path
    work: Path
    environment: Mapping[str, str]

    def files(self) -> list[Path]:
        """Everything that lies in them."""
        return sorted(path for folder in (self.home, self.tmp, self.work) for path in folder.rglob("*"))

    def run(self, *arguments: object, **variables: str | None) -> subprocess.CompletedProcess[bytes]:
        """Run ``stetho`` with variables set, or unset by None; bytes, for not all output is valid text."""
        environment = {**self.environment, **{k: v for k, v in variables.items() if v is not None}}
        for name in (name for name, value in variables.items() if value is None):
            environment.pop(name, None)
        command = [*COMMAND, *(str(argument) for argument in arguments)]
        return subprocess.run(command, capture_output=True, cwd=self.work, env=environment, timeout=120)

    def shell(self, script: str | Path) -> subprocess.CompletedProcess[bytes]:
        """Run a line of shell, or a file of it, in which ``stetho`` is a command."""
        command = ["sh", str(script)] if isinstance(script, Path) else ["sh", "-c", script]
        return subprocess.run(command, capture_output=True, cwd=self.work, env=dict(self.environment), timeout=120)


@pytest.fixture
def place(tmp_path: Path, repo_root: Path) -> Place:
    """Nothing of this machine's user is there, and nothing is switched off yet."""
    folders = [tmp_path / name for name in ("home", "tmp", "work", "bin")]
    for folder in folders:
        folder.mkdir()
    program = folders[3] / "stetho"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    program.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STETHO_", "XDG_", "ORT_", "RAY_", "PYTHON"))}
    environment = {
        **kept,
        "HOME": str(folders[0]),
        "TMPDIR": str(folders[1]),
        "PATH": f"{folders[3]}:{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(repo_root),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return Place(folders[0], folders[1], folders[2], environment)


@pytest.fixture
def latin1_recording(place: Place, recording: Path) -> Iterator[Path]:
    """A recording whose name has a byte that is not UTF-8."""
    path = Path(os.fsdecode(os.fsencode(place.work) + b"/caf\xe9.wav"))
    path.write_bytes(recording.read_bytes())
    yield path
    path.unlink(missing_ok=True)  # or pytest fails to print the folder
