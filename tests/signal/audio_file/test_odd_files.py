"""Hundreds of odd files: an error of ours or audio; never a traceback, a hang, or audio that is missing unsaid."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edge_sdk.errors import AudioError
from edge_sdk.signal.audio_file.opening import open_audio
from tests.support.audio.odd import Odd, odd_files

TOLERANCE_S = 0.12  # a lossy frame at each end


def outcome(path: Path) -> tuple[float, tuple[str, ...], str | None]:
    """Seconds, notes, and the reason where it is refused or fails."""
    count = 0
    try:
        with open_audio(path) as reader:
            while len(block := reader.read(4000)):
                count += len(block)
        return count / reader.sample_rate, reader.notes, None
    except AudioError as error:
        return 0.0, (), str(error)


def check(odd: Odd, path: Path) -> None:
    path.write_bytes(odd.content)
    began = time.monotonic()
    seconds, notes, reason = outcome(path)
    assert time.monotonic() - began < 10, odd.name
    if reason is not None:
        assert not odd.intact, f"{odd.name}: {reason}"
        assert str(path) in reason and ";" in reason and "\n" not in reason, odd.name
        return
    assert notes or odd.whole_s - seconds < TOLERANCE_S, f"{odd.name}: {seconds:.2f} s without a note"
    assert not (odd.intact and notes), f"{odd.name}: {notes}"


def test_odd_files_are_read_noted_or_refused(tmp_path: Path) -> None:
    for odd in odd_files(38, seed=1):
        check(odd, tmp_path / "odd.wav")


@pytest.mark.long
def test_six_hundred_odd_files(tmp_path: Path) -> None:
    for odd in odd_files(600, seed=2):
        check(odd, tmp_path / "odd.wav")
