"""The network of crackles and wheezes: small, causal, the same in one pass, in steps and in the exported graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from edge_sdk.errors import RecipeError
from edge_sdk.models.adventitious import ATTENTION_BOUND, STRIDE, AdventitiousNetwork, bounded, for_steps
from edge_sdk.models.registry import count_parameters
from edge_sdk.runtime.engines.onnx import OrtEngine
from edge_sdk.runtime.verdict.adventitious import SoundModel, SoundRun
from edge_sdk.signal.logmel import log_mel
from edge_sdk.training.adventitious.building import build_adventitious
from edge_sdk.training.recipes.recipe import load_recipe
from export.onnx.sound_graph import FRAMES_PER_STEP, export_adventitious
from tests.support.stored_weights import as_stored

RECIPE = load_recipe("adventitious")
SPEC = RECIPE.spec


@pytest.fixture(scope="module")
def network() -> AdventitiousNetwork:
    """Random weights, with batch norms that do something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = build_adventitious(RECIPE)
        for module in made.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
                torch.nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
                torch.nn.init.uniform_(module.weight, 0.5, 2.0)
                torch.nn.init.normal_(module.bias)
    return made.eval()


def breath(seconds: float) -> np.ndarray:
    time_s = np.arange(round(seconds * SPEC.rate_hz)) / SPEC.rate_hz
    noise = np.random.default_rng(5).standard_normal(time_s.size)
    return (0.03 * noise * (1.1 + np.sin(2 * np.pi * 0.4 * time_s))).astype(np.float32)


def outputs(network: AdventitiousNetwork, features: Tensor, step: int) -> Tensor:
    """``[B, 7, T]`` in steps of ``step`` frames."""
    states, parts = network.initial_state(len(features)), []
    with torch.no_grad():
        for begin in range(0, features.shape[2], step):
            logits, states = network(features[:, :, begin : begin + step], *states)
            parts.append(torch.cat((logits.frames, logits.attention, logits.clip), dim=1))
    return torch.cat(parts, dim=2)


def test_it_is_small() -> None:
    assert count_parameters(build_adventitious(RECIPE)) <= 80_000


@pytest.mark.parametrize("step", [STRIDE, 5 * STRIDE, 40])
def test_steps_equal_one_pass(network: AdventitiousNetwork, step: int) -> None:
    features = torch.from_numpy(log_mel(breath(6.0), SPEC)[:, :560])[None]
    assert (outputs(network, features, step) - outputs(network, features, 560)).abs().max() < 1e-4


def test_outputs_use_no_later_frame(network: AdventitiousNetwork) -> None:
    features = torch.from_numpy(log_mel(breath(4.0), SPEC)[:, :360])[None]
    changed = features.clone()
    changed[:, :, 200:] += 3.0
    one, other = outputs(network, features, 360), outputs(network, changed, 360)
    assert torch.equal(one[..., :50], other[..., :50])
    assert not torch.allclose(one[..., 50:], other[..., 50:])


def test_pooling_is_the_attention_weighted_mean_of_valid_frames(network: AdventitiousNetwork) -> None:
    features = torch.from_numpy(log_mel(breath(4.0), SPEC)[:, :360])[None]
    with torch.no_grad():
        logits, _ = network(features)
    valid = torch.zeros(1, 90, dtype=torch.bool)
    valid[:, 20:70] = True
    weight = np.exp(logits.attention[0, :, 20:70].numpy().astype(np.float64))
    expected = (weight * logits.clip[0, :, 20:70].numpy()).sum(axis=1) / weight.sum(axis=1)
    np.testing.assert_allclose(logits.pooled(valid)[0].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert bounded(torch.tensor([1e6, -1e6, 0.5])).abs().max() <= ATTENTION_BOUND


def test_only_weights_of_trained_layers_are_rounded(network: AdventitiousNetwork) -> None:
    """The causal mean fades over five seconds: rounded to 16 bits, over another time."""
    graph = export_adventitious(network).graph
    constants = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    keep = np.exp(-SPEC.hop_samples / SPEC.rate_hz / 5.0)
    fading = [constants[node.input[2]] for node in graph.node if node.op_type == "RNN"]
    assert len(fading) == 2
    for matrix in fading:
        np.testing.assert_allclose(np.diagonal(matrix[0]), keep, rtol=1e-7)
    halves = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Cast"}
    assert {constants[name].dtype for name in halves} == {np.dtype(np.float16)}
    gru = next(node for node in graph.node if node.op_type == "GRU")
    assert {gru.input[1], gru.input[2]} <= set(halves.values())


@pytest.mark.parametrize("offline", [False, True])
def test_the_exported_graph_streams_the_same_outputs(
    network: AdventitiousNetwork, tmp_path: Path, offline: bool
) -> None:
    path = tmp_path / "sounds.onnx"
    path.write_bytes(export_adventitious(network).SerializeToString())
    model = SoundModel(OrtEngine(path))
    assert model.settings.frames_per_step == FRAMES_PER_STEP
    wave, block = breath(5.3), 9000 if offline else 700
    run = SoundRun(model, offline=offline)
    steps = [step for begin in range(0, wave.size, block) for step in run.accept(wave[begin : begin + block])]
    steps += run.finish()
    streamed = np.concatenate([np.concatenate((s.frames, s.attention, s.clip)) for s in steps], axis=1)
    mel = log_mel(wave, SPEC)
    frames = mel.shape[1] // STRIDE * STRIDE
    with torch.no_grad():
        logits, _ = as_stored(for_steps(network))(torch.from_numpy(np.ascontiguousarray(mel[:, :frames]))[None])
    whole = torch.cat((torch.sigmoid(logits.frames), logits.attention, logits.clip), dim=1)[0].numpy()
    assert [step.first for step in steps] == list(range(0, whole.shape[1], FRAMES_PER_STEP // STRIDE))
    assert np.abs(streamed - whole).max() < 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.size=giant"], "no size 'giant'"),
        (["front_end.normalisation=instance"], "normalisation to none"),
        (["front_end.mel_bins=40"], "multiple of 12"),
        (["model.options={colour: 3}"], "colour"),
    ],
)
def test_other_settings_are_refused(options: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_adventitious(load_recipe("adventitious", overrides=options))
