"""Audio of a corpus: one line for each fault, one window for each cycle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

import edge_sdk.corpora.audio as audio
from edge_sdk.corpora import Cycle, load_corpus
from edge_sdk.corpora.audio import batches, cut, cycle_pcm, read_cycle, read_recording
from edge_sdk.errors import AudioError
from edge_sdk.signal.spec import FrontEndSpec

MakeAudio = Callable[..., Path]
SPEC = FrontEndSpec(rate_hz=4000, window_s=3.0)


def cycle_of(path: Path, start_s: float, end_s: float, index: int = 0) -> Cycle:
    return Cycle(path.stem, "csv", path, "p", index, start_s, end_s, "normal", "normal")


def test_the_first_channel_comes_back_sample_by_sample(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, (500, 3)).astype(np.float32)
    soundfile.write(tmp_path / "three.wav", samples, 96000, subtype="FLOAT")
    read, rate = read_recording(tmp_path / "three.wav")
    assert rate == 96000
    assert read.dtype == np.float32
    assert np.array_equal(read, samples[:, 0])


def test_each_fault_of_a_file_has_its_message(tmp_path: Path, make_audio: MakeAudio) -> None:
    with pytest.raises(AudioError, match="does not exist"):
        read_recording(tmp_path / "none.wav")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("hello")
    for name in ("empty.wav", "text.wav"):
        with pytest.raises(AudioError, match="cannot be read as audio"):
            read_recording(tmp_path / name)
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), 8000)
    with pytest.raises(AudioError, match="holds no samples"):
        read_recording(tmp_path / "none.wav")
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan], np.float32), 8000, subtype="FLOAT")
    with pytest.raises(AudioError, match="not numbers"):
        read_recording(tmp_path / "nan.wav")
    whole = make_audio(tmp_path / "whole.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AudioError, match=r"cut short|cannot be read"):
        read_recording(tmp_path / "cut.flac")


def test_cut_stays_inside_and_never_comes_back_empty() -> None:
    samples = np.arange(100, dtype=np.float32)
    assert cut(samples, 10, 1.0, 2.0).tolist() == list(range(10, 20))
    assert cut(samples, 10, 9.5, 99.0).tolist() == list(range(95, 100))
    assert cut(samples, 10, 3.0, 3.001).tolist() == [30.0]
    assert cut(samples, 10, 50.0, 60.0).tolist() == [99.0]


def test_a_cycle_is_read_at_the_rate_of_its_source(make_audio: MakeAudio, tmp_path: Path) -> None:
    path = make_audio(tmp_path / "a.wav", 2.0, 8000)
    samples, rate = read_cycle(cycle_of(path, 0.5, 1.25))
    assert (samples.size, rate) == (6000, 8000)
    assert np.array_equal(samples, read_recording(path)[0][4000:10000])


def test_windows_hold_the_cycle_and_each_recording_is_read_once(
    make_audio: MakeAudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = make_audio(tmp_path / "1.wav", 4.0, 4000), make_audio(tmp_path / "2.wav", 5.0, 4000)
    cycles = [cycle_of(one, 0, 1.5), cycle_of(one, 1.5, 4.0, 1), cycle_of(two, 0, 5.0)]
    reads: list[Path] = []
    original = audio.read_recording

    def counting(path: Path) -> tuple[npt.NDArray[np.float32], int]:
        reads.append(path)
        return original(path)

    monkeypatch.setattr(audio, "read_recording", counting)
    windows = list(cycle_pcm(cycles, SPEC))
    assert reads == [one, two]
    assert [cycle for cycle, _ in windows] == cycles
    assert all(window.shape == (12000,) and window.dtype == np.float32 for _, window in windows)
    first = original(one)[0][:6000]
    assert np.array_equal(windows[0][1], np.concatenate([first, first]))  # repeated to fill the window
    assert np.array_equal(windows[2][1], original(two)[0][4000:16000])  # too long: its middle


def test_batches_keep_order_and_drop_nothing(make_audio: MakeAudio, tmp_path: Path) -> None:
    path = make_audio(tmp_path / "1.wav", 4.0, 4000)
    cycles = [replace(cycle_of(path, k / 4, (k + 1) / 4), index=k) for k in range(7)]
    found = list(batches(cycle_pcm(cycles, SPEC), 3))
    assert [len(group) for group, _ in found] == [3, 3, 1]
    assert [cycle.index for group, _ in found for cycle in group] == list(range(7))
    assert [rows.shape for _, rows in found] == [(3, 12000), (3, 12000), (1, 12000)]


def test_real_cycles_fill_their_windows(data_root: Path) -> None:
    corpus = load_corpus("sprsound", data_root / "sprsound", split="val")
    windows = list(cycle_pcm(corpus.cycles[:40], SPEC))
    assert len(windows) == 40
    assert all(np.isfinite(window).all() and window.std() > 0 for _, window in windows)
