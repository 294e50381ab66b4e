"""``stetho device-sim`` behaves as a stethoscope on its link and leaves nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_sdk.sources.phantom import PhantomSource
from firmware_bridge.link import DeviceLink
from tests.support.stethoscope import wait_until

STETHO = Path(sys.executable).with_name("stetho")


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(STETHO), "device-sim", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_once_plays_a_recording_to_its_last_bit_sends_end_and_exits_with_0(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    values = rng.integers(-32768, 32768, 8000 * 2).astype(np.int16)
    soundfile.write(tmp_path / "noise.wav", values, 8000, subtype="PCM_16")
    link = tmp_path / "stethoscope"
    with start("--source", tmp_path / "noise.wav", "--link", link, "--once", "--speed", 4, "--json") as simulator:
        assert wait_until(link.exists, 30)
        with DeviceLink(str(link)) as device:
            assert device.format.rate_hz == 8000
            received = np.concatenate([block.samples for block in device.blocks()])
            assert device.ended
        out, err = simulator.communicate(timeout=20)
    assert simulator.returncode == 0, err
    assert np.array_equal(received * 32768, values)
    report = json.loads(out)
    assert report["type"] == "device-sim" and report["samples"] == values.size and report["ended"] is True
    assert not link.is_symlink()


def test_a_phantom_over_tcp_with_faults_and_24_bits(tmp_path: Path) -> None:
    arguments = ["--source", "phantom:asthma:1000007", "--duration", 4, "--link", "tcp:0", "--once", "--bits", 24]
    with start(*arguments, "--speed", 2, "--drop", 5000, "--flip", 1e-4, "--seed", 3, "--site", "trachea") as simulator:
        assert simulator.stdout is not None
        line = simulator.stdout.readline()
        port = line.split()[2]
        assert "phantom:asthma:1000007, 4000 Hz, s24" in line
        with DeviceLink(port) as device:
            assert (device.format.bits, device.format.site) == (24, "trachea")
            blocks = list(device.blocks())
        out, err = simulator.communicate(timeout=20)
    assert simulator.returncode == 0, err
    truth = np.concatenate([block.samples for block in PhantomSource("asthma", seed=1000007, duration_s=4.0)])
    assert sum(block.lost_before + block.samples.size for block in blocks) == truth.size
    assert sum(block.lost_before for block in blocks) > 0
    for block in blocks:
        wanted = truth[block.sample_index : block.sample_index + block.samples.size]
        assert np.abs(block.samples - wanted).max(initial=0) <= 2**-24
    assert "dropouts" in out and " 0 dropouts" not in out


def test_terminated_it_removes_its_link(tmp_path: Path) -> None:
    link = tmp_path / "stethoscope"
    with start("--link", link) as simulator:
        assert wait_until(link.exists, 30)
        simulator.send_signal(signal.SIGTERM)
        assert simulator.wait(timeout=20) == 0
    assert not link.is_symlink()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--link", "{tmp}/missing/link"], 1, "is no folder; make it, or choose another --link"),
        (["--link", "{tmp}/taken"], 1, "exists and is no link of an emulated device"),
        (["--link", "{tmp}/x", "--source", "mic"], 1, "plays recordings and phantoms, not mic"),
        (["--link", "{tmp}/x", "--source", "phantom:nobody"], 1, "nobody"),
        (["--link", "{tmp}/x", "--unplug", "soon"], 2, "not one number"),
        (["--link", "{tmp}/x", "--stall", "3"], 2, "not AT:FOR in seconds"),
        (["--link", "{tmp}/x", "--codec", "mp3"], 2, "codecs s16, s24 or adpcm"),
        (["--link", "{tmp}/x", "--site", "knee"], 2, "none of trachea"),
    ],
)
def test_what_cannot_be_is_one_line_with_the_fix(
    tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    (tmp_path / "taken").write_text("something of value", "utf-8")
    done = start(*(text.format(tmp=tmp_path) for text in arguments))
    _, err = done.communicate(timeout=30)
    assert done.returncode == status
    assert message in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert (tmp_path / "taken").read_text("utf-8") == "something of value"
