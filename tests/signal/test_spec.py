"""The front-end specification: two equal digests mean equal features, and nothing impossible is accepted."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import fields, replace

from edge_sdk.signal.spec import FrontEndSpec


def test_a_specification_survives_the_way_through_a_file() -> None:
    spec = FrontEndSpec(frame_samples=256, scale=32768.0, crop="start")
    assert FrontEndSpec.from_dict(spec.to_dict()) == spec
    assert FrontEndSpec.from_dict(spec.to_dict()).digest == spec.digest


def test_every_field_changes_the_digest() -> None:
    spec = FrontEndSpec(high_hz=1500.0)
    other: dict[str, Any] = {
        "kind": "stft-db",
        "window_type": "povey",
        "normalisation": "none",
        "pad_mode": "zero",
        "crop": "start",
        "remove_dc": False,
    }
    for field in fields(spec):
        if field.name == "resampler":  # only one so far
            continue
        value = other[field.name] if field.name in other else getattr(spec, field.name) + 1
        assert replace(spec, **{field.name: value}).digest != spec.digest, field.name


def test_frames_are_counted_as_kaldi_does() -> None:
    spec = FrontEndSpec()  # 12 000 samples, frame 128, hop 40
    assert (spec.window_samples, spec.fft_size, spec.frames) == (12_000, 128, 297)
    assert replace(spec, frame_samples=129).fft_size == 256


def test_an_integer_and_its_float_give_one_digest() -> None:
    written = FrontEndSpec.from_dict({"window_s": 3, "high_hz": 2000})
    assert written == FrontEndSpec(window_s=3, high_hz=2000) == FrontEndSpec()
    assert {spec.digest for spec in (written, FrontEndSpec(window_s=3), FrontEndSpec())} == {FrontEndSpec().digest}


def test_unknown_keys_are_named() -> None:
    with pytest.raises(ValueError, match=r"front end: unknown keys \['colour', 'taste'\]"):
        FrontEndSpec.from_dict({"taste": 2, "colour": 1, "rate_hz": 4000})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate_hz": "4000"}, "front end: rate_hz: Expected `int`, got `str`"),
        ({"remove_dc": 1}, "front end: remove_dc: Expected `bool`, got `int`"),
        ({"scale": True}, "front end: scale: Expected `float`, got `bool`"),
        ({"crop": "end"}, r"front end: crop: 'end' is not one of \('centre', 'start'\)"),
    ],
)
def test_wrong_types_are_refused_with_the_name_of_the_field(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrontEndSpec.from_dict(values)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "mfcc"},
        {"window_type": "kaiser"},
        {"pad_mode": "reflect"},
        {"crop": "end"},
        {"normalisation": "batch"},
        {"resampler": "linear"},
        {"hop_samples": 0},
        {"frame_samples": 1},
        {"mel_bins": 0},
        {"rate_hz": 0},
        {"high_hz": 2001.0},
        {"low_hz": 500.0, "high_hz": 400.0},
        {"window_s": 0.01},
    ],
)
def test_impossible_specifications_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="front end"):
        replace(FrontEndSpec(), **changes)  # type: ignore[arg-type]
