"""A stethoscope on a serial line: every sample at its place, every loss counted by the device's own clock."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_sdk.errors import SourceError, SourceLostError
from edge_sdk.events import CycleResult, Gap, Health
from edge_sdk.protocols import Reopenable
from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from edge_sdk.runtime.session import Session
from edge_sdk.sources import open_source
from edge_sdk.sources.phantom import PhantomSource
from edge_sdk.sources.serial import SerialSource
from firmware_bridge.constants import Codec
from firmware_bridge.emulator.faults import Faults, Stall, Unplug
from tests.runtime.test_session import Listener
from tests.support.link import emulated, on_grid
from tests.support.tiny_bundle import write_tiny_bundle

RATE = 4000
PATIENT_S = 60.0  # of queue, where sound plays faster than life: a pause of a busy machine must not count as loss


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"), allow_untrained=True)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    with PhantomSource("asthma", duration_s=16.0, sample_rate=RATE) as source:
        return on_grid(np.concatenate([block.samples for block in source]))


def without_hiccups(states: list[str]) -> list[str]:
    """Without the short stalls that a busy machine adds."""
    kept: list[str] = []
    for state in states:
        if state != "stalled" and kept[-1:] != [state]:
            kept.append(state)
    return kept[1:] if kept[:1] == ["healthy"] else kept


class Heard(Listener):
    def __init__(self) -> None:
        super().__init__()
        self.states: list[str] = []

    def health(self, change: Health) -> None:
        self.states.append(change.state)

    def check_against(self, sound: np.ndarray) -> None:
        """Every sample is the one that its index says."""
        for block in self.blocks:
            assert np.array_equal(block.samples, sound[block.first_sample : block.first_sample + block.samples.size])


@pytest.mark.parametrize(("codec", "bits"), [(Codec.S16, 16), (Codec.S24, 24)])
def test_all_of_it_arrives_exactly_and_end_is_the_end(tmp_path: Path, codec: Codec, bits: int) -> None:
    with PhantomSource("healthy", duration_s=4.0, sample_rate=RATE) as patient:
        played = on_grid(np.concatenate([block.samples for block in patient]), bits)
    with emulated(tmp_path / "link", played, RATE, codec=codec, speed=4, site_code=1):
        source = open_source(f"serial:{tmp_path / 'link'}")
        assert isinstance(source, Reopenable)
        assert isinstance(source, SerialSource)
        assert source.live and source.sample_rate == RATE
        assert source.metadata == {"site": "trachea", "device": "device-sim"}
        assert source.gain_db == 0.0
        blocks = list(source)
        source.close()
    assert np.array_equal(np.concatenate([b.samples for b in blocks]), played)
    assert sum(b.lost_before for b in blocks) == 0
    assert all(b.host_ns > 0 for b in blocks)


def test_damage_on_the_line_is_lost_frames_counted_to_the_sample(
    tmp_path: Path, bundle: Bundle, sound: np.ndarray
) -> None:
    faults = Faults(flip=1e-4, drop_every=10_000)
    sink = Heard()
    with emulated(tmp_path / "link", sound, RATE, faults, speed=8) as device, SerialSource(str(tmp_path / "link")) as s:
        stats = Session(s, bundle, [sink], queue_s=PATIENT_S).run()
    report = device.report
    assert report.drops > 0 and report.flips > 0
    assert stats.samples_lost > 0
    assert stats.samples_in + stats.samples_lost == sound.size
    assert stats.samples_lost == sum(e.count for e in sink.events if isinstance(e, Gap))
    assert stats.gaps <= report.drops + report.flips, "at most a frame is lost by a hit"
    sink.check_against(sound)


@pytest.mark.parametrize("away_s", [0.5, 1.5])
def test_a_cable_pulled_and_put_back_costs_what_the_device_counted(
    tmp_path: Path, bundle: Bundle, sound: np.ndarray, away_s: float
) -> None:
    sink = Heard()
    faults = Faults(unplugs=(Unplug(1.0, away_s),))
    with emulated(tmp_path / "link", sound, RATE, faults, speed=4), SerialSource(str(tmp_path / "link")) as source:
        stats = Session(source, bundle, [sink], queue_s=PATIENT_S).run()
    assert without_hiccups(sink.states) == ["recovering", "healthy"]
    assert stats.samples_in + stats.samples_lost == sound.size, "to the sample"
    gaps = [e for e in sink.events if isinstance(e, Gap)]
    assert len(gaps) == 1 and gaps[0].count >= away_s * RATE * 4 - 400
    sink.check_against(sound)
    assert any(isinstance(e, CycleResult) and e.quality == "gap" for e in sink.events)


def test_a_device_that_restarts_is_lost_for_as_long_as_the_clock_says(
    tmp_path: Path, bundle: Bundle, sound: np.ndarray
) -> None:
    sink = Heard()
    faults = Faults(unplugs=(Unplug(1.0, 0.8, reboot=True),))
    with emulated(tmp_path / "link", sound[: 6 * RATE], RATE, faults), SerialSource(str(tmp_path / "link")) as source:
        stats = Session(source, bundle, [sink], queue_s=PATIENT_S).run()
    assert without_hiccups(sink.states) == ["recovering", "healthy"]
    assert 0.7 * RATE < stats.samples_lost < 3 * RATE
    assert [b.first_sample for b in sink.blocks] == sorted(b.first_sample for b in sink.blocks)


def test_a_device_that_falls_silent_is_stalled_not_lost(tmp_path: Path, bundle: Bundle, sound: np.ndarray) -> None:
    sink = Heard()
    faults = Faults(stalls=(Stall(1.5, 1.2),))  # the burst after it fits into the session's queue, 2 s
    with (
        emulated(tmp_path / "link", sound[: 4 * RATE], RATE, faults, buffer_s=9) as device,
        SerialSource(str(tmp_path / "link")) as source,
    ):
        session = Session(source, bundle, [sink])
        stats = session.run()
    assert "stalled" in sink.states and set(without_hiccups(sink.states)) <= {"healthy"}
    assert stats.samples_in + stats.samples_lost == 4 * RATE
    lost_on_the_way = stats.samples_lost - session.overload.dropped  # a busy machine may drop, and counts what
    assert (lost_on_the_way > 0) == (device.report.dropped_blocks > 0)
    sink.check_against(sound)


def test_without_a_session_the_loss_is_an_error_in_the_users_thread(tmp_path: Path, sound: np.ndarray) -> None:
    faults = Faults(unplugs=(Unplug(0.5, 60.0),))
    with emulated(tmp_path / "link", sound, RATE, faults), SerialSource(str(tmp_path / "link")) as source:
        with pytest.raises(SourceLostError, match="check its cable"):
            list(source)
        with pytest.raises(SourceError, match="no such port"):
            source.reopen()
        assert source.metadata["device"] == "device-sim", "known still"


def test_closing_stops_the_device(tmp_path: Path, sound: np.ndarray) -> None:
    with emulated(tmp_path / "link", sound, RATE) as device:
        source = SerialSource(str(tmp_path / "link"))
        for block in source:
            if block.first_sample > RATE // 4:
                source.close()
    assert device.report.samples < 4 * RATE


@pytest.mark.parametrize("content", [None, "a text\n"])
def test_what_is_no_device_is_told_in_one_line(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "port"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SourceError) as caught:
        open_source(f"serial:{path}")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_hears_the_same_breaths_as_from_a_file(tmp_path: Path, sound: np.ndarray) -> None:
    soundfile.write(tmp_path / "same.wav", sound, RATE, subtype="PCM_16")
    stetho = [sys.executable, "-m", "edge_sdk.cli.main"]
    with emulated(tmp_path / "link", sound, RATE, Faults(unplugs=(Unplug(7.6, 0.1),)), speed=2, site_code=2):
        line = [*stetho, "listen", f"serial:{tmp_path / 'link'}", "--json", "--record", str(tmp_path / "kept")]
        live = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert live.returncode == 0, live.stderr
    told = live.stderr.splitlines()
    assert sum("waiting for it" in line for line in told) == 1 and any(line.endswith("is back") for line in told)
    records = [json.loads(text) for text in live.stdout.splitlines()]
    (gap,) = [r for r in records if r["type"] == "gap"]
    assert records[-1]["lost_samples"] == gap["lost_samples"] and records[-1]["duration_s"] == sound.size / RATE
    screened = subprocess.run(
        [*stetho, "screen", str(tmp_path / "same.wav"), "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    own = [json.loads(text) for text in screened.stdout.splitlines()]

    def breaths(found: list[dict[str, object]]) -> list[tuple[object, ...]]:
        return [
            (r["start_s"], r["end_s"], r["label"], r["probabilities"])
            for r in found
            if r["type"] == "cycle" and r["label"] is not None and r["end_s"] < gap["start_s"]  # type: ignore[operator]
        ]

    assert breaths(records) == breaths(own)[: len(breaths(records))] != []
    (session,) = (tmp_path / "kept").glob("*.session.json")
    assert json.loads(session.read_text("utf-8"))["metadata"]["site"] == "left anterior"
    (flac,) = (tmp_path / "kept").glob("*.flac")
    kept, _ = soundfile.read(flac, dtype="float32")
    begin, end = round(gap["start_s"] * RATE), round(gap["start_s"] * RATE) + gap["lost_samples"]
    expected = sound.copy()
    expected[begin:end] = 0
    assert np.array_equal(kept, expected)
