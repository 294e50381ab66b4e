"""``--record``: the captured audio is on the disk, readable, up to the last second before a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_sdk.events import StreamStats
from edge_sdk.sinks.flac import GrowingFlac
from edge_sdk.sinks.recorder import RecorderSink
from edge_sdk.sinks.summary import Labels
from edge_sdk.sources.phantom import PhantomSource

RATE = 4000
SCENARIO, SEED = "pneumonia", 1_000_008


def readable(folder: Path) -> int:
    """Number of samples that a reader of flac finds now."""
    for path in folder.glob("*.flac"):
        try:
            return len(soundfile.read(path, dtype="float32")[0])
        except (soundfile.LibsndfileError, ValueError):  # no frame yet, the header gives no length
            return 0
    return 0


@pytest.mark.requirement("REC-1")
def test_after_sigkill_audio_and_events_are_on_the_disk_up_to_the_last_second(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    printed = tmp_path / "printed.jsonl"
    line = ["listen", f"phantom:{SCENARIO}:{SEED}", "--record", str(folder), "--json"]
    with printed.open("wb") as out:
        running = subprocess.Popen([sys.executable, "-m", "edge_sdk.cli.main", *line], stdout=out)
        try:
            deadline = time.monotonic() + 40
            while readable(folder) < 5 * RATE or b'"cycle"' not in printed.read_bytes():
                assert running.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            time.sleep(1.5)
        finally:
            running.send_signal(signal.SIGKILL)
            running.wait(10)
    samples = readable(folder)
    with PhantomSource(SCENARIO, seed=SEED, duration_s=30.0, sample_rate=RATE) as patient:
        played = np.concatenate([block.samples for block in patient])
    (flac,) = folder.glob("*.flac")
    kept, rate = soundfile.read(flac, dtype="float32")
    assert rate == RATE and np.array_equal(kept, played[:samples])
    (events,) = folder.glob("*.events.jsonl")
    written, shown = events.read_text("utf-8").splitlines(), printed.read_text("utf-8").splitlines()
    assert [json.loads(text) for text in written] and written[: len(shown)] == shown[: len(written)]
    assert len(shown) - len(written) <= 1 and any(json.loads(text)["type"] == "cycle" for text in written)
    ends_s = [record["end_s"] for record in map(json.loads, shown) if record["type"] == "cycle"]
    assert samples >= (ends_s[-1] - 1.0) * RATE
    (session,) = folder.glob("*.session.json")
    assert json.loads(session.read_text("utf-8"))["complete"] is False


@pytest.mark.parametrize("block_s", [0.02, 0.5])
def test_at_every_moment_less_than_the_last_second_is_not_on_the_disk(tmp_path: Path, block_s: float) -> None:
    with PhantomSource(SCENARIO, seed=SEED, duration_s=6.0, sample_rate=RATE, block_s=block_s) as patient:
        recorder = RecorderSink(tmp_path, Labels(("normal", "crackle"), "normal"))
        recorder.open("patient", RATE)
        for block in patient:
            recorder.audio(block)
            assert readable(tmp_path) > block.first_sample + block.samples.size - RATE
    recorder.close(StreamStats())
    assert readable(tmp_path) == 6 * RATE


@pytest.mark.requirement("REC-2")
def test_a_killed_recording_replays_to_the_same_cycles(tmp_path: Path) -> None:
    with PhantomSource(SCENARIO, seed=SEED, duration_s=12.0, sample_rate=RATE) as patient:
        played = np.concatenate([block.samples for block in patient])
    flac = GrowingFlac(tmp_path / "open.flac", RATE)
    for begin in range(0, played.size, 200):
        flac.write(played[begin : begin + 200])
    length = flac.commit()
    assert played.size - length <= 1152
    copy = tmp_path / "copy.flac"
    copy.write_bytes((tmp_path / "open.flac").read_bytes())  # as a kill would leave it
    flac.close()
    soundfile.write(tmp_path / "same.wav", played[:length], RATE, subtype="FLOAT")
    outputs = []
    for name in ("copy.flac", "same.wav"):
        line = [sys.executable, "-m", "edge_sdk.cli.main", "screen", str(tmp_path / name), "--json"]
        out = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60).stdout
        outputs.append([{**json.loads(text), "source": "", "latency_ms": None} for text in out.splitlines()])
    assert outputs[0] == outputs[1] and len(outputs[0]) > 3


@pytest.mark.parametrize("rate", [4000, 16_000, 44_100, 48_000])
def test_a_growing_flac_can_be_read_at_every_moment_and_is_exact(tmp_path: Path, rate: int) -> None:
    rng = np.random.default_rng(rate)
    steps = rng.integers(-(1 << 23), 1 << 23, 2 * rate)
    samples = (steps / (1 << 23)).astype(np.float32)
    path = tmp_path / "a.flac"
    flac = GrowingFlac(path, rate)
    for begin in range(0, samples.size, rate // 10):
        flac.write(samples[begin : begin + rate // 10])
        length = flac.commit(to_disk=begin % rate == 0)
        assert flac.samples - length <= 1153
        if length:
            kept, _ = soundfile.read(path, dtype="float32")
            assert np.array_equal(kept, samples[:length])
    flac.close()
    flac.close()
    kept, _ = soundfile.read(path, dtype="float32")
    assert np.array_equal(kept, samples) and flac.samples == samples.size
    assert soundfile.info(path).subtype == "PCM_24"


def test_a_growing_flac_refuses_to_overwrite(tmp_path: Path) -> None:
    GrowingFlac(tmp_path / "a.flac", RATE).close()
    with pytest.raises(OSError, match=r"."):
        GrowingFlac(tmp_path / "a.flac", RATE)
    with pytest.raises(OSError, match=r"."):
        GrowingFlac(tmp_path / "nowhere" / "a.flac", RATE)
