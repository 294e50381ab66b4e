"""One string opens each kind of source."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge_sdk.errors import AudioError, SourceError
from edge_sdk.protocols import Source
from edge_sdk.sources import open_source
from edge_sdk.sources.file import FileSource
from edge_sdk.sources.phantom import DEFAULT_SEED, SCENARIOS, TRAINING_SEED_LIMIT, PhantomSource


def test_a_path_opens_a_recording(kauh_file: Path) -> None:
    with open_source(str(kauh_file)) as source:  # type: ignore[attr-defined]
        assert isinstance(source, FileSource)
        assert source.name == str(kauh_file)


def test_channel_and_pace_reach_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([np.zeros(400), np.full(400, 0.5)], axis=1), 4000)
    block = next(iter(open_source(str(path), paced=True, channel="mix", speed=50.0)))
    assert block.samples.mean() == pytest.approx(0.25, abs=1e-4)
    assert block.host_ns > 0


def test_a_recording_may_have_the_name_of_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("mic.wav", np.zeros(10), 4000)
    Path("mic.wav").rename("mic")
    assert open_source("./mic").sample_rate == 4000


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_phantoms_open_by_name(scenario: str) -> None:
    source = open_source(f"phantom:{scenario}", duration_s=1.0)
    assert isinstance(source, PhantomSource)
    assert isinstance(source, Source)
    assert source.name == f"phantom:{scenario}:{DEFAULT_SEED}"
    assert sum(block.samples.size for block in source) == 4000


def test_the_default_phantom_is_healthy_and_never_used_for_training() -> None:
    assert open_source("phantom").name == f"phantom:healthy:{DEFAULT_SEED}"
    assert open_source("phantom::77").name == "phantom:healthy:77"
    assert open_source("phantom:asthma:77").name == "phantom:asthma:77"
    assert DEFAULT_SEED >= TRAINING_SEED_LIMIT


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("phantom:flu", "no phantom scenario 'flu'; choose one of healthy, asthma"),
        ("phantom:asthma:x", "whole number"),
        ("phantom:asthma:-1", "whole number"),
        ("phantom:asthma:1:2", "whole number"),
        ("serial:/dev/nowhere", "no such port"),
        ("", "no source given"),
    ],
)
def test_a_source_that_cannot_be_opened_is_one_error_line(spec: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(spec)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_serial_source_does_not_hide_pyserial() -> None:
    code = (
        "import edge_sdk.sources.serial, edge_sdk.sources.microphone.child, serial;"
        "assert serial.serial_for_url and 'edge_sdk' not in serial.__file__"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_missing_recording_is_an_audio_error() -> None:
    with pytest.raises(AudioError, match="no such file"):
        open_source("nowhere.wav")


def test_the_phantom_needs_no_audio_library() -> None:
    code = (
        "import sys; from edge_sdk.sources import open_source; next(iter(open_source('phantom')));"
        "bad = {'torch', 'scipy', 'soundfile', 'sounddevice', 'soxr', 'onnxruntime'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("phantom", {"device_rate": 8000}, "a device rate is for mic and serial"),
        ("serial:/dev/nowhere", {"block_ms": 5.0}, "for microphones, not for serial"),
        ("./a.wav", {"latency": "low"}, "for microphones, not for ./a.wav"),
        ("serial:/dev/nowhere", {"channel": "mix"}, "cannot mix its channels"),
    ],
)
def test_an_option_of_another_kind_of_source_is_refused(spec: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(spec, **options)
