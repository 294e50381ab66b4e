"""The microphone against a fake PortAudio that shows every fault of real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_sdk.errors import SourceError, SourceLostError
from edge_sdk.events import AudioBlock
from edge_sdk.protocols import Reopenable, Source
from edge_sdk.sources.microphone.portaudio import find_input
from edge_sdk.sources.microphone.source import MicrophoneSource

RATE = 8000


class FakeStream:
    """An input stream that a test fills by hand; ``stop`` would never return."""

    def __init__(self, owner: FakeSoundDevice, options: dict[str, Any]) -> None:
        self.options, self._owner = options, owner
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        raise AssertionError("stop() hangs when the device has gone")

    def abort(self) -> None:
        self.calls.append("abort")

    def close(self) -> None:
        self.calls.append("close")

    def deliver(self, samples: np.ndarray, *, overflow: bool = False) -> None:
        """One callback with ``[n]`` or ``[n, channels]`` samples."""
        frames = np.asarray(samples, np.float32).reshape(len(samples), -1)
        assert frames.shape[1] == self.options["channels"]
        buffer = frames.copy()
        self.options["callback"](buffer, len(buffer), None, SimpleNamespace(input_overflow=overflow))
        buffer[:] = np.nan  # PortAudio uses its buffer again


class FakeSoundDevice:
    """The part of ``sounddevice`` that is used."""

    class PortAudioError(Exception):
        pass

    def __init__(self, *names: str, channels: int = 1, own_rate: int = RATE) -> None:
        self.default = SimpleNamespace(device=(0, -1))
        self.names, self.channels, self.own_rate = list(names), channels, own_rate
        self.rates = {own_rate}
        self.streams: list[FakeStream] = []
        self.restarts: list[str] = []

    def query_devices(self) -> list[dict[str, Any]]:
        return [
            {"name": name, "max_input_channels": self.channels, "default_samplerate": float(self.own_rate)}
            for name in self.names
        ]

    def InputStream(self, **options: Any) -> FakeStream:
        if options["samplerate"] not in self.rates:
            raise self.PortAudioError("Invalid sample rate")
        self.streams.append(FakeStream(self, options))
        return self.streams[-1]

    def _terminate(self) -> None:
        self.restarts.append("terminate")

    def _initialize(self) -> None:
        self.restarts.append("initialize")


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> int:
        return round(self.now_s * 1e9)


class Capturing:
    """A microphone that is iterated in a thread, as in the session."""

    def __init__(self, source: MicrophoneSource) -> None:
        self.source = source
        self.blocks: list[AudioBlock] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for block in self.source:
                self.blocks.append(block)
        except BaseException as error:
            self.error = error

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def failure(self) -> BaseException | None:
        return self.error

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def capturing(clock: Clock) -> Iterator[Callable[..., tuple[FakeSoundDevice, FakeStream, Capturing]]]:
    opened: list[Capturing] = []

    def start(backend: FakeSoundDevice | None = None, **options: Any) -> tuple[FakeSoundDevice, FakeStream, Capturing]:
        backend = backend or FakeSoundDevice("USB stethoscope")
        source = MicrophoneSource(options.pop("device", None), backend=backend, clock_ns=clock, **options)
        opened.append(Capturing(source))
        opened[-1].until(lambda: "start" in backend.streams[-1].calls)
        return backend, backend.streams[-1], opened[-1]

    yield start
    for each in opened:
        each.source.close()
        each.join()


Start = Callable[..., tuple[FakeSoundDevice, FakeStream, Capturing]]


def play(stream: FakeStream, clock: Clock, samples: np.ndarray, step: int = 80, **options: Any) -> None:
    for begin in range(0, len(samples), step):
        block = samples[begin : begin + step]
        clock.now_s += len(block) / RATE
        stream.deliver(block, **options)


def ramp(seconds: float, first: int = 0) -> np.ndarray:
    return (np.arange(first, first + round(seconds * RATE)) % 32_768).astype(np.float32) / 32_768


def test_every_sample_arrives_once_in_order_with_its_index_and_time(capturing: Start, clock: Clock) -> None:
    _, stream, capture = capturing()
    samples = ramp(9.0)  # more than the ring holds
    for second in range(9):
        play(stream, clock, samples[second * RATE : (second + 1) * RATE], step=77)
        capture.until(lambda n=(second + 1) * RATE: sum(b.samples.size for b in capture.blocks) == n)  # type: ignore[misc]
    assert np.array_equal(np.concatenate([b.samples for b in capture.blocks]), samples)
    sizes = np.cumsum([0] + [b.samples.size for b in capture.blocks])
    assert [b.first_sample for b in capture.blocks] == sizes[:-1].tolist()
    assert all(b.lost_before == 0 and b.sample_rate == RATE for b in capture.blocks)
    assert capture.blocks[-1].host_ns == clock()
    promises: object = capture.source
    assert isinstance(promises, Source) and isinstance(promises, Reopenable)


def test_overflow_flags_are_counted_and_not_trusted(capturing: Start, clock: Clock) -> None:
    _, stream, capture = capturing()
    play(stream, clock, ramp(3.0), overflow=True)
    capture.until(lambda: sum(b.samples.size for b in capture.blocks) == 3 * RATE)
    assert capture.source.stats.flags == capture.source.stats.callbacks == 300
    assert sum(b.lost_before for b in capture.blocks) == 0


def test_what_the_audio_server_drops_silently_is_found_by_the_clock(capturing: Start, clock: Clock) -> None:
    _, stream, capture = capturing()
    play(stream, clock, ramp(3.0))
    capture.until(lambda: sum(b.samples.size for b in capture.blocks) == 3 * RATE)
    clock.now_s += 0.25
    play(stream, clock, ramp(3.0))
    capture.until(lambda: sum(b.samples.size for b in capture.blocks) == 6 * RATE)
    gaps = [b for b in capture.blocks if b.lost_before]
    assert len(gaps) == 1
    assert gaps[0].lost_before == capture.source.stats.missing == pytest.approx(0.25 * RATE, abs=0.01 * RATE)
    last = capture.blocks[-1]
    assert last.first_sample + last.samples.size == 6 * RATE + gaps[0].lost_before


def test_a_reader_that_is_away_drops_exactly_what_did_not_fit(clock: Clock) -> None:
    backend = FakeSoundDevice("USB stethoscope")
    source = MicrophoneSource(backend=backend, clock_ns=clock)
    blocks = iter(source)
    played = ramp(10.0)
    reader = threading.Thread(target=lambda: next(blocks), daemon=True)
    reader.start()
    while "start" not in backend.streams[0].calls:
        time.sleep(0.002)
    play(backend.streams[0], clock, played[:80])
    reader.join(5)
    play(backend.streams[0], clock, played[80:])  # nobody reads: the ring holds 4 s
    received, lost = 80, 0
    taken = [next(blocks) for _ in range(4 * RATE // 80)]
    play(backend.streams[0], clock, ramp(0.01))
    taken.append(next(blocks))
    for block in taken:
        lost += block.lost_before
        assert block.first_sample == received + lost
        if block is not taken[-1]:
            assert np.array_equal(block.samples, played[block.first_sample : block.first_sample + 80])
        received += block.samples.size
    assert received + lost == 10 * RATE + 80
    assert lost == source.stats.overrun == 6 * RATE - 80
    source.close()


def test_a_device_that_falls_silent_is_aborted_not_stopped(capturing: Start, clock: Clock) -> None:
    _, stream, capture = capturing()
    play(stream, clock, ramp(0.5))
    capture.until(lambda: sum(b.samples.size for b in capture.blocks) == RATE // 2)
    clock.now_s += 0.9
    time.sleep(0.3)
    assert capture.failure() is None
    clock.now_s += 0.2
    capture.join()
    assert isinstance(capture.error, SourceLostError)
    assert "stopped delivering audio" in str(capture.error) and "plugged in" in str(capture.error)
    assert stream.calls == ["start", "abort", "close"]


def test_a_device_that_returns_goes_on_with_the_count_and_the_time_away_is_a_gap(clock: Clock) -> None:
    backend = FakeSoundDevice("built-in", "USB stethoscope")
    source = MicrophoneSource("usb", backend=backend, clock_ns=clock)
    first = Capturing(source)
    first.until(lambda: backend.streams[0].calls == ["start"])
    play(backend.streams[0], clock, ramp(0.5))
    first.until(lambda: sum(b.samples.size for b in first.blocks) == RATE // 2)
    clock.now_s += 2.0
    first.join()
    backend.names = ["built-in"]
    with pytest.raises(SourceError, match="no microphone matches 'USB stethoscope'"):
        source.reopen()
    assert backend.restarts == ["terminate", "initialize"]
    backend.names = ["new one", "built-in", "USB stethoscope"]  # its number has changed
    clock.now_s += 1.0
    source.reopen()
    assert backend.streams[-1].options["device"] == 2
    second = Capturing(source)
    second.until(lambda: "start" in backend.streams[-1].calls)
    play(backend.streams[-1], clock, ramp(0.1))
    second.until(lambda: sum(b.samples.size for b in second.blocks) == RATE // 10)
    begin = second.blocks[0]
    assert begin.lost_before == pytest.approx(3.0 * RATE, abs=2)
    assert begin.first_sample == RATE // 2 + begin.lost_before
    assert second.blocks[1].lost_before == 0
    assert source.stats.reconnects == 1 and source.stats.away == begin.lost_before
    source.close()
    second.join()
    assert second.error is None


def test_another_microphone_in_use_is_not_cut_off_by_the_search_for_a_lost_one(clock: Clock) -> None:
    backend = FakeSoundDevice("a", "b")
    lost = MicrophoneSource("a", backend=backend, clock_ns=clock)
    other = MicrophoneSource("b", backend=backend, clock_ns=clock)
    lost.reopen()
    assert backend.restarts == []
    other.close()
    lost.reopen()
    assert backend.restarts == ["terminate", "initialize"]
    lost.close()


def test_closing_from_another_thread_ends_the_iteration_at_once(
    capturing: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the next poll, which is an hour away."""
    monkeypatch.setattr("edge_sdk.sources.microphone.source._POLL_S", 3600.0)
    _, stream, capture = capturing()
    capture.source.close()
    capture.join()
    assert capture.error is None and stream.calls == ["start", "abort", "close"]
    capture.source.close()


