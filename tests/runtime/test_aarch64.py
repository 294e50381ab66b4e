"""The runtime on 64-bit ARM, emulated: its wheel installs and imports, and the default bundle gives the same outputs.

Emulation proves instructions, not speed. ``.ci/aarch64`` fetches what is needed and names what is missing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE
from tests.support import predictions as script

pytestmark = pytest.mark.long

ONNXRUNTIME = "onnxruntime<1.27"  # later ones stop at a processor that the emulator does not describe
PROCESSORS = ["cortex-a72", "max"]  # Raspberry Pi 4 without dot products, and every instruction that the emulator has
PLATFORMS = ["manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64", "manylinux_2_17_aarch64"]
FP32 = 1e-5  # of logits and probabilities
LIMIT_S = 300


@dataclass(frozen=True)
class Board:
    """An aarch64 Python and the packages installed for it."""

    python: Path
    packages: Path

    def run(self, *arguments: str, processor: str = "max") -> str:
        """What it prints."""
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.packages), "QEMU_CPU": processor}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        return _run([str(self.python), *arguments], env=environment, cwd=self.packages)


def _run(command: list[str], **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, **options)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def board(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Board:
    """With the wheel of this checkout and what it depends on, from wheels for aarch64."""
    folder = tmp_path_factory.mktemp("aarch64")
    _run([str(repo_root / ".ci" / "aarch64"), str(folder / "board")])
    python, packages = folder / "board" / "python", folder / "packages"
    version = _run([str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=repo_root)
    (wheel,) = folder.glob("stethoscope_edge_sdk-*.whl")
    target = ["--target", str(packages), "--python-version", version, "--implementation", "cp"]
    target += [word for name in PLATFORMS for word in ("--platform", name)]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary=:all:"]
    _run([*pip, *target, str(wheel), ONNXRUNTIME])
    return Board(python, packages)


def test_the_wheel_imports_and_its_default_bundle_computes_its_golden_vector(board: Board) -> None:
    code = (
        "import platform, edge_sdk; print(platform.machine()); print(edge_sdk.__file__);"
        "bundle = edge_sdk.load_bundle(); print(bundle.engine.name)"
    )
    machine, file, engine = board.run("-c", code).splitlines()
    assert machine == "aarch64"
    assert Path(file).is_relative_to(board.packages)
    assert engine.startswith("onnxruntime-1.") and engine.endswith("-cpu")


@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_default_bundle_gives_the_same_logits_as_here(board: Board, processor: str) -> None:
    first, *rows = map(json.loads, board.run(script.__file__, str(DEFAULT_BUNDLE), processor=processor).splitlines())
    assert first["onnxruntime"] < "1.27"
    here = {row["artefact"]: row for row in script.predictions(DEFAULT_BUNDLE)}
    assert {row["artefact"] for row in rows} == set(here) == {"onnx-fp32", "onnx-int8-cpu", "segmenter"}
    for row in rows:
        artefact, found = row["artefact"], np.array(row["output"])
        off = float(np.abs(found - np.array(here[artefact]["output"])).max())
        print(f"{processor} {artefact}: {off:.2g} off")
        assert off <= (row["allowed"] if artefact == "onnx-int8-cpu" else FP32), (artefact, off)


def test_screening_a_recording_finds_the_same_breaths(board: Board, sprsound_file: Path) -> None:
    command = ["-m", "edge_sdk.cli.main", "screen", str(sprsound_file), "--artefact", "onnx-fp32", "--json"]
    found, expected = (
        [json.loads(line) for line in text.splitlines()]
        for text in (board.run(*command), _run([sys.executable, *command]))
    )
    assert [row["type"] for row in found] == [row["type"] for row in expected]
    assert "cycle" in {row["type"] for row in found}
    for ours, theirs in zip(found, expected, strict=True):
        numbers, others = ours.pop("probabilities", None), theirs.pop("probabilities", None)
        assert (numbers is None) == (others is None)
        if numbers:
            assert list(numbers) == list(others)
            np.testing.assert_allclose(list(numbers.values()), list(others.values()), rtol=0, atol=FP32 + 1e-6)
        if ours["type"] == "summary":
            assert ours.pop("mean_p_abnormal") == pytest.approx(theirs.pop("mean_p_abnormal"), abs=1e-4)
        assert ours == theirs
