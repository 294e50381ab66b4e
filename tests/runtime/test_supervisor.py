"""A source that stalls, is lost and returns: the session reports it, waits, and counts every dropped sample."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from edge_sdk.errors import AudioError, EngineError, SourceError, SourceLostError
from edge_sdk.events import AudioBlock, Gap, Health, StreamStats
from edge_sdk.runtime.bundle.load import Bundle
from edge_sdk.runtime.session import Session
from tests.runtime.conftest import phantom
from tests.runtime.test_session import ListSink, ListSource

RATE = 4000
STEP = 200


@dataclass
class HealthListSink(ListSink):
    """A sink that also keeps the changes of health."""

    changes: list[tuple[float, Health]] = field(default_factory=list)

    def health(self, change: Health) -> None:
        self.threads.add(threading.get_ident())
        self.changes.append((time.monotonic(), change))

    @property
    def states(self) -> list[str]:
        return [change.state for _, change in self.changes]


class Device:
    """Plays a recording in real time; lost at ``lost_at`` seconds for ``away_s``, or stalled without being lost."""

    live = True
    name = "device"
    sample_rate = RATE

    def __init__(
        self,
        seconds: float,
        *,
        lost_at: float | None = None,
        away_s: float = 0.0,
        silent: tuple[float, float] = (99.0, 0.0),
        speed: float = 1.0,
    ) -> None:
        self.metadata: Mapping[str, Any] = {"site": "trachea"}
        self._samples = phantom("healthy", seconds)
        self._at = 0
        self._speed = speed
        self._lost_at = self._samples.size if lost_at is None else round(lost_at * RATE)
        self._away_s = away_s
        self._silent_at, self._silent_s = round(silent[0] * RATE), silent[1]
        self._closed = threading.Event()
        self._lost_since = 0.0
        self._dropped = 0
        self.attempts = 0
        self.returned = 0.0

    def __iter__(self) -> Iterator[AudioBlock]:
        lost, self._dropped = self._dropped, 0
        while self._at < self._samples.size and not self._closed.is_set():
            if self._silent_at <= self._at:
                self._silent_at = self._samples.size
                self._closed.wait(self._silent_s)
            if self._at >= self._lost_at:
                self._lost_at, self._lost_since = self._samples.size, time.monotonic()
                raise SourceLostError("device was unplugged")
            block = self._samples[self._at : self._at + STEP]
            yield AudioBlock(block, RATE, self._at, time.monotonic_ns(), lost)
            lost = 0
            self._at += block.size
            self._closed.wait(block.size / RATE / self._speed)

    def reopen(self) -> None:
        self.attempts += 1
        if time.monotonic() - self._lost_since < self._away_s:
            raise SourceError("not there")
        self.returned = time.monotonic()
        self._dropped = 3 * STEP
        self._at += self._dropped
        self.metadata = {"site": "left anterior"}

    def close(self) -> None:
        self._closed.set()


@pytest.mark.requirement("AUD-3")
def test_a_source_that_returns_continues_after_a_gap(bundle: Bundle) -> None:
    sink, device = HealthListSink(), Device(4.0, lost_at=1.0, away_s=0.6, speed=4)
    reported: list[Health] = []
    session = Session(device, bundle, [sink], queue_s=50.0, on_health=reported.append)
    stats = session.run()
    assert sink.states == [change.state for change in reported]
    assert sink.states.count("recovering") == 1 and sink.states[-1] == "healthy"
    assert any("unplugged; waiting for it" in change.detail for _, change in sink.changes)
    assert device.returned > 0
    assert [e.count for e in sink.events if isinstance(e, Gap)] == [3 * STEP] == [stats.samples_lost]
    assert stats.samples_in + stats.samples_lost == 4 * RATE
    assert sink.threads == {threading.get_ident()}
    assert session.health == "healthy" and device.attempts >= 2


@pytest.mark.requirement("AUD-3")
def test_a_stall_of_an_open_device_is_reported_within_a_second(bundle: Bundle) -> None:
    sink = HealthListSink()
    stats = Session(Device(3.0, silent=(1.0, 1.5), speed=4), bundle, [sink], queue_s=50.0).run()
    assert set(sink.states) == {"stalled", "healthy"}
    received = sink.blocks[RATE // STEP - 1].host_ns
    first = next(change for _, change in sink.changes if change.at_ns > received)
    assert (
        first.state == "stalled" and first.at_ns - received < 1_400_000_000
    )  # 0.6 s; less than the silence in any case
    assert stats.samples_lost == 0


def test_giving_up_is_an_error_in_the_users_thread(bundle: Bundle) -> None:
    sink = HealthListSink()
    session = Session(Device(3.0, lost_at=0.5, away_s=99, speed=4), bundle, [sink], give_up_s=0.5)
    with pytest.raises(SourceLostError, match="device was unplugged"):
        session.run()
    assert [state for state in sink.states if state != "stalled"][-2:] == ["recovering", "failed"]
    assert session.health == "failed" and len(sink.closed) == 1


def test_a_device_that_came_back_as_another_is_an_error(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(_: Device) -> None:
        raise AudioError("came back with 8000 Hz")

    monkeypatch.setattr(Device, "reopen", other)
    with pytest.raises(AudioError, match="8000 Hz"):
        Session(Device(3.0, lost_at=0.5, speed=4), bundle, [HealthListSink()]).run()


def test_why_a_device_cannot_be_opened_again_is_reported_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_sdk.runtime.supervisor._REASON_S", 0.05)
    reasons = iter(["no such port", "bytes that are no frames", "bytes that are no frames", "no such port"])

    def refuse(device: Device) -> None:
        reason = next(reasons, None)
        if reason is not None:
            raise SourceError(reason)
        monkeypatch.undo()
        device._away_s = 0.0
        device.reopen()

    monkeypatch.setattr(Device, "reopen", refuse)
    sink = HealthListSink()
    Session(Device(2.0, lost_at=0.5, speed=4), bundle, [sink], queue_s=50.0).run()
    details = [change.detail for _, change in sink.changes if "still without" in change.detail]
    assert [detail.rpartition(": ")[2] for detail in details] == ["no such port", "bytes that are no frames"]
    assert sink.states[-1] == "healthy"


def test_a_source_that_cannot_be_reopened_is_lost_at_once(bundle: Bundle) -> None:
    class Simple(Device):
        reopen = None  # type: ignore[assignment]

    sink = HealthListSink()
    with pytest.raises(SourceLostError):
        Session(Simple(3.0, lost_at=0.5, speed=4), bundle, [sink]).run()
    assert sink.states == ["failed"]


def test_a_session_that_waits_for_its_device_stops_within_half_a_second(bundle: Bundle) -> None:
    class InterruptingSink(HealthListSink):
        since = 0.0

        def health(self, change: Health) -> None:
            self.since = time.monotonic()
            raise KeyboardInterrupt

    sink = InterruptingSink()
    with pytest.raises(KeyboardInterrupt):
        Session(Device(3.0, lost_at=0.5, away_s=99, speed=4), bundle, [sink]).run()
    assert time.monotonic() - sink.since < 0.5
    assert len(sink.closed) == 1


def test_metadata_of_the_device_reaches_the_stream_and_the_users_values_override_it(bundle: Bundle) -> None:
    session = Session(Device(2.0, lost_at=1.0, speed=8), bundle, [HealthListSink()], metadata={"sex": "female"})
    assert session.metadata == {"site": "trachea", "sex": "female"}
    session.run()
    assert session.metadata == {"site": "left anterior", "sex": "female"}
    stubborn = Session(Device(1.0, speed=8), bundle, [HealthListSink()], metadata={"site": "right anterior"})
    stubborn.run()
    assert stubborn.metadata == {"site": "right anterior"}


def test_metadata_that_no_model_knows_is_a_warning_and_left_out(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    device = Device(1.0, speed=8)
    device.metadata = {"site": "of code 77", "device": "ours"}
    session = Session(device, bundle, [HealthListSink()])
    assert session.metadata == {"device": "ours"}
    assert [record.levelname for record in caplog.records if "of code 77" in record.getMessage()] == ["WARNING"]
    session.run()


# -- a consumer that is too slow -------------------------------------------------------------------------------------


def test_a_classifier_that_stalls_costs_results_then_samples_and_all_are_counted(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Speed 4 and a queue of 2 s: the classifier's 1.5 s are 6 s of audio."""
    real = type(bundle.engine).run
    calls = iter(range(10**6))

    def stalled(self: Any, inputs: Any) -> Any:
        if next(calls) == 0:
            time.sleep(1.5)
        return real(self, inputs)

    monkeypatch.setattr(type(bundle.engine), "run", stalled)
    sink, device = HealthListSink(), Device(24.0, speed=4)
    session = Session(device, bundle, [sink])
    held: list[int] = []
    inbox = session._inbox
    put = inbox.put

    def watched(block: AudioBlock) -> bool:
        done = put(block)
        held.append(inbox._held)
        return done

    monkeypatch.setattr(inbox, "put", watched)
    stats = session.run()
    assert max(held) <= 2 * RATE, "memory is bounded"
    assert stats.samples_lost == session.overload.dropped > 0
    assert stats.samples_in + stats.samples_lost == 24 * RATE
    assert sum(e.count for e in sink.events if isinstance(e, Gap)) == stats.samples_lost
    for block in sink.blocks:
        begin = block.first_sample
        assert np.array_equal(block.samples, phantom("healthy", 24.0)[begin : begin + block.samples.size])
    assert session.overload.joined > 0
    details = [change.detail for _, change in sink.changes]
    assert "too slow" in details[0] and any("dropped" in detail for detail in details)
    assert details[-1].startswith("caught up") and str(stats.samples_lost) in details[-1]
    assert sink.changes[0][1].overloaded and not sink.changes[-1][1].overloaded