def test_a_rate_that_the_device_lacks_gives_its_own(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    backend = FakeSoundDevice("mic", own_rate=44_100)
    source = MicrophoneSource(sample_rate=4000, backend=backend, clock_ns=clock)
    assert source.sample_rate == 44_100 == backend.streams[-1].options["samplerate"]
    assert "does not support 4000 Hz; it is opened at its own 44100 Hz" in caplog.text
    assert backend.streams[-1].options["blocksize"] == 882
    source.close()


def test_block_and_latency_reach_portaudio(clock: Clock) -> None:
    backend = FakeSoundDevice("mic")
    MicrophoneSource(block_s=0, latency=0.04, backend=backend, clock_ns=clock).close()
    MicrophoneSource(block_s=0.005, latency="high", backend=backend, clock_ns=clock).close()
    options = [stream.options for stream in backend.streams]
    assert [(o["blocksize"], o["latency"], o["dtype"]) for o in options] == [
        (0, 0.04, "float32"),
        (40, "high", "float32"),
    ]


@pytest.mark.parametrize(("channel", "opened", "value"), [(0, 1, 0.0), (1, 2, 0.25), ("mix", 3, 0.25)])
def test_a_channel_or_the_mean_of_all(capturing: Start, clock: Clock, channel: Any, opened: int, value: float) -> None:
    _, stream, capture = capturing(FakeSoundDevice("mic", channels=3), channel=channel)
    assert stream.options["channels"] == opened
    stream.deliver(np.tile([0.0, 0.25, 0.5][:opened], (80, 1)))
    capture.until(lambda: bool(capture.blocks))
    assert capture.blocks[0].samples.shape == (80,)
    assert np.all(capture.blocks[0].samples == value)


@pytest.mark.parametrize(
    ("names", "device", "message"),
    [
        ((), None, "this machine has no microphone"),
        (("a", "b"), "c", "no microphone matches 'c'; there is: a, b"),
        (("USB one", "USB two"), "usb", "several microphones \\(0 USB one, 1 USB two\\)"),
        (("a", "b"), "7", "microphone 7 does not exist"),
    ],
)
def test_a_device_that_is_not_there_is_an_error_that_lists_the_others(
    names: tuple[str, ...], device: Any, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        MicrophoneSource(device, backend=FakeSoundDevice(*names))


@pytest.mark.parametrize(("device", "index"), [(None, 0), ("1", 1), (1, 1), ("USB", 1), ("usb two", 2), ("USB two", 2)])
def test_a_device_by_number_exact_name_or_part(device: Any, index: int) -> None:
    assert find_input(FakeSoundDevice("built-in", "USB", "USB two"), device)["index"] == index


def test_no_such_channel() -> None:
    with pytest.raises(SourceError, match="no channel 2; choose 0 to 1, or mix"):
        MicrophoneSource(channel=2, backend=FakeSoundDevice("mic", channels=2))


def test_without_portaudio_the_message_names_the_package(tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    result = subprocess.run(
        [sys.executable, "-m", "edge_sdk.cli.main", "listen", "mic"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "install libportaudio2" in result.stderr
