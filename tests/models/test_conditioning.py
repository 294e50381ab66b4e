"""Conditioning starts at the plain network, tolerates unknown metadata, folds for export; its sizes are published."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edge_sdk.errors import ExportError, RecipeError
from edge_sdk.metadata import MetadataSchema
from edge_sdk.models.ast import Ast
from edge_sdk.models.conditioning import KINDS, Conditioner, ConditioningSettings, Metadata
from edge_sdk.runtime.engines.library import onnxruntime

SCHEMA = MetadataSchema(
    {"device": ("a", "b", "c", "d"), "site": tuple("abcdefg")},
    ("age_years", "bmi", "duration_s"),
    (50.0, 25.0, 3.0),
    (20.0, 5.0, 1.0),
)
WITH_SEX = MetadataSchema({"site": ("a", "b"), "sex": ("female", "male")}, ("age_years",), (50.0,), (20.0,))
PICTURE = (48, 64)
ROWS: list[dict[str, Any]] = [
    {"device": "a", "site": "c", "age_years": 60.0, "bmi": 22.0, "duration_s": 2.5},
    {"device": "d", "site": "g", "age_years": 5.0},
    {},
]
VARIANTS: list[dict[str, Any]] = [
    {"kind": "none"},
    {"kind": "grf"},
    {"kind": "film"},
    {"kind": "tafilm"},
    {"kind": "softfilm"},
    {"kind": "softfilm", "masks": "paper"},
    {"kind": "softfilm", "token_aware": True, "layers": [1]},
]
CONDITIONED = VARIANTS[1:]


def _metadata(rows: list[dict[str, Any]] = ROWS, schema: MetadataSchema = SCHEMA) -> Metadata:
    return Metadata.from_arrays(schema.encode(rows))


def _model(conditioning: Any, *, seed: int = 0, schema: MetadataSchema = SCHEMA, **options: Any) -> Ast:
    torch.manual_seed(seed)
    return Ast(4, "tiny", picture=PICTURE, conditioning=conditioning, metadata_schema=schema, **options).eval()


def _learned(conditioning: Any, **options: Any) -> Ast:
    """A model whose conditioning is no longer zero."""
    model = _model(conditioning, **options)
    with torch.no_grad():
        for parameter in model.conditioner.parameters() if model.conditioner is not None else ():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def _picture(batch: int = 3) -> Tensor:
    return torch.randn(batch, 1, *PICTURE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("conditioning", CONDITIONED, ids=str)
def test_every_kind_starts_at_the_plain_network(conditioning: dict[str, Any]) -> None:
    plain, conditioned = _model("none"), _model(conditioning)
    logits = plain(_picture())
    torch.testing.assert_close(conditioned(_picture(), _metadata()), logits, atol=0, rtol=0)
    torch.testing.assert_close(conditioned(_picture()), logits, atol=0, rtol=0)


@pytest.mark.parametrize("conditioning", CONDITIONED, ids=str)
def test_metadata_changes_what_it_conditions_and_gradients_reach_it(conditioning: dict[str, Any]) -> None:
    model = _learned(conditioning)
    logits = model(_picture(), _metadata())
    assert (logits - model(_picture())).abs()[:2].max() > 1e-4
    torch.testing.assert_close(logits[2], model(_picture())[2])  # nothing is known of the third row
    logits.square().sum().backward()
    assert model.conditioner is not None
    assert all(parameter.grad is not None for parameter in model.conditioner.parameters())


@pytest.mark.parametrize("kind", ["film", "tafilm", "softfilm", "grf"])
def test_a_first_step_can_leave_the_zero_start(kind: str) -> None:
    model = _model(kind)
    torch.nn.functional.cross_entropy(model(_picture(), _metadata()), torch.tensor([0, 1, 2])).backward()
    assert model.conditioner is not None
    assert any(float(p.grad.abs().max()) > 0 for p in model.conditioner.parameters() if p.grad is not None)


@pytest.mark.parametrize("conditioning", CONDITIONED, ids=str)
def test_unknown_names_ids_out_of_range_and_missing_values_are_one_and_the_same(conditioning: dict[str, Any]) -> None:
    model = _learned(conditioning)
    unknown = model(_picture(1), Metadata.unknown(SCHEMA, 1))
    for index in (-1, 5, 99):
        odd = Metadata(
            {"device": torch.tensor([index], dtype=torch.int32), "site": torch.tensor([-index * 9], dtype=torch.int32)},
            torch.full((1, 3), torch.nan),
            torch.zeros(1, 3),
        )
        torch.testing.assert_close(model(_picture(1), odd), unknown)
    torch.testing.assert_close(model(_picture(1)), unknown)


def test_scores_are_clipped_in_the_graph_and_their_statistics_travel_with_the_weights() -> None:
    model = _learned("film")
    far = _metadata([{"age_years": 50.0 + 4 * 20.0}, {"age_years": 1e6}])
    torch.testing.assert_close(*model(_picture(1).expand(2, -1, -1, -1), far).unbind(0))
    state = model.state_dict()
    assert state["conditioner.encoder.mean"].tolist() == [50.0, 25.0, 3.0]
    assert state["conditioner.encoder.std"].tolist() == [20.0, 5.0, 1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_sex_and_partial_schemas_are_read_too(kind: str) -> None:
    model = _learned(kind, schema=WITH_SEX)
    women, men = (_metadata([{"sex": sex}], WITH_SEX) for sex in ("female", "male"))
    differs = bool((model(_picture(1), women) - model(_picture(1), men)).abs().max() > 1e-5)
    assert differs == (kind != "none")


@pytest.mark.parametrize("conditioning", CONDITIONED[3:], ids=str)
def test_folded_masks_leave_the_logits_as_they_are(conditioning: dict[str, Any]) -> None:
    model = _learned(conditioning)
    model.on_epoch(40, 50)
    folded = model.folded()
    assert not [name for name in folded.state_dict() if "masks" in name or "tau" in name]
    torch.testing.assert_close(folded(_picture(), _metadata()), model(_picture(), _metadata()))


@pytest.mark.parametrize("kind", ["none", "grf", "film", "softfilm"])
def test_specialised_model_is_plain_and_agrees(kind: str) -> None:
    model = _learned(kind)
    fixed = model.specialised(_metadata(ROWS[:1]))
    assert fixed.conditioner is None
    expected = model(_picture(), _metadata([ROWS[0]] * 3))
    torch.testing.assert_close(fixed(_picture()), expected, atol=1e-5, rtol=1e-5)


def test_token_aware_conditioning_cannot_be_specialised() -> None:
    with pytest.raises(ExportError, match="token-aware"):
        _learned("tafilm").specialised(_metadata(ROWS[:1]))
    with pytest.raises(ExportError, match="one metadata row"):
        _learned("film").specialised(_metadata())


def test_conditioning_computed_once_serves_many_pictures() -> None:
    model = _learned("tafilm")
    conditioning = model.condition(_metadata(), 3)
    torch.testing.assert_close(
        model.classify(model.embed_conditioned(_picture(), conditioning)), model(_picture(), _metadata())
    )


def test_token_aware_film_treats_class_tokens_and_patches_apart() -> None:
    model = _learned({"kind": "tafilm", "layers": [1]})
    conditioning = model.condition(_metadata(), 3)
    assert conditioning is not None and conditioning.modulation is not None
    assert conditioning.modulation.shape == (3, 1, 2, 2, 32)
    whole = model.embed_conditioned(_picture(), conditioning)
    conditioning.modulation[:, :, 1] = 0.0  # in the last block patches cannot reach the pooled tokens any more
    torch.testing.assert_close(model.embed_conditioned(_picture(), conditioning), whole)
    conditioning.modulation[:, :, 0] = 0.0
    assert (model.embed_conditioned(_picture(), conditioning) - whole).abs().max() > 1e-3


def _published(conditioning: dict[str, Any], **options: Any) -> Ast:
    settings = {"mode": "paper", **conditioning}
    with torch.device("meta"):
        return Ast(
            2, "base", picture=(128, 1024), conditioning=settings, metadata_schema=SCHEMA, head="ln-mlp", **options
        )


@pytest.mark.parametrize(
    ("conditioning", "count"),
    [
        ({"kind": "grf"}, 613_769),
        ({"kind": "film"}, 1_208_230),
        ({"kind": "tafilm"}, 2_406_310),
        ({"kind": "softfilm", "layers": [10, 11]}, 615_796),
        ({"kind": "softfilm"}, 3_610_996),
    ],
    ids=str,
)
def test_paper_mode_has_the_published_parameter_counts(conditioning: dict[str, Any], count: int) -> None:
    model = _published(conditioning)
    assert model.conditioner is not None
    assert sum(parameter.numel() for parameter in model.conditioner.parameters()) == count


def test_published_heads() -> None:
    assert sum(p.numel() for p in _published({"kind": "none"}).head.parameters()) == 50_882
    assert sum(p.numel() for p in _published({"kind": "none"}, head_hidden=32).head.parameters()) == 26_210


@pytest.mark.parametrize("kind", ["grf", "film", "tafilm", "softfilm"])
def test_paper_mode_runs_and_only_token_aware_film_starts_plain(kind: str) -> None:
    model, plain = _model({"kind": kind, "mode": "paper"}), _model("none")
    difference = (model(_picture(), _metadata()) - plain(_picture())).abs().max()
    assert torch.isfinite(difference)
    assert (difference == 0.0) == (kind == "tafilm")


def test_published_masks_start_as_thirds_and_cool_down() -> None:
    conditioner = _model({"kind": "softfilm", "mode": "paper"}).conditioner
    assert isinstance(conditioner, Conditioner) and conditioner.masks is not None
    masks = conditioner.masks
    assert masks().argmax(dim=0).diff().unique().tolist() == [0, 1]  # contiguous parts
    assert masks().max().item() == pytest.approx(0.6225, abs=1e-4)
    taus = []
    for epoch in (0, 4, 5, 49):
        masks.anneal(epoch, 50)
        taus.append(masks.tau.item())
    assert taus == pytest.approx([1.0, 1.0, 1.0, 0.2005], abs=1e-3)
    assert taus[-1] == pytest.approx(0.201, abs=1e-3)


def test_published_regulariser_by_hand() -> None:
    model = _model({"kind": "softfilm", "masks": "paper"})
    high, low = torch.sigmoid(torch.tensor([0.5, -0.5])).tolist()
    # 32 channels in three nearly equal parts: every channel has one owner
    overlap = (2 * high * low + low * low) / 3
    penalty = model.penalty()
    assert penalty is not None
    assert penalty.item() == pytest.approx(0.01 * overlap + 0.005 * (1 - high), rel=1e-4)


def test_softmax_masks_share_each_channel_and_learn_at_their_own_rate() -> None:
    model = _model({"kind": "softfilm", "mask_rate": 300.0})
    assert isinstance(model.conditioner, Conditioner) and model.conditioner.masks is not None
    assert model.conditioner.masks().sum(dim=0).max() < 1.0  # the rest is the null's
    assert model.penalty() is None
    names = [name for name, _ in model.named_parameters() if name.startswith(tuple(model.rate_scale))]
    assert names == ["conditioner.masks.logits"]
    assert model.rate_scale["conditioner.masks"] == 300.0
    assert _model("film").rate_scale == {}
    assert names[0].startswith(model.no_decay)


def test_metadata_dropout_hides_at_its_rates_and_repeats_with_its_generator() -> None:
    metadata = _metadata([ROWS[0]] * 20_000)
    dropped = metadata.drop(torch.Generator().manual_seed(3), per_field=0.15, all_fields=0.1)
    again = metadata.drop(torch.Generator().manual_seed(3), per_field=0.15, all_fields=0.1)
    assert dropped.cont_valid is not None and again.cont_valid is not None
    assert torch.equal(dropped.categorical["site"], again.categorical["site"])
    assert torch.equal(dropped.cont_valid, again.cont_valid)
    hidden = torch.stack([*(value == 0 for value in dropped.categorical.values()), *(dropped.cont_valid == 0).T])
    expected = 0.1 + 0.9 * 0.15
    assert hidden.float().mean(dim=1).tolist() == pytest.approx([expected] * 5, abs=0.02)
    assert hidden.all(dim=0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert metadata.categorical["device"].eq(1).all()  # the original is left alone
    untouched = metadata.drop(torch.Generator(), per_field=0.0, all_fields=0.0)
    assert torch.equal(untouched.categorical["device"], metadata.categorical["device"])


def test_rows_are_chosen_and_arrays_come_back() -> None:
    metadata = _metadata()
    assert len(metadata) == 3
    assert tuple(metadata.arrays()) == SCHEMA.inputs
    chosen = metadata.index([2, 0])
    assert chosen.categorical["device"].tolist() == [0, 1]
    assert chosen.cont is not None and chosen.cont[1, 0] == 60.0
    assert len(metadata.index(slice(0, 1))) == 1
    assert metadata.index(torch.tensor([1])).categorical["site"].tolist() == [7]


def test_metadata_that_the_model_needs_is_named() -> None:
    model = _model("film")
    with pytest.raises(ValueError, match="site"):
        model(_picture(), Metadata({"device": torch.zeros(3, dtype=torch.int32)}, torch.zeros(3, 3), torch.zeros(3, 3)))
    with pytest.raises(ValueError, match="cont_valid"):
        model(_picture(), Metadata(_metadata().categorical))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "film", "layers": [2]}, r"0\.\.1"),
        ({"kind": "film", "token_aware": True}, "tafilm"),
        ({"kind": "softfilm", "masks": "hard"}, "softmax"),
        ({"kind": "film", "mode": "theirs"}, "ours, paper"),
    ],
)
def test_impossible_settings_say_what_is_possible(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        _model(ConditioningSettings.parse(settings))


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision_stays_near_full_precision(kind: str) -> None:
    model = _learned(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(_picture(), _metadata())
    torch.testing.assert_close(rough.float(), model(_picture(), _metadata()), atol=0.1, rtol=0.1)


class _Positional(nn.Module):
    """The graph's inputs in the schema's order."""

    def __init__(self, model: Ast) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor, *inputs: Tensor) -> Tensor:
        if not inputs:
            return self.model(features)
        return self.model(features, Metadata.from_arrays(dict(zip(SCHEMA.inputs, inputs, strict=True))))


def _exported(model: Ast) -> onnx.ModelProto:
    arrays = _metadata(ROWS[:2]).arrays() if model.conditioner is not None else {}
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes: Any = ({0: batch}, tuple({0: batch} for _ in arrays)) if arrays else ({0: batch},)
    program = torch.onnx.export(
        _Positional(model).eval(),
        (_picture(2), *arrays.values()),
        dynamo=True,
        opset_version=18,
        input_names=["features", *arrays],
        output_names=["logits"],
        dynamic_shapes=shapes,
        verbose=False,
    )
    buffer: Any = io.BytesIO()
    assert program is not None
    program.save(buffer)
    return onnx.load_from_string(buffer.getvalue())


_IN_CI = VARIANTS[6]
_EXPORTED = [pytest.param(v, marks=() if v is _IN_CI else pytest.mark.long) for v in (*VARIANTS[:4], _IN_CI)]


@pytest.mark.parametrize("conditioning", _EXPORTED, ids=str)
def test_export_agrees_with_torch_for_any_batch_and_any_metadata(conditioning: dict[str, Any]) -> None:
    model = _learned(conditioning).folded()
    graph = _exported(model)
    assert {opset.domain: opset.version for opset in graph.opset_import}[""] == 18
    assert not {"Attention", "Loop", "If", "Dropout"} & {node.op_type for node in graph.graph.node}
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    names = {entry.name for entry in session.get_inputs()}
    assert names == ({"features"} if conditioning["kind"] == "none" else {"features", *SCHEMA.inputs})
    for batch in (1, 3):
        arrays = SCHEMA.encode(ROWS[:batch])
        arrays["device"][0] = 77  # out of range: UNKNOWN, not an error and not another device
        metadata = Metadata.from_arrays(arrays)
        features = _picture(batch)
        feeds = {"features": features.numpy()} | {name: array for name, array in arrays.items() if name in names}
        (logits,) = session.run(None, feeds)
        expected = model(features, metadata).detach().numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-4)
