"""A stethoscope on a serial line: every sample at its index, every gap counted by the device's own clock."""

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
from tests.runtime.test_session import ListSink
from tests.support.link import emulated, on_grid
from tests.support.stethoscope import wait_until
from tests.support.tiny_bundle import write_tiny_bundle

RATE = 4000
QUEUE_S = 60.0  # of queue, where audio plays faster than real time: a pause of a busy machine must not drop samples


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"), allow_untrained=True)


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    with PhantomSource("asthma", duration_s=16.0, sample_rate=RATE) as source:
        return on_grid(np.concatenate([block.samples for block in source]))


def without_hiccups(states: list[str]) -> list[str]:
    """Without the short stalls that a busy machine adds."""
    kept: list[str] = []
    for state in states:
        if state != "stalled" and kept[-1:] != [state]:
            kept.append(state)
    return kept[1:] if kept[:1] == ["healthy"] else kept


class StateLog(ListSink):
    def __init__(self) -> None:
        super().__init__()
        self.states: list[str] = []

    def health(self, change: Health) -> None:
        self.states.append(change.state)

    def check_against(self, samples: np.ndarray) -> None:
        """Every sample is the one at its index."""
        for block in self.blocks:
            assert np.array_equal(block.samples, samples[block.first_sample : block.first_sample + block.samples.size])


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


@pytest.mark.requirement("AUD-4")
def test_damage_on_the_line_drops_frames_which_are_counted_to_the_sample(
    tmp_path: Path, bundle: Bundle, samples: np.ndarray
) -> None:
    faults = Faults(flip=1e-4, drop_every=10_000)
    sink = StateLog()
    with (
        emulated(tmp_path / "link", samples, RATE, faults, speed=8) as device,
        SerialSource(str(tmp_path / "link")) as s,
    ):
        stats = Session(s, bundle, [sink], queue_s=QUEUE_S).run()
    report = device.report
    assert report.drops > 0 and report.flips > 0
    assert stats.samples_lost > 0
    assert stats.samples_in + stats.samples_lost == samples.size
    assert stats.samples_lost == sum(e.count for e in sink.events if isinstance(e, Gap))
    assert stats.gaps <= report.drops + report.flips, "a hit drops at most one frame"
    sink.check_against(samples)


@pytest.mark.parametrize("away_s", [0.5, 1.5])
def test_a_cable_pulled_and_put_back_costs_what_the_device_counted(
    tmp_path: Path, bundle: Bundle, samples: np.ndarray, away_s: float
) -> None:
    sink = StateLog()
    faults = Faults(unplugs=(Unplug(1.0, away_s),))
    with emulated(tmp_path / "link", samples, RATE, faults, speed=4), SerialSource(str(tmp_path / "link")) as source:
        stats = Session(source, bundle, [sink], queue_s=QUEUE_S).run()
    assert without_hiccups(sink.states) == ["recovering", "healthy"]
    assert stats.samples_in + stats.samples_lost == samples.size, "to the sample"
    gaps = [e for e in sink.events if isinstance(e, Gap)]
    assert len(gaps) == 1 and gaps[0].count >= away_s * RATE * 4 - 400
    sink.check_against(samples)
    assert any(isinstance(e, CycleResult) and e.quality == "gap" for e in sink.events)


def test_a_device_that_restarts_is_lost_for_the_time_that_the_clock_measures(
    tmp_path: Path, bundle: Bundle, samples: np.ndarray
) -> None:
    sink = StateLog()
    faults = Faults(unplugs=(Unplug(1.0, 0.8, reboot=True),))
    with emulated(tmp_path / "link", samples[: 6 * RATE], RATE, faults), SerialSource(str(tmp_path / "link")) as source:
        stats = Session(source, bundle, [sink], queue_s=QUEUE_S).run()
    assert without_hiccups(sink.states) == ["recovering", "healthy"]
    at = next(i for i, block in enumerate(sink.blocks) if block.lost_before)
    before, after = sink.blocks[at - 1], sink.blocks[at]
    away_s = (after.host_ns - before.host_ns) * 1e-9
    assert away_s > 0.7
    assert after.lost_before == pytest.approx(away_s * RATE - after.samples.size, abs=1)
    assert stats.samples_lost == sum(block.lost_before for block in sink.blocks)
    assert [b.first_sample for b in sink.blocks] == sorted(b.first_sample for b in sink.blocks)


