"""YAMNet's trunk: the public weights give the published network, and batch norms that change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_sdk.digests import sha256_file
from edge_sdk.errors import CheckpointError, RecipeError
from edge_sdk.models import MODELS, build_model, count_parameters, pretrained
from edge_sdk.models.pretrained import load_public_weights, read_tensors
from edge_sdk.models.tflite import read_operators
from edge_sdk.models.yamnet import ConvolutionNorm, Yamnet, YamnetCompact
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.recipes.recipe import load_recipe
from tests.support.tflite_file import Layer, tflite_file

CHANNELS = (32, 64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)
SPEC = FrontEndSpec(mel_bins=64, high_hz=1800.0, low_hz=50.0)

# LiteRT 2.3.0 on ``published_wave``, its reference kernels, the int8 weights of the file expanded to float32 first (by
# themselves its kernels quantise the activations too): scores before the sigmoid, and means over time and mel.
SCORES = {132: 1.6833, 203: -0.7902, 133: -1.4572, 153: -3.0896, 495: -3.0959, 0: -7.6288, 100: -10.9772, 520: -12.861}
LAYER_4 = {0: 1.273514, 25: 1.134829, 116: 0.999428, 102: 0.975625}
LAYER_12 = {77: 0.085519, 326: 0.085271, 235: 0.082249, 227: 0.081765}
LOG_MEL = [[-5.7218, -3.9182, -2.3688], [-3.1665, -0.6198, 1.444], [-1.8278, 3.5043, 1.9123]]


def public_layers(seed: int = 0, convolutions: int = 27) -> list[Layer]:
    """The layers of the public file with random weights: float32 and int8, one behind DEQUANTIZE."""
    random = np.random.default_rng(seed)
    layers = []
    inputs = 1
    for index in range(convolutions):
        outputs = CHANNELS[(index + 1) // 2] if index == 0 or index % 2 == 0 else inputs
        bias = random.normal(0, 0.1, outputs).astype(np.float32)
        if index == 0:
            weight = random.normal(0, 0.5, (32, 3, 3, 1)).astype(np.float32)
            layers.append(Layer("CONV_2D", (weight, bias)))
        elif index % 2:
            kernel = random.integers(-127, 128, (1, 3, 3, outputs)).astype(np.int8)
            scale = random.uniform(0.004, 0.008, outputs).astype(np.float32)
            layers.append(Layer("DEPTHWISE_CONV_2D", (kernel, bias), scale, channel=3, expanded=index == 5))
        else:
            kernel = random.integers(-127, 128, (outputs, 1, 1, inputs)).astype(np.int8)
            scale = np.array([0.02 / inputs**0.5], np.float32)
            layers.append(Layer("CONV_2D", (kernel, bias), scale, np.zeros(1, np.int64)))
        inputs = outputs
    return [*layers, Layer("FULLY_CONNECTED", (random.normal(size=(521, 1024)).astype(np.float32), None))]


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write(tmp_path / "yamnet.tflite", public_layers(), monkeypatch)


def write(path: Path, layers: Sequence[Layer], monkeypatch: pytest.MonkeyPatch) -> Path:
    path.write_bytes(tflite_file(layers))
    monkeypatch.setattr(pretrained, "KNOWN_TFLITE", {sha256_file(path): "test"})
    return path


def loaded(path: Path, size: str = "tiny", level: float = 0.0) -> Yamnet:
    torch.manual_seed(0)
    model = Yamnet(4, size, level=level).eval()
    load_public_weights(model, path)
    return model


def by_hand(path: Path, picture: Tensor, convolutions: int) -> Tensor:
    """The published network in its own layout [B, C, time, mel], with TensorFlow's padding written out."""
    tensors, x = read_tensors(path), picture.transpose(2, 3)
    strides = {0: 2, 3: 2, 7: 2, 11: 2, 23: 2}
    for index in range(convolutions):
        weight, stride = tensors[f"convolution{index}.weight"], strides.get(index, 1)
        if weight.shape[2] == 3:
            pads = []
            for length in (x.shape[3], x.shape[2]):
                before, after = (1, 1) if stride == 1 or length % 2 else (0, 1)
                pads += [before, after]
            x = F.pad(x, pads)
        groups = weight.shape[0] if weight.shape[1] == 1 and index else 1
        x = F.relu(F.conv2d(x, weight, tensors[f"convolution{index}.bias"], stride=stride, groups=groups))
    return x.transpose(2, 3)


