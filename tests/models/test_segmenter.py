"""The segmenter: one function for recordings and steps, causal, finite for any audio, portable."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge_sdk.errors import RecipeError
from edge_sdk.models.layers.clipped_gru import ClippedGRU
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.models.segmenter import (
    CYCLE,
    OUTPUTS,
    SIZES,
    STRIDE,
    TEMPI,
    SegmenterNetwork,
    SegmentLogits,
    delay_frames,
    for_steps,
)
from edge_sdk.runtime.engines.library import onnxruntime
from edge_sdk.runtime.segmentation.decoder_params import DecoderParams
from edge_sdk.runtime.segmentation.network import StepSettings
from edge_sdk.signal.spec import FrontEndSpec
from export.onnx.step_graph import FRAMES_PER_STEP, export_segmenter
from tests.support.stored_weights import as_stored

SPEC = FrontEndSpec(
    frame_samples=160, hop_samples=80, mel_bins=16, high_hz=1800.0, scale=32768.0, log_floor=1.0, normalisation="none"
)


def _segmenter(size: str = "tiny", look_ahead_s: float = 0.25, seed: int = 0) -> SegmenterNetwork:
    """Random weights and batch-norm statistics, so that nothing is the identity."""
    torch.manual_seed(seed)
    model = SegmenterNetwork(front_end=SPEC, size=size, look_ahead_s=look_ahead_s)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return model.eval()


def _features(frames: int = 404, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 8.0 + 2.0 * torch.randn(1, SPEC.mel_bins, frames, generator=generator)


@torch.no_grad()
def _in_steps(model: SegmenterNetwork, features: torch.Tensor, frames: int) -> torch.Tensor:
    """``[1, 7, T]`` probabilities and the angle, ``frames`` feature frames at a time."""
    folded, states = for_steps(model), model.initial_state()
    parts = []
    for chunk in features.split(frames, dim=2):
        out, states = folded(chunk, *states)
        assert out.activity.shape == out.onset.shape == (1, chunk.shape[2] // STRIDE)
        parts.append(_probabilities(out))
    return torch.cat(parts, dim=2)


@torch.no_grad()
def _whole(model: SegmenterNetwork, features: torch.Tensor) -> torch.Tensor:
    return _probabilities(model(features)[0])


def _probabilities(out: SegmentLogits) -> torch.Tensor:
    activity, onset = torch.sigmoid(out.activity)[:, None], torch.sigmoid(out.onset)[:, None]
    return torch.cat((activity, onset, torch.softmax(out.phase, dim=1), out.cycle), dim=1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("frames", [2, 4, 8])
def test_steps_equal_the_whole_recording(size: str, frames: int) -> None:
    model, features = _segmenter(size), _features()
    whole, steps = _whole(model, features), _in_steps(model, features, frames)
    assert whole.shape == steps.shape == (1, OUTPUTS, features.shape[2] // STRIDE)
    assert (steps - whole).abs().max() < 1e-4


@torch.no_grad()
def test_recordings_of_a_batch_do_not_mix() -> None:
    model = _segmenter()
    rows = torch.cat([_features(80, seed) for seed in range(3)])
    together, states = model(rows)
    assert together.tempo.shape == (3, TEMPI, 40) and together.cycle.shape == (3, CYCLE, 40)
    for k in range(3):
        alone, _ = model(rows[k : k + 1])
        for name in ("activity", "onset", "phase", "cycle", "tempo"):
            assert torch.allclose(getattr(together, name)[k], getattr(alone, name)[0], atol=1e-5)
    assert [tuple(state.shape) for state in states] == [tuple(state.shape) for state in model.initial_state(3)]


@pytest.mark.parametrize("look_ahead_s", [0.03, 0.05, 0.1, 0.24, 0.25, 0.5, 1.0])
def test_an_output_uses_no_audio_beyond_the_look_ahead(look_ahead_s: float) -> None:
    """Column t describes the centre of output frame t - delay; audio later than the look-ahead must not change it."""
    delay, hop = delay_frames(SPEC, look_ahead_s), STRIDE * SPEC.hop_samples
    described = (30 - delay) * hop + (hop - SPEC.hop_samples + SPEC.frame_samples) / 2
    last_used = (31 * STRIDE - 1) * SPEC.hop_samples + SPEC.frame_samples
    assert last_used - described <= look_ahead_s * SPEC.rate_hz + 1e-6 < last_used - described + hop
    model = _segmenter(look_ahead_s=look_ahead_s)
    wave = 0.1 * torch.randn(1, 20_000, generator=torch.Generator().manual_seed(2))
    other = wave.clone()
    other[:, last_used:] = 0.0
    front_end = FoldedFrontEnd(SPEC)
    one, two = (_whole(model, front_end.log_mel(audio)) for audio in (wave, other))
    assert torch.equal(one[..., :31], two[..., :31])
    assert not torch.allclose(one[..., 31:], two[..., 31:])


@pytest.mark.parametrize("audio", ["silence", "offset", "square"])
def test_states_stay_finite_for_any_audio(audio: str) -> None:
    count = 60 * SPEC.rate_hz
    wave = {
        "silence": torch.zeros(count),
        "offset": torch.full((count,), 0.9),
        "square": torch.sign(torch.sin(torch.arange(count) * 2 * torch.pi * 50 / SPEC.rate_hz) + 1e-6),
    }[audio]
    model = _segmenter()
    with torch.no_grad():
        out, states = model(FoldedFrontEnd(SPEC).log_mel(wave[None]))
    assert all(bool(torch.isfinite(part).all()) for part in (out.activity, out.onset, out.phase, out.cycle, *states))
    assert max(float(state.abs().max()) for state in states) < 1e5


def test_causal_mean_is_that_of_the_frames_so_far() -> None:
    model, features = _segmenter(), _features(300)
    mean, _ = model.mean(features, model.initial_state()[0])
    keep = np.exp(-SPEC.hop_samples / SPEC.rate_hz / 5.0)
    weights = keep ** np.arange(299, -1, -1)
    expected = (features[0].numpy() * weights).sum(axis=1) / weights.sum()
    np.testing.assert_allclose(mean[0, :, -1].numpy(), expected, rtol=1e-5)
    assert torch.allclose(mean[..., 0], features[..., 0])


def test_gain_of_the_device_changes_nothing() -> None:
    """Neither the probabilities nor the angle: the network sees a bin over its own past and over the other bins."""
    model, features = _segmenter(), _features(100)
    assert torch.allclose(_whole(model, features), _whole(model, features + 3.0), atol=1e-4)


@pytest.mark.parametrize("clip", [1.0, 30.0])
def test_gradient_of_the_clipped_gru_is_right(clip: float) -> None:
    torch.manual_seed(0)
    gru = ClippedGRU(4, 3, clip).double()
    x, state = 3.0 * torch.randn(5, 2, 4, dtype=torch.float64), torch.randn(1, 2, 3, dtype=torch.float64)
    inputs = (x.requires_grad_(), state.requires_grad_(), *gru.parameters())
    assert torch.autograd.gradcheck(lambda x, state, *_: gru(x, state)[0], inputs, atol=1e-6)


def test_clipped_gru_is_torch_own_where_nothing_is_clipped() -> None:
    torch.manual_seed(0)
    gru, own = ClippedGRU(4, 3, 30.0), torch.nn.GRU(4, 3)
    own.load_state_dict(gru.state_dict())
    x, state = torch.randn(50, 2, 4), torch.randn(1, 2, 3)
    for mine, theirs in zip(gru(x, state), own(x, state), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_memory_ends_after_a_minute() -> None:
    """Also in a network that learned to keep its gates open."""
    model = _segmenter()
    hidden = model.gru.hidden_size
    with torch.no_grad():
        _, of_state, input_bias, _ = model.gru.all_weights[0]
        input_bias[hidden : 2 * hidden] = 50.0
        of_state.mul_(0.3)
    features = _features(6000)
    features[..., :2000] += 5.0 * torch.randn(1, SPEC.mel_bins, 2000, generator=torch.Generator().manual_seed(3))
    long, fresh = _whole(model, features), _whole(model, features[..., -3000:])  # 1500 output frames, a minute
    assert not torch.allclose(long[..., -1450:-1250], fresh[..., 50:250], atol=1e-3)
    assert (long[..., -50:] - fresh[..., -50:]).abs().max() < 1e-3


@pytest.mark.parametrize("frames", [FRAMES_PER_STEP, 20, 80])
def test_exported_step_graph_equals_the_network(frames: int) -> None:
    """Steps of any length, up to the whole recording, of two streams at once."""
    model, features = _segmenter("base"), _features(80)
    features = torch.cat((features, features.flip(2)))  # two streams
    with torch.no_grad():
        model.gru.all_weights[0][0].mul_(8.0)  # so that gates are clipped, in the graph as here
        model.tempo.bias.fill_(np.nan)  # the auxiliary head is not exported
    graph = export_segmenter(model, decoder={"onset_bonus": 2.0})
    properties = {p.key: p.value for p in graph.metadata_props}
    wanted = {"kind": "stetho-segmenter", "schema": "3", "look_ahead_frames": str(model.delay), "stride": str(STRIDE)}
    assert wanted.items() <= properties.items()
    assert StepSettings.from_properties(properties) == StepSettings(
        SPEC, FRAMES_PER_STEP, model.delay, STRIDE, DecoderParams(onset_bonus=2.0)
    )
    assert StepSettings.from_properties(properties).look_ahead_s <= model.look_ahead_s
    data = graph.SerializeToString()
    assert len(data) < 300_000
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    state = {
        i.name: np.zeros([2 if axis == "streams" else axis for axis in i.shape], np.float32)
        for i in session.get_inputs()
        if i.name != "features"
    }
    parts = []
    for chunk in features.split(frames, dim=2):
        frames_first = chunk.transpose(1, 2).contiguous().numpy()
        out = dict(zip(names, session.run(None, {"features": frames_first, **state}), strict=True))
        state = {name: out[f"{name}_next"] for name in state}
        parts.append(np.concatenate((out["sounding"], out["phase"], out["cycle"]), axis=2))
    streamed = np.concatenate(parts, axis=1).transpose(0, 2, 1)
    stored = as_stored(for_steps(model), "entry.weight")
    np.testing.assert_allclose(streamed, _whole(stored, features).numpy(), atol=1e-4)


def test_every_size_stays_within_the_budget() -> None:
    for size in SIZES:
        assert sum(p.numel() for p in SegmenterNetwork(front_end=SPEC, size=size).parameters()) <= 200_000


def test_a_front_end_that_normalises_clips_is_refused() -> None:
    with pytest.raises(RecipeError, match="normalisation"):
        SegmenterNetwork(front_end=FrontEndSpec(normalisation="centred"))
    with pytest.raises(RecipeError, match="no size"):
        SegmenterNetwork(front_end=SPEC, size="huge")
    for look_ahead_s in (-0.1, 0.0, 0.029, 2.1):  # half an output frame is always ahead
        with pytest.raises(RecipeError, match=r"look_ahead_s must be between 0\.03 and 2 s"):
            SegmenterNetwork(front_end=SPEC, look_ahead_s=look_ahead_s)
