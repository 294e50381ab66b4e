"""Bad input: one clear line on stderr, exit status 1, nothing half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE
from tests.cli.conftest import BAD_RECORDINGS, Stetho, make_bad


@pytest.mark.parametrize("kind", BAD_RECORDINGS)
@pytest.mark.requirement("AUD-5")
def test_bad_recording_is_one_line_and_status_1(
    stetho: Stetho, tmp_path: Path, breathing: np.ndarray, kind: str
) -> None:
    path = make_bad(kind, tmp_path, breathing)
    outcome = stetho("screen", path)
    assert outcome.status == 1
    assert outcome.out == ""
    assert BAD_RECORDINGS[kind] in outcome.error
    assert str(path) in outcome.error


@pytest.mark.parametrize("kind", BAD_RECORDINGS)
def test_bad_recording_in_json_is_an_error_object_and_nothing_else(
    stetho: Stetho, tmp_path: Path, breathing: np.ndarray, kind: str
) -> None:
    path = make_bad(kind, tmp_path, breathing)
    outcome = stetho("screen", path, "--json")
    assert outcome.status == 1
    (record,) = outcome.records
    assert (record["type"], record["source"]) == ("error", str(path))
    assert BAD_RECORDINGS[kind] in record["message"]
    assert outcome.error == f"stetho: error: {record['message']}"


@pytest.mark.parametrize("kind", sorted(set(BAD_RECORDINGS) - {"short"}))
@pytest.mark.requirement("AUD-5")
def test_listening_to_a_bad_recording_fails_too_and_leaves_nothing_half_written(
    stetho: Stetho, tmp_path: Path, breathing: np.ndarray, kind: str
) -> None:
    path = make_bad(kind, tmp_path, breathing)
    outcome = stetho("listen", path, "--record", tmp_path / "kept", "--json", "--speed", "50")
    assert outcome.status == 1
    assert BAD_RECORDINGS[kind] in outcome.error
    endings = sorted(path.suffix for path in tmp_path.glob("kept/*"))
    received_in_part = kind in ("nan", "truncated")
    assert endings == ([".flac", ".json", ".jsonl"] if received_in_part else [])
    for session in tmp_path.glob("kept/*.session.json"):
        written = json.loads(session.read_text("utf-8"))
        assert written["complete"] and BAD_RECORDINGS[kind] in written["failure"]


def test_the_error_of_a_short_recording_gives_the_length_needed(
    stetho: Stetho, tmp_path: Path, breathing: np.ndarray
) -> None:
    error = stetho("screen", make_bad("short", tmp_path, breathing)).error
    assert "at least" in error and error.rstrip().endswith("needed")


def test_a_folder_without_recordings_is_an_error(stetho: Stetho, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no audio here")
    outcome = stetho("screen", tmp_path)
    assert outcome.status == 1
    assert "no recording in" in outcome.error


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["listen", "mic:theremin"], "no microphone"),
        (["listen", "serial:/dev/nowhere"], "no such port"),
        (["listen", "phantom:zebra"], "no phantom scenario 'zebra'"),
        (["listen", "phantom:asthma:one"], "no whole number"),
        (["demo", "--scenario", "zebra"], "no phantom scenario 'zebra'"),
        (["listen", "/nowhere/at/all.wav"], "no such file"),
    ],
)
def test_a_source_that_does_not_exist_is_one_line_and_status_1(stetho: Stetho, line: list[str], message: str) -> None:
    outcome = stetho(*line)
    assert outcome.status == 1
    assert outcome.out == ""
    assert message in outcome.error


def _edit(folder: Path, change: Any) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    change(manifest)
    (folder / "bundle.json").write_text(json.dumps(manifest))


def _spoil(folder: Path, damage: str) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    artefact = next(entry for entry in manifest["artefacts"] if entry["default"])
    model = folder / artefact["file"]
    if damage == "no manifest":
        (folder / "bundle.json").unlink()
    elif damage == "broken manifest":
        (folder / "bundle.json").write_text('{"schema": 1, "name"')
    elif damage == "incomplete manifest":
        _edit(folder, lambda m: m.pop("labels"))
    elif damage == "newer schema":
        _edit(folder, lambda m: m.update(schema=99))
    elif damage == "incomplete":
        model.unlink()
    elif damage == "hash mismatch":
        content = bytearray(model.read_bytes())
        content[len(content) // 2] ^= 0xFF
        model.write_bytes(content)
    elif damage == "golden vector gone":
        (folder / manifest["golden"]["file"]).unlink()
    elif damage == "untrained":
        _edit(folder, lambda m: m.update(untrained=True))


BAD_BUNDLES = {
    "missing": "does not exist",
    "no manifest": "is not a bundle",
    "broken manifest": "not readable JSON",
    "incomplete manifest": "labels",
    "newer schema": "newer SDK",
    "incomplete": "is incomplete",
    "hash mismatch": "does not match its sha256",
    "golden vector gone": "is missing",
    "untrained": "untrained",
}


@pytest.mark.parametrize("damage", BAD_BUNDLES)
def test_bad_bundle_is_one_line_and_status_1(stetho: Stetho, tmp_path: Path, recording: Path, damage: str) -> None:
    folder = tmp_path / "bundle"
    if damage != "missing":
        shutil.copytree(DEFAULT_BUNDLE, folder)
        _spoil(folder, damage)
    for line in (["screen", recording, "--json"], ["demo", "--json"], ["listen", "phantom"]):
        outcome = stetho(*line, "--bundle", folder)
        assert outcome.status == 1
        assert outcome.out == ""
        assert BAD_BUNDLES[damage] in outcome.error


@pytest.mark.parametrize("damage", sorted(set(BAD_BUNDLES) - {"untrained"}))
def test_verify_finds_the_damage(stetho: Stetho, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "bundle"
    if damage != "missing":
        shutil.copytree(DEFAULT_BUNDLE, folder)
        _spoil(folder, damage)
    outcome = stetho("verify", folder)
    assert outcome.status == 1
    assert BAD_BUNDLES[damage] in outcome.error
