"""Samples are decoded exactly with 16 and 24 bits, closely with ADPCM; a lost ADPCM block does not affect the next."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge import audio
from firmware_bridge.adpcm import AdpcmState
from firmware_bridge.audio import decode_audio, encode_audio
from firmware_bridge.constants import Codec
from firmware_bridge.errors import ProtocolError
from firmware_bridge.messages import Audio


@pytest.mark.parametrize("codec", [Codec.S16, Codec.S24])
@given(data=st.data())
def test_integers_are_exact(codec: Codec, data: st.DataObject) -> None:
    full = 1 << audio.BITS[codec] - 1
    values = np.array(data.draw(st.lists(st.integers(-full, full - 1), max_size=60)), np.int32)
    message = encode_audio(values, codec, AdpcmState())
    assert len(message.data) == values.size * audio.BITS[codec] // 8
    assert np.array_equal(decode_audio(message)[:, 0], values)
    assert np.array_equal(audio.to_integers(audio.to_float(values, codec), codec), values)


def test_interleaved_channels_are_separated() -> None:
    values = np.arange(-6, 6, dtype=np.int32)
    packed = encode_audio(values, Codec.S24, AdpcmState())
    both = decode_audio(Audio(Codec.S24, 6, packed.data), channels=2)
    assert np.array_equal(both, values.reshape(6, 2))


def test_floats_saturate() -> None:
    assert audio.to_integers(np.array([-2.0, -1.0, 1.0, 9.0]), Codec.S16).tolist() == [-32768, -32768, 32767, 32767]


def test_adpcm_keeps_36_db_and_each_block_can_be_decoded_alone() -> None:
    t = np.arange(16000) / 16000
    wave = np.rint(8000 * np.sin(2 * np.pi * 150 * t) * (0.3 + np.abs(np.sin(2 * np.pi * 0.7 * t)))).astype(np.int32)
    state = AdpcmState()
    blocks = [encode_audio(part, Codec.ADPCM, state) for part in np.split(wave, 100)]
    assert all(len(block.data) == 4 + 80 for block in blocks)
    back = np.concatenate([decode_audio(block)[:, 0] for block in blocks])
    noise = (back - wave)[400:].astype(float)
    assert 10 * np.log10(np.mean(wave[400:].astype(float) ** 2) / np.mean(noise**2)) > 36
    alone = decode_audio(blocks[50])[:, 0]
    assert np.array_equal(alone, back[50 * 160 : 51 * 160])


def test_an_odd_number_of_adpcm_samples_and_full_swing() -> None:
    values = np.array([32767, -32768] * 20 + [5], np.int32)
    message = encode_audio(values, Codec.ADPCM, AdpcmState())
    assert len(message.data) == 4 + 21
    assert decode_audio(message).shape == (41, 1)


@given(st.integers(0, 255), st.integers(0, 65535), st.binary(max_size=80), st.integers(1, 3))
def test_decoding_any_payload_gives_samples_or_a_typed_error(
    codec: int, count: int, data: bytes, channels: int
) -> None:
    with contextlib.suppress(ProtocolError):
        assert decode_audio(Audio(codec, count, data), channels).shape == (count, channels)
