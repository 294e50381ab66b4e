"""A damaged ``bundle.json`` or file of results is refused with one of our errors, or read as far as it is valid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.runtime.bundle.load import load_bundle
from edge_sdk.runtime.bundle.manifest import DEFAULT_BUNDLE, choose_artefact, front_end, metadata_schema, read_manifest
from edge_sdk.runtime.bundle.manifest import settings as manifest_settings
from edge_sdk.runtime.bundle.schema import MANIFEST
from edge_sdk.screening.recordings import ScreenedRecords
from edge_sdk.screening.results import KeptResults
from tests.fuzz.mutations import DURATIONS, damaged, edits, fuzz, read_or_refuse
from tests.support.tiny_bundle import write_tiny_bundle


def read_bundle(folder: Path) -> None:
    """All that is read of a manifest before an engine is made."""
    manifest = read_manifest(folder)
    entry = choose_artefact(folder, manifest, None)
    front_end(folder, entry)
    metadata_schema(folder, manifest)
    manifest_settings(folder, manifest)


@pytest.mark.parametrize("duration_s", DURATIONS)
def test_a_damaged_manifest_is_refused(tmp_path: Path, duration_s: float) -> None:
    content = (DEFAULT_BUNDLE / MANIFEST).read_bytes()

    def check(changes: Any) -> None:
        (tmp_path / MANIFEST).write_bytes(damaged(content, changes))
        read_or_refuse(lambda: read_bundle(tmp_path))

    fuzz(check, edits, duration_s=duration_s, examples=50)


@pytest.mark.parametrize("duration_s", DURATIONS)
def test_a_bundle_with_a_damaged_manifest_loads_or_is_refused(tmp_path: Path, duration_s: float) -> None:
    """To the end, with engine, segmenter and golden vector."""
    folder = write_tiny_bundle(tmp_path / "tiny")
    content = (folder / MANIFEST).read_bytes()

    def check(changes: Any) -> None:
        (folder / MANIFEST).write_bytes(damaged(content, changes))
        read_or_refuse(lambda: load_bundle(folder, allow_untrained=True))

    fuzz(check, edits, duration_s=duration_s, examples=20)


RUN = {"bundle": "b", "version": "1", "artefact": "onnx", "sha256": "0", "channel": 0, "metadata": {"site": "trachea"}}


@pytest.mark.parametrize("duration_s", DURATIONS)
def test_damaged_results_are_refused_or_read_as_far_as_they_are_valid(tmp_path: Path, duration_s: float) -> None:
    path, names = tmp_path / "kept.jsonl", [str(tmp_path / f"{name}.wav") for name in "abcd"]
    for name in names:
        Path(name).write_bytes(name.encode())
    kept = KeptResults(path, RUN)
    cycle = {"type": "cycle", "start_s": 0.1, "end_s": 1.2, "label": "normal", "probabilities": {"normal": 0.9}}
    for name in names[:2]:
        kept.add(ScreenedRecords(name, ({**cycle, "source": name}, {"type": "summary", "source": name, "cycles": 1})))
    kept.add(ScreenedRecords(names[2], (), "is no audio"))
    kept.close()
    content = path.read_bytes()

    def reopen() -> None:
        again = KeptResults(path, RUN)
        try:
            again.add(ScreenedRecords(names[3], ({"type": "summary", "source": names[3]},)))
        finally:
            again.close()
        lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")[:-1]  # names may be any bytes
        assert [json.loads(line) for line in lines][-1]["source"] == names[3]

    def check(changes: Any) -> None:
        path.write_bytes(damaged(content, changes))
        read_or_refuse(reopen)

    fuzz(check, edits, duration_s=duration_s, examples=50)
