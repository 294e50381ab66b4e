"""The reference firmware on an emulated Cortex-M3 streams its table without a bad frame and executes its commands."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from firmware_bridge.constants import Codec, MessageType
from firmware_bridge.errors import CommandError, LinkLost
from firmware_bridge.link import DeviceLink, LinkBlock
from firmware_bridge.messages import Command, SetFormat, SetGain
from tests.support.stethoscope import TABLE_RATE, Qemu, build_firmware, reopened, wait_until

Table = npt.NDArray[np.int16]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Table]:
    return build_firmware(tmp_path_factory.mktemp("firmware"))


@pytest.fixture
def board(built: tuple[Path, Table], tmp_path: Path) -> Iterator[Qemu]:
    with Qemu(built[0], tmp_path / "stethoscope") as running:
        yield running


def expected(block: LinkBlock, table: Table, rate_hz: int) -> npt.NDArray[np.float32]:
    """The samples of the table at the position of the block."""
    at = (block.sample_index + np.arange(block.samples.size)) * (TABLE_RATE // rate_hz) % table.size
    return (table[at] / np.float32(32768)).astype(np.float32)


def assert_streams_exactly(board: Qemu, table: Table, rate_hz: int, codec: Codec, seconds: float) -> None:
    with DeviceLink(str(board.link), request=SetFormat(rate_hz, codec=codec)) as device:
        assert (device.info.model, device.format.rate_hz, device.format.codec) == ("mps2-an385", rate_hz, codec)
        received = 0
        for block in device.blocks(timeout_s=10):
            wanted = expected(block, table, rate_hz)
            if codec is Codec.ADPCM:
                assert np.abs(block.samples - wanted)[20:].max() < 0.1
            else:
                assert np.array_equal(block.samples, wanted)
            received += block.samples.size
            if received >= seconds * rate_hz:
                break
        stats = device.stats
        # On a host that is busy elsewhere the emulated converter may overrun; then the device reports it.
        assert stats.lost_samples == 0 or wait_until(lambda: device.status is not None and device.status.overruns > 0)
    assert (stats.bad_frames, stats.sequence_gaps, stats.bad_payloads) == (0, 0, 0)
    assert stats.lost_samples % (rate_hz // 100) == 0  # whole buffers, or nothing


@pytest.mark.parametrize(
    ("rate_hz", "codec"), [(16000, Codec.S16), (8000, Codec.S24), (4000, Codec.S16), (16000, Codec.ADPCM)]
)
def test_streams_its_table_bit_for_bit(board: Qemu, built: tuple[Path, Table], rate_hz: int, codec: Codec) -> None:
    assert_streams_exactly(board, built[1], rate_hz, codec, 2.0)


@pytest.mark.long
def test_streams_for_a_minute(board: Qemu, built: tuple[Path, Table]) -> None:
    assert_streams_exactly(board, built[1], 16000, Codec.S16, 60.0)


def test_commands_are_acknowledged_and_refusals_give_the_reason(board: Qemu) -> None:
    with DeviceLink(str(board.link)) as device:
        device.send(Command(MessageType.PING))
        device.send(SetFormat(site_code=6))
        assert wait_until(lambda: device.format.site == "left lateral")
        device.send(SetGain(1300))
        assert wait_until(lambda: device.format.gain_db == 12.04)  # the nearest step below that it has
        for refused in (SetGain(-100), SetFormat(rate_hz=44100), SetFormat(codec=9), SetFormat(site_code=77)):
            with pytest.raises(CommandError, match="not supported"):
                device.send(refused)
        loud = list(islice(device.blocks(timeout_s=10), 30))
        assert any(block.clipped for block in loud) == any(np.abs(block.samples).max() >= 0.9999 for block in loud)
        with pytest.raises(CommandError, match="not now"):
            device.send(SetFormat(rate_hz=4000))
        assert wait_until(lambda: device.status is not None)
        assert wait_until(lambda: device.time_offset is not None)


def test_the_clock_runs_on_when_the_host_leaves_and_the_gap_is_exact(board: Qemu, built: tuple[Path, Table]) -> None:
    with DeviceLink(str(board.link)) as first:
        before = list(islice(first.blocks(timeout_s=10), 50))
    with DeviceLink(str(board.link), resume=first.resume_point) as second:
        after = next(second.blocks(timeout_s=10))
    end = before[-1].sample_index + before[-1].samples.size
    assert first.resume_point is not None and first.resume_point.next_index >= end
    assert after.lost_exact and after.lost_before == after.sample_index - first.resume_point.next_index > 0
    assert np.array_equal(after.samples, expected(after, built[1], 16000))


def test_killed_and_started_again_it_is_found_and_its_restart_is_detected(
    board: Qemu, built: tuple[Path, Table]
) -> None:
    with DeviceLink(str(board.link)) as first:
        stream = first.blocks(timeout_s=10)
        for _ in range(50):
            next(stream)
        board.kill()
        with pytest.raises(LinkLost):
            list(stream)
    board.start()
    second = reopened(str(board.link), first.resume_point, 20.0)
    with second:
        blocks = list(islice(second.blocks(timeout_s=10), 50))
    assert not blocks[0].lost_exact and blocks[0].lost_before > 0  # the counter died with the device
    assert second.info.boot_id != first.info.boot_id
    assert first.resume_point is not None and blocks[0].sample_index < first.resume_point.next_index
    assert all(np.array_equal(block.samples, expected(block, built[1], 16000)) for block in blocks)
    assert second.stats.bad_frames == 0


def test_any_wav_can_be_its_table(tmp_path: Path) -> None:
    values = np.arange(-8000, 8000, dtype="<i2")
    with wave.open(str(tmp_path / "ramp.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(TABLE_RATE)
        file.writeframes(values.tobytes())
    firmware, table = build_firmware(tmp_path / "build", tmp_path / "ramp.wav")
    assert np.array_equal(table, values)
    with Qemu(firmware, tmp_path / "stethoscope") as board, DeviceLink(str(board.link)) as device:
        block = next(device.blocks(timeout_s=10))
        assert np.array_equal(block.samples * 32768, table[block.sample_index :][: block.samples.size])
