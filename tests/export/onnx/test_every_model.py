"""Every model leaves torch as two portable graphs with equal logits, at any batch, metadata included."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.core.exported import RECIPES, Exported
from export.onnx.lint import MAX_IR, OPSET, lint

IN_CI = [
    "ast",
    "lung-adapter",
    "add",
    "mri-net",
    "softfilm",
    "yamnet",
    "standard",
]  # compact, dass: test_graph, test_dass_export
PARITY = 1e-4


@cache
def exported(recipe: str, size: str) -> Exported:
    """Exported once in a run of the tests, by whichever worker needs it first."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    return Exported(recipe, size, None if run is None else Path(tempfile.gettempdir()) / f"stetho-exports-{run}")


@pytest.mark.parametrize("recipe", IN_CI)
def test_both_graphs_give_torchs_logits_for_one_breath_and_three(recipe: str) -> None:
    _check(exported(recipe, "tiny"))


@pytest.mark.long
@pytest.mark.parametrize("recipe", RECIPES)
def test_both_graphs_of_the_published_size_give_torchs_logits(recipe: str) -> None:
    _check(Exported(recipe, "base"))


def _check(export: Exported) -> None:
    for batch in (1, 3):
        errors = export.relative_errors(batch)
        assert set(errors) == {"features", "pcm"}
        assert max(errors.values()) <= PARITY, (batch, errors)
    for graph in (export.network, export.joined):
        assert lint(graph) == []
        assert graph.ir_version <= MAX_IR
        assert [o.version for o in graph.opset_import if o.domain == ""] == [OPSET]
        assert b"site-packages" not in graph.SerializeToString()


def test_training_heads_are_not_in_the_graph() -> None:
    export = exported("add", "tiny")
    heads = tuple(export.model.training_only)  # type: ignore[arg-type]
    assert heads and any(name.startswith(heads) for name in export.checkpoint.state)
    assert not [t.name for t in export.network.graph.initializer if t.name.startswith(heads)]


def test_nodes_bear_the_names_of_their_modules() -> None:
    assert any(n.name.startswith("encoder.blocks.1.mlp.fc2/") for n in exported("ast", "tiny").network.graph.node)


def test_metadata_inputs_are_typed_dynamic_and_change_the_logits() -> None:
    export = exported("softfilm", "tiny")
    assert export.schema is not None
    inputs = {i.name: i.type.tensor_type for i in export.joined.graph.input}
    assert list(inputs) == ["pcm", *export.schema.inputs]
    for name in export.schema.categorical:
        assert inputs[name].elem_type == onnx.TensorProto.INT32
        assert inputs[name].shape.dim[0].dim_param
    feed = {"pcm": export.noise(3), **export.metadata(3)}
    unknown = {name: np.zeros_like(value) for name, value in feed.items() if name != "pcm"}
    with_metadata = export.sessions["pcm"].run(feed)
    assert np.abs(with_metadata - export.sessions["pcm"].run(feed | unknown)).max() > 1e-3


def test_an_index_outside_the_vocabulary_and_a_value_that_is_not_valid_are_unknown() -> None:
    export = exported("softfilm", "tiny")
    feed = {"pcm": export.noise(3), **export.metadata(3)}
    nothing = {name: np.zeros_like(value) for name, value in feed.items() if name != "pcm"}
    strange = {name: np.full_like(v, 1000) for name, v in nothing.items() if v.dtype == np.int32}
    strange["cont"] = np.full_like(nothing["cont"], np.nan)
    session = export.sessions["pcm"]
    np.testing.assert_array_equal(session.run(feed | nothing), session.run(feed | nothing | strange))
