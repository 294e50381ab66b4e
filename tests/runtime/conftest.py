"""Fixtures: a tiny bundle for the whole test session, and audio to push through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from edge_sdk.signal.resample import resample
from edge_sdk.sources.phantom import PhantomSource
from tests.support.tiny_bundle import write_tiny_bundle

Samples = npt.NDArray[np.float32]


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained bundle; never write into it, copy it."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def bundle(bundle_folder: Path) -> Bundle:
    return load_bundle(bundle_folder, allow_untrained=True)


@lru_cache(maxsize=32)
def phantom(scenario: str = "asthma", seconds: float = 12.0, rate: int = 4000, seed: int = 1_000_010) -> Samples:
    """Samples of a simulated patient, read-only."""
    source = PhantomSource(scenario, seed=seed, duration_s=seconds, sample_rate=rate)
    audio = np.concatenate([block.samples for block in source])
    audio.setflags(write=False)
    return audio


@pytest.fixture(scope="session")
def real_audio(sprsound_file: Path, kauh_file: Path) -> Callable[[int], Samples]:
    """Real breathing at any rate: a child up to 8 kHz, an adult above."""

    @lru_cache(maxsize=8)
    def at(rate: int) -> Samples:
        samples, own_rate = soundfile.read(kauh_file if rate in (4000, 44100) else sprsound_file, dtype="float32")
        return resample(samples[: own_rate * 10], own_rate, rate)

    return at


def assert_same(one: Any, other: Any) -> None:
    """Equal but for the rounding of probabilities and confidences."""
    assert type(one) is type(other)
    if isinstance(one, float):
        assert other == pytest.approx(one, abs=2e-4)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key])
    elif is_dataclass(one):
        for field in fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name))
    else:
        assert one == other
