"""Cached features: those of the device, computed once, and again when anything they depend on changes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
import torch

import edge_sdk.training.audio.feature_cache as feature_cache
from edge_sdk.corpora.audio import cycle_pcm
from edge_sdk.corpora.table import Cycle
from edge_sdk.errors import StorageError
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.audio.feature_cache import cached_features, feature_key

SPEC = FrontEndSpec(rate_hz=4000, window_s=1.0)


@pytest.fixture
def cycles(tmp_path: Path) -> list[Cycle]:
    path = tmp_path / "a.wav"
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(path, noise, 4000, subtype="PCM_16")
    return [Cycle("a", "csv", path, "p", k, k / 2, k / 2 + 0.8, "normal", "normal") for k in range(5)]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each computation."""
    calls: list[int] = []
    original = feature_cache._compute

    def counting(*arguments: object) -> None:
        calls.append(1)
        original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(feature_cache, "_compute", counting)
    return calls


def test_features_are_those_of_the_device_and_computed_once(
    cycles: list[Cycle], tmp_path: Path, computed: list[int]
) -> None:
    seen: list[tuple[str, int, int]] = []
    first = cached_features(cycles, SPEC, cache=tmp_path / "c", progress=lambda *step: seen.append(step))
    windows = np.stack([pcm for _, pcm in cycle_pcm(cycles, SPEC)])
    expected = FoldedFrontEnd(SPEC)(torch.from_numpy(windows)).numpy()
    assert first.shape == expected.shape
    assert first.dtype == np.float32
    np.testing.assert_allclose(first, expected, atol=1e-5)
    assert seen == [("computing features", 5, 5)]
    assert np.array_equal(cached_features(cycles, SPEC, cache=tmp_path / "c"), first)
    assert len(computed) == 1
    assert len(list((tmp_path / "c").iterdir())) == 2  # no staging files stay behind


def test_whatever_changes_the_features_changes_the_key(cycles: list[Cycle]) -> None:
    key = feature_key(cycles, SPEC)
    assert feature_key(list(cycles), SPEC) == key
    assert feature_key(cycles[:4], SPEC) != key
    assert feature_key([replace(cycles[0], end_s=0.9), *cycles[1:]], SPEC) != key
    assert feature_key(cycles, msgspec.structs.replace(SPEC, mel_bins=32)) != key
    os.utime(cycles[0].path, ns=(1, 1))
    assert feature_key(cycles, SPEC) != key


@pytest.mark.parametrize("damage", ["flip", "cut", "note", "gone"])
def test_a_damaged_file_is_computed_again(
    cycles: list[Cycle], tmp_path: Path, computed: list[int], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = np.array(cached_features(cycles, SPEC, cache=tmp_path))
    store, note = next(tmp_path.glob("features-*.npy")), next(tmp_path.glob("features-*.json"))
    content = bytearray(store.read_bytes())
    content[-1] ^= 1
    damages: dict[str, Callable[[], object]] = {
        "flip": lambda: store.write_bytes(content),
        "cut": lambda: store.write_bytes(content[:-100]),
        "note": lambda: note.write_text("{"),
        "gone": note.unlink,
    }
    damages[damage]()
    with caplog.at_level(logging.WARNING):
        again = cached_features(cycles, SPEC, cache=tmp_path)
    assert np.array_equal(again, whole)
    assert len(computed) == 2
    assert ("is damaged" in caplog.text) == (damage != "gone")
    cached_features(cycles, SPEC, cache=tmp_path)
    assert len(computed) == 2


def test_several_at_once_leave_one_whole_file(cycles: list[Cycle], tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: np.array(cached_features(cycles, SPEC, cache=tmp_path / "c")), range(4)))
    assert all(np.array_equal(features, found[0]) for features in found)
    assert sorted(path.suffix for path in (tmp_path / "c").iterdir()) == [".json", ".npy"]


def test_a_failure_leaves_nothing_behind(cycles: list[Cycle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(feature_cache, "_compute", fail)
    with pytest.raises(StorageError, match="disk full"):
        cached_features(cycles, SPEC, cache=tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []
    with pytest.raises(ValueError, match="no cycles"):
        cached_features([], SPEC)
