"""Lost sound is told from late sound, by counting frames against the clock."""

from __future__ import annotations

import random

import pytest

from edge_sdk.sources.microphone.dropouts import LossMeter

RATE = 16_000
BLOCK = 160
SECOND = 1_000_000_000


class Device:
    """Deliveries of a device whose clock runs ``ppm`` fast, each late by what the test says."""

    def __init__(self, ppm: float = 0.0, rate: int = RATE, block: int = BLOCK) -> None:
        self.meter = LossMeter(rate)
        self.block, self._true_rate = block, rate * (1 + ppm * 1e-6)
        self._captured = 0
        self._last_ns = 0
        self.told = 0

    @property
    def now_ns(self) -> int:
        return round(self._captured * SECOND / self._true_rate)

    def deliver(self, seconds: float, *, late_s: float = 0.0, flagged: bool = False) -> None:
        for _ in range(round(seconds * self._true_rate / self.block)):
            self._captured += self.block
            self._last_ns = max(self._last_ns, self.now_ns + round(late_s * SECOND))
            self.told += self.meter.accept(self.block, self._last_ns, flagged=flagged)

    def hold(self, seconds: float) -> None:
        """Nothing is delivered for a while, then all of it at once."""
        self._last_ns = self.now_ns + round(seconds * SECOND)

    def lose(self, seconds: float) -> int:
        samples = round(seconds * self._true_rate)
        self._captured += samples
        return samples


@pytest.mark.parametrize("ppm", [-300, -20, 0, 100, 300])
def test_a_drifting_clock_loses_nothing_in_an_hour(ppm: float) -> None:
    device = Device(ppm, block=1600)
    device.deliver(3600)
    assert device.told == 0


def test_jitter_and_bursts_are_no_loss() -> None:
    device, dice = Device(), random.Random(5)
    for _ in range(3000):
        device.deliver(BLOCK / RATE, late_s=dice.expovariate(1 / 0.02))
    assert device.told == 0


def test_a_stall_that_the_sound_server_makes_up_for_is_no_loss() -> None:
    device = Device()
    device.deliver(5)
    device.hold(3)
    device.deliver(3)
    device.deliver(10)
    assert device.told == 0


@pytest.mark.parametrize("ppm", [-100, 0, 100])
@pytest.mark.parametrize("lost_s", [0.08, 0.5, 7.0])
def test_a_loss_without_a_flag_is_counted_to_a_few_milliseconds(ppm: float, lost_s: float) -> None:
    device = Device(ppm)
    device.deliver(10)
    lost = device.lose(lost_s)
    device.deliver(20)
    assert device.told == pytest.approx(lost, abs=0.01 * RATE)


def test_flags_that_lie_are_no_loss_and_flags_that_tell_the_truth_find_a_small_one() -> None:
    device = Device()
    device.deliver(10, flagged=True)
    assert device.told == 0
    lost = device.lose(0.02)
    device.deliver(BLOCK / RATE, flagged=True)
    device.deliver(5)
    assert device.told == pytest.approx(lost, abs=0.005 * RATE)


def test_small_losses_add_up_until_they_are_noticed() -> None:
    device = Device()
    device.deliver(5)
    lost = 0
    for _ in range(12):
        lost += device.lose(0.02)
        device.deliver(2)
    assert device.told == pytest.approx(lost, abs=0.08 * RATE)
    assert device.told > 0
