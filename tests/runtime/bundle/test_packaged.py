"""The bundles in the wheel: found by name, whole, and as small as they are meant to be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import edge_sdk
from edge_sdk.errors import BundleError
from edge_sdk.evaluation.model import load_model
from edge_sdk.events import Verdict
from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE, load_bundle, packaged_bundles, resolve_bundle, verify_bundle
from tests.runtime.conftest import phantom

MOST_BYTES = {"default": 2_500_000, "standard": 6_000_000}


@pytest.mark.parametrize("name", sorted(MOST_BYTES))
def test_a_bundle_in_the_wheel_is_whole_small_and_gives_verdicts(name: str) -> None:
    assert all(check.ok for check in verify_bundle(resolve_bundle(name)))
    bundle = load_bundle(name)
    assert bundle.path.parent == DEFAULT_BUNDLE.parent
    assert sum(path.stat().st_size for path in bundle.path.iterdir()) <= MOST_BYTES[name]
    assert not isinstance(bundle.manifest.verdict, msgspec.UnsetType)
    stream = bundle.stream(4000)
    events = [*stream.accept(phantom("asthma", 12.0).astype(np.float32)), *stream.finish()]
    assert isinstance(events[-1], Verdict) and events[-1].final
    assert load_model(name).name == bundle.manifest.name


@pytest.mark.parametrize("name", sorted(MOST_BYTES))
def test_it_names_no_folder_of_the_machine_it_was_made_on(name: str) -> None:
    def strings(value: Any) -> Iterator[str]:
        if isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                yield from strings(item)
        elif isinstance(value, str):
            yield value

    manifest = json.loads((resolve_bundle(name) / "bundle.json").read_text())
    assert [text for text in strings(manifest) if Path(text.rpartition("=")[2]).is_absolute()] == []


def test_they_are_all_of_them() -> None:
    assert packaged_bundles() == tuple(sorted(MOST_BYTES))


def test_a_name_that_is_neither_a_folder_nor_in_the_wheel_lists_those(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nothing does not exist; .* or one of default, standard"):
        load_bundle(tmp_path / "nothing")


def test_the_python_face_takes_the_name() -> None:
    samples = phantom("asthma", 8.0).astype(np.float32)
    screening = edge_sdk.screen((samples, 4000), bundle="standard")
    assert len(screening.cycles) >= 2 and screening.verdict in ("normal", "abnormal", "uncertain")