@pytest.mark.parametrize("frames", [96, 185, 40, 7])
@pytest.mark.parametrize(("size", "convolutions"), [("tiny", 7), ("small", 11)])
def test_public_weights_give_the_published_maps(public: Path, size: str, convolutions: int, frames: int) -> None:
    picture = torch.randn(2, 1, 64, frames)
    with torch.no_grad():
        found, expected = loaded(public, size).maps(picture), by_hand(public, picture, convolutions)
    assert found.shape == expected.shape
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def published_wave() -> npt.NDArray[np.float64]:
    """0.975 s at 16 kHz: a chirp from 0.4 s on, and noise in bursts."""
    n = np.arange(15600)
    t = n / 16000
    chirp = 0.3 * np.sin(2 * np.pi * (300 * t + 400 * t * t)) * (t > 0.4)
    noise = ((n * 7919) % 1009 / 1009 - 0.5) * 0.3 * (0.5 - 0.5 * np.cos(2 * np.pi * 2.5 * t))
    return chirp + noise


def published_log_mel(path: Path, wave: npt.NDArray[np.float64]) -> Tensor:
    """The front end inside the file: ``[1, 1, 64, 96]``."""
    constants = [c for operator in read_operators(path.read_bytes()) for c in operator.constants if c is not None]
    window = next(c for c in constants if c.size == 400).ravel()
    real, imaginary, mel = (read_tensors(path)[f"dense{index}.weight"].numpy() for index in range(3))
    frames = np.lib.stride_tricks.sliding_window_view(wave.astype(np.float32), 400)[::160][:96] * window
    frames = np.pad(frames, ((0, 0), (56, 56)))
    picture = np.log(np.hypot(frames @ real.T, frames @ imaginary.T) @ mel.T + 0.001)  # [96, 64]
    return torch.from_numpy(picture.T.astype(np.float32))[None, None]


def test_the_real_file_gives_what_its_own_interpreter_gives(data_root: Path) -> None:
    path = data_root / "pretrained" / "yamnet.tflite"
    picture = published_log_mel(path, published_wave())
    np.testing.assert_allclose(picture[0, 0].T[[0, 50, 95]][:, [0, 20, 63]], LOG_MEL, atol=2e-4)
    tensors, network = read_tensors(path), loaded(path, "medium")
    with torch.no_grad():
        means = {size: loaded(path, size).maps(picture).mean(dim=(0, 2, 3)) for size in ("tiny", "base")}
        scores = tensors["dense3.weight"] @ network.maps(picture).mean(dim=(0, 2, 3)) + tensors["dense3.bias"]
    for found, expected in ((means["tiny"], LAYER_4), (means["base"], LAYER_12)):
        np.testing.assert_allclose([found[k] for k in expected], list(expected.values()), atol=1e-5)
    np.testing.assert_allclose([scores[k] for k in SCORES], list(SCORES.values()), atol=1e-3)
    assert int(scores.argmax()) == 132


def test_every_tensor_of_the_trunk_is_filled(public: Path) -> None:
    model = Yamnet(4, "small")
    filled = set(load_public_weights(model, public))
    left = {name for name in model.state_dict() if name not in filled}
    assert left == {"head.weight", "head.bias", *(f"layers.{k}.norm.num_batches_tracked" for k in range(11))}


def test_batch_norms_change_nothing_at_the_start(public: Path) -> None:
    model, picture = loaded(public, level=-2.0), torch.randn(4, 1, 64, 60)
    with torch.no_grad():
        before = model(picture)
        model.settle(picture)
        torch.testing.assert_close(model(picture), before, atol=1e-4, rtol=1e-4)
        other = torch.randn(3, 1, 64, 50) * 2
        torch.testing.assert_close(model(other), loaded(public, level=-2.0)(other), atol=1e-4, rtol=1e-4)
        model.train()
        model.dropout.eval()
        torch.testing.assert_close(model(picture), before, atol=1e-3, rtol=1e-3)  # statistics of the batch


def test_without_settling_training_statistics_do_change_it(public: Path) -> None:
    model, picture = loaded(public), torch.randn(4, 1, 64, 60)
    with torch.no_grad():
        before = model(picture)
        model.train()
        model.dropout.eval()
        assert not torch.allclose(model(picture), before, atol=1e-2)


def test_settling_twice_and_on_dead_channels_stays_finite(public: Path) -> None:
    model, silence = loaded(public), torch.zeros(2, 1, 64, 30)
    with torch.no_grad():
        before = model(silence + 1)
        model.settle(silence)
        model.settle(silence)
        torch.testing.assert_close(model(silence + 1), before, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("size", MODELS["yamnet"].sizes)
def test_any_length_becomes_one_row_of_logits(size: str) -> None:
    model = build_model("yamnet", size=size, classes=3, front_end=SPEC).eval()
    for frames in (20, 185):
        picture = torch.randn(2, 1, 64, frames)
        with torch.no_grad():
            outputs = model.outputs(picture)  # type: ignore[operator]
            torch.testing.assert_close(model(picture, {"age": 3}), outputs.logits, atol=0, rtol=0)
            torch.testing.assert_close(model.embed(picture, mix=lambda maps: maps), outputs.embedding)  # type: ignore[operator]
        assert outputs.logits.shape == (2, 3)
        assert outputs.embedding.shape == (2, model.embedding_dim)


def test_the_trunk_to_layer_12_has_the_published_size() -> None:
    model = build_model("yamnet", size="base", classes=4, front_end=SPEC)
    trunk = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("head."))
    kernels = 32 * 9 + sum(9 * i + i * o for i, o in pairwise(CHANNELS[:12]))
    norms = 2 * (32 + sum(i + o for i, o in pairwise(CHANNELS[:12])))
    assert trunk == kernels + norms == 1_612_544
    assert count_parameters(model) == trunk + 4 * 1024 + 4


