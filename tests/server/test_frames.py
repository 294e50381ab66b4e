"""Messages of a stream: headers, PCM, numbers."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from edge_sdk.server.settings import RequestError
from edge_sdk.server.streams.frames import FrameReader, read_header


def reader(**changes: Any) -> FrameReader:
    header = {"rate": 8000, "format": "s16le", **changes}
    return FrameReader(read_header(json.dumps(header)), 60.0)


def numbered(first: int, count: int) -> bytes:
    return struct.pack("<Q", first) + np.arange(first, first + count).astype("<i2").tobytes()


def test_samples_that_are_missing_between_numbers_are_counted_exactly() -> None:
    frames = reader(numbered=True, first_sample=100)
    blocks = [frames.block(numbered(first, 50)) for first in (100, 150, 260, 310, 1000)]
    assert [block.lost_before for block in blocks if block] == [0, 0, 60, 0, 640]
    assert frames.lost == 700
    assert blocks[2] is not None and blocks[2].first_sample == 260


def test_repeated_and_overlapping_frames_are_left_out_and_counted() -> None:
    frames = reader(numbered=True)
    frames.block(numbered(0, 100))
    assert frames.block(numbered(0, 100)) is None
    block = frames.block(numbered(60, 100))
    assert block is not None and block.first_sample == 100 and block.lost_before == 0
    np.testing.assert_array_equal(np.rint(block.samples * 32768), np.arange(100, 160))
    assert frames.repeated == 140


def test_the_channel_that_was_asked_for_is_taken_of_every_format() -> None:
    stereo = np.stack([np.arange(4), -np.arange(4)], axis=1)
    block = reader(channels=2, channel=1).block(stereo.astype("<i2").tobytes())
    assert block is not None and np.rint(block.samples * 32768).tolist() == [0, -1, -2, -3]
    block = reader(channels=2, format="f32le").block((stereo / 8).astype("<f4").tobytes())
    assert block is not None and block.samples.tolist() == [0.0, 0.125, 0.25, 0.375]


@pytest.mark.parametrize(
    ("header", "message", "match"),
    [
        ({}, b"\x00", "whole samples"),
        ({"channels": 2}, b"\x00" * 6, "whole samples"),
        ({"numbered": True}, b"\x00" * 7, "whole samples"),
        ({"numbered": True}, struct.pack("<Q", 1 << 60) + b"\x00" * 4, "too far"),
        ({"format": "f32le"}, struct.pack("<f", float("nan")), "NaN"),
        ({"format": "f32le"}, struct.pack("<f", float("inf")), "NaN"),
        ({"format": "f32le"}, struct.pack("<f", 32767.0), "floats in ±1"),
    ],
)
def test_garbage_is_refused_with_a_reason(header: dict[str, Any], message: bytes, match: str) -> None:
    with pytest.raises(RequestError, match=match):
        reader(**header).block(message)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ("", "JSON object"),
        ("[]", "JSON object"),
        ("[" * 100_000, "JSON object"),
        ('{"rate": 8000}', "rate and format"),
        ('{"rate": 8000, "format": "mp3"}', "format"),
        ('{"rate": 7, "format": "s16le"}', "rate"),
        ('{"rate": "8000", "format": "s16le"}', "rate"),
        ('{"rate": 8000.5, "format": "s16le"}', "rate"),
        ('{"rate": 8000, "format": "s16le", "channels": 9}', "channels"),
        ('{"rate": 8000, "format": "s16le", "channel": 1}', "channel 1"),
        ('{"rate": 8000, "format": "s16le", "first_sample": -1}', "first_sample"),
        ('{"rate": 8000, "format": "s16le", "name": "x"}', "unknown keys name"),
        ('{"rate": 8000, "format": "s16le", "point": "left upper back"}', "examination"),
        ('{"rate": 8000, "format": "s16le", "metadata": []}', "metadata"),
    ],
)
def test_a_header_that_says_nothing_valid_is_refused_and_the_field_is_named(header: str, match: str) -> None:
    with pytest.raises(RequestError, match=match):
        read_header(header)


def test_an_empty_message_is_no_block() -> None:
    assert reader().block(b"") is None
