"""The containers are built from the lock, run without root and say whether they are healthy."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((_ROOT / "deploy").glob("Containerfile*"))


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_every_container_is_locked_unprivileged_and_checked(file: Path) -> None:
    text = file.read_text()
    last = text.rpartition("\nFROM ")[2]
    assert "--constraint constraints.txt" in text
    assert re.search(r"^USER 10001:10001$", last, re.M) and re.search(r"^HEALTHCHECK .*verify", last, re.M)
    assert 'ENTRYPOINT ["stetho"]' in last and "--read-only" in text
    copied = re.findall(r"^COPY (?!--from)(.*) (\S+)$", text, re.M)
    for sources, _ in copied:
        assert all((_ROOT / source).exists() for source in sources.split())


@pytest.mark.parametrize(
    "file", [*FILES, _ROOT / "deploy/stetho-listen.service", _ROOT / "docs/pages/how-to/boards/service.md"],
    ids=lambda path: path.name,
)  # fmt: skip
def test_what_is_installed_can_check_signatures_and_publish(file: Path) -> None:
    installed = re.findall(r"(?:stethoscope-edge-sdk|\.)\[([^\]]+)\]['\"]", file.read_text())
    assert installed and {"trust", "mqtt", "metrics"} <= set(installed[-1].split(","))


def test_there_is_one_for_each_kind_of_machine() -> None:
    assert [path.suffix for path in FILES] == ["", ".cuda", ".jetson"]
    assert "amd64" in FILES[0].read_text() and "arm64" in FILES[0].read_text()


@pytest.mark.long
@pytest.mark.skipif(shutil.which("buildah") is None, reason="the Debian package buildah builds and runs it")
def test_the_cpu_container_runs_the_demo_offline(tmp_path: Path) -> None:
    """BASE: $STETHO_BASE_IMAGE, else one that deploy/base makes of Debian's packages."""
    base = os.environ.get("STETHO_BASE_IMAGE") or "localhost/stetho-base"
    if "STETHO_BASE_IMAGE" not in os.environ:
        subprocess.run([str(_ROOT / "deploy/base"), base], check=True, capture_output=True)
    build = ["buildah", "build", "-q", "--isolation", "chroot", "--build-arg", f"BASE={base}", "-t", "localhost/stetho",
             "-f", str(FILES[0]), str(_ROOT)]  # fmt: skip
    subprocess.run(build, check=True, capture_output=True)
    container = subprocess.run(
        ["buildah", "from", "localhost/stetho"], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        run = ["unshare", "-n", "buildah", "run", "--isolation", "chroot", "--user", "10001:10001", container, "--"]
        done = subprocess.run([*run, "stetho", "demo", "--json"], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout.splitlines()[-1])["type"] == "summary"
    finally:
        subprocess.run(["buildah", "rm", container], check=True, capture_output=True)
