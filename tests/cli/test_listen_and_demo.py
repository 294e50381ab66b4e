"""``listen`` and ``demo``: the same breaths as on file, the truth beside them, a summary whatever ends it."""

from __future__ import annotations

import inspect
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.cli.runtime.demo import demo_command
from edge_sdk.sources.phantom import DEFAULT_SEED, PhantomSource
from tests.cli.conftest import Stetho
from tests.cli.screen.test_screen import check_lines

FAST = ["--speed", "50"]
COMMAND = [sys.executable, "-m", "edge_sdk.cli.main"]


def cycles(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**r, "source": "", "latency_ms": None} for r in records if r["type"] == "cycle"]


def test_demo_shows_every_truth_and_a_summary_that_agrees(stetho: Stetho) -> None:
    outcome = stetho("demo", "--json", *FAST)
    assert (outcome.status, outcome.err) == (0, "")
    records = outcome.records
    summary = check_lines(records, f"phantom:asthma:{DEFAULT_SEED}")
    with PhantomSource("asthma", duration_s=summary["duration_s"]) as twin:
        assert sum(len(block.samples) for block in twin) == summary["duration_s"] * twin.sample_rate
    truth = summary["truth"]
    assert truth["cycles"] == len(twin.truth) == sum(truth["counts"].values())
    labelled = [r for r in records if r["type"] == "cycle" and r["truth"] is not None and r["label"] is not None]
    assert truth["answered"] == len(labelled) >= truth["cycles"] - 1
    assert truth["same_label"] == sum(r["truth"] == r["label"] for r in labelled)
    for record in labelled:
        overlapping = {c.label for c in twin.truth if c.start_s < record["end_s"] and c.end_s > record["start_s"]}
        assert record["truth"] in overlapping
        assert record["latency_ms"] >= 0


def test_demo_by_itself_ends_within_20_seconds_of_audio_never_trained_on(stetho: Stetho) -> None:
    assert inspect.signature(demo_command).parameters["duration"].default <= 20
    lines = stetho("demo", *FAST).out.splitlines()  # stdout is no terminal: plain lines
    assert f"phantom:asthma:{DEFAULT_SEED}" in lines[0] and "research use" in lines[0]
    assert all("truth: " in line for line in lines if "probabilities" in line)
    assert lines[-1].startswith("truth: ")


@pytest.mark.parametrize("scenario", ["healthy", "pneumonia", "copd", "noisy-ward", "apnoea"])
def test_every_scenario_plays(stetho: Stetho, scenario: str) -> None:
    outcome = stetho("demo", "--scenario", scenario, "--seed", 1_000_003, "--json", "--speed", 100)
    assert outcome.status == 0
    assert check_lines(outcome.records, f"phantom:{scenario}:1000003")["cycles"] >= 2


@pytest.mark.requirement("OUT-1")
def test_listening_to_a_recording_gives_what_screening_gives(stetho: Stetho, recording: Path) -> None:
    listened = stetho("listen", recording, "--json", *FAST)
    assert (listened.status, listened.err) == (0, "")
    check_lines(listened.records, str(recording))
    screened = stetho("screen", recording, "--json")
    assert cycles(listened.records) == cycles(screened.records)


def test_what_was_recorded_replays_to_the_same_breaths(stetho: Stetho, tmp_path: Path) -> None:
    first = stetho("listen", "phantom:copd:1000005", "--duration", 10, "--record", tmp_path, "--json", *FAST)
    assert first.status == 0
    assert first.records[-1]["duration_s"] == 10.0
    (flac,) = tmp_path.glob("*.flac")
    again = stetho("screen", flac, "--json")
    assert cycles(again.records) == cycles(first.records) != []
    (events,) = tmp_path.glob("*.jsonl")
    assert len(events.read_text("utf-8").splitlines()) == len(first.records)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_gives_the_summary_and_status_0(tmp_path: Path, stop: signal.Signals) -> None:
    line = [*COMMAND, "listen", "phantom:healthy", "--json", "--record", str(tmp_path), "--speed", "10"]
    running = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    while '"cycle"' not in (first := running.stdout.readline()):
        assert first, "ended before the first breath"
    running.send_signal(stop)
    out, err = running.communicate(timeout=20)
    assert (running.returncode, err) == (0, "")
    assert out.splitlines()[-1].startswith('{"type": "summary"')
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".flac", ".json", ".jsonl"]


def test_a_terminal_gets_the_live_view_and_is_left_as_it_was() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    running = subprocess.Popen([*COMMAND, "demo", "--speed", "10"], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            received = os.read(ours, 65_536)
        except OSError:  # the other end is closed
            break
        if not received:
            break
        shown += received
    os.close(ours)
    assert running.wait(timeout=10) == 0
    text = shown.decode("utf-8", "replace")
    assert "▀" in text and "quality" in text and "truth" in text and "not a medical device" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # cursor hidden, shown again
