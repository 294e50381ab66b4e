"""The compact model keeps the models' contract and its size."""

from __future__ import annotations

import pytest
import torch

from edge_sdk.errors import RecipeError
from edge_sdk.models import MODELS, build_model, count_parameters
from edge_sdk.models.compact import Compact
from edge_sdk.models.network import Network
from edge_sdk.models.registry import ModelEntry, register
from edge_sdk.signal.spec import FrontEndSpec


@pytest.mark.parametrize("size", MODELS["compact"].sizes)
@pytest.mark.parametrize("frames", [40, 185])
def test_any_picture_becomes_one_row_of_logits(size: str, frames: int) -> None:
    model = build_model("compact", size=size, classes=4, front_end=FrontEndSpec()).eval()
    logits = model(torch.randn(3, 1, 48, frames))
    assert logits.shape == (3, 4)
    assert torch.isfinite(logits).all()


def test_metadata_is_accepted_and_changes_nothing() -> None:
    model = build_model("compact", size="tiny", classes=4, front_end=FrontEndSpec()).eval()
    picture = torch.randn(2, 1, 48, 60)
    torch.testing.assert_close(model(picture, {"age": 3}), model(picture))


def test_constant_offset_per_bin_reaches_only_half_of_the_input() -> None:
    """What changes over time is a channel of its own, so a frequency response cannot hide it."""
    model = build_model("compact", size="tiny", classes=4, front_end=FrontEndSpec()).eval()
    seen: list[torch.Tensor] = []
    next(model.children()).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    picture = torch.randn(1, 1, 48, 60)
    model(picture)
    model(picture + torch.randn(1, 1, 48, 1))
    torch.testing.assert_close(seen[0][:, 1], seen[1][:, 1], atol=1e-5, rtol=0)
    assert not torch.allclose(seen[0][:, 0], seen[1][:, 0])


def test_embedding_is_what_the_head_classifies() -> None:
    model = build_model("compact", size="tiny", classes=4, front_end=FrontEndSpec()).eval()
    assert isinstance(model, Network)
    picture = torch.randn(2, 1, 48, 60)
    outputs = model.outputs(picture)
    assert outputs.embedding.shape == (2, model.embedding_dim)
    torch.testing.assert_close(outputs.logits, model(picture), atol=0, rtol=0)
    torch.testing.assert_close(model.embed(picture, mix=lambda maps: maps), outputs.embedding, atol=0, rtol=0)


def test_names_of_the_shipped_weights_stay_what_they_are() -> None:
    state = Compact(4, "base").state_dict()
    assert list(state)[:2] == ["stages.0.0.weight", "stages.0.1.weight"]
    assert list(state)[-2:] == ["head.weight", "head.bias"]
    assert state["head.weight"].shape == (4, 128)
    assert len(state) == 50


def test_base_stays_compact() -> None:
    model = build_model("compact", size="base", classes=4, front_end=FrontEndSpec())
    assert 100_000 <= count_parameters(model) <= 250_000


def test_unknown_model_size_and_option_are_named() -> None:
    spec = FrontEndSpec()
    with pytest.raises(RecipeError, match=r"known models: .*compact"):
        build_model("compcat", size="base", classes=4, front_end=spec)
    with pytest.raises(RecipeError, match="choose one of tiny, small, base"):
        build_model("compact", size="huge", classes=4, front_end=spec)
    with pytest.raises(RecipeError, match="droput"):
        build_model("compact", size="tiny", classes=4, front_end=spec, options={"droput": 0.1})


def test_a_model_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="registered twice"):
        register(ModelEntry(name="compact", builder="x:y", sizes=("base",), title=""))
