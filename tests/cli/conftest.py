"""Runs ``stetho`` inside the test process, and makes every kind of bad recording."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge_sdk.cli.main import run
from edge_sdk.sources.phantom import PhantomSource

RATE = 4000


@dataclass(frozen=True)
class Outcome:
    """Status and output of a command."""

    status: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Its JSON lines; anything else on stdout fails here."""
        return [json.loads(line, parse_constant=_refuse) for line in self.out.splitlines()]

    @property
    def error(self) -> str:
        """The one line of an error; more or fewer fail here."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("stetho: error: ")
        return lines[0]


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


Stetho = Callable[..., Outcome]


@pytest.fixture
def stetho(capfd: pytest.CaptureFixture[str]) -> Stetho:
    """``stetho("screen", path, "--json")`` → exit status, stdout, stderr."""

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        code = ended.value.code
        return Outcome(code if isinstance(code, int) else int(code is not None), out, err)

    return call


@pytest.fixture(scope="session")
def breathing() -> np.ndarray:
    """Twelve seconds of the simulated patient that ``stetho demo`` plays, float32 [n] at 4 kHz."""
    with PhantomSource("asthma", duration_s=12.0, sample_rate=RATE) as source:
        return np.concatenate([block.samples for block in source])


@pytest.fixture
def recording(tmp_path: Path, breathing: np.ndarray) -> Path:
    """A good recording."""
    path = tmp_path / "good.wav"
    soundfile.write(path, breathing, RATE)
    return path


def make_bad(kind: str, folder: Path, breathing: np.ndarray) -> Path:
    """A recording that cannot be screened."""
    path = folder / f"{kind}.{'flac' if kind == 'truncated' else 'wav'}"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("Dear doctor, please find attached\n" * 20)
    elif kind == "no-samples":
        soundfile.write(path, np.zeros(0, np.float32), RATE)
    elif kind == "nan":
        broken = breathing.copy()
        broken[20_000] = np.nan
        soundfile.write(path, broken, RATE, subtype="FLOAT")
    elif kind == "truncated":
        soundfile.write(path, breathing, RATE)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 2 // 3])
    elif kind == "short":
        soundfile.write(path, breathing[: RATE // 10], RATE)
    else:
        assert kind == "missing", kind
    return path


BAD_RECORDINGS = {
    "missing": "no such file",
    "empty": "is empty",
    "text": "not a readable recording",
    "no-samples": "holds no samples",
    "nan": "NaN",
    "truncated": "truncated or damaged",
    "short": "too short: it lasts 0.1 s",
}
"""Kind of bad recording → text in its error line."""
