"""Artefacts in the ONNX Runtimes of older boards: they load and give the same outputs as here."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE
from edge_sdk.training.untrained import untrained_checkpoint
from export.assemble import assemble
from export.formats import FORMATS
from export.pipeline import make_artefacts
from tests.support import predictions as script

RUNTIMES = {  # the newest for Python 3.8 and for Python 3.10, which JetPack 5 and 6 have
    "1.19.2": "numpy<2",
    "1.23.2": "numpy",
}
FILES = [name for name, row in FORMATS.items() if row.made_from == "checkpoint"]
FP32 = 1e-5  # of outputs in fp32, relative to the largest
INSTALL_S, PREDICT_S = 240, 120


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The default bundle, and untrained ones of a CNN, a conditioned transformer and a state space network."""
    made = [DEFAULT_BUNDLE]
    for recipe in ("compact", "softfilm", "lung-srad"):
        checkpoint = untrained_checkpoint(recipe, size="tiny")
        out = tmp_path_factory.mktemp("bundles") / recipe
        artefacts = make_artefacts(checkpoint, [FORMATS[n] for n in FILES], None, lambda _: None, untrained=True)
        assemble(checkpoint, artefacts, out, name=recipe, untrained=True)
        made.append(out)
    return made


@pytest.fixture(scope="module")
def here(bundles: list[Path]) -> dict[tuple[str, str], list[float]]:
    """(bundle, artefact) → output of the installed ONNX Runtime."""
    return {(row["bundle"], row["artefact"]): row["output"] for folder in bundles for row in script.predictions(folder)}


@pytest.mark.long
@pytest.mark.parametrize("version", RUNTIMES)
def test_an_older_onnx_runtime_agrees_on_every_artefact(
    version: str, bundles: list[Path], here: dict[tuple[str, str], list[float]], tmp_path: Path
) -> None:
    assert sys.version_info < (3, 13), "these wheels exist for Python 3.10 to 3.12"
    rows = _predictions_of(version, bundles, tmp_path)
    assert {(row["bundle"], row["artefact"]) for row in rows} == set(here)
    assert len(rows) == 2 + 3 * len(FILES) + len(bundles)  # every bundle has a segmenter
    for row in rows:
        found, expected = np.array(row["output"]), np.array(here[row["bundle"], row["artefact"]])
        assert found.shape == expected.shape and np.isfinite(found).all()
        if row["artefact"] in ("onnx-fp32", "segmenter"):
            assert np.abs(found - expected).max() <= FP32 * max(1.0, np.abs(expected).max()), row["artefact"]
        if "golden" in row:
            off = np.abs(found - np.array(row["golden"])).max()
            assert off <= row["allowed"], (row["bundle"], row["artefact"], off)


def _predictions_of(version: str, bundles: list[Path], folder: Path) -> list[dict[str, Any]]:
    """The rows of an ONNX Runtime in an environment of its own; both steps have a time limit."""
    venv.create(folder / "venv", with_pip=True)
    python = str(folder / "venv" / "bin" / "python")
    wanted = [f"onnxruntime=={version}", RUNTIMES[version]]
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary=:all:", *wanted]
    done = subprocess.run(install, capture_output=True, text=True, timeout=INSTALL_S)
    assert done.returncode == 0, done.stderr
    command = [python, script.__file__, *map(str, bundles)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PREDICT_S)
    assert done.returncode == 0, done.stderr
    first, *rows = (json.loads(line) for line in done.stdout.splitlines())
    assert first == {"onnxruntime": version}
    return rows
