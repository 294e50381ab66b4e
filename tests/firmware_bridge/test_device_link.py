"""A device link delivers every received sample, counts every dropped one, and reports why it ended."""

from __future__ import annotations

import os
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from firmware_bridge.constants import AckCode, Codec, EventCode, MessageType
from firmware_bridge.decoder import FrameDecoder
from firmware_bridge.emulator.device import DeviceOptions
from firmware_bridge.emulator.faults import Faults, Stall, Unplug
from firmware_bridge.errors import CommandError, LinkLost, LinkOpenError, LinkStalled, LinkVersionError
from firmware_bridge.framing import Frame, encode_frame, encode_message
from firmware_bridge.link import DeviceLink, LinkBlock
from firmware_bridge.messages import Command, DeviceEvent, Info, Log, Reply, SetFormat, SetGain, Status, StreamFormat
from tests.support.stethoscope import emulated, noise, reopened, wait_until

RATE = 4000
Samples = npt.NDArray[np.float32]


def options(**other: object) -> DeviceOptions:
    return DeviceOptions(**{"rate_hz": RATE, "once": True, **other})  # type: ignore[arg-type]


def joined(blocks: list[LinkBlock]) -> Samples:
    return np.concatenate([block.samples for block in blocks]) if blocks else np.zeros(0, np.float32)


def assert_accounted(blocks: list[LinkBlock], samples: Samples) -> int:
    """Every block holds what the device played at its index and every gap is counted; return the dropped samples."""
    expected = 0
    for block in blocks:
        expected += block.lost_before
        assert block.sample_index == expected
        assert np.array_equal(block.samples, samples[expected : expected + block.samples.size])
        expected += block.samples.size
    assert expected == samples.size
    return sum(block.lost_before for block in blocks)


@pytest.mark.parametrize("link", ["pty", "tcp:0"])
def test_all_samples_arrive_bit_for_bit_and_ends_cleanly(tmp_path: Path, link: str) -> None:
    samples = noise(2.0, RATE)
    logs: list[Log] = []
    statuses: list[Status] = []
    where = tmp_path / "device" if link == "pty" else link
    with (
        emulated(where, samples, options(site_code=4), None) as (port, report),
        DeviceLink(port, on_log=logs.append, on_status=statuses.append) as device,
    ):
        assert (device.info.serial, device.format.rate_hz, device.format.site) == ("SIM-0001", 4000, "left posterior")
        blocks = list(device.blocks())
        assert device.ended
        stats = device.stats
        assert wait_until(lambda: report.ended)
    assert np.array_equal(joined(blocks), samples)
    assert assert_accounted(blocks, samples) == 0
    assert (stats.bad_frames, stats.sequence_gaps, stats.lost_samples, stats.retries) == (0, 0, 0, 0)
    assert stats.samples == samples.size
    assert logs and statuses and statuses[0].state == 1
    assert all(block.fitted_ns and abs(block.fitted_ns - block.host_ns) < 1e9 for block in blocks)


@pytest.mark.parametrize("codec", [Codec.S24, Codec.ADPCM])
def test_other_codecs_can_be_requested(tmp_path: Path, codec: Codec) -> None:
    t = np.arange(RATE) / RATE
    samples = (0.3 * np.sin(2 * np.pi * 120 * t)).astype(np.float32)
    with (
        emulated(tmp_path / "device", samples, options()) as (port, _),
        DeviceLink(port, request=SetFormat(codec=codec)) as device,
    ):
        assert device.format.codec == codec
        received = joined(list(device.blocks()))
    assert received.size == samples.size
    error = np.abs(received - samples)
    assert error.max() <= 2**-24 if codec is Codec.S24 else 2**-24 < error[200:].max() < 0.05


def test_a_cable_with_flips_and_drops_costs_only_counted_samples(tmp_path: Path) -> None:
    samples = noise(3.0, 16000)
    faults = Faults(flip=1e-4, drop_every=10_000, jitter_s=0.01)
    with (
        emulated(tmp_path / "device", samples, options(rate_hz=16000), faults) as (port, report),
        DeviceLink(port) as device,
    ):
        blocks = list(device.blocks())
        stats = device.stats
        assert wait_until(lambda: report.ended)
    dropped = assert_accounted(blocks, samples)
    assert dropped == stats.lost_samples > 0
    assert report.flips > 3 and report.drops > 3


def test_an_unplugged_device_whose_clock_runs_on_drops_exactly_what_it_captured_meanwhile(tmp_path: Path) -> None:
    samples = noise(2.5, RATE)
    faults = Faults(unplugs=(Unplug(0.6, 0.5),))
    blocks: list[LinkBlock] = []
    with emulated(tmp_path / "device", samples, options(), faults) as (port, _):
        with DeviceLink(port) as first, pytest.raises(LinkLost, match="disconnected"):
            blocks += first.blocks()
        assert blocks and not first.ended
        second = reopened(port, first.resume_point, 10.0)
        with second:
            blocks += second.blocks()
    dropped = assert_accounted(blocks, samples)
    assert dropped >= 0.4 * RATE
    assert all(block.lost_exact for block in blocks)


