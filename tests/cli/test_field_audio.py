"""Audio from the field, through ``screen`` and ``listen``: the answers of ../shared/data/cases and their neighbours."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import edge_sdk
from tests.cli.conftest import Stetho
from tests.support.audio.odd import pcm16, wav

TYPES = ("cycle", "adventitious", "gap", "quality")


@pytest.fixture(scope="module")
def cases(data_root: Path) -> Path:
    return data_root / "cases"


def events(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was found, without the names of sources and the time it took."""
    return [{**r, "source": "", "latency_ms": None} for r in records if r["type"] in TYPES]


def test_an_unfinished_header_gives_the_breaths_of_the_reference_and_a_note(stetho: Stetho, cases: Path) -> None:
    expected = stetho("screen", cases / "reference_10s.wav", "--json")
    assert expected.records[-1]["notes"] == [] and expected.err == ""
    for name in ("wav_data_size_zero.wav", "wav_header_says_2s_holds_10s.wav"):
        found = stetho("screen", cases / name, "--json")
        assert found.status == 0 and events(found.records) == events(expected.records)
        (note,) = found.records[-1]["notes"]
        assert "10.00 s" in note
        assert found.err == f"stetho: {cases / name}: {note}\n"
    assert edge_sdk.screen(cases / name).notes == (note,)


def test_an_mp3_gives_the_breaths_of_its_decoding_in_one_piece(stetho: Stetho, cases: Path, tmp_path: Path) -> None:
    samples, rate = soundfile.read(cases / "vbr_44k_mono.mp3", dtype="float32")
    soundfile.write(tmp_path / "whole.wav", samples, rate, subtype="FLOAT")
    for name in ("a.mp3", "b.wav"):
        (tmp_path / name).write_bytes((cases / "vbr_44k_mono.mp3").read_bytes())
        found = stetho("screen", tmp_path / name, "--json")
        assert (found.status, found.err) == (0, "")
        assert events(found.records) == events(stetho("screen", tmp_path / "whole.wav", "--json").records)


def test_a_rate_that_the_front_end_cannot_use_is_refused(stetho: Stetho, cases: Path, recording: Path) -> None:
    found = stetho("screen", cases / "rate_500hz.wav")
    assert found.status == 1 and "500 Hz is too low: nothing above 250 Hz" in found.error
    found = stetho("listen", cases / "rate_500hz.wav", "--speed", 50)
    assert found.status == 1 and "500 Hz is too low" in found.error
    spec = edge_sdk.load_bundle().front_end
    samples = np.zeros(4 * spec.least_rate_hz, np.float32)
    with pytest.raises(edge_sdk.AudioError, match="too low"):
        edge_sdk.screen((samples, spec.least_rate_hz - 1))
    (note,) = (n for n in edge_sdk.screen((samples, spec.least_rate_hz)).notes if "band-limited" in n)
    assert f"{spec.high_hz:g} Hz" in note
    assert not any("band-limited" in n for n in edge_sdk.screen((samples, round(spec.full_rate_hz))).notes)


def test_a_record_of_loud_floats_replays_to_the_same_events(stetho: Stetho, cases: Path, tmp_path: Path) -> None:
    for name in ("float_scaled_32768.wav", "overshoot.wav"):
        path = cases / name
        if name == "overshoot.wav":
            samples, rate = soundfile.read(cases / "reference_10s.wav", dtype="float32")
            path = tmp_path / name
            soundfile.write(path, np.rint(samples / np.abs(samples).max() * 2**14) / 2**13, rate, subtype="FLOAT")
        folder = tmp_path / f"kept {name}"
        live = stetho("listen", path, "--record", folder, "--speed", 100, "--json")
        assert live.status == 0 and "divided by" in live.records[-1]["notes"][0]
        (flac,) = folder.glob("*.flac")
        again = stetho("screen", flac, "--json")
        assert events(again.records) == events(live.records) and len(events(again.records)) > 3
        assert again.records[-1]["notes"] == []


@pytest.mark.parametrize("chosen", ["0", "1", "mix"])
def test_a_dead_channel_is_named_with_the_one_that_has_audio(stetho: Stetho, tmp_path: Path, chosen: str) -> None:
    sound = np.random.default_rng(0).normal(0, 0.05, 4000 * 5).astype(np.float32)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([np.full_like(sound, 0.01), sound], 1), 4000)
    notes = stetho("screen", path, "--channel", chosen, "--json").records[-1]["notes"]
    if chosen == "1":
        assert notes == []
    else:
        assert "channel 0 is silent" in notes[0] and "--channel 1" in notes[0]


