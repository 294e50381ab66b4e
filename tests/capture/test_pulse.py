"""Real microphones: PortAudio over a private PulseAudio, through ``stetho listen``, with inference running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from edge_sdk.sources.phantom import PhantomSource
from tests.support.link import on_grid
from tests.support.pulse import Pulse, noise, write_played

STETHO = [sys.executable, "-m", "edge_sdk.cli.main"]
Pcm = npt.NDArray[np.int16]


@pytest.fixture
def pulse() -> Iterator[Pulse]:
    with Pulse() as daemon:
        yield daemon


def start_listening(pulse: Pulse, folder: Path, device: str, rate: int, *options: str) -> subprocess.Popen[bytes]:
    """``stetho listen`` at work, recording into ``folder``."""
    line = [*STETHO, "listen", f"mic:{device}", "--device-rate", str(rate), "--json", "--record", str(folder), *options]
    running = pulse.start(*line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pulse.wait_for_capture()
    return running


def ended(running: subprocess.Popen[bytes]) -> tuple[list[dict[str, Any]], list[str]]:
    """After Ctrl-C: its JSON lines and its lines on stderr."""
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()], err.decode().splitlines()


def kept(folder: Path) -> Pcm:
    """What was recorded; a sample that is not of 16 bits fails here."""
    (flac,) = folder.glob("*.flac")
    steps = soundfile.read(flac, dtype="int32")[0]
    assert not np.any(steps & 0xFFFF)
    return np.asarray(steps >> 16, np.int16)


def offset(recorded: Pcm, played: Pcm) -> int:
    """Where the first sample of ``played`` would be, from a part of it that occurs once."""
    pattern = played[2000:2064].tobytes()
    at = recorded.tobytes().find(pattern)
    while at % 2:
        at = recorded.tobytes().find(pattern, at + 1)
    assert at >= 0, "nothing of what was played was recorded"
    return at // 2 - 2000


@pytest.mark.parametrize(("rate", "block_ms"), [(48_000, 5), (16_000, 20), (4000, 20)])
@pytest.mark.requirement("REC-1")
def test_every_sample_that_was_played_is_recorded_bit_by_bit_while_cycles_are_classified(
    pulse: Pulse, tmp_path: Path, rate: int, block_ms: int
) -> None:
    with PhantomSource("asthma", duration_s=6.0, sample_rate=rate) as patient:
        breathing = on_grid(np.concatenate([block.samples for block in patient]))
    played = np.asarray(np.rint(breathing * 32_768), np.int16)
    played[2000:2064] = noise(1, rate)[:64]  # a unique part to find it by
    pulse.cable("steth", rate)
    running = start_listening(pulse, tmp_path / "kept", "steth", rate, "--block-ms", str(block_ms))
    player = pulse.play("steth", write_played(tmp_path / "played.wav", played, rate))
    assert player.wait(30) == 0
    time.sleep(1.0)
    records, messages = ended(running)
    assert not any("waiting for it" in line for line in messages)
    recorded = kept(tmp_path / "kept")
    begin = offset(recorded, played)
    assert np.array_equal(recorded[begin : begin + played.size], played), "one offset, every bit"
    summary = records[-1]
    assert (summary["lost_samples"], summary["gaps"], summary["sample_rate"]) == (0, 0, rate)
    assert summary["duration_s"] == pytest.approx(recorded.size / rate, abs=1e-3)
    assert summary["classified"] >= 1, "inference ran"


@pytest.mark.requirement("AUD-3")
def test_a_microphone_that_vanishes_and_returns_is_waited_for(pulse: Pulse, tmp_path: Path) -> None:
    rate = 8000
    module, fifo = pulse.plug("steth", rate)
    running = start_listening(pulse, tmp_path / "kept", "steth", rate)
    before, after = noise(1.5, rate, seed=1), noise(1.5, rate, seed=2)
    feed(fifo, before, rate)
    pulse.unplug(module)
    away = time.monotonic()
    time.sleep(2.5)
    _, fifo = pulse.plug("steth", rate)
    pulse.wait_for_capture()
    away_s = time.monotonic() - away
    feed(fifo, after, rate)
    time.sleep(0.3)
    records, messages = ended(running)
    for part in ("has delivered no audio", "waiting for it", "is back"):
        assert any(part in line for line in messages), messages
    gaps = [record for record in records if record["type"] == "gap"]
    assert sum(gap["lost_samples"] for gap in gaps) == records[-1]["lost_samples"]
    longest = max(gaps, key=lambda gap: int(gap["lost_samples"]))
    assert longest["lost_samples"] / rate == pytest.approx(away_s, abs=1.5)
    recorded = kept(tmp_path / "kept")
    assert records[-1]["duration_s"] == pytest.approx(recorded.size / rate, abs=1e-3)
    assert offset(recorded, before) < offset(recorded, after)
    begin = round(longest["start_s"] * rate)
    assert not recorded[begin : begin + longest["lost_samples"]].any(), "the gap is silence"
    (events,) = (tmp_path / "kept").glob("*.events.jsonl")
    states = [json.loads(line).get("state") for line in events.read_text("utf-8").splitlines()]
    assert {"stalled", "recovering", "healthy"} == {state for state in states if state}


def test_an_audio_system_that_hangs_is_replaced_and_nothing_is_left_behind(pulse: Pulse, tmp_path: Path) -> None:
    rate = 8000
    pulse.cable("steth", rate)
    running = start_listening(pulse, tmp_path / "kept", "steth", rate)
    (first,) = children(running.pid)
    os.kill(first, signal.SIGSTOP)  # as PortAudio does when its thread spins
    deadline = time.monotonic() + 20
    while (now := children(running.pid)) in ([first], []):
        assert time.monotonic() < deadline, "the hanging process was not replaced"
        time.sleep(0.05)
    assert not alive(first)
    time.sleep(1.0)
    running.send_signal(signal.SIGKILL)
    running.wait(10)
    deadline = time.monotonic() + 10
    while any(alive(child) for child in now):
        assert time.monotonic() < deadline, "the capture outlived its parent"
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """Processes started by ``pid``."""
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def test_devices_lists_what_listen_takes(pulse: Pulse) -> None:
    pulse.cable("steth", 16_000)
    line = [*STETHO, "devices", "--json"]
    listed = subprocess.run(line, env=pulse.environment, capture_output=True, text=True, check=True, timeout=60)
    names = [record["name"] for record in map(json.loads, listed.stdout.splitlines()) if record["type"] == "microphone"]
    assert "steth" in names
    missing = subprocess.run(
        [*STETHO, "listen", "mic:theremin"],
        env=pulse.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert missing.returncode == 1 and missing.stderr.count("\n") == 1
    assert "no microphone matches 'theremin'; there is: " in missing.stderr and "steth" in missing.stderr


def feed(fifo: Path, samples: Pcm, rate: int) -> None:
    """Write into a plugged microphone at its own pace."""
    step = rate // 50
    out = os.open(fifo, os.O_WRONLY)
    try:
        begin = time.monotonic()
        for first in range(0, samples.size, step):
            os.write(out, samples[first : first + step].astype("<i2").tobytes())
            threading.Event().wait(max(0.0, begin + (first + step) / rate - time.monotonic()))
    finally:
        os.close(out)
