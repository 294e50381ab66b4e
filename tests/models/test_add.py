"""ADD keeps the published counts and formulas, needs no Fourier operator, and loses its auxiliary head at export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from msgspec.structs import replace
from torch import Tensor

from edge_sdk.errors import RecipeError
from edge_sdk.metadata import MetadataSchema
from edge_sdk.models import build_model, count_parameters
from edge_sdk.models.add import Add
from edge_sdk.models.conditioning import Metadata
from edge_sdk.models.layers.denoising import (
    DenoisingLayer,
    DifferentialAttention,
    FilterAxes,
    FilterMode,
    FilterSettings,
    FrequencyFilter,
    RealDft,
    SwiGlu,
    soft_shrink,
)
from edge_sdk.models.layers.resize import MatrixResize
from edge_sdk.models.pretrained import load_public_weights
from edge_sdk.runtime.engines.library import onnxruntime
from edge_sdk.signal.spec import FrontEndSpec
from export.onnx.graph import export_network, finish

COMPACT = FrontEndSpec(frame_samples=160, hop_samples=64, mel_bins=48)
PUBLISHED = FrontEndSpec(
    rate_hz=16000, window_s=8.0, frame_samples=400, hop_samples=160, mel_bins=128, low_hz=20.0, high_hz=8000.0
)


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ---------------------------------------------------------------------------------------------------- the layer alone


@pytest.mark.parametrize(("frames", "bins"), [(186, 48), (1024, 256), (7, 6)])
def test_constant_matrices_are_the_fourier_transform_along_time(frames: int, bins: int) -> None:
    x = torch.randn(2, frames, bins, generator=torch.Generator().manual_seed(0))
    transform = RealDft(frames, bins, "time")
    real, imaginary = transform(x)
    exact = torch.fft.rfft(x.double(), dim=1, norm="ortho")
    assert (real - exact.real).abs().max() <= 1e-6 * exact.abs().max()
    assert (imaginary - exact.imag).abs().max() <= 1e-6 * exact.abs().max()
    shaped = torch.randn(2, 2, frames // 2 + 1, bins, generator=torch.Generator().manual_seed(1))
    back = transform.inverse(shaped[0], shaped[1]).double()
    spectrum = torch.complex(shaped[0].double(), shaped[1].double())
    expected = torch.fft.irfft(spectrum, n=frames, dim=1, norm="ortho")
    assert (back - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert (transform.inverse(real, imaginary) - x).abs().max() <= 2e-6 * x.abs().max()  # two products, 1e-6 each


def test_constant_matrices_are_the_two_dimensional_transform_too() -> None:
    frames, bins = 50, 12
    x = torch.randn(3, frames, bins, generator=torch.Generator().manual_seed(0))
    transform = RealDft(frames, bins, "time+mel")
    real, imaginary = transform(x)
    exact = torch.fft.rfft2(x.double(), dim=(2, 1), norm="ortho")
    torch.testing.assert_close(torch.complex(real, imaginary).to(exact.dtype), exact, atol=1e-6, rtol=1e-6)
    shaped = torch.randn(2, 3, 26, bins, generator=torch.Generator().manual_seed(1))
    spectrum = torch.complex(shaped[0].double(), shaped[1].double())
    expected = torch.fft.irfft2(spectrum, s=(bins, frames), dim=(2, 1), norm="ortho")
    torch.testing.assert_close(transform.inverse(shaped[0], shaped[1]).double(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("mode", ["mask", "afno"])
def test_the_filter_is_the_published_formula_with_complex_numbers(mode: FilterMode) -> None:
    """The specification's steps one by one, on torch's own Fourier transform and complex arithmetic."""
    torch.manual_seed(1)
    frames, bins, blocks = 40, 16, 4
    layer = FrequencyFilter(frames, bins, FilterSettings(mode=mode, alpha=0.01, blocks=blocks))
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, frames, bins)
    spectrum = torch.fft.rfft(x, dim=1, norm="ortho")

    def linear(z: Tensor, part: Any) -> Tensor:
        weight = torch.complex(part.weight[0], part.weight[1])
        mixed = torch.einsum("bknw,nwv->bknv", z.unflatten(2, (blocks, -1)), weight).flatten(2)
        return mixed + torch.complex(part.bias[0], part.bias[1])

    hidden = linear(spectrum, layer.first)
    out = linear(torch.complex(hidden.real.relu(), hidden.imag.relu()), layer.second)
    out = torch.complex(F.softshrink(out.real, 0.01), F.softshrink(out.imag, 0.01))
    if mode == "mask":
        out = out * spectrum
    expected = x + torch.fft.irfft(out, n=frames, dim=1, norm="ortho")
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_inside_the_dead_zone_the_filter_is_the_identity_and_learns_nothing() -> None:
    x = torch.linspace(-0.02, 0.02, 41).requires_grad_()
    shrunk = soft_shrink(x, torch.tensor(0.02))
    assert shrunk.abs().max() == 0
    shrunk.sum().backward()
    assert x.grad is not None and x.grad[1:-1].abs().max() == 0
    torch.testing.assert_close(soft_shrink(torch.tensor([-1.0, 3.0]), torch.tensor(0.5)), torch.tensor([-0.5, 2.5]))

    torch.manual_seed(0)
    dead = FrequencyFilter(40, 16, FilterSettings(alpha=100.0, blocks=4))
    picture = torch.randn(2, 40, 16)
    torch.testing.assert_close(dead(picture), picture)
    dead(picture).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() == 0 for p in dead.parameters())


def test_annealing_from_zero_and_a_mask_of_one_both_leave_the_dead_zone() -> None:
    picture = torch.randn(2, 40, 16, generator=torch.Generator().manual_seed(0)) * 1e-3
    for settings, alpha in (
        (FilterSettings(alpha=0.02, blocks=4), 0.0),
        (FilterSettings(blocks=4, unit_mask=True), None),
    ):
        torch.manual_seed(0)
        layer = FrequencyFilter(40, 16, settings)
        if alpha is not None:
            layer.alpha.fill_(alpha)
        layer(picture).square().sum().backward()
        assert layer.second.bias.grad is not None
        assert (layer.second.bias.grad[0] != 0).all()
    # a mask of one adds the picture to itself
    layer = FrequencyFilter(40, 16, FilterSettings(blocks=4, unit_mask=True))
    torch.testing.assert_close(layer(picture), 2 * picture, atol=1e-4, rtol=1e-2)


def test_differential_attention_is_the_difference_of_two_softmax_maps() -> None:
    torch.manual_seed(2)
    layer = DifferentialAttention(16, heads=2, depth=6)
    torch.nn.init.normal_(layer.norm.weight)
    x = torch.randn(1, 9, 16)
    assert layer.lambda_init == pytest.approx(0.700821, abs=1e-6)
    heads = []
    query, key, value = (projection(x)[0] for projection in (layer.query, layer.key, layer.value))
    for head in range(2):
        q, k, v = (part[:, 16 * head : 16 * (head + 1)] for part in (query, key, value))
        balance = (
            (layer.lambda_q1[head] @ layer.lambda_k1[head]).exp()
            - (layer.lambda_q2[head] @ layer.lambda_k2[head]).exp()
            + 0.8
            - 0.6 * np.exp(-1.8)
        )
        torch.testing.assert_close(layer.balance()[head], balance)
        maps = [(q[:, s] @ k[:, s].T / 8**0.5).softmax(dim=1) for s in (slice(0, 8), slice(8, 16))]
        mixed = (maps[0] - balance * maps[1]) @ v
        heads.append(mixed / (mixed.square().mean(dim=1, keepdim=True) + 1e-5).sqrt() * layer.norm.weight)
    expected = layer.out(torch.cat(heads, dim=1) * (1 - layer.lambda_init))
    torch.testing.assert_close(layer(x)[0], expected, atol=1e-6, rtol=1e-5)


def test_swiglu_is_gated() -> None:
    layer = SwiGlu(6)
    x = torch.randn(2, 3, 6)
    gate, up = layer.gate(x), layer.up(x)
    torch.testing.assert_close(layer(x), layer.down(gate * gate.sigmoid() * up))


def test_published_size_of_every_part_of_the_layer() -> None:
    with torch.device("meta"):
        layer = DenoisingLayer(1024, 256, heads=8, depth=6, settings=FilterSettings())
        figure = DenoisingLayer(1024, 256, heads=8, depth=6, settings=FilterSettings(), figure=True)
        head = torch.nn.Linear(256, 4)
    assert _count(layer.filter) == 33_792
    assert _count(layer.attention) == 525_376
    assert _count(layer.feed_forward) == 394_496
    assert _count(layer.attention_norm) + _count(layer.feed_forward_norm) == 512
    assert _count(head) == 1_028
    assert _count(layer) + _count(head) == 955_204
    assert _count(figure) + _count(head) == 991_044


def test_statistics_lambda_and_difference_stay_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    layer = DenoisingLayer(40, 16, heads=2, depth=6, settings=FilterSettings(blocks=4))
    picture = torch.randn(2, 40, 16) + 50.0  # the constant dwarfs the modulations
    seen: dict[str, torch.dtype] = {}
    layer.attention.norm.register_forward_hook(lambda module, inputs, out: seen.update(rms=inputs[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        filtered, _ = layer(picture)
        assert layer.attention.balance().dtype == torch.float32
    assert filtered.dtype == torch.float32
    assert seen == {"rms": torch.float32}
    torch.testing.assert_close(filtered, layer(picture)[0])


def test_the_picture_is_resized_as_bilinear_interpolation_does() -> None:
    picture = torch.randn(2, 1, 128, 798, generator=torch.Generator().manual_seed(1))
    ours = MatrixResize((128, 798), (256, 1024), "bilinear", align_corners=False)(picture)
    exact = F.interpolate(picture.double(), size=(256, 1024), mode="bilinear", align_corners=False)
    torch.testing.assert_close(ours.double(), exact, atol=2e-6, rtol=0)


# ---------------------------------------------------------------------------------------------------------- the model


@pytest.fixture
def tiny() -> Add:
    torch.manual_seed(0)
    model = Add(size="tiny", front_end=COMPACT).eval()
    for part in (model.layer.filter.first, model.layer.filter.second):
        torch.nn.init.normal_(part.weight, std=0.1)  # out of the dead zone, as after training
    return model


def test_the_published_model_has_87_million_parameters() -> None:
    with torch.device("meta"):
        model = build_model("add", size="base", classes=4, front_end=PUBLISHED)
        assert isinstance(model, Add)
        encoder, logits = model.backbone.encoder, model(torch.zeros(1, 1, 128, 798))
    assert logits.shape == (1, 4)
    assert encoder.pos_embed.shape == (1, 1026, 768)
    assert _count(encoder) == 86_042_880
    assert _count(model.backbone.head) == 4_612
    assert _count(model) == 955_204 + 86_042_880 + 4_612 == 87_002_696
    assert count_parameters(model) == 87_002_696 - 1_028


def test_the_product_geometry_keeps_the_pictures_size_and_the_ast_its_own_patches() -> None:
    with torch.device("meta"):
        model = Add(size="base", front_end=PUBLISHED, picture="native")
    assert model.backbone.encoder.grid == (12, 79)
    assert model.denoise(torch.zeros(1, 1, 128, 798, device="meta"))[1].shape == (1, 798, 128)


def test_the_auxiliary_head_trains_and_is_no_part_of_the_inference_graph(tiny: Add) -> None:
    features = torch.randn(2, 1, 48, COMPACT.frames)
    outputs = tiny.outputs(features)
    torch.testing.assert_close(outputs.logits, tiny(features))
    assert outputs.auxiliary["aux"].shape == (2, 4)
    inference = {id(parameter) for parameter in tiny.inference_parameters()}
    assert tiny.auxiliary is not None
    assert not inference & {id(parameter) for parameter in tiny.auxiliary.parameters()}
    assert _count(tiny) - count_parameters(tiny) == 48 * 4 + 4
    assert "aux" not in Add(size="tiny", front_end=COMPACT, auxiliary="none").outputs(features).auxiliary


def test_auxiliary_logits_come_from_the_place_that_the_option_names(tiny: Add) -> None:
    features = torch.randn(2, 1, 48, COMPACT.frames)
    filtered, denoised = tiny.denoise(features)
    head = tiny.auxiliary
    assert head is not None
    per_frame = F.conv1d(F.layer_norm(denoised, (48,)).transpose(1, 2), head.weight[:, :, None], head.bias)
    torch.testing.assert_close(tiny.outputs(features).auxiliary["aux"], per_frame.mean(dim=2), atol=1e-5, rtol=1e-5)
    parity = Add(size="tiny", front_end=COMPACT, auxiliary="first2_aff")
    parity.load_state_dict(tiny.state_dict())
    torch.testing.assert_close(parity.outputs(features).auxiliary["aux"], head(filtered[:, :2].mean(dim=1)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "afno", "alpha": 0.01, "auxiliary": "first2_aff"},
        {"axes": "time+mel", "unit_mask": True},
        {"layout": "figure"},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()) or "default",
)
def test_one_step_in_every_variant_is_finite(options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    model = build_model("add", size="tiny", classes=4, front_end=COMPACT, options=options)
    assert isinstance(model, Add)
    assert count_parameters(model) < 100_000
    model.on_epoch(0, 10)
    outputs, target = model.outputs(torch.randn(4, 1, 48, COMPACT.frames)), torch.tensor([0, 1, 2, 3])
    loss = F.cross_entropy(outputs.logits, target)
    loss = loss + F.cross_entropy(outputs.auxiliary["aux"], target, label_smoothing=0.2)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_small_fits_two_cores() -> None:
    with torch.device("meta"):
        model = build_model("add", size="small", classes=4, front_end=COMPACT)
    assert count_parameters(model) <= 1_000_000


def test_the_threshold_rises_over_the_named_share_of_the_epochs_and_is_kept_in_the_state() -> None:
    model = Add(size="tiny", front_end=COMPACT, anneal=0.5, layout="figure")
    seen = []
    for epoch in range(8):
        model.on_epoch(epoch, 8)
        seen.append([round(float(layer.alpha), 4) for layer in model.layer.filters()])
    assert seen == [[a, a] for a in (0.0, 0.005, 0.01, 0.015, 0.02, 0.02, 0.02, 0.02)]
    model.on_epoch(2, 8)
    other = Add(size="tiny", front_end=COMPACT, layout="figure")
    other.on_epoch(2, 8)
    assert float(other.layer.filter.alpha) == pytest.approx(0.02)
    other.load_state_dict(model.state_dict())
    assert float(other.layer.filter.alpha) == pytest.approx(0.01)


def test_another_window_is_another_set_of_matrices_and_faults_are_named() -> None:
    spec = replace(COMPACT, window_s=4.0, mel_bins=40)
    model = build_model("add", size="tiny", classes=2, front_end=spec).eval()
    assert model(torch.randn(1, 1, 40, spec.frames)).shape == (1, 2)
    with pytest.raises(ValueError, match="build it with the front end"):
        model(torch.randn(1, 1, 48, COMPACT.frames))
    for options in ({"mode": "fft"}, {"picture": "crop"}, {"anneal": 2.0}, {"auxiliary": "last"}):
        with pytest.raises(RecipeError, match="add: "):
            build_model("add", size="tiny", classes=4, front_end=COMPACT, options=options)


def test_bfloat16_autocast_stays_near_float32(tiny: Add) -> None:
    features = torch.randn(2, 1, 48, COMPACT.frames)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = tiny(features)
    with torch.no_grad():
        torch.testing.assert_close(logits.float(), tiny(features), atol=0.05, rtol=0.05)


def test_an_audioset_file_of_the_ast_authors_fills_the_whole_encoder(tiny: Add, tmp_path: Path) -> None:
    own = tiny.backbone.encoder.state_dict()
    public = {
        "module.v." + name.replace("patch_embed.", "patch_embed.proj."): torch.randn_like(value)
        for name, value in own.items()
    }
    heads = {f"module.mlp_head.{layer}.{kind}": torch.zeros(1) for layer in (0, 1) for kind in ("weight", "bias")}
    torch.save({**public, **heads}, tmp_path / "audioset.pth")
    filled = load_public_weights(tiny, tmp_path / "audioset.pth")
    assert set(filled) == {f"backbone.encoder.{name}" for name in own}
    torch.testing.assert_close(tiny.backbone.encoder.pos_embed.data, public["module.v.pos_embed"])


def test_the_ast_behind_the_layer_can_be_conditioned_on_metadata() -> None:
    schema = MetadataSchema.fit(
        [{"device": "a", "age_years": 4}, {"device": "b", "age_years": 9}], ["device", "age_years"]
    )
    model = Add(size="tiny", front_end=COMPACT, backbone={"conditioning": "film"}, metadata_schema=schema).eval()
    for parameter in model.backbone.conditioner.parameters():  # type: ignore[union-attr]
        torch.nn.init.normal_(parameter, std=0.1)
    features = torch.randn(2, 1, 48, COMPACT.frames)
    known = Metadata.from_arrays(schema.encode([{"device": "a", "age_years": 4}, {"device": "b"}]))
    assert (model(features, known) - model(features)).abs().max() > 1e-4
    torch.testing.assert_close(model.folded()(features, known), model(features, known))
    assert any(name.startswith("backbone.conditioner.") for name in model.no_decay)


def test_the_loss_falls(tiny: Add) -> None:
    torch.manual_seed(3)
    features, target = torch.randn(8, 1, 48, COMPACT.frames), torch.arange(8) % 4
    optimiser = torch.optim.AdamW(tiny.parameters(), 1e-3)
    losses = []
    for _ in range(15):
        outputs = tiny.outputs(features)
        loss = F.cross_entropy(outputs.logits, target) + F.cross_entropy(outputs.auxiliary["aux"], target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.long  # CI exports it in tests/export/onnx/test_every_model.py
@pytest.mark.parametrize("axes", ["time", "time+mel"])
def test_the_exported_graph_has_no_fourier_operator_and_the_logits_of_torch(axes: FilterAxes) -> None:
    torch.manual_seed(0)
    model = Add(size="tiny", front_end=COMPACT, axes=axes, alpha=1e-3).eval()
    features = torch.randn(3, 1, 48, COMPACT.frames)
    graph = export_network(model, COMPACT)
    finish(graph)
    assert {node.op_type for node in graph.graph.node}.isdisjoint({"Resize", "DFT", "STFT", "Einsum"})
    assert not any("auxiliary" in tensor.name for tensor in graph.graph.initializer)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    with torch.no_grad():
        expected = model(features).numpy()
    for count in (1, 3):
        result = session.run(None, {name: features[:count].numpy()})[0]
        np.testing.assert_allclose(result, expected[:count], atol=1e-4)


@pytest.mark.long
def test_the_published_size_learns_from_one_batch() -> None:
    torch.manual_seed(6)
    model = build_model("add", size="base", classes=4, front_end=PUBLISHED)
    assert isinstance(model, Add)
    outputs, target = model.outputs(torch.randn(2, 1, 128, 798)), torch.tensor([0, 3])
    loss = F.cross_entropy(outputs.logits, target) + F.cross_entropy(outputs.auxiliary["aux"], target)
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