def test_a_restarted_device_is_distinguished_from_one_that_was_away(tmp_path: Path) -> None:
    faults = Faults(unplugs=(Unplug(0.5, 0.3, reboot=True),))
    with emulated(tmp_path / "device", noise(3.0, RATE), options(), faults) as (port, _):
        with DeviceLink(port) as first, pytest.raises(LinkLost):
            list(first.blocks())
        boot = first.info.boot_id
        second = reopened(port, first.resume_point, 10.0)
        with second:
            block = next(second.blocks())
    assert second.info.boot_id != boot
    assert not block.lost_exact
    assert first.resume_point is not None
    away_s = (block.host_ns - first.resume_point.host_ns) * 1e-9
    assert away_s > 0.2
    assert block.lost_before == round(away_s * RATE) - block.samples.size


def test_a_stall_is_reported_and_reading_can_go_on_after_it(tmp_path: Path) -> None:
    samples = noise(2.0, RATE)
    with (
        emulated(tmp_path / "device", samples, options(), Faults(stalls=(Stall(0.4, 1.0),))) as (port, _),
        DeviceLink(port) as device,
    ):
        blocks: list[LinkBlock] = []
        stalls = 0
        while not device.ended:
            try:
                blocks += device.blocks(timeout_s=0.3)
            except LinkStalled:
                stalls += 1
        assert stalls >= 1
    assert blocks


def test_a_slow_consumer_drops_the_oldest_audio_which_is_counted(tmp_path: Path) -> None:
    samples = noise(3.0, RATE)
    with (
        emulated(tmp_path / "device", samples, options(speed=3.0)) as (port, _),
        DeviceLink(port, max_queued_s=0.5) as device,
    ):
        stream = device.blocks()
        blocks = [next(stream)]
        assert wait_until(lambda: device.ended)
        blocks += stream
        stats = device.stats
    dropped = assert_accounted(blocks, samples)
    assert dropped == stats.dropped_samples > RATE
    assert stats.lost_samples == 0


def test_the_battery_and_its_warning_come_through(tmp_path: Path) -> None:
    events: list[DeviceEvent] = []
    draining = options(battery_percent=15.2, battery_per_min=-60)
    with (
        emulated(tmp_path / "device", noise(2.5, RATE), draining) as (port, _),
        DeviceLink(port, on_event=lambda event, index: events.append(event)) as device,
    ):
        list(device.blocks())
        assert device.status is not None and device.status.battery_percent in (12, 13, 14)
    assert [event.code for event in events] == [EventCode.BATTERY_LOW]


def test_the_clock_error_of_the_device_is_found(tmp_path: Path) -> None:
    with (
        emulated(tmp_path / "device", noise(4.0, RATE), options(), Faults(rate_ppm=20_000.0)) as (port, _),
        DeviceLink(port) as device,
    ):
        list(device.blocks())
        assert device.clock.ppm == pytest.approx(
            20_000, abs=5000
        )  # in 4 s on a busy machine; see test_accounts_and_clock
        assert device.time_offset is not None and device.time_offset.exchanges >= 3


def test_commands_are_carried_out_or_refused_with_the_reason(tmp_path: Path) -> None:
    with emulated(tmp_path / "device", noise(3.0, RATE), options()) as (port, _), DeviceLink(port) as device:
        device.send(Command(MessageType.PING))
        device.send(SetGain(600))
        assert wait_until(lambda: device.format.gain_db == 6.0)
        with pytest.raises(CommandError, match="not supported") as refused:
            device.send(SetFormat(rate_hz=12345))
        assert refused.value.code == AckCode.NOT_SUPPORTED
        next(device.blocks())
        with pytest.raises(CommandError, match="not now"):
            device.send(SetFormat(codec=Codec.ADPCM))
        device.send(SetFormat(site_code=1))  # this may change while audio runs
        assert wait_until(lambda: device.format.site == "trachea")


