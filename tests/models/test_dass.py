"""DASS: the paper's sizes and shapes, the scan against a plain reference, public weights, training hooks."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_sdk.errors import CheckpointError, RecipeError
from edge_sdk.models import MODELS, build_model, count_parameters
from edge_sdk.models.dass import Dass, SelectiveScan2d, cross_merge, cross_scan
from edge_sdk.models.network import Network
from edge_sdk.models.pretrained import load_public_weights
from edge_sdk.signal.spec import FrontEndSpec


@pytest.fixture
def model() -> Dass:
    torch.manual_seed(0)
    return Dass(classes=4, size="tiny").eval()


@pytest.mark.parametrize(
    ("size", "classes", "parameters"),
    [("base", 4, 29_482_276), ("base", 527, 29_884_463), ("medium", 4, 48_246_052), ("medium", 527, 48_648_239)],
)
def test_the_paper_sizes_have_the_published_parameters(size: str, classes: int, parameters: int) -> None:
    with torch.device("meta"):
        assert count_parameters(Dass(classes=classes, size=size)) == parameters


def test_the_edge_sizes_are_small() -> None:
    assert count_parameters(Dass(size="tiny")) < 100_000
    assert count_parameters(Dass(size="small")) < 1_000_000


@pytest.mark.parametrize(("frames", "widths"), [(798, (200, 100, 50, 25)), (1024, (256, 128, 64, 32))])
def test_stage_shapes_are_those_of_the_paper(frames: int, widths: tuple[int, ...]) -> None:
    with torch.device("meta"):
        maps = Dass(size="base").stage_maps(torch.empty(1, 1, 128, frames))
    expected = zip((96, 192, 384, 768), (32, 16, 8, 4), widths, strict=True)
    assert [tuple(m.shape[1:]) for m in maps] == list(expected)


@pytest.mark.parametrize("size", MODELS["dass"].sizes)
def test_every_size_is_built_by_name(size: str) -> None:
    with torch.device("meta"):
        model = build_model("dass", size=size, classes=7, front_end=FrontEndSpec())
        assert isinstance(model, Network)
        assert model(torch.empty(2, 1, 48, 186)).shape == (2, 7)


@pytest.mark.parametrize("frames", [5, 61, 186])
def test_any_picture_becomes_logits_and_metadata_changes_nothing(model: Dass, frames: int) -> None:
    features = torch.randn(2, 1, 48, frames)
    logits = model(features)
    assert logits.shape == (2, 4)
    torch.testing.assert_close(model(features, {"age": 3}), logits)


def _plain_scan(block: SelectiveScan2d, u: Tensor) -> Tensor:
    """The published recurrence, written out for one ``[H, W, C]`` map: direction by direction, pixel by pixel."""
    height, width, channels = u.shape
    rank = block.rank
    total = torch.zeros_like(u)
    rows = [(h, w) for h in range(height) for w in range(width)]
    columns = [(h, w) for w in range(width) for h in range(height)]
    for k, path in enumerate((rows, columns, rows[::-1], columns[::-1])):
        state = torch.zeros(channels, dtype=u.dtype)
        pole = -torch.exp(block.A_logs.view(4, channels)[k].double())
        for h, w in path:
            features = block.x_proj_weight[k].double() @ u[h, w]
            step = block.dt_projs_weight[k].double() @ features[:rank] + block.dt_projs_bias[k].double()
            step = F.softplus(step)
            state = torch.exp(step * pole) * state + step * features[rank] * u[h, w]
            total[h, w] += features[rank + 1] * state + block.Ds.view(4, channels)[k].double() * u[h, w]
    return total


def test_the_scan_is_the_published_recurrence_in_all_four_directions() -> None:
    torch.manual_seed(0)
    block = SelectiveScan2d(20, "chunked")
    with torch.no_grad():
        for parameter in (block.A_logs, block.Ds, block.dt_projs_bias):
            parameter.add_(torch.randn_like(parameter))
        u = torch.randn(2, 5, 9, 20)
        expected = torch.stack([_plain_scan(block, one) for one in u.double()])
        torch.testing.assert_close(block._scan(u).double(), expected, atol=2e-5, rtol=1e-5)


def test_cross_merge_undoes_cross_scan() -> None:
    maps = torch.randn(2, 3, 5, 4)
    scanned = cross_scan(maps)
    torch.testing.assert_close(scanned[:, 1, :3], maps[:, :, 0])  # the first column, frequency fastest
    torch.testing.assert_close(cross_merge(scanned, 3, 5), 4 * maps)


def test_scan_forms_agree_in_the_whole_network(model: Dass) -> None:
    features = torch.randn(2, 1, 48, 61)
    expected = model(features)
    for form in ("sequential", "doubling", "two_level"):
        other = Dass(size="tiny", scan=form).eval()
        other.load_state_dict(model.state_dict())
        torch.testing.assert_close(other(features), expected, atol=1e-6, rtol=1e-5)


def test_the_scan_stays_in_float32_under_autocast(model: Dass, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    from edge_sdk.models import dass

    def spy(decay: Tensor, drive: Tensor, form: str) -> Tensor:
        seen.extend((decay.dtype, drive.dtype))
        return drive

    monkeypatch.setattr(dass, "linear_scan", spy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(1, 1, 48, 61))
    assert set(seen) == {torch.float32}


def test_one_training_step_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    model = Dass(size="tiny", drop_path=0.0).train()
    F.cross_entropy(model(torch.randn(4, 1, 48, 61)), torch.arange(4)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_the_paper_size_trains_a_step() -> None:
    model = Dass(size="base").train()
    model(torch.randn(2, 1, 128, 50)).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_drop_path_acts_in_training_only_and_keeps_the_mean() -> None:
    from edge_sdk.models.dass import DropPath

    torch.manual_seed(0)
    drop, x = DropPath(0.25), torch.ones(4000, 1, 1, 1)
    assert torch.equal(drop.eval()(x), x)
    dropped = drop.train()(x)
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.05)


def test_patch_mix_gets_the_stem_grid(model: Dass) -> None:
    shapes: list[tuple[int, ...]] = []

    def mix(grid: Tensor) -> Tensor:
        shapes.append(tuple(grid.shape))
        return grid.flip(0)

    features = torch.randn(2, 1, 48, 186)
    mixed = model.embed(features, mix=mix)
    assert shapes == [(2, 8, 12, 47)]
    torch.testing.assert_close(mixed, model.embed(features.flip(0)))
    assert mixed.shape == (2, model.embedding_dim)


def test_weight_decay_spares_the_state_space(model: Dass) -> None:
    spared = {name.rsplit(".", 1)[1] for name in model.no_decay}
    assert spared == {"A_logs", "Ds", "dt_projs_bias"}


def test_gaussian_smoothing_acts_on_the_selected_stages_only() -> None:
    torch.manual_seed(0)
    plain = Dass(size="tiny").eval()
    smooth = Dass(size="tiny", gaussian={"stages": [3], "rho": 0.5}).eval()
    smooth.load_state_dict(plain.state_dict())  # no tensor more, no tensor less
    features = torch.randn(1, 1, 48, 186)
    equal = [torch.equal(a, b) for a, b in zip(plain.stage_maps(features), smooth.stage_maps(features), strict=True)]
    assert equal == [True, True, False, False]
    assert plain.penalty() is None


def test_the_gaussian_penalty_trains_and_leaves_the_model_copyable() -> None:
    model = Dass(size="tiny", gaussian={"stages": [2, 4], "rho": 0.0, "penalty": 0.1}).train()
    model(torch.randn(2, 1, 48, 61))
    penalty = model.penalty()
    assert penalty is not None
    penalty.backward()
    copy.deepcopy(model)
    assert model.penalty() is None


def test_annealing_follows_the_epochs() -> None:
    model = Dass(size="tiny", gaussian={"stages": [3], "mode": "train_only", "anneal": True})
    model.on_epoch(2, 10)
    assert [blend.sigma for blend in model._gaussians()] == [pytest.approx(0.9)]


def _publish(model: Dass, path: Path, *, colours: int = 3, four_d: bool = True) -> dict[str, Tensor]:
    """A file in the public layout."""
    public: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name == "patch_embed.0.weight":
            tensor = tensor.expand(-1, colours, -1, -1) / colours
        if four_d and name.endswith(("in_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight")):
            tensor = tensor[:, :, None, None]
        public[f"module.v.{name}"] = tensor.clone()
    torch.save(public, path)
    return public


@pytest.mark.parametrize(("colours", "four_d"), [(3, True), (1, False)])
def test_public_weights_load_without_a_missing_or_left_over_tensor(
    tmp_path: Path, model: Dass, colours: int, four_d: bool
) -> None:
    _publish(model, tmp_path / "audioset.pth", colours=colours, four_d=four_d)
    fresh = Dass(size="tiny", classes=4).eval()
    filled = load_public_weights(fresh, tmp_path / "audioset.pth")
    assert set(filled) == set(fresh.state_dict())
    features = torch.randn(1, 1, 48, 61)
    torch.testing.assert_close(fresh(features), model(features), atol=1e-6, rtol=1e-5)


def test_a_head_of_other_classes_stays_fresh(tmp_path: Path, model: Dass) -> None:
    _publish(model, tmp_path / "audioset.pth")
    fresh = Dass(size="tiny", classes=2, gaussian={"stages": [3]})
    filled = load_public_weights(fresh, tmp_path / "audioset.pth")
    assert set(fresh.state_dict()) - set(filled) == {"classifier.head.weight", "classifier.head.bias"}


def test_the_public_names_are_the_published_ones() -> None:
    with torch.device("meta"):
        names = set(Dass(size="base").state_dict())
    block = {
        "norm.weight", "norm.bias", "norm2.weight", "norm2.bias", "op.in_proj.weight", "op.conv2d.weight",
        "op.x_proj_weight", "op.dt_projs_weight", "op.dt_projs_bias", "op.A_logs", "op.Ds", "op.out_norm.weight",
        "op.out_norm.bias", "op.out_proj.weight", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias",
    }  # fmt: skip
    expected = {f"layers.{i}.blocks.{j}.{n}" for i, d in enumerate((2, 2, 8, 2)) for j in range(d) for n in block}
    expected |= {f"patch_embed.{i}.{kind}" for i in (0, 2, 5, 7) for kind in ("weight", "bias")}
    expected |= {f"layers.{i}.downsample.{j}.{kind}" for i in range(3) for j in (1, 3) for kind in ("weight", "bias")}
    expected |= {f"classifier.{part}.{kind}" for part in ("norm", "head") for kind in ("weight", "bias")}
    assert names == expected


def test_a_file_of_another_network_is_refused(tmp_path: Path, model: Dass) -> None:
    public = _publish(model, tmp_path / "public.pth")
    del public["module.v.layers.0.blocks.0.op.A_logs"]
    torch.save(public, tmp_path / "public.pth")
    with pytest.raises(CheckpointError, match="A_logs"):
        load_public_weights(model, tmp_path / "public.pth")


def test_wrong_options_are_named() -> None:
    spec = FrontEndSpec()
    with pytest.raises(RecipeError, match="sequential, doubling, two_level, chunked"):
        build_model("dass", size="tiny", classes=4, front_end=spec, options={"scan": "cumsum"})
    with pytest.raises(RecipeError, match="sgima"):
        build_model("dass", size="tiny", classes=4, front_end=spec, options={"gaussian": {"sgima": 1}})
