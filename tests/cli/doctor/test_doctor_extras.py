"""``doctor`` knows every extra of the project that brings packages on any machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edge_sdk.cli.doctor import command
from edge_sdk.cli.doctor.command import _EXTRAS
from tests.cli.conftest import Stetho, stetho  # noqa: F401

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="tomli comes with pytest on Python 3.10")


def _packages_of(extra: str, extras: dict[str, list[str]], project: str) -> set[str]:
    """Canonical names of what an extra brings, also through other extras of the project."""
    found = set()
    for requirement in map(Requirement, extras[extra]):
        if requirement.name == project:
            found |= {name for other in requirement.extras for name in _packages_of(other, extras, project)}
        else:
            found.add(canonicalize_name(requirement.name))
    return found


def test_doctor_knows_the_extras_of_the_project_and_their_packages(repo_root: Path) -> None:
    project = tomllib.loads((repo_root / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    gpu = {"gpu-cu12", "gpu-cu13", "tensorrt", "tensorrt-cu12", "tensorrt-rtx"}
    parts_and_choices = {"fhir", "dicom", "textgrid", "speech", "tensorboard", "mlflow", "docs"}
    assert set(_EXTRAS) == set(extras) - gpu - parts_and_choices
    for extra, packages in _EXTRAS.items():
        known, wanted = {canonicalize_name(name) for name in packages}, _packages_of(extra, extras, project["name"])
        assert known < wanted if extra == "dev" else known == wanted, extra  # of dev, what most tests need


def test_doctor_names_the_extra_of_a_missing_package(
    stetho: Stetho,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "version_of", lambda name: None if name == "paho-mqtt" else "1.0")
    checks = {r["name"]: r for r in stetho("doctor", "--json").records[:-1]}
    assert checks["extra mqtt"]["detail"] == "missing: paho-mqtt"
    assert checks["extra mqtt"]["fix"] == "pip install 'stethoscope-edge-sdk[mqtt]'"
    assert checks["extra serve"]["status"] == "ok"
