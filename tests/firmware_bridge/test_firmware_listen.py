"""The whole chain: firmware on an emulated Cortex-M3 → terminal → ``stetho listen`` → the labels that a file gives."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge_sdk.sources.phantom import PhantomSource
from tests.support.stethoscope import TABLE_RATE, Qemu, build_firmware, run

STETHO = Path(sys.executable).with_name("stetho")
TABLE_S = 12.0


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """The firmware with a simulated patient inside, and what it plays."""
    folder = tmp_path_factory.mktemp("patient")
    patient = PhantomSource("asthma", seed=1_000_007, duration_s=TABLE_S, sample_rate=TABLE_RATE)
    soundfile.write(
        folder / "patient.wav", np.concatenate([block.samples for block in patient]), TABLE_RATE, subtype="PCM_16"
    )
    return build_firmware(folder / "build", folder / "patient.wav")


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def cycles(records: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The parts of the cycles that do not depend on the time of day."""
    return [
        (event["start_s"], event["end_s"], event["label"], event["quality"], event["probabilities"])
        for event in records
        if event["type"] == "cycle"
    ]


def assert_same_as_a_file(firmware: tuple[Path, np.ndarray], tmp_path: Path, seconds: float) -> None:
    with Qemu(firmware[0], tmp_path / "stethoscope") as board:
        arguments = ("listen", f"serial:{board.link}", "--json", "--duration", f"{seconds:g}")
        live = events(run(STETHO, *arguments, timeout_s=20 * seconds + 60))
    looped = np.resize(firmware[1], round(seconds * TABLE_RATE))
    soundfile.write(tmp_path / "same.wav", looped, TABLE_RATE, subtype="PCM_16")
    filed = events(run(STETHO, "screen", tmp_path / "same.wav", "--json"))
    assert live[-1]["type"] == "summary"
    assert (live[-1]["lost_samples"], live[-1]["gaps"], live[-1]["duration_s"]) == (0, 0, seconds)
    assert cycles(live) == cycles(filed)
    assert len(cycles(live)) >= seconds / 4


def test_the_labels_are_those_of_the_same_audio_from_a_file(firmware: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    assert_same_as_a_file(firmware, tmp_path, 8.0)


@pytest.mark.long
def test_the_labels_are_those_of_the_same_audio_from_a_file_for_half_a_minute(
    firmware: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    assert_same_as_a_file(firmware, tmp_path, 30.0)


def test_a_device_that_is_killed_and_started_again_is_received_again(
    firmware: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    with (
        Qemu(firmware[0], tmp_path / "stethoscope") as board,
        subprocess.Popen(
            [str(STETHO), "listen", f"serial:{board.link}", "--json", "--duration", "10"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as command,
    ):
        assert command.stdout is not None
        records = [json.loads(command.stdout.readline())]
        while records[-1]["type"] != "cycle":
            records.append(json.loads(command.stdout.readline()))
        board.kill()
        time.sleep(0.5)
        board.start()
        out, err = command.communicate(timeout=120)
    assert command.returncode == 0, err
    records += events(out)
    gaps = [event for event in records if event["type"] == "gap"]
    assert gaps
    assert records[-1]["type"] == "summary" and records[-1]["lost_samples"] > 0.4 * TABLE_RATE
    after = [event for event in records[records.index(gaps[-1]) :] if event["type"] == "cycle" and event["label"]]
    assert after  # cycles are labelled again after the gap
