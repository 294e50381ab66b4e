"""Dropped samples are distinguished from late ones, by counting frames against the clock."""

from __future__ import annotations

import random

import pytest

from edge_sdk.sources.microphone.dropouts import DropoutMeter

RATE = 16_000
BLOCK = 160
SECOND = 1_000_000_000


class Device:
    """Deliveries of a device whose clock runs ``ppm`` fast, each as late as the test sets."""

    def __init__(self, ppm: float = 0.0, rate: int = RATE, block: int = BLOCK) -> None:
        self.meter = DropoutMeter(rate)
        self.block, self._true_rate = block, rate * (1 + ppm * 1e-6)
        self._captured = 0
        self._last_ns = 0
        self.dropped = 0

    @property
    def now_ns(self) -> int:
        return round(self._captured * SECOND / self._true_rate)

    def deliver(self, seconds: float, *, late_s: float = 0.0, flagged: bool = False) -> None:
        for _ in range(round(seconds * self._true_rate / self.block)):
            self._captured += self.block
            self._last_ns = max(self._last_ns, self.now_ns + round(late_s * SECOND))
            self.dropped += self.meter.accept(self.block, self._last_ns, flagged=flagged)

    def hold(self, seconds: float) -> None:
        """Nothing is delivered for a while, then all of it at once."""
        self._last_ns = self.now_ns + round(seconds * SECOND)

    def drop(self, seconds: float) -> int:
        samples = round(seconds * self._true_rate)
        self._captured += samples
        return samples


@pytest.mark.parametrize("ppm", [-300, -20, 0, 100, 300])
def test_a_drifting_clock_drops_nothing_in_an_hour(ppm: float) -> None:
    device = Device(ppm, block=1600)
    device.deliver(3600)
    assert device.dropped == 0


def test_jitter_and_bursts_are_no_dropout() -> None:
    device, rng = Device(), random.Random(5)
    for _ in range(3000):
        device.deliver(BLOCK / RATE, late_s=rng.expovariate(1 / 0.02))
    assert device.dropped == 0


def test_a_stall_that_the_audio_server_makes_up_for_is_no_dropout() -> None:
    device = Device()
    device.deliver(5)
    device.hold(3)
    device.deliver(3)
    device.deliver(10)
    assert device.dropped == 0


@pytest.mark.parametrize("ppm", [-100, 0, 100])
@pytest.mark.parametrize("dropout_s", [0.08, 0.5, 7.0])
def test_a_dropout_without_a_flag_is_counted_to_a_few_milliseconds(ppm: float, dropout_s: float) -> None:
    device = Device(ppm)
    device.deliver(10)
    expected = device.drop(dropout_s)
    device.deliver(20)
    assert device.dropped == pytest.approx(expected, abs=0.01 * RATE)


def test_false_flags_are_no_dropout_and_true_flags_reveal_a_small_one() -> None:
    device = Device()
    device.deliver(10, flagged=True)
    assert device.dropped == 0
    expected = device.drop(0.02)
    device.deliver(BLOCK / RATE, flagged=True)
    device.deliver(5)
    assert device.dropped == pytest.approx(expected, abs=0.005 * RATE)


def test_small_dropouts_add_up_until_they_are_detected() -> None:
    device = Device()
    device.deliver(5)
    expected = 0
    for _ in range(12):
        expected += device.drop(0.02)
        device.deliver(2)
    assert device.dropped == pytest.approx(expected, abs=0.08 * RATE)
    assert device.dropped > 0