@pytest.mark.requirement("RES-5")
def test_a_classifier_that_is_always_too_slow_loses_results_before_samples(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = type(bundle.engine).run

    def slow(self: Any, inputs: Any) -> Any:
        time.sleep(0.15)
        return real(self, inputs)

    monkeypatch.setattr(type(bundle.engine), "run", slow)
    sink = HealthListSink()
    source = ListSource(phantom("healthy", 40.0), live=True)  # all of it waits at once
    session = Session(source, bundle, [sink], queue_s=50.0)
    stats = session.run()
    assert stats.skipped == session.overload.skipped > 0
    results = [e for e in sink.events if getattr(e, "quality", None) == "overload"]
    assert len(results) == stats.skipped
    assert stats.samples_lost == 0 and stats.samples_in == 40 * RATE
    assert stats.classified > 0 and session.overload.joined > 0


def test_stats_come_with_the_close(bundle: Bundle) -> None:
    sink = HealthListSink()
    stats = Session(Device(1.0, speed=8), bundle, [sink]).run()
    assert sink.closed == [stats] and isinstance(stats, StreamStats)


def test_an_engine_error_is_not_waited_for(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, inputs: Any) -> Any:
        raise EngineError("gone")

    monkeypatch.setattr(type(bundle.engine), "run", fail)
    with pytest.raises(EngineError):
        Session(Device(12.0, speed=16), bundle, [HealthListSink()]).run()
