"""What the project promises about itself: light core, pinned CI, a wheel with everything a device needs."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="tomli comes with pytest on Python 3.10")


@pytest.fixture(scope="module")
def project(repo_root: Path) -> dict[str, object]:
    return dict(tomllib.loads((repo_root / "pyproject.toml").read_text("utf-8"))["project"])


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~; ]", text, maxsplit=1)[0].lower().replace("_", "-") for text in requirements}


def test_the_core_needs_only_what_a_device_needs(project: dict[str, list[str]]) -> None:
    assert _names(project["dependencies"]) == {
        "numpy", "onnxruntime", "packaging", "soxr", "soundfile", "sounddevice", "pyserial", "typer", "rich", "msgspec",
    }  # fmt: skip


def test_ci_pins_everything_the_extras_name(repo_root: Path, project: dict[str, dict[str, list[str]]]) -> None:
    lines = [line for line in (repo_root / "constraints.txt").read_text("utf-8").splitlines() if line[:1] != "#"]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^ ;/@]+(; python_version >= \"3\.\d+\")?", line) for line in lines)
    pinned = _names(lines)
    for extra in ("train", "export", "tensorrt-rtx", "dev"):  # tensorrt itself is tested where there is a GPU
        wanted = _names(project["optional-dependencies"][extra]) - {"stethoscope-edge-sdk"}
        assert wanted <= pinned, wanted - pinned


def test_the_wheel_holds_the_packages_the_default_bundle_and_the_recipes(repo_root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=repo_root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("stethoscope_edge_sdk-*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        sizes = {info.filename: info.file_size for info in content.infolist()}
    for package in ("edge_sdk", "export", "firmware_bridge", "benchmarks"):
        assert {f"{package}/__init__.py", f"{package}/py.typed"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {
        "edge_sdk", "export", "firmware_bridge", "benchmarks", "stethoscope_edge_sdk",
    }  # fmt: skip
    bundle = [name for name in names if name.startswith("edge_sdk/bundles/default/")]
    assert "edge_sdk/bundles/default/bundle.json" in bundle
    assert sum(sizes[name] for name in bundle) <= 2_500_000
    assert "edge_sdk/training/recipes/compact.yaml" in names
    firmware = {"PROTOCOL.md", "c/README.md", "c/Makefile", "c/stetho_link.c", "c/stetho_link.h", "c/golden_frames.txt"}
    board = {f"c/mps2-an385/{name}" for name in ("main.c", "board.c", "board.h", "startup.c", "link.ld", "Makefile")}
    assert {f"firmware_bridge/{name}" for name in firmware | board} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if re.search(r"\.(wav|flac|pt|pth)$", name)]


def test_the_picture_of_the_readme_is_there_and_asks_nothing_of_the_network(repo_root: Path) -> None:
    readme = (repo_root / "README.md").read_text("utf-8")
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", readme)
    assert pictures
    for picture in pictures:
        assert "url(http" not in (repo_root / picture).read_text("utf-8")
