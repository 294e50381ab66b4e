"""``--record``: what was heard is on the disk, readable, up to the last second before a kill."""

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

from edge_sdk.sinks.flac import GrowingFlac
from edge_sdk.sources.phantom import PhantomSource

RATE = 4000
SCENARIO, SEED = "pneumonia", 1_000_008


def readable(folder: Path) -> int:
    """Samples that any reader of flac finds now."""
    for path in folder.glob("*.flac"):
        try:
            return len(soundfile.read(path, dtype="float32")[0])
        except soundfile.LibsndfileError:  # not one frame yet
            return 0
    return 0


def test_after_sigkill_sound_and_events_are_there_up_to_the_last_second(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    printed = tmp_path / "printed.jsonl"
    line = ["listen", f"phantom:{SCENARIO}:{SEED}", "--record", str(folder), "--json"]
    with printed.open("wb") as out:
        running = subprocess.Popen([sys.executable, "-m", "edge_sdk.cli.main", *line], stdout=out)
        try:
            deadline = time.monotonic() + 40
            while (known := readable(folder)) < 5 * RATE:
                assert running.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            seen = time.monotonic()
            time.sleep(1.5)
            killed = time.monotonic()
        finally:
            running.send_signal(signal.SIGKILL)
            running.wait(10)
    samples = readable(folder)
    lost_s = (killed - seen) - (samples - known) / RATE  # counted from what was readable, so the kill lost no more
    assert lost_s <= 1.0
    with PhantomSource(SCENARIO, seed=SEED, duration_s=30.0, sample_rate=RATE) as patient:
        played = np.concatenate([block.samples for block in patient])
    (flac,) = folder.glob("*.flac")
    kept, rate = soundfile.read(flac, dtype="float32")
    assert rate == RATE and np.array_equal(kept, played[:samples])
    (events,) = folder.glob("*.events.jsonl")
    written, shown = events.read_text("utf-8").splitlines(), printed.read_text("utf-8").splitlines()
    assert [json.loads(text) for text in written] and written[: len(shown)] == shown[: len(written)]
    assert len(shown) - len(written) <= 1 and any(json.loads(text)["type"] == "cycle" for text in written)
    (session,) = folder.glob("*.session.json")
    assert json.loads(session.read_text("utf-8"))["complete"] is False


def test_what_a_killed_recording_left_replays_to_the_same_breaths(tmp_path: Path) -> None:
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
    answers = []
    for name in ("copy.flac", "same.wav"):
        line = [sys.executable, "-m", "edge_sdk.cli.main", "screen", str(tmp_path / name), "--json"]
        out = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60).stdout
        answers.append([{**json.loads(text), "source": "", "latency_ms": None} for text in out.splitlines()])
    assert answers[0] == answers[1] and len(answers[0]) > 3


@pytest.mark.parametrize("rate", [4000, 16_000, 44_100, 48_000])
def test_a_growing_flac_can_be_read_at_every_moment_and_is_exact(tmp_path: Path, rate: int) -> None:
    rng = np.random.default_rng(rate)
    steps = rng.integers(-(1 << 23), 1 << 23, 2 * rate)
    sound = (steps / (1 << 23)).astype(np.float32)
    path = tmp_path / "a.flac"
    flac = GrowingFlac(path, rate)
    for begin in range(0, sound.size, rate // 10):
        flac.write(sound[begin : begin + rate // 10])
        length = flac.commit(to_disk=begin % rate == 0)
        assert flac.samples - length <= 1153
        if length:
            kept, _ = soundfile.read(path, dtype="float32")
            assert np.array_equal(kept, sound[:length])
    flac.close()
    flac.close()
    kept, _ = soundfile.read(path, dtype="float32")
    assert np.array_equal(kept, sound) and flac.samples == sound.size
    assert soundfile.info(path).subtype == "PCM_24"


def test_a_growing_flac_refuses_to_overwrite(tmp_path: Path) -> None:
    GrowingFlac(tmp_path / "a.flac", RATE).close()
    with pytest.raises(OSError, match=r"."):
        GrowingFlac(tmp_path / "a.flac", RATE)
    with pytest.raises(OSError, match=r"."):
        GrowingFlac(tmp_path / "nowhere" / "a.flac", RATE)