def test_a_device_that_falls_silent_is_stalled_not_lost(tmp_path: Path, bundle: Bundle, samples: np.ndarray) -> None:
    sink = StateLog()
    faults = Faults(stalls=(Stall(1.5, 1.2),))  # the burst after it fits into the session's queue, 2 s
    with (
        emulated(tmp_path / "link", samples[: 4 * RATE], RATE, faults, buffer_s=9) as device,
        SerialSource(str(tmp_path / "link")) as source,
    ):
        session = Session(source, bundle, [sink])
        stats = session.run()
    assert "stalled" in sink.states and set(without_hiccups(sink.states)) <= {"healthy"}
    assert stats.samples_in + stats.samples_lost == 4 * RATE
    dropped_on_the_way = stats.samples_lost - session.overload.dropped  # a busy machine may drop, and counts what
    assert (dropped_on_the_way > 0) == (device.report.dropped_blocks > 0)
    sink.check_against(samples)


def test_without_a_session_a_lost_device_is_an_error_in_the_users_thread(tmp_path: Path, samples: np.ndarray) -> None:
    faults = Faults(unplugs=(Unplug(0.5, 60.0),))
    with emulated(tmp_path / "link", samples, RATE, faults), SerialSource(str(tmp_path / "link")) as source:
        with pytest.raises(SourceLostError, match="check its cable"):
            list(source)
        with pytest.raises(SourceError, match="no such port"):
            source.reopen()
        assert source.metadata["device"] == "device-sim", "still available"


def test_closing_stops_the_device(tmp_path: Path, samples: np.ndarray) -> None:
    with emulated(tmp_path / "link", samples, RATE) as device:
        source = SerialSource(str(tmp_path / "link"))
        for block in source:
            if block.first_sample > RATE // 4:
                source.close()
        assert wait_until(lambda: device.report.ended)
    assert device.report.samples < samples.size


@pytest.mark.parametrize("content", [None, "a text\n"])
def test_what_is_no_device_is_one_error_line(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "port"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SourceError) as caught:
        open_source(f"serial:{path}")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_finds_the_same_cycles_as_in_a_file(tmp_path: Path, samples: np.ndarray) -> None:
    soundfile.write(tmp_path / "same.wav", samples, RATE, subtype="PCM_16")
    stetho = [sys.executable, "-m", "edge_sdk.cli.main"]
    with emulated(tmp_path / "link", samples, RATE, Faults(unplugs=(Unplug(7.6, 0.1),)), speed=2, site_code=2):
        line = [*stetho, "listen", f"serial:{tmp_path / 'link'}", "--json", "--record", str(tmp_path / "kept")]
        live = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert live.returncode == 0, live.stderr
    messages = live.stderr.splitlines()
    assert sum("waiting for it" in line for line in messages) == 1 and any(
        line.endswith("is back") for line in messages
    )
    records = [json.loads(text) for text in live.stdout.splitlines()]
    (gap,) = [r for r in records if r["type"] == "gap"]
    assert records[-1]["lost_samples"] == gap["lost_samples"] and records[-1]["duration_s"] == samples.size / RATE
    screened = subprocess.run(
        [*stetho, "screen", str(tmp_path / "same.wav"), "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    own = [json.loads(text) for text in screened.stdout.splitlines()]

    def cycles(found: list[dict[str, object]]) -> list[tuple[object, ...]]:
        return [
            (r["start_s"], r["end_s"], r["label"], r["probabilities"])
            for r in found
            if r["type"] == "cycle" and r["label"] is not None and r["end_s"] < gap["start_s"]  # type: ignore[operator]
        ]

    assert cycles(records) == cycles(own)[: len(cycles(records))] != []
    (session,) = (tmp_path / "kept").glob("*.session.json")
    assert json.loads(session.read_text("utf-8"))["metadata"]["site"] == "left anterior"
    (flac,) = (tmp_path / "kept").glob("*.flac")
    kept, _ = soundfile.read(flac, dtype="float32")
    begin, end = round(gap["start_s"] * RATE), round(gap["start_s"] * RATE) + gap["lost_samples"]
    expected = samples.copy()
    expected[begin:end] = 0
    assert np.array_equal(kept, expected)