class _Puppet:
    """The device's end of a pseudo-terminal, controlled by a test."""

    def __init__(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self.seen: list[Frame] = []
        self.ignore = 0  # number of commands without a reply
        self.info = Info("P", "puppet", boot_id=1)
        self.version_reply = AckCode.DONE
        self._seq = 65530  # wraps in every test
        self._open = True
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def send(self, message: object, index: int = 0) -> None:
        wire = encode_message(message, seq=self._seq, sample_index=index)  # type: ignore[arg-type]
        self._seq = (self._seq + 1) & 0xFFFF
        os.write(self._master, wire)

    def write(self, data: bytes) -> None:
        os.write(self._master, data)

    def _serve(self) -> None:
        decoder = FrameDecoder()
        while self._open:
            try:
                data = os.read(self._master, 4096)
            except OSError:
                return
            for frame in decoder.feed(data):
                if isinstance(frame, Frame) and frame.type != MessageType.TIME_REQUEST:
                    self.seen.append(frame)
                    self._reply(frame)

    def _reply(self, frame: Frame) -> None:
        if self.ignore:
            self.ignore -= 1
            return
        self.send(Reply(frame.type, self.version_reply, frame.seq))
        if frame.type == MessageType.HELLO:
            self.send(self.info)
        self.send(StreamFormat(RATE, clock_id=5))

    def close(self) -> None:
        self._open = False
        os.close(self._slave)
        os.close(self._master)


@pytest.fixture
def puppet() -> Iterator[_Puppet]:
    made = _Puppet()
    yield made
    if made._open:
        made.close()


def test_a_command_that_is_not_acknowledged_is_sent_again_with_its_number_and_then_given_up(puppet: _Puppet) -> None:
    with DeviceLink(puppet.port) as device:
        puppet.seen.clear()
        puppet.ignore = 2
        assert device.send(Command(MessageType.PING)).code == AckCode.DONE
        assert [frame.flags for frame in puppet.seen] == [0, 128, 128]
        assert len({frame.seq for frame in puppet.seen}) == 1
        assert device.stats.retries == 2
        puppet.ignore = 4
        with pytest.raises(CommandError, match="PING was not acknowledged after 4 attempts"):
            device.send(Command(MessageType.PING))
        assert device.send(Command(MessageType.PING)).command_seq == puppet.seen[-1].seq


def test_another_major_version_is_a_clear_error(puppet: _Puppet) -> None:
    with DeviceLink(puppet.port) as device:
        puppet.write(encode_frame(Frame(3, version=0x20)))
        with pytest.raises(LinkVersionError, match=r"major version 2 .* this SDK version 1; update"):
            list(device.blocks())
    puppet.info = Info("P", "puppet", proto_min=3, proto_max=4)
    with pytest.raises(LinkVersionError, match="versions 3 to 4"):
        DeviceLink(puppet.port).open()
    puppet.version_reply = AckCode.VERSION
    with pytest.raises(LinkVersionError, match="another major version"):
        DeviceLink(puppet.port).open()


def test_unknown_types_faulty_payloads_and_noise_are_counted_and_skipped(puppet: _Puppet) -> None:
    with DeviceLink(puppet.port) as device:
        puppet.write(encode_frame(Frame(0x33, payload=b"?")))
        puppet.write(encode_frame(Frame(MessageType.STATUS, payload=b"short")))
        puppet.write(b"\x07noise\x00")
        assert device.send(Command(MessageType.PING)).code == AckCode.DONE
        stats = device.stats
    assert (stats.unknown_frames, stats.bad_payloads, stats.bad_frames) == (1, 1, 1)


def test_a_port_without_replies_is_no_stethoscope(puppet: _Puppet) -> None:
    puppet.ignore = 1000
    with pytest.raises(LinkStalled, match="nothing replies; is this a stethoscope"):
        DeviceLink(puppet.port).open()


def test_closing_from_another_thread_ends_the_blocks_at_once(puppet: _Puppet) -> None:
    """Not at the end of the timeout, which is an hour."""
    device = DeviceLink(puppet.port)
    device.open()
    blocks: list[LinkBlock] = []
    reader = threading.Thread(target=lambda: blocks.extend(device.blocks(timeout_s=3600)), daemon=True)
    reader.start()
    assert wait_until(lambda: any(frame.type == MessageType.START for frame in puppet.seen))
    time.sleep(0.3)  # until the reader waits for audio
    device.close()
    reader.join(60.0)
    assert not reader.is_alive() and blocks == []
    device.close()


def test_a_port_is_held_by_one_program_and_missing_ones_are_named(puppet: _Puppet, tmp_path: Path) -> None:
    with (
        DeviceLink(puppet.port),
        pytest.raises(LinkOpenError, match="another program uses it; close that one"),
    ):
        DeviceLink(puppet.port).open()
    with pytest.raises(LinkOpenError, match="no such port; plug the device in"):
        DeviceLink(str(tmp_path / "nothing")).open()
    with pytest.raises(LinkOpenError, match="no program listens there"):
        DeviceLink("tcp:9").open()
    with pytest.raises(LinkOpenError, match="names no TCP port"):
        DeviceLink("tcp:high").open()


def test_a_device_that_disappears_is_detected_and_close_still_works(puppet: _Puppet) -> None:
    threading.Timer(0.5, puppet.close).start()
    with DeviceLink(puppet.port) as device, pytest.raises(LinkLost, match="disconnected"):
        list(device.blocks(timeout_s=30))
    with pytest.raises(LinkLost):
        device.send(Command(MessageType.PING))
