"""A device that is exchanged behind an adapter, whose port stays, is noticed before its audio is delivered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from firmware_bridge.adpcm import AdpcmState
from firmware_bridge.audio import encode_audio, to_integers
from firmware_bridge.constants import Codec, MessageType
from firmware_bridge.errors import LinkLost
from firmware_bridge.framing import Frame
from firmware_bridge.link import DeviceLink
from firmware_bridge.messages import Info, StreamFormat
from tests.firmware_bridge.test_device_link import RATE, _Puppet


class Exchanged(_Puppet):
    """Reports what it is whenever it is asked."""

    def _reply(self, frame: Frame) -> None:
        super()._reply(frame)
        if frame.type == MessageType.GET_INFO:
            self.send(self.info)

    def play(self, index: int) -> None:
        samples = np.full(40, 0.25, np.float32)
        self.send(encode_audio(to_integers(samples, Codec.S16), Codec.S16, AdpcmState()), index)


@pytest.fixture
def puppet() -> Iterator[Exchanged]:
    made = Exchanged()
    yield made
    made.close()


@pytest.mark.parametrize(
    "other",
    [
        Info("Q", "puppet", boot_id=1),
        Info("P", "other", boot_id=1),
        Info("", "puppet", boot_id=1),
        Info("P", "puppet", boot_id=2),
    ],
)
def test_another_one_that_answers_to_start_is_no_continuation(puppet: Exchanged, other: Info) -> None:
    with DeviceLink(puppet.port) as device:
        puppet.info = other
        with pytest.raises(LinkLost, match=r"another device replies|the device restarted"):
            next(device.blocks())


def test_the_same_one_plays(puppet: Exchanged) -> None:
    with DeviceLink(puppet.port) as device:
        blocks = device.blocks()
        puppet.play(0)  # too early: the audio has not been started
        device._start()
        puppet.play(0)
        assert next(blocks).samples.size == 40


def test_one_that_streams_already_is_noticed_by_its_clock(puppet: Exchanged) -> None:
    with DeviceLink(puppet.port) as device:
        device._start()
        puppet.play(0)
        blocks = device.blocks()
        next(blocks)
        puppet.send(replace(StreamFormat(RATE), clock_id=6))
        puppet.play(40)
        with pytest.raises(LinkLost, match="sample clock was restarted"):
            next(blocks)
