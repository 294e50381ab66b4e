"""Every study has a working command line, and every documented or recorded command names a module that exists."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

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