def test_random_weights_do_not_fade_away() -> None:
    torch.manual_seed(1)
    model = Yamnet(4, "medium").eval()
    with torch.no_grad():
        one, other = model.maps(torch.randn(2, 1, 64, 100))
    assert (one - other).norm() / one.norm() > 0.05
    assert one.abs().max() > 1e-2


def test_another_number_of_mel_bins_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"needs 64 mel bins, not 48; set front_end\.mel_bins=64"):
        build_model("yamnet", size="base", classes=4, front_end=FrontEndSpec(mel_bins=48))


def test_other_files_of_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = write(tmp_path / "short.tflite", public_layers(convolutions=25), monkeypatch)
    with pytest.raises(CheckpointError, match="25 convolutions instead of the 27 of YAMNet"):
        load_public_weights(Yamnet(4, "tiny"), short)
    layers = public_layers()
    layers[3] = Layer("DEPTHWISE_CONV_2D", (np.zeros((1, 5, 5, 64), np.float32), np.zeros(64, np.float32)))
    other = write(tmp_path / "other.tflite", layers, monkeypatch)
    with pytest.raises(
        CheckpointError, match=r"does not fit Yamnet: 1 tensors of another shape: layers\.3\.conv\.weight"
    ):
        load_public_weights(Yamnet(4, "tiny"), other)
    torch.save({"conv1.weight": torch.ones(1)}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match=r"conv1\.weight is no tensor of YAMNet"):
        load_public_weights(Yamnet(4, "tiny"), tmp_path / "resnet.pth")


def test_the_recipe_takes_the_trunks_front_end() -> None:
    spec = load_recipe("yamnet").spec
    assert (spec.mel_bins, spec.low_hz, spec.high_hz, spec.hop_samples, spec.rate_hz) == (64, 50.0, 1800.0, 64, 4000)
    assert load_recipe("yamnet").model.pretrained is None
    assert all(isinstance(layer, ConvolutionNorm) for layer in Yamnet(4, "tiny", spec).layers)


def test_a_checkpoint_of_the_same_size_is_taken_without_its_head(public: Path, tmp_path: Path) -> None:
    source = loaded(public)
    source.settle(torch.randn(4, 1, 64, 40))
    torch.save(source.state_dict(), tmp_path / "own.pt")
    torch.manual_seed(1)
    model, picture = Yamnet(7, "tiny", level=0.0).eval(), torch.randn(2, 1, 64, 40)
    load_public_weights(model, tmp_path / "own.pt")
    with torch.no_grad():
        torch.testing.assert_close(model.maps(picture), source.maps(picture), atol=0, rtol=0)
    with pytest.raises(CheckpointError, match="tensors missing"):
        load_public_weights(Yamnet(4, "small"), tmp_path / "own.pt")


# -- beside the compact network ----------------------------------------------------------------------------------------


def test_the_pair_gives_the_mean_of_both_and_each_alone_in_training(public: Path) -> None:
    torch.manual_seed(0)
    model, picture = YamnetCompact(4, "tiny").eval(), torch.randn(2, 1, 64, 187)
    filled = load_public_weights(model, public)
    assert filled and all(name.startswith("trunk.layers.") for name in filled)
    outputs = model.outputs(picture)
    alone = torch.stack([model.trunk(picture), model.compact(picture)])
    torch.testing.assert_close(model(picture), alone.mean(dim=0))
    torch.testing.assert_close(outputs.logits, model(picture))
    torch.testing.assert_close(torch.stack([outputs.auxiliary["trunk"], outputs.auxiliary["compact"]]), alone)
    assert outputs.embedding.shape == (2, model.embedding_dim)


def test_settling_the_pair_changes_no_logit(public: Path) -> None:
    torch.manual_seed(0)
    model, picture = YamnetCompact(4, "tiny").eval(), torch.randn(4, 1, 64, 187)
    load_public_weights(model, public)
    before = model(picture)
    model.settle(picture)
    torch.testing.assert_close(model(picture), before, rtol=1e-3, atol=1e-4)


def test_the_pair_needs_the_picture_of_yamnet() -> None:
    with pytest.raises(RecipeError, match="needs 64 mel bins, not 48"):
        build_model("yamnet-compact", size="tiny", classes=4, front_end=FrontEndSpec(mel_bins=48))
