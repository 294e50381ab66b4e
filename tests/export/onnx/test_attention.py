"""Attention as one node: the same logits, for every transformer, and only in what CPUs run."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from export.formats import FORMATS
from export.onnx.attention import DOMAIN, fuse_attention
from export.onnx.build import BuildRequest, int8_cpu
from export.onnx.lint import lint
from export.onnx.runner import GraphRunner
from tests.export.onnx.test_every_model import exported

TRANSFORMERS = ["ast", "softfilm", "lung-adapter", "add"]


def _fused_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.domain == DOMAIN]


@pytest.mark.parametrize("recipe", TRANSFORMERS)
@pytest.mark.parametrize("batch", [1, 3])
def test_every_attention_of_a_transformer_becomes_one_node_with_equal_logits(recipe: str, batch: int) -> None:
    export = exported(recipe, "tiny")
    softmaxes = [node.name for node in export.network.graph.node if node.op_type == "Softmax"]
    blocks = [name for name in softmaxes if ".attn/" in name]  # ADD's front part has two of another form
    fused, count = fuse_attention(export.network)
    assert count == len(_fused_nodes(fused)) == len(blocks) == 2
    left = [node.name for node in fused.graph.node if node.op_type == "Softmax"]
    assert left == [name for name in softmaxes if name not in blocks]
    shape = (batch, 1, export.spec.mel_bins, export.spec.frames)
    feed = {"features": np.random.default_rng(0).standard_normal(shape).astype(np.float32), **export.metadata(batch)}
    expected = export.sessions["features"].run(feed)
    found = GraphRunner(fused).run(feed)
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


def test_nothing_is_left_behind_that_no_node_reads() -> None:
    fused, _ = fuse_attention(exported("ast", "tiny").network)
    read = {name for node in fused.graph.node for name in node.input}
    assert {tensor.name for tensor in fused.graph.initializer} <= read
    assert len(fused.graph.node) < len(exported("ast", "tiny").network.graph.node) - 30


@pytest.mark.parametrize("change", ["permutation", "second reader"])
def test_what_has_another_form_stays_as_it_is(change: str) -> None:
    network = onnx.ModelProto()
    network.CopyFrom(exported("ast", "tiny").network)
    softmaxes = [node for node in network.graph.node if node.op_type == "Softmax"]
    if change == "permutation":
        for node in network.graph.node:
            if node.op_type == "Transpose" and list(node.attribute[0].ints) == [2, 0, 3, 1, 4]:
                node.attribute[0].ints[:] = [2, 0, 1, 3, 4]
    else:
        network.graph.node.extend(
            onnx.helper.make_node("Identity", [node.output[0]], [f"{node.output[0]}_copy"]) for node in softmaxes
        )
    same, count = fuse_attention(network)
    assert count == 0
    assert same == network


def test_a_cnn_has_no_attention() -> None:
    network = exported("yamnet", "tiny").network
    assert fuse_attention(network) == (network, 0)


def test_the_int8_artefact_for_cpus_is_fused_and_only_the_lint_for_tensorrt_refuses_it() -> None:
    export = exported("ast", "tiny")
    request = BuildRequest(export.model, export.spec, export.schema, lambda _: None)
    graph = int8_cpu(FORMATS["onnx-int8-cpu"], request)
    assert request.notes["fused_attentions"] == len(_fused_nodes(graph)) == 2
    assert lint(graph, tensorrt=False) == []
    assert any("com.microsoft" in problem for problem in lint(graph))
    graph.graph.node[0].domain = "com.example"
    assert "only standard ONNX is portable" in lint(graph, tensorrt=False)[0]
