"""MRI-Net has the published shapes and counts, loads HTS-AT's weights, and exports without a cubic resize."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from msgspec.structs import replace
from torch import Tensor, nn

from edge_sdk.errors import CheckpointError, RecipeError
from edge_sdk.models import build_model, count_parameters
from edge_sdk.models.layers.interlaced import Transition
from edge_sdk.models.layers.resize import MatrixResize
from edge_sdk.models.layers.swin import SwinPlan, SwinTransformer, fold, unfold
from edge_sdk.models.mri_net import SIZES, BranchAttention, LengthOneConv, MriNet
from edge_sdk.models.pretrained import load_public_weights
from edge_sdk.runtime.engines.library import onnxruntime
from edge_sdk.signal.spec import FrontEndSpec
from export.onnx.graph import export_network, finish

FROZEN_STFT = 1_083_456  # 2 x 513 x 1024 of the Fourier matrix and 513 x 64 mel bands, counted in the published tables
COMPACT = FrontEndSpec(frame_samples=160, hop_samples=64, mel_bins=48)
PUBLISHED = FrontEndSpec(
    kind="stft-db",
    rate_hz=32000,
    window_s=10.0,
    frame_samples=1024,
    hop_samples=320,
    mel_bins=64,
    low_hz=50.0,
    high_hz=14000.0,
    preemphasis=0.0,
    remove_dc=False,
    log_floor=1e-10,
    normalisation="none",
)


@pytest.fixture
def tiny() -> MriNet:
    torch.manual_seed(0)
    return MriNet(size="tiny", front_end=COMPACT)


def _settle(model: nn.Module, features: Tensor) -> None:
    """Statistics of batch norms that fit the input, as after training."""
    model.train()
    for _ in range(20):
        model(features)
    model.eval()


def test_the_frozen_stft_lives_in_the_front_end() -> None:
    from edge_sdk.models.layers.front_end import FoldedFrontEnd

    bins, read = 513, 446  # those of the FFT, and those that a mel filter reads
    assert sum(buffer.numel() for buffer in FoldedFrontEnd(PUBLISHED).buffers()) == FROZEN_STFT * read // bins


@pytest.mark.parametrize(("config", "total"), [("table", 67.23e6), ("released", 120.8e6)])
def test_parameters_are_those_of_the_specification_without_the_frozen_stft(config: str, total: float) -> None:
    with torch.device("meta"):
        model = build_model("mri-net", size="base", classes=4, front_end=PUBLISHED, options={"config": config})
    assert count_parameters(model) + FROZEN_STFT == pytest.approx(total, rel=5e-4)


def test_every_part_has_its_published_size() -> None:
    with torch.device("meta"):
        model = MriNet(front_end=PUBLISHED, config="released")
    assert count_parameters(model.interlaced) == pytest.approx(85.90e6, rel=1e-4)
    assert count_parameters(model.swin) == pytest.approx(27.53e6, rel=1e-3)
    assert count_parameters(model.align) == 3_539_456
    assert count_parameters(model.attention) == 2_361_856
    assert count_parameters(model.semantic) == 394_884
    assert [count_parameters(model.interlaced.get_submodule(f"stages.{index}.0")) for index in range(4)] == [
        3 * (2 * c * c + 5 * c) + 2 * (9 * c * c + 3 * c) for c in (64, 128, 256, 512)
    ]
    with torch.device("meta"):
        table = MriNet(front_end=PUBLISHED)
    assert count_parameters(table) == pytest.approx(67.15e6, rel=0.02)  # of the published table


def test_intermediate_maps_have_the_published_shapes() -> None:
    shapes: dict[str, tuple[int, ...]] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            shapes[name] = tuple((output[0] if isinstance(output, tuple) else output).shape)

        return hook

    with torch.device("meta"):
        model = MriNet(front_end=PUBLISHED).eval()
        model.interlaced.stem.register_forward_hook(keep("stem"))
        for index, (blocks, depth) in enumerate(zip((6, 8, 6, 3), (2, 2, 6, 2), strict=True)):
            model.get_submodule(f"interlaced.stages.{index}.{blocks - 1}").register_forward_hook(keep(f"stage{index}"))
            model.get_submodule(f"swin.layers.{index}.blocks.{depth - 1}").register_forward_hook(keep(f"swin{index}"))
        model.swin.register_forward_hook(keep("swin"))
        picture = model.picture(torch.zeros(2, 1, 64, 1001))
        frequency, time = model.branches(picture)
        fused = model.attention(frequency, time)
    assert picture.shape == (2, 1, 64, 1024)
    assert [shapes["stem"], *(shapes[f"stage{i}"] for i in range(4))] == [
        (2, 64, 257, 16),
        (2, 64, 257, 16),
        (2, 128, 128, 8),
        (2, 256, 64, 4),
        (2, 512, 32, 2),
    ]
    assert [shapes[f"swin{i}"] for i in range(4)] == [
        (2, 64, 64, 96),
        (2, 32, 32, 192),
        (2, 16, 16, 384),
        (2, 8, 8, 768),
    ]
    assert shapes["swin"] == (2, 768, 8, 8)
    assert frequency.shape == time.shape == fused.shape == (2, 512, 2, 32)
    assert model.semantic.map(fused).shape == (2, 4, 1, 16)


def test_time_is_resampled_as_the_bicubic_interpolation_does() -> None:
    picture = torch.randn(2, 1, 64, 1001, generator=torch.Generator().manual_seed(1)) * 20 - 40
    ours = MatrixResize((64, 1001), (64, 1024), "bicubic", align_corners=True)(picture)
    exact = F.interpolate(picture.double(), size=(64, 1024), mode="bicubic", align_corners=True)
    torch.testing.assert_close(ours.double(), exact, atol=1e-4, rtol=0)  # of values near 100


def test_folding_stacks_stretches_of_time_and_unfolding_puts_them_back() -> None:
    picture = torch.arange(64 * 1024.0).view(1, 1, 64, 1024)
    square = fold(picture, 4)
    assert square.shape == (1, 1, 256, 256)
    torch.testing.assert_close(square[0, 0, 64:128], picture[0, 0, :, 256:512])
    torch.testing.assert_close(unfold(square, 4), picture)


def test_shifted_windows_do_not_mix_opposite_edges() -> None:
    """A change in the last corner must not reach the first token through the roll."""
    torch.manual_seed(3)
    swin = SwinTransformer(64, SwinPlan(8, (2,), (2,), drop_path=0.0)).eval()
    first, second = torch.randn(1, 1, 64, 64), torch.zeros(1, 1, 64, 64)
    second.copy_(first)
    second[..., 60:, 60:] += 5.0
    changed = (swin(first) - swin(second)).abs().amax(dim=1)[0] > 1e-6
    assert changed[15, 15]
    assert changed[4, 4] == changed[0, 0] == changed[3, 15] == False  # noqa: E712
    assert changed[8:, 8:].all()


def test_attention_over_the_branches_sums_to_one_and_ignores_the_idle_taps() -> None:
    torch.manual_seed(4)
    attention = BranchAttention(8, taps=3).eval()
    same = torch.randn(2, 8, 2, 4)
    torch.testing.assert_close(attention(same, same), same)
    summary = torch.randn(5, 8)
    as_published = F.conv1d(summary[:, :, None], attention.squeeze.weight, attention.squeeze.bias, padding=1)[:, :, 0]
    torch.testing.assert_close(attention.squeeze(summary), as_published)
    folded = LengthOneConv(8, taps=1)
    folded.load_state_dict(attention.squeeze.state_dict())
    torch.testing.assert_close(folded(summary), as_published)


def test_logits_are_the_mean_of_the_semantic_map(tiny: MriNet) -> None:
    features = torch.randn(3, 1, 48, COMPACT.frames)
    _settle(tiny, features)
    semantic = tiny.semantic_map(features)
    assert semantic.shape == (3, 4, 1, 2)
    torch.testing.assert_close(tiny(features), semantic.mean(dim=(2, 3)), atol=1e-6, rtol=1e-5)
    assert tiny.embed(features).shape == (3, tiny.embedding_dim)


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_one_step_reaches_every_parameter_and_stays_finite(size: str) -> None:
    torch.manual_seed(5)
    model = MriNet(size=size, front_end=COMPACT, drop_path=0.0)
    assert count_parameters(model) < {"tiny": 100_000, "small": 1_000_000}[size]
    F.cross_entropy(model(torch.randn(4, 1, 48, COMPACT.frames)), torch.tensor([0, 1, 2, 3])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    # the plain stream ends in nothing but the next dilated convolution, and still must learn
    last = model.interlaced.get_submodule(f"stages.3.{SIZES[size].blocks[3] - 1}.plain.1.2")
    assert isinstance(last, nn.Conv2d) and last.weight.grad is not None
    assert last.weight.grad.abs().max() > 0


def test_the_loss_falls(tiny: MriNet) -> None:
    torch.manual_seed(3)
    features, target = torch.randn(8, 1, 48, COMPACT.frames), torch.arange(8) % 4
    optimiser = torch.optim.AdamW(tiny.parameters(), 3e-3)
    losses = []
    for _ in range(15):
        loss = F.cross_entropy(tiny(features), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_another_window_builds_another_resize(tiny: MriNet) -> None:
    spec = replace(COMPACT, window_s=4.0, mel_bins=40)
    model = build_model("mri-net", size="tiny", classes=2, front_end=spec).eval()
    assert model(torch.randn(1, 1, 40, spec.frames)).shape == (1, 2)
    with pytest.raises(ValueError, match=f"40 mel x {spec.frames} frames"):
        model(torch.randn(1, 1, 48, COMPACT.frames))
    with pytest.raises(RecipeError, match="table, released"):
        build_model("mri-net", size="base", classes=4, front_end=PUBLISHED, options={"config": "paper"})


def test_mixing_sees_whole_cells_of_the_picture(tiny: MriNet) -> None:
    features = torch.randn(2, 1, 48, COMPACT.frames)
    _settle(tiny, features)
    seen: list[torch.Size] = []

    def keep(grid: Tensor) -> Tensor:
        seen.append(grid.shape)
        return grid

    def swap(grid: Tensor) -> Tensor:
        return grid.flip(0)

    torch.testing.assert_close(tiny.embed(features, mix=keep), tiny.embed(features))
    torch.testing.assert_close(tiny.embed(features, mix=swap), tiny.embed(features).flip(0))
    assert seen == [torch.Size((2, 256, 2, 8))]


def _htsat_state(model: MriNet) -> dict[str, Tensor]:
    """What a public HTS-AT file holds, in its names: Swin, input norm, rebuilt constants, front end and heads."""
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(("swin.", "input_norm.")):
            public = name.removeprefix("swin.").replace("input_norm.", "bn0.")
            state[f"sed_model.{public}"] = torch.randn(tensor.shape) if tensor.is_floating_point() else tensor.clone()
    state["sed_model.layers.0.blocks.1.attn_mask"] = torch.zeros(4, 64, 64)
    state["sed_model.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(64, 64, dtype=torch.long)
    state["sed_model.spectrogram_extractor.stft.conv_real.weight"] = torch.zeros(513, 1, 1024)
    state["sed_model.logmel_extractor.melW"] = torch.zeros(513, 64)
    state["sed_model.tscam_conv.weight"] = torch.zeros(527, 768, 2, 3)
    state["sed_model.tscam_conv.bias"] = torch.zeros(527)
    state["sed_model.head.weight"] = torch.zeros(527, 527)
    return state


def test_an_htsat_checkpoint_initialises_the_whole_swin_branch(tiny: MriNet, tmp_path: Path) -> None:
    state = _htsat_state(tiny)
    torch.save({"state_dict": state}, tmp_path / "htsat.ckpt")
    before = {name: tensor.clone() for name, tensor in tiny.state_dict().items()}
    filled = load_public_weights(tiny, tmp_path / "htsat.ckpt")
    assert set(filled) == {name for name in before if name.startswith(("swin.", "input_norm."))}
    for name, tensor in tiny.state_dict().items():
        public = "sed_model." + name.removeprefix("swin.").replace("input_norm.", "bn0.")
        torch.testing.assert_close(tensor, state[public] if name in filled else before[name])


def test_public_names_of_the_published_size_are_those_of_htsat() -> None:
    with torch.device("meta"):
        names = set(MriNet(front_end=PUBLISHED).state_dict())
    block = ["norm1.weight", "attn.relative_position_bias_table", "attn.qkv.bias", "attn.proj.weight", "mlp.fc2.bias"]
    assert {f"swin.layers.2.blocks.5.{name}" for name in block} <= names
    assert {"swin.patch_embed.proj.weight", "swin.patch_embed.norm.bias", "swin.norm.weight"} <= names
    assert {"swin.layers.0.downsample.reduction.weight", "swin.layers.2.downsample.norm.bias"} <= names
    assert not any("layers.3.downsample" in name for name in names)


def test_a_checkpoint_that_does_not_fit_is_refused_by_name(tiny: MriNet, tmp_path: Path) -> None:
    state = _htsat_state(tiny)
    faulty = {
        r"missing: swin\.norm\.weight": {k: v for k, v in state.items() if k != "sed_model.norm.weight"},
        r"left over: swin\.absolute_pos_embed": {**state, "sed_model.absolute_pos_embed": torch.zeros(1)},
        r"patch_embed\.proj\.weight \(96, 1, 4, 4\)": {
            **state,
            "sed_model.patch_embed.proj.weight": torch.zeros(96, 1, 4, 4),
        },
    }
    for message, content in faulty.items():
        torch.save(content, tmp_path / "htsat.ckpt")
        with pytest.raises(CheckpointError, match=message):
            load_public_weights(tiny, tmp_path / "htsat.ckpt")


def test_bfloat16_autocast_keeps_the_resize_in_float32(tiny: MriNet) -> None:
    features = torch.randn(2, 1, 48, COMPACT.frames)
    _settle(tiny, features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tiny.picture(features).dtype == torch.float32
        assert torch.isfinite(tiny(features)).all()


@pytest.mark.long  # in CI: tests/export/onnx/test_every_model.py, and its build by TensorRT
def test_the_exported_graph_has_plain_operators_and_the_logits_of_torch(tiny: MriNet) -> None:
    features = torch.randn(3, 1, 48, COMPACT.frames)
    _settle(tiny, features)
    model = export_network(tiny, COMPACT)
    finish(model)
    assert {node.op_type for node in model.graph.node}.isdisjoint({"Resize", "DFT", "STFT", "Einsum"})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    with torch.no_grad():
        expected = tiny(features).numpy()
    assert np.abs(expected).max() > 1e-2
    for count in (1, 3):
        result = session.run(None, {name: features[:count].numpy()})[0]
        np.testing.assert_allclose(result, expected[:count], atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("config", ["table", "released"])
def test_the_published_size_learns_from_one_batch(config: str) -> None:
    torch.manual_seed(6)
    model = build_model("mri-net", size="base", classes=4, front_end=PUBLISHED, options={"config": config})
    loss = F.cross_entropy(model(torch.randn(2, 1, 64, 1001) * 20 - 50), torch.tensor([0, 3]))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert SIZES["base"].picture == (64, 1024)


def test_a_transition_evaluates_as_it_learnt_though_its_streams_differ() -> None:
    torch.manual_seed(0)
    transition = Transition(4, 8)
    assert transition.norms[0].weight is transition.norms[1].weight
    plain, dilated = torch.randn(64, 4, 8, 8), 5.0 * torch.randn(64, 4, 8, 8) + 3.0
    with torch.no_grad():
        for _ in range(200):
            learnt = transition(plain, dilated)
        evaluated = transition.eval()(plain, dilated)
    for one, other in zip(learnt, evaluated, strict=True):
        torch.testing.assert_close(one, other, atol=1e-2, rtol=1e-2)
