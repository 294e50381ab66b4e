"""The folders ``export/onnx`` and ``export/tensorrt`` never stand in for the packages of these names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def _python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Python started in ``folder``, which is then first on its path."""
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)


def test_modules_of_the_export_side_import_the_real_onnx(repo_root: Path) -> None:
    done = _python(repo_root, "import export.onnx.lint as lint; print(lint.onnx.__file__)")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.name == "__init__.py" and not path.is_relative_to(repo_root / "export")


@pytest.mark.parametrize("package", ["onnx", "tensorrt"])
def test_a_hidden_package_is_one_clear_error(package: str, repo_root: Path) -> None:
    done = _python(repo_root / "export", f"import {package}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: export/{package} hides the package '{package}'")


def test_a_module_run_as_a_script_fails_with_that_error(repo_root: Path) -> None:
    script = repo_root / "export" / "triton" / "repository.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr  # its folder holds no module of these names
    script = repo_root / "export" / "pipeline.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "hides the package 'onnx'" in done.stderr
