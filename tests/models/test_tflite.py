"""Constants of TensorFlow Lite files: read as they were written, and refused where the file is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_sdk.digests import sha256_file
from edge_sdk.errors import CheckpointError
from edge_sdk.models import pretrained
from edge_sdk.models.pretrained import read_tensors
from edge_sdk.models.tflite import read_operators
from tests.support.tflite_file import Layer, tflite_file

RANDOM = np.random.default_rng(3)
KERNEL = RANDOM.normal(size=(4, 3, 3, 2)).astype(np.float32)
BIAS = RANDOM.normal(size=4).astype(np.float32)
QUANTISED = RANDOM.integers(-128, 128, (1, 3, 3, 4)).astype(np.int8)
SCALES = np.array([0.5, 0.25, 0.125, 2.0], np.float32)
LAYERS = (
    Layer("CONV_2D", (KERNEL, BIAS)),
    Layer("LOG"),
    Layer("DEPTHWISE_CONV_2D", (QUANTISED, BIAS), scale=SCALES, channel=3),
    Layer("BROADCAST_TO", (np.array([1, 2], np.int32),)),
    Layer("FULLY_CONNECTED", (QUANTISED.reshape(9, 4), None), np.array([0.5], np.float32), np.array([3], np.int64)),
)


def test_constants_are_those_that_were_written() -> None:
    convolution, log, depthwise, broadcast, dense = read_operators(tflite_file(LAYERS))
    assert [o.name for o in (convolution, log, depthwise, broadcast, dense)] == [
        "CONV_2D",
        "",
        "DEPTHWISE_CONV_2D",
        "",
        "FULLY_CONNECTED",
    ]
    computed, kernel, bias = convolution.constants
    assert computed is None and kernel is not None and bias is not None
    np.testing.assert_array_equal(kernel, KERNEL)
    np.testing.assert_array_equal(bias, BIAS)
    assert log.constants == (None,)
    assert broadcast.constants[1] is not None
    np.testing.assert_array_equal(broadcast.constants[1], [1.0, 2.0])
    assert dense.constants[2] is None


def test_int8_is_dequantised_by_channel_and_by_tensor() -> None:
    operators = read_operators(tflite_file(LAYERS))
    by_channel, by_tensor = operators[2].constants[1], operators[4].constants[1]
    assert by_channel is not None and by_tensor is not None
    np.testing.assert_array_equal(by_channel, QUANTISED.astype(np.float32) * SCALES)
    np.testing.assert_array_equal(by_tensor, (QUANTISED.reshape(9, 4).astype(np.float32) - 3) * 0.5)


def test_a_weight_behind_dequantize_is_the_same() -> None:
    through = Layer("DEPTHWISE_CONV_2D", (QUANTISED, BIAS), scale=SCALES, channel=3, expanded=True)
    first, second = read_operators(tflite_file([through]))
    assert (first.name, second.name) == ("DEQUANTIZE", "DEPTHWISE_CONV_2D")
    weight = second.constants[1]
    assert weight is not None
    np.testing.assert_array_equal(weight, QUANTISED.astype(np.float32) * SCALES)


def test_a_constant_of_another_type_is_none() -> None:
    (operator,) = read_operators(tflite_file([Layer("CONV_2D", (np.arange(4), BIAS))]))  # int64
    assert operator.constants[1] is None
    assert operator.constants[2] is not None


@pytest.mark.parametrize("kept", [8, 40, 200, 600])
def test_a_damaged_file_is_one_error(kept: int) -> None:
    with pytest.raises(CheckpointError, match="damaged TensorFlow Lite file"):
        read_operators(tflite_file(LAYERS)[:kept])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip archive", bytes(64)])
def test_another_kind_of_file_is_one_error(content: bytes) -> None:
    with pytest.raises(CheckpointError, match="not a TensorFlow Lite file"):
        read_operators(content)


def test_no_damage_gives_another_error_than_its_own() -> None:
    content, refused = tflite_file(LAYERS), 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        damaged = bytearray(content)
        for place in random.integers(8, len(content), 4):
            damaged[place] = random.integers(256)
        try:
            read_operators(bytes(damaged))
        except CheckpointError:
            refused += 1
    assert 0 < refused < 300  # damage inside a weight cannot be noticed here; the checksum finds it


def test_layers_are_counted_in_the_layout_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some.tflite"
    path.write_bytes(tflite_file(LAYERS))
    monkeypatch.setattr(pretrained, "KNOWN_TFLITE", {sha256_file(path): "ours"})
    tensors = read_tensors(path)
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        "convolution0.weight": (4, 2, 3, 3),
        "convolution0.bias": (4,),
        "convolution1.weight": (4, 1, 3, 3),
        "convolution1.bias": (4,),
        "dense0.weight": (9, 4),
    }
    np.testing.assert_array_equal(tensors["convolution0.weight"][1, 0].numpy(), KERNEL[1, :, :, 0])
    assert tensors["convolution1.weight"][2, 0, 1, 0] == float(QUANTISED[0, 1, 0, 2]) * 0.125


def test_a_file_with_an_unknown_checksum_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "yamnet.tflite"
    path.write_bytes(tflite_file(LAYERS))
    with pytest.raises(
        CheckpointError, match=r"yamnet\.tflite is no known file of weights .*known are YAMNet"
    ) as error:
        read_tensors(path)
    assert sha256_file(path) in str(error.value)
    assert "\n" not in str(error.value)
