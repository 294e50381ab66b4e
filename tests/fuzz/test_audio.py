"""Damaged recordings of every container are read, or refused with one of our errors; in bounded time and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import strategies as st

from edge_sdk.sources import open_source
from tests.fuzz.mutations import DURATIONS, damaged, edits, fuzz, read_or_refuse

_FORMATS = {
    "wav": ("WAV", "PCM_16"), "float.wav": ("WAV", "FLOAT"), "ulaw.wav": ("WAV", "ULAW"), "24.wav": ("WAVEX", "PCM_24"),
    "adpcm.wav": ("WAV", "IMA_ADPCM"), "rf64": ("RF64", "PCM_16"), "w64": ("W64", "PCM_16"), "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III"), "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"), "caf": ("CAF", "PCM_16"),
}  # fmt: skip
_SUFFIXES = ("", ".wav", ".flac", ".mp3", ".ogg", ".txt")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A quarter of a second of noise in two channels, in every container that libsndfile writes here."""
    folder = tmp_path_factory.mktemp("seeds")
    samples = np.random.default_rng(1).normal(0, 0.1, (2000, 2)).clip(-1, 1)
    made = {}
    for name, (container, subtype) in _FORMATS.items():
        if container not in soundfile.available_formats():
            continue
        soundfile.write(folder / name, samples, 8000, format=container, subtype=subtype)
        made[name] = (folder / name).read_bytes()
    assert len(made) >= 10
    return made


def read(path: Path, channel: Any) -> None:
    """Read it all; every sample that is delivered is finite and has its place."""
    source = open_source(str(path), channel=channel)
    try:
        assert source.sample_rate > 0
        at = 0
        for block in source:
            at += block.lost_before
            assert block.first_sample == at
            assert block.samples.dtype == np.float32 and np.isfinite(block.samples).all()
            at += block.samples.size
    finally:
        source.close()


@pytest.mark.parametrize("duration_s", DURATIONS)
def test_a_damaged_recording_is_read_or_refused(
    tmp_path: Path, recordings: dict[str, bytes], duration_s: float
) -> None:
    def check(name: str, suffix: str, channel: Any, changes: Any) -> None:
        path = tmp_path / f"recording{suffix}"
        path.write_bytes(damaged(recordings[name], changes))
        read_or_refuse(lambda: read(path, channel))

    names, channels = st.sampled_from(sorted(recordings)), st.sampled_from((0, 1, "mix"))
    fuzz(check, names, st.sampled_from(_SUFFIXES), channels, edits, duration_s=duration_s, examples=60)


@pytest.mark.parametrize("duration_s", DURATIONS)
def test_damaged_events_beside_a_recording_do_no_harm(
    tmp_path: Path, recordings: dict[str, bytes], duration_s: float
) -> None:
    """A recorded session holds its gaps in JSON lines beside the flac."""
    (tmp_path / "visit.flac").write_bytes(recordings["flac"])
    events = "".join(
        f'{{"type": "lost", "file_sample": {at}, "samples": {size}}}\n'
        for at, size in ((10, 100), (500, 1), (900, 1000))
    )

    def check(changes: Any) -> None:
        (tmp_path / "visit.events.jsonl").write_bytes(damaged(events.encode(), changes))
        read_or_refuse(lambda: read(tmp_path / "visit.flac", 0))

    fuzz(check, edits, duration_s=duration_s, examples=60)
