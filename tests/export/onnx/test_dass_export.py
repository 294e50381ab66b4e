"""DASS leaves torch: few portable nodes, any batch, the same logits; TensorRT takes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from benchmarks.studies.scan_forms import COMPACT, PAPER, scan_calls, scan_form_rows
from edge_sdk.models.dass import SIZES, Dass, DassSize
from edge_sdk.models.layers.selective_scan import ScanForm
from edge_sdk.runtime.engines.library import onnxruntime as ort
from edge_sdk.signal.spec import FrontEndSpec
from export.onnx.graph import export_network
from export.onnx.lint import lint

FORMS_COMPARED: tuple[ScanForm, ...] = ("chunked", "doubling")
Build = Callable[[onnx.ModelProto, FrontEndSpec], int]


def _exported(size: str, spec: FrontEndSpec, **options: Any) -> tuple[Dass, onnx.ModelProto]:
    torch.manual_seed(0)
    model = Dass(classes=4, size=size, **options).eval()
    with torch.no_grad():  # the scan must matter: a fresh one adds almost nothing to the residual stream
        for name, parameter in model.named_parameters():
            if name.endswith(("dt_projs_bias", "A_logs")):
                parameter.add_(torch.randn_like(parameter))
    return model, export_network(model, spec)


def _relative_difference(model: Dass, graph: onnx.ModelProto, spec: FrontEndSpec, batch: int) -> float:
    features = torch.randn(batch, 1, spec.mel_bins, spec.frames)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    ours = session.run(None, {"features": features.numpy()})[0]
    with torch.no_grad():
        theirs = model(features).numpy()
    assert ours.shape == theirs.shape == (batch, 4)
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))


@pytest.fixture(scope="module")
def tiny() -> tuple[Dass, onnx.ModelProto]:
    """Two stages, one with a step down and Gaussian smoothing, which is kept in the graph."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", DassSize(dims=(8, 16), depths=(1, 1), drop_path=0.0))
        return _exported("tiny", COMPACT, gaussian={"stages": [1], "mode": "always"})


@pytest.fixture(scope="module")
def build() -> Build:
    """TensorRT-RTX: graph → bytes of the engine, built without a GPU."""
    trt = pytest.importorskip("tensorrt_rtx", reason="the extra 'tensorrt-rtx' brings it", exc_type=ImportError)

    def _build(graph: onnx.ModelProto, spec: FrontEndSpec) -> int:
        logger = trt.Logger(trt.Logger.ERROR)
        builder = trt.Builder(logger)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, logger)
        assert parser.parse(graph.SerializeToString()), [parser.get_error(i).desc() for i in range(parser.num_errors)]
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        profile = builder.create_optimization_profile()
        picture = (1, spec.mel_bins, spec.frames)
        profile.set_shape("features", (1, *picture), (8, *picture), (64, *picture))
        config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        assert plan is not None
        return int(plan.nbytes)

    return _build


@pytest.mark.parametrize("batch", [1, 3])
def test_the_graph_gives_torch_logits_at_any_batch(tiny: tuple[Dass, onnx.ModelProto], batch: int) -> None:
    assert _relative_difference(*tiny, COMPACT, batch) <= 1e-5


def test_the_graph_is_portable_and_has_no_serial_nodes(tiny: tuple[Dass, onnx.ModelProto]) -> None:
    _, graph = tiny
    assert lint(graph) == []
    kinds = {node.op_type for node in graph.graph.node}
    assert not kinds & {"Loop", "Scan", "CumSum", "Einsum", "ScatterND"}
    assert len(graph.graph.node) <= 500


@pytest.mark.long
def test_tensorrt_rtx_parses_and_builds_the_tiny_network(build: Build) -> None:
    model, graph = _exported("tiny", COMPACT, gaussian={"stages": [3], "mode": "always"})
    assert len(graph.graph.node) <= 1000
    assert _relative_difference(model, graph, COMPACT, 3) <= 1e-5
    assert build(graph, COMPACT) > 50_000


def test_the_scan_benchmark_gives_a_row_per_form_and_engine() -> None:
    subjects = [scan_calls(form, length=40, channels=4) for form in FORMS_COMPARED]
    table = list(scan_form_rows("scan", subjects, rounds=1))
    json.dumps(table)
    assert [row["engine"] for row in table] == ["torch-eager", "onnxruntime"] * 2
    assert all(row["max_difference"] <= 1e-5 and row["ratio_to_torch"] > 0 for row in table[1::2])


@pytest.mark.long
def test_the_paper_size_is_exact_small_and_taken_by_tensorrt(build: Build) -> None:
    model, graph = _exported("base", PAPER)
    assert len(graph.graph.node) <= 3000
    assert lint(graph) == []
    for batch in (1, 3):
        assert _relative_difference(model, graph, PAPER, batch) <= 1e-5
    assert build(graph, PAPER) > 50_000_000
