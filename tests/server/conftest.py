"""Fixtures: a real server in a process of its own, a tiny bundle, breath sounds as PCM and as files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from edge_sdk.sources.phantom import PhantomSource
from tests.server.serving import Served
from tests.support.tiny_bundle import write_tiny_bundle

RATE = 8000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that needs a token and plays a simulated patient, four times as fast as real time."""
    folder = tmp_path_factory.mktemp("served") / "recordings"
    with Served(folder, "--source", "phantom:asthma", "--speed", "4", token="a-token-for-the-tests") as server:
        yield server
        assert server.process.poll() is None, "the server ended during the tests"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny"), allow_untrained=True)


@pytest.fixture(scope="module")
def pcm() -> npt.NDArray[np.int16]:
    """15 s of a simulated patient at 8 kHz, 16 bits."""
    source = PhantomSource("asthma", duration_s=15.0, sample_rate=RATE)
    samples = np.concatenate([block.samples for block in source])
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)


@pytest.fixture(scope="module")
def wav(pcm: npt.NDArray[np.int16], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file."""
    path = tmp_path_factory.mktemp("audio") / "breaths.wav"
    soundfile.write(path, pcm, RATE)
    return path
