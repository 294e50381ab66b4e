"""Every script of docs/examples runs and prints what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_sdk.runtime.bundle.load import load_bundle
from edge_sdk.sources.phantom import PhantomSource
from tests.server.serving import ServedHere
from tests.support.tiny_bundle import write_tiny_bundle

RUNS = {
    "batch_with_ray": ["RECORDINGS", "OUT"],
    "compare_bundles": ["default", "default", "csv", "CORPUS"],
    "export_and_verify": ["OUT"],
    "live": ["phantom-recording"],
    "own_sink": ["phantom-recording"],
    "own_source": [],
    "samples_in_memory": [],
    "screen_folder": ["RECORDINGS", "2"],
    "serial_device": [],
    "stream_to_server": ["SERVER", "phantom-recording"],
    "train_on_csv": [],
}
PRINTED = {
    "batch_with_ray": r"one\.wav .*'normal': \d+[^$]*two\.wav|two\.wav .*'normal': \d+[^$]*one\.wav",
    "compare_bundles": r"auroc +\d\.\d+ – \d\.\d+ = \+0\.000 \(\+0\.000 … \+0\.000\)",
    "export_and_verify": r"ok +golden onnx-fp32[^$]*refused: .*untrained",
    "live": r"respiratory rate \d+\.\d /min",
    "own_sink": r"watching .*at 4000 Hz[^$]*\d+ cycles, \d+ classified",
    "own_source": r"gap: 2000 samples[^$]*2000 samples lost",
    "samples_in_memory": r"blocks of 20 ms: (\[.*\])\nblocks of 1 s:   \1\nin one call:     \1",
    "screen_folder": r"one\.wav: \d+ cycles[^$]*two\.wav: \d+ cycles",
    "serial_device": r"sent 80000 samples, received 80000",
    "stream_to_server": r'"type": "stream"[^$]*"type": "cycle"[^$]*"type": "summary"',
    "train_on_csv": r"checkpoint\.pt: AUROC .* on \d+ cycles",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Two recordings of simulated patients, and the same as a corpus."""
    root = tmp_path_factory.mktemp("examples")
    lines = ["file,start_s,end_s,label,patient,split"]
    for name, scenario in (("one", "asthma"), ("two", "healthy")):
        with PhantomSource(scenario, duration_s=15.0, sample_rate=4000) as patient:
            samples = np.concatenate([block.samples for block in patient])
            soundfile.write(root / f"{name}.wav", samples, 4000)
            whole = [cycle for cycle in patient.truth if cycle.end_s < 15.0]
            lines += [f"{name}.wav,{c.start_s},{c.end_s},{c.label},{name},val" for c in whole]
    (root / "cycles.csv").write_text("\n".join(lines) + "\n")
    tiny = load_bundle(write_tiny_bundle(root / "tiny"), allow_untrained=True)
    with ServedHere(tmp_path_factory.mktemp("served"), tiny) as server:
        yield {
            "RECORDINGS": str(root),
            "CORPUS": str(root / "cycles.csv"),
            "phantom-recording": str(root / "one.wav"),
            "SERVER": server.ws_url,
        }


def test_each_example_is_tested(repo_root: Path) -> None:
    names = {path.stem for path in (repo_root / "docs" / "examples").glob("*.py")}
    assert names == set(RUNS) == set(PRINTED)
    assert len(names) >= 8


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name == "batch_with_ray" else ()) for name in sorted(RUNS)]
)  # CI has Ray in tests/cli/screen/test_screen_on_ray.py
def test_an_example_runs(repo_root: Path, places: dict[str, str], tmp_path: Path, name: str) -> None:
    arguments = [places.get(word, str(tmp_path / "out") if word == "OUT" else word) for word in RUNS[name]]
    script = repo_root / "docs" / "examples" / f"{name}.py"
    done = subprocess.run([sys.executable, script, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(PRINTED[name], done.stdout), done.stdout
