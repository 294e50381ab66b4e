"""``doctor``, ``devices`` and ``verify`` work on any machine, and every command of the README exists."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from edge_sdk.sources.devices import find_microphones
from tests.cli.conftest import Stetho


def test_doctor_proves_the_core_and_names_what_is_missing(stetho: Stetho, tmp_path: Path) -> None:
    outcome = stetho("doctor", "--json")
    assert outcome.status == 0
    checks = {r["name"]: r for r in outcome.records[:-1]}
    for name in ("machine", "core packages", "bundle default", "extra train", "extra export", "extra dev"):
        assert checks[name]["status"] == "ok", checks[name]
    assert "one run" in checks["bundle default"]["detail"]
    assert outcome.records[-1] == {"type": "summary", "checks": len(checks), "failed": []}
    people = stetho("doctor")
    assert people.status == 0
    assert "everything the core needs works" in people.out


def test_doctor_continues_past_a_broken_bundle(stetho: Stetho, tmp_path: Path) -> None:
    outcome = stetho("doctor", "--bundle", tmp_path / "nowhere", "--json")
    assert outcome.status == 0  # a finding never changes it
    assert outcome.records[-1]["failed"] == [f"bundle {tmp_path / 'nowhere'}"]


def test_devices_survive_a_machine_without_portaudio(stetho: Stetho, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sounddevice", None)
    found, why = find_microphones()
    assert found == []
    assert why is not None and "install libportaudio2" in why
    assert stetho("devices").status == 0
    assert all(r["type"] == "serial" for r in stetho("devices", "--json").records)


def test_verify_finds_no_fault_in_the_default_bundle(stetho: Stetho) -> None:
    outcome = stetho("verify", "default", "--json")
    assert outcome.status == 0
    *checks, summary = outcome.records
    assert all(check["ok"] for check in checks)
    assert summary["ok"] and summary["checks"] == len(checks) >= 5


def _blocks(repo_root: Path, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (repo_root / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def test_the_python_of_the_readme_runs(
    repo_root: Path,
    tmp_path: Path,
    recording: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(recording, tmp_path / "recording.wav")
    monkeypatch.chdir(tmp_path)
    (program,) = _blocks(repo_root, "python")
    exec(program, {})
    assert " s " in capsys.readouterr().out


def test_every_command_line_of_the_readme_is_understood(stetho: Stetho, repo_root: Path) -> None:
    lines = [line for block in _blocks(repo_root, "") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if re.match(r"(\.venv/bin/)?stetho ", line)]
    assert len(commands) >= 15
    for words in commands:
        if ">" in words:
            words = words[: words.index(">")]
        outcome = stetho(*words[1:], "--help")  # options are parsed before the help is shown
        assert outcome.status == 0, (words, outcome.err)
