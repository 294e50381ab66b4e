"""Every study has a working command line, and every documented or recorded command names a module that exists."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks.studies.adaptation import Row, study
from edge_sdk.errors import CorpusError
from edge_sdk.runtime.bundle.load import load_bundle
from edge_sdk.screening.adaptation import RecordingEvidence

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
STUDIES = sorted(path.stem for path in (BENCHMARKS / "studies").glob("*.py") if path.stem != "__init__")
_MODULE = re.compile(r"python -m (benchmarks[\w.]*\w)")


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_explains_itself_and_names_its_own_module(name: str) -> None:
    module = importlib.import_module(f"benchmarks.studies.{name}")
    app = typer.Typer()
    app.command()(module.main)
    result = CliRunner().invoke(app, ["--help"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "JSON lines on stdout" in " ".join(result.output.split())
    assert set(_MODULE.findall(str(module.__doc__))) == {f"benchmarks.studies.{name}"}


def test_every_command_of_the_readme_and_the_results_names_a_module_that_exists() -> None:
    files = [BENCHMARKS / "README.md", *(BENCHMARKS / "results").glob("*.json"), *(BENCHMARKS / "results").glob("*.md")]
    named = {module for file in files for module in _MODULE.findall(file.read_text(encoding="utf-8"))}
    assert named >= {f"benchmarks.studies.{name}" for name in STUDIES}
    assert [module for module in sorted(named) if importlib.util.find_spec(module) is None] == []


# -- adaptation: recordings whose devices differ by an offset alone ----------------------------------------------------


def adaptation_rows(device: str, offset: float, patients: int = 20, seed: int = 0) -> list[Row]:
    """Half of the patients are abnormal, by two units of log odds; the device adds ``offset``."""
    random = np.random.default_rng(seed)
    found = []
    for k in range(patients):
        margins = random.normal(offset + (2.0 if k % 2 else -2.0), 0.5, 8)
        evidence = RecordingEvidence(f"{device}{k}", 10.0, None, tuple(margins.tolist()), None)
        found.append(Row(device, f"{device}{k}", bool(k % 2), evidence))
    return found


def test_an_offset_of_a_device_goes_and_a_device_without_one_stays() -> None:
    manifest = msgspec.structs.replace(load_bundle("default").manifest, verdict=msgspec.UNSET)
    report = study(manifest, [*adaptation_rows("right", 0.0), *adaptation_rows("loud", 4.5)], normals=5, draws=5)
    figures = report["figures"]
    assert figures["loud"]["specificity_before"] == 0.0 and figures["loud"]["specificity_after"] > 0.2
    assert figures["right"]["specificity_before"] == figures["right"]["specificity_after"] == 1.0
    assert figures["all devices"]["auroc_after"] > figures["all devices"]["auroc_before"]
    assert report["recordings"] == {"loud": 20, "right": 20}


def test_a_device_with_too_few_normals_is_left_out() -> None:
    manifest = load_bundle("default").manifest
    with pytest.raises(CorpusError, match="no device has 5 normal patients"):
        study(manifest, adaptation_rows("small", 0.0, patients=12), normals=5, draws=2)
