"""Another stethoscope on the same port is another session; the same one goes on where it was."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge_sdk.errors import AudioError, DeviceChangedError, SourceError, SourceLostError
from edge_sdk.events import DeviceChange, Gap, Health
from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from edge_sdk.runtime.device_sessions import run_device_sessions
from edge_sdk.runtime.session import Session
from edge_sdk.sources.phantom import PhantomSource
from edge_sdk.sources.serial import SerialSource
from edge_sdk.sources.shortened import ShortenedSource
from tests.capture.swapped import Turn, taking_turns
from tests.runtime.test_session import ListSink
from tests.support.link import on_grid
from tests.support.stethoscope import wait_until
from tests.support.tiny_bundle import write_tiny_bundle

RATE = 4000
QUEUE_S = 60.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"), allow_untrained=True)


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    with PhantomSource("asthma", duration_s=5.0, sample_rate=RATE) as source:
        return on_grid(np.concatenate([block.samples for block in source]))


class LogSink(ListSink):
    def __init__(self) -> None:
        super().__init__()
        self.health_log: list[Health] = []

    def health(self, change: Health) -> None:
        self.health_log.append(change)

    @property
    def received(self) -> int:
        return sum(block.samples.size for block in self.blocks)

    @property
    def changes(self) -> list[DeviceChange]:
        return [event for event in self.events if isinstance(event, DeviceChange)]

    def check_against(self, samples: np.ndarray) -> None:
        """The time line begins at 0 and holds every received sample at its place."""
        at = 0
        for block in self.blocks:
            at += block.lost_before
            assert block.first_sample == at
            assert np.array_equal(block.samples, samples[at : at + block.samples.size])
            at += block.samples.size


def listened(link: Path, turns: list[Turn], bundle: Bundle, **options: Any) -> tuple[list[LogSink], list[Session]]:
    """The sink and the session of each device."""
    sinks, sessions = list[LogSink](), list[Session]()
    away_s = options.pop("away_s", 0.2)
    with taking_turns(link, turns, away_s=away_s), SerialSource(str(link)) as source:

        def new_session(change: DeviceChangedError | None) -> Session:
            assert (change is None) == (not sinks)
            sinks.append(LogSink())
            sessions.append(Session(source, bundle, [sinks[-1]], queue_s=QUEUE_S, **options))
            return sessions[-1]

        run_device_sessions(source, new_session)
    return sinks, sessions


def turn(samples: np.ndarray, serial: str, **options: Any) -> Turn:
    return Turn(samples, options={"serial": serial, **options})


def pulled(this: Turn, after: int = RATE) -> Turn:
    return replace(this, pulled_after=after)


def test_another_serial_number_ends_the_session_and_begins_one_of_its_own(
    tmp_path: Path, bundle: Bundle, samples: np.ndarray
) -> None:
    other = samples[::-1].copy()
    turns = [pulled(turn(samples, "A", site_code=1)), turn(other, "B", site_code=2)]
    (first, second), sessions = listened(tmp_path / "link", turns, bundle, metadata={"sex": "female"})
    name = f"serial:{tmp_path / 'link'}"
    assert (first.opened, second.opened) == ([(name, RATE)], [(f"{name}#2", RATE)])
    (change,) = first.changes
    assert "serial number B instead of A" in change.reason and not change.same_session
    first_device = {"serial_number": "A", "model": "device-sim", "site": "trachea"}
    assert first_device.items() <= change.previous.items()
    assert {"serial_number": "B", "model": "device-sim", "site": "left anterior"}.items() <= change.device.items()
    gap = [event for event in first.events if isinstance(event, Gap)][-1]
    assert gap.count >= 0.2 * RATE and gap.first_sample + gap.count == change.at
    assert sessions[0].stats.samples_in == first.received >= 0.5 * RATE
    assert sessions[0].metadata["site"] == "trachea", "nothing of the other device reaches the first session"
    assert sessions[1].metadata["site"] == "left anterior"
    assert second.changes == [] and second.received == samples.size
    second.check_against(other)
    assert [change.state for change in first.health_log][-1] == "replaced"
    assert len(first.closed) == len(second.closed) == 1


@pytest.mark.parametrize("reboot", [False, True])
def test_the_same_serial_number_goes_on_in_the_same_session(
    tmp_path: Path, bundle: Bundle, samples: np.ndarray, reboot: bool
) -> None:
    """A second process with the serial number is a device that was restarted."""
    turns = [pulled(turn(samples, "A")), turn(samples, "A")] if reboot else [turn(samples, "A")]
    (sink,), _ = listened(tmp_path / "link", turns, bundle)
    assert sink.changes == []
    assert sink.received > samples.size if reboot else sink.received == samples.size


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ({"serial": "A", "site_code": 1}, {"serial": "A", "site_code": 2}, "site left anterior instead of trachea"),
        ({"serial": "A", "model": "one"}, {"serial": "A", "model": "two"}, "model two instead of one"),
        ({"serial": "A"}, {"serial": ""}, "serial number none instead of A"),
        ({"serial": ""}, {"serial": "B"}, "serial number B instead of none"),
        ({"serial": ""}, {"serial": ""}, "no serial number and was restarted"),
        ({"serial": "A", "site_code": 1}, {"serial": "A", "site_code": 0}, None),
        ({"serial": "A", "site_code": 0}, {"serial": "A", "site_code": 3}, None),
    ],
)
def test_what_makes_another_device(
    tmp_path: Path,
    bundle: Bundle,
    samples: np.ndarray,
    before: dict[str, Any],
    after: dict[str, Any],
    reason: str | None,
) -> None:
    short = samples[: 2 * RATE]
    turns = [pulled(Turn(short, options=before), RATE // 2), Turn(short, options=after)]
    sinks, _ = listened(tmp_path / "link", turns, bundle, away_s=0.05)
    assert len(sinks) == (1 if reason is None else 2)
    assert [reason in change.reason for change in sinks[0].changes if reason] == ([] if reason is None else [True])


def test_two_swaps_in_a_row_are_three_sessions(tmp_path: Path, bundle: Bundle, samples: np.ndarray) -> None:
    turns = [pulled(turn(samples, "A")), pulled(turn(samples, "B")), turn(samples, "A")]
    sinks, _ = listened(tmp_path / "link", turns, bundle)
    names = [sink.opened[0][0] for sink in sinks]
    assert names == [f"serial:{tmp_path / 'link'}{ending}" for ending in ("", "#2", "#3")]
    assert [len(sink.changes) for sink in sinks] == [1, 1, 0]
    assert sinks[2].received == samples.size
    sinks[2].check_against(samples)


def test_a_device_that_leaves_before_its_first_audio_is_no_session(
    tmp_path: Path, bundle: Bundle, samples: np.ndarray
) -> None:
    """Swapped back while the gap lasts, before or during START."""
    turns = [pulled(turn(samples, "A")), pulled(turn(samples, "B"), 0), turn(samples, "A")]
    (sink,), _ = listened(tmp_path / "link", turns, bundle)
    assert sink.changes == []
    assert any(isinstance(event, Gap) for event in sink.events)


def test_another_rate_is_another_session_at_that_rate(tmp_path: Path, bundle: Bundle, samples: np.ndarray) -> None:
    fast = np.repeat(samples, 2)
    turns = [pulled(turn(samples, "A")), replace(turn(fast, "B"), rate=2 * RATE)]
    sinks, _ = listened(tmp_path / "link", turns, bundle, keep_session=True)
    assert [sink.opened[0][1] for sink in sinks] == [RATE, 2 * RATE], "kept or not: a session has one rate"
    assert sinks[1].received == fast.size
    sinks[1].check_against(fast)


def test_the_session_is_kept_on_request(tmp_path: Path, bundle: Bundle, samples: np.ndarray) -> None:
    turns = [pulled(turn(samples, "A", site_code=1)), turn(samples, "B", site_code=2)]
    (sink,), (session,) = listened(tmp_path / "link", turns, bundle, keep_session=True)
    (change,) = sink.changes
    assert change.same_session and session.metadata["site"] == "left anterior"
    at = next(k for k, event in enumerate(sink.events) if event is change)
    assert isinstance(sink.events[at - 1], Gap) or any(isinstance(event, Gap) for event in sink.events[:at])
    assert (
        session.stats.samples_in + session.stats.samples_lost
        == sink.blocks[-1].first_sample + sink.blocks[-1].samples.size
    )
    assert any("the same session goes on" in health.detail for health in sink.health_log)


def reopens(source: SerialSource) -> bool:
    try:
        source.reopen()
    except SourceError:
        return False
    return True


def test_without_the_runner_the_change_is_an_error_and_the_source_can_go_on(
    tmp_path: Path, samples: np.ndarray
) -> None:
    turns = [pulled(turn(samples, "A")), replace(turn(samples, "B"), rate=2 * RATE)]
    with taking_turns(tmp_path / "link", turns), SerialSource(str(tmp_path / "link")) as source:
        with pytest.raises(SourceLostError, match="check its cable"):
            list(source)
        assert wait_until(lambda: reopens(source))
        with pytest.raises(DeviceChangedError, match="serial number B instead of A") as caught:
            list(source)
        assert caught.value.sample_rate == 2 * RATE
        with pytest.raises(AudioError, match=r"8000 Hz now .* new_session"):
            next(iter(source))
        source.new_session()
        assert sum(block.samples.size for block in source) == samples.size


def test_the_duration_of_all_sessions_counts_together(tmp_path: Path, bundle: Bundle, samples: np.ndarray) -> None:
    turns = [pulled(turn(samples, "A")), turn(samples, "B")]
    ends = list[int]()
    with taking_turns(tmp_path / "link", turns), SerialSource(str(tmp_path / "link")) as serial:
        source = ShortenedSource(serial, 4.0)

        def new_session(_: DeviceChangedError | None) -> Session:
            ends.append(0)
            return Session(source, bundle, [End()], queue_s=QUEUE_S)

        class End(ListSink):
            def audio(self, block: Any) -> None:
                ends[-1] = block.first_sample + block.samples.size

        run_device_sessions(source, new_session)
    assert len(ends) == 2 and sum(ends) == 4 * RATE


def test_the_command_gives_each_device_its_recording_and_its_summary(tmp_path: Path, samples: np.ndarray) -> None:
    link, kept = tmp_path / "link", tmp_path / "kept"
    turns = [pulled(turn(samples, "A", site_code=1), 3 * RATE), turn(samples, "B", site_code=2)]
    line = [sys.executable, "-m", "edge_sdk.cli.main", "listen", f"serial:{link}", "--json"]
    with taking_turns(link, turns, speed=4):
        done = subprocess.run(
            [*line, "--record", str(kept), "--age", "60"], capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode == 0, done.stderr
    (message,) = [text for text in done.stderr.splitlines() if "another device" in text]
    assert "serial number B instead of A" in message and "age_years of the command line" in message
    records = [json.loads(text) for text in done.stdout.splitlines()]
    name = f"serial:{link}"
    summaries = [record for record in records if record["type"] == "summary"]
    assert [summary["source"] for summary in summaries] == [name, f"{name}#2"]
    assert records.index(summaries[0]) == sum(record["source"] == name for record in records) - 1
    (change,) = [record for record in records if record["type"] == "device"]
    assert change["source"] == name and change["device"]["serial_number"] == "B"
    sessions = sorted(
        (json.loads(path.read_text("utf-8")) for path in kept.glob("*.session.json")), key=lambda s: s["source"]
    )
    assert [session["device"]["serial_number"] for session in sessions] == ["A", "B"]
    assert [session["metadata"].get("age_years") for session in sessions] == [60.0, None]
    assert "another device" in sessions[0]["ended"] and all(session["complete"] for session in sessions)
    audio, _ = soundfile.read(kept / sessions[1]["sound"], dtype="float32")
    assert np.array_equal(audio, samples)
