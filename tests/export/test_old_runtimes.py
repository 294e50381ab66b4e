"""Artefacts in the ONNX Runtimes of older boards: they load and give the same logits as here."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.runtime.bundle import DEFAULT_BUNDLE
from edge_sdk.training.untrained import untrained_checkpoint
from export.assemble import assemble
from export.formats import FORMATS
from export.pipeline import make_artefacts

RUNTIMES = {  # the newest for Python 3.8 and for Python 3.10, which JetPack 5 and 6 have
    "1.19.2": "numpy<2",
    "1.23.2": "numpy",
}
FILES = [name for name, row in FORMATS.items() if row.made_from == "checkpoint"]
_CHECK = """
import json, sys, pathlib
import numpy as np, onnxruntime
assert onnxruntime.__version__ == sys.argv[1], onnxruntime.__version__
for folder in map(pathlib.Path, sys.argv[2:]):
    manifest = json.loads((folder / "bundle.json").read_text())
    golden = np.load(folder / manifest["golden"]["file"])
    for artefact in manifest["artefacts"]:
        session = onnxruntime.InferenceSession(str(folder / artefact["file"]), providers=["CPUExecutionProvider"])
        feed = {i.name: golden["metadata_" + i.name] for i in session.get_inputs() if i.name != "pcm"}
        feed["pcm"] = golden["pcm"].astype(np.float32) / 32768
        found = session.run(None, feed)[0]
        expected = golden["logits_" + artefact["format"].replace("-", "_")]
        error = float(np.abs(found - expected).max())
        allowed = manifest["golden"]["tolerance"][artefact["format"]]
        print(json.dumps([folder.name, artefact["format"], error, allowed]))
        assert error <= allowed, (folder.name, artefact["format"], error)
"""


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


@pytest.mark.long
@pytest.mark.parametrize("version", RUNTIMES)
def test_an_older_onnx_runtime_agrees_on_every_artefact(version: str, bundles: list[Path], tmp_path: Path) -> None:
    assert sys.version_info < (3, 13), "these wheels exist for Python 3.10 to 3.12"
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-qq", f"onnxruntime=={version}", RUNTIMES[version]], check=True)
    answer = subprocess.run([python, "-c", _CHECK, version, *map(str, bundles)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.splitlines()) == 2 + 3 * len(FILES)
    assert np.isfinite([float(line.split(",")[2]) for line in answer.stdout.splitlines()]).all()
