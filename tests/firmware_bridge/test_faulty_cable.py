"""A bad cable costs at most the frames that were hit, every dropped sample is counted, and nothing raises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from firmware_bridge.decoder import FrameDecoder
from firmware_bridge.emulator.device import DeviceOptions
from firmware_bridge.emulator.faults import FaultyWire, Hit
from firmware_bridge.framing import Frame, encode_message
from firmware_bridge.link import DeviceLink
from firmware_bridge.messages import Audio
from tests.support.stethoscope import PtyRelay, emulated, noise, wait_until


def _stream(frames: int) -> bytes:
    rng = np.random.default_rng(3)
    parts = []
    for seq in range(frames):
        data = rng.integers(-9, 10, 160).astype("<i2").tobytes()
        parts.append(encode_message(Audio(1, 160, data), seq=seq & 0xFFFF, sample_index=seq * 160))
    return b"".join(parts)


def _frames_hit(wire: bytes, hits: list[Hit]) -> npt.NDArray[np.bool_]:
    """Which frames (with both their delimiters) a hit touched."""
    zeros = np.flatnonzero(np.frombuffer(wire, np.uint8) == 0)
    begins, ends = zeros[0::2], zeros[1::2]
    touched = np.zeros(begins.size, np.bool_)
    for hit in hits:
        touched[_first_and_after(begins, ends, hit)] = True
    return touched


def _first_and_after(begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], hit: Hit) -> slice:
    return slice(int(np.searchsorted(ends, hit.at)), int(np.searchsorted(begins, hit.at + hit.size)))


def _spanning(wire: bytes, hits: list[Hit]) -> int:
    """Hits that touched two frames."""
    zeros = np.flatnonzero(np.frombuffer(wire, np.uint8) == 0)
    touched = [_first_and_after(zeros[0::2], zeros[1::2], hit) for hit in hits]
    return sum(span.stop - span.start > 1 for span in touched)


@pytest.mark.parametrize("chunk", [1, 97, 4096, 10**9])
def test_the_same_seed_damages_the_same_bytes_however_the_stream_is_split(chunk: int) -> None:
    wire = _stream(300)
    whole = FaultyWire(flip=1e-3, drop_every=2000, seed=4)
    expected = whole.damage(wire)
    in_parts = FaultyWire(flip=1e-3, drop_every=2000, seed=4)
    got = b"".join(in_parts.damage(wire[at : at + chunk]) for at in range(0, len(wire), chunk))
    assert got == expected != wire
    assert in_parts.hits == whole.hits
    assert len(wire) - len(expected) == sum(hit.size for hit in whole.hits if hit.dropped)


@pytest.mark.parametrize(("flip", "drop_every"), [(1e-4, 0.0), (0.0, 10_000.0), (1e-4, 10_000.0), (2e-3, 500.0)])
def test_only_frames_that_were_hit_are_lost(flip: float, drop_every: float) -> None:
    wire = _stream(5000)
    cable = FaultyWire(flip=flip, drop_every=drop_every, seed=8)
    frames = [item for item in FrameDecoder().feed(cable.damage(wire)) if isinstance(item, Frame)]
    alive = np.zeros(5000, np.bool_)
    alive[[frame.sample_index // 160 for frame in frames]] = True
    touched = _frames_hit(wire, cable.hits)
    assert touched.any()
    assert np.all(alive | touched)  # an untouched frame always arrives
    spanning = _spanning(wire, cable.hits)
    assert (~alive).sum() <= len(
        cable.hits
    ) + spanning  # one frame a hit; two where 64 dropped bytes reach into the next


def test_a_relay_between_two_terminals_drops_counted_samples_and_nothing_else(tmp_path: Path) -> None:
    samples = noise(4.0, 16000)
    options = DeviceOptions(rate_hz=16000, once=True)
    cable = FaultyWire(flip=1e-4, drop_every=10_000, seed=6)
    with (
        emulated(tmp_path / "device", samples, options) as (port, report),
        PtyRelay(port, cable) as relay,
        DeviceLink(relay.port) as device,
    ):
        blocks = list(device.blocks())
        stats = device.stats
        assert wait_until(lambda: report.ended)
    expected = 0
    for block in blocks:
        expected += block.lost_before
        assert block.sample_index == expected
        assert np.array_equal(block.samples, samples[expected : expected + block.samples.size])
        expected += block.samples.size
    assert expected == samples.size
    assert stats.samples + stats.lost_samples == samples.size
    hits = len(cable.hits)
    spanning = _spanning(bytes(relay.original), cable.hits)
    assert hits > 10
    assert 0 < stats.lost_samples <= (hits + spanning) * 160
    assert stats.sequence_gaps <= hits + spanning