def test_a_silent_recording_is_noted(stetho: Stetho, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.flac", np.zeros(20_000, np.float32), 4000)
    assert "whole recording is silent" in stetho("screen", tmp_path / "silent.flac", "--json").records[-1]["notes"][0]


def test_samples_in_memory_have_the_same_notes() -> None:
    sound = np.random.default_rng(0).normal(0, 0.05, 4000 * 5).astype(np.float32)
    stereo = np.stack([np.zeros_like(sound), sound * np.float32(2**15)], 1)
    scaled, silent = edge_sdk.screen((stereo, 4000), channel=1).notes, edge_sdk.screen((stereo, 4000)).notes
    assert len(scaled) == 1 and "in units of 16 bits" in scaled[0]
    assert len(silent) == 1 and "--channel 1" in silent[0]


def test_a_second_recording_in_the_same_pipe_is_named(stetho: Stetho, recording: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    written(pipe, recording.read_bytes() * 2)
    record = stetho("screen", pipe, "--json").records[-1]
    assert record["duration_s"] == 12.0 and "another recording follows" in record["notes"][0]


def written(pipe: Path, content: bytes) -> threading.Thread:
    """Write into a FIFO beside its reader, which may stop early."""

    def write() -> None:
        with suppress(BrokenPipeError):
            pipe.write_bytes(content)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    return writer


def screen_stdin(content: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    line = [sys.executable, "-m", "edge_sdk.cli.main", *arguments]
    return subprocess.run(line, input=content, capture_output=True, timeout=60)


def test_standard_input_and_fifos_are_read(stetho: Stetho, recording: Path, tmp_path: Path) -> None:
    expected = events(stetho("screen", recording, "--json").records)
    samples, rate = soundfile.read(recording, dtype="float32")
    soundfile.write(tmp_path / "a.flac", samples, rate)
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    contents = {
        "finished": recording.read_bytes(),
        "streamed": wav(pcm16(samples), rate, data=0xFFFFFFFF, riff=0xFFFFFFFF),
        "flac": (tmp_path / "a.flac").read_bytes(),
    }
    for name, content in contents.items():
        writer = written(pipe, content)
        found = stetho("screen", pipe, "--json")
        writer.join(10)
        assert found.status == 0 and len(events(found.records)) == len(expected), name
        assert name == "streamed" or events(found.records) == expected, name
    done = screen_stdin(contents["finished"], "listen", "-", "--speed", "100", "--json")
    assert done.returncode == 0 and len(done.stdout.splitlines()) > len(expected)


def test_a_pipe_that_ends_early_is_noted(stetho: Stetho, recording: Path, tmp_path: Path) -> None:
    samples, rate = soundfile.read(recording, dtype="float32")
    soundfile.write(tmp_path / "a.flac", samples, rate)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for content in (recording.read_bytes(), (tmp_path / "a.flac").read_bytes()):
        writer = written(pipe, content[: len(content) * 6 // 10])
        (note,) = stetho("screen", pipe, "--json").records[-1]["notes"]
        writer.join(10)
        assert "its header says 12.00 s, but it ended" in note


def test_a_fifo_without_a_writer_and_an_empty_standard_input_are_refused(
    stetho: Stetho, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_sdk.signal.audio_file import byte_streams

    monkeypatch.setattr(byte_streams, "FIRST_BYTES_S", 0.2)
    os.mkfifo(tmp_path / "pipe.wav")
    began = time.monotonic()
    assert "delivers nothing" in stetho("screen", tmp_path / "pipe.wav").error
    assert time.monotonic() - began < 10
    done = screen_stdin(b"", "screen", "-")
    assert done.returncode == 1 and b"standard input is empty" in done.stderr


@pytest.mark.long
def test_memory_stays_below_200_mb_over_a_sparse_file_of_5_gib(tmp_path: Path) -> None:
    """A part of it is beyond what 32 bits count; read as fast as possible, not classified."""
    path, size = tmp_path / "long.wav", 5 << 30
    path.write_bytes(wav(b"", 384_000, channels=16, bits=32, data=0))
    with path.open("r+b") as file:
        file.truncate(44 + size)
    code = (
        "import resource, sys\nfrom edge_sdk.sources.file import FileSource\n"
        "count = sum(b.samples.size for b in FileSource(sys.argv[1], block_s=0.5))\n"
        "print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    count, kib = map(int, out.split())
    assert count == size // 64 and kib < 200 * 1024
