"""TensorRT takes the shipped fp32 graph: TensorRT-RTX parses and builds it without a GPU; never executed."""

from __future__ import annotations

from typing import Any

import pytest

from edge_sdk.runtime.bundle import DEFAULT_BUNDLE, read_manifest

trt: Any = pytest.importorskip("tensorrt_rtx", reason="the extra 'tensorrt-rtx' brings it", exc_type=ImportError)


def _fp32_graph() -> tuple[bytes, int]:
    entry = next(a for a in read_manifest(DEFAULT_BUNDLE).artefacts if a.format == "onnx-fp32")
    samples = round(entry.front_end["window_s"] * entry.front_end["rate_hz"])
    return (DEFAULT_BUNDLE / entry.file).read_bytes(), samples


def test_tensorrt_rtx_parses_and_builds_the_shipped_fp32_graph_for_batches_of_1_to_64() -> None:
    content, samples = _fp32_graph()
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    assert parser.parse(content), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    assert network.num_outputs == 1
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, (1, samples), (8, samples), (64, samples))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    assert plan.nbytes > 100_000
