"""The TensorRT engine against a double of the API: same outputs as ONNX Runtime, foreign engines refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge_sdk.errors import EngineError
from edge_sdk.protocols import Engine
from edge_sdk.runtime.engines.cache import EngineKey, foreign_reason, sidecar_path, store_engine
from edge_sdk.runtime.engines.cuda_driver import CudaDriver, find_gpu
from edge_sdk.runtime.engines.onnx import OrtEngine
from edge_sdk.runtime.engines.tensorrt import TensorRtEngine
from tests.support.gpu.cuda_double import CudaDouble
from tests.support.gpu.tensorrt_double import RELEASES, tensorrt_double
from tests.support.tiny_bundle import tiny_graph, tiny_spec

SAMPLES = tiny_spec().window_samples
SHA = "a" * 64


@pytest.fixture(scope="module")
def graph() -> bytes:
    return tiny_graph(tiny_spec())


def _store(folder: Path, module: Any, cuda: CudaDouble, content: bytes, **changes: Any) -> Path:
    gpu = CudaDriver(cuda).gpu
    fields: dict[str, Any] = {
        "onnx_sha256": SHA, "flavour": "tensorrt", "version": module.__version__, "gpu": gpu.name,
        "capability": gpu.capability, "driver": gpu.driver, "precision": "fp32", "profiles": "1-1-1,1-8-64",
        "sms": gpu.sms,
    }  # fmt: skip
    key = EngineKey(**(fields | changes))
    profiles = [
        {"pcm": [[low, SAMPLES], [best, SAMPLES], [high, SAMPLES]]} for low, best, high in ((1, 1, 1), (1, 8, 64))
    ]
    plan = json.dumps({"profiles": profiles}).encode() + b"\n" + content
    store_engine(folder / key.file_name, plan, key, {})
    return folder / key.file_name


def _engine(folder: Path, graph: bytes, release: str = "10.3", **cuda: Any) -> tuple[TensorRtEngine, CudaDouble]:
    library = CudaDouble(**cuda)
    module = tensorrt_double(release, library)
    path = _store(folder, module, library, graph)
    return TensorRtEngine(path, SHA, module=module, driver=CudaDriver(library)), library


def _pcm(batch: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((batch, SAMPLES)) * 0.05).astype(np.float32)


@pytest.mark.parametrize("release", RELEASES)
def test_it_computes_what_onnx_runtime_computes_for_any_batch_in_any_order(
    release: str, graph: bytes, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(graph)
    reference = OrtEngine(tmp_path / "model.onnx")
    engine, _ = _engine(tmp_path, graph, release)
    checked: Engine = engine
    assert checked.name.startswith("tensorrt-") and checked.name.endswith("-Orin")
    assert engine.inputs == {"pcm": ("batch", SAMPLES)} and engine.outputs == {"logits": ("batch", 4)}
    for seed, batch in enumerate([1, 1, 1, 1, 1, 3, 1, 64, 150, 1, 8, 8, 8, 8, 8]):
        pcm = _pcm(batch, seed)
        found = engine.run({"pcm": pcm})["logits"]
        assert np.allclose(found, reference.run({"pcm": pcm})["logits"], atol=1e-5), batch


def test_single_breaths_become_one_graph_launch_each(graph: bytes, tmp_path: Path) -> None:
    engine, cuda = _engine(tmp_path, graph)
    first = [engine.run({"pcm": _pcm(1, seed)})["logits"] for seed in range(10)]
    assert cuda.calls["cuGraphLaunch"] == 7  # after three ordinary runs
    assert cuda.calls["cuStreamBeginCapture_v2"] == 1
    engine.run({"pcm": _pcm(2)})  # another shape: the graph is of no use any more
    again = [engine.run({"pcm": _pcm(1, seed)})["logits"] for seed in range(10)]
    assert np.array_equal(first, again)
    assert cuda.calls["cuGraphExecDestroy"] == 1 and cuda.calls["cuStreamBeginCapture_v2"] == 2


def test_where_graphs_are_forbidden_it_runs_without(graph: bytes, tmp_path: Path) -> None:
    engine, cuda = _engine(tmp_path, graph, graphs=False)
    results = [engine.run({"pcm": _pcm(1)})["logits"] for _ in range(6)]
    assert all(np.array_equal(results[0], r) for r in results)
    assert cuda.calls["cuGraphLaunch"] == 0 and cuda.calls["cuStreamBeginCapture_v2"] == 1


def test_memory_is_given_back(graph: bytes, tmp_path: Path) -> None:
    engine, cuda = _engine(tmp_path, graph)
    for batch in (1, 8, 64, 1):
        engine.run({"pcm": _pcm(batch)})
    assert len(cuda.memory) == 4  # two tensors, each on either side
    engine.close()
    assert cuda.memory == {}


def test_outputs_do_not_change_when_the_next_run_starts(graph: bytes, tmp_path: Path) -> None:
    engine, _ = _engine(tmp_path, graph)
    first = engine.run({"pcm": _pcm(1, 0)})["logits"]
    kept = first.copy()
    engine.run({"pcm": _pcm(1, 1)})
    assert np.array_equal(first, kept)


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"audio": _pcm(1)},
        {"pcm": _pcm(1)[:, :7]},
        {"pcm": _pcm(1)[0]},
        {"pcm": _pcm(1).astype(np.float64)},
        {"pcm": np.zeros((0, SAMPLES), np.float32)},
    ],
)
def test_inputs_that_do_not_fit_are_an_engine_error(
    inputs: dict[str, np.ndarray], graph: bytes, tmp_path: Path
) -> None:
    engine, _ = _engine(tmp_path, graph)
    with pytest.raises(EngineError, match="inference failed"):
        engine.run(inputs)


def test_ids_are_taken_in_the_width_the_engine_wants(tmp_path: Path) -> None:
    """TensorRT before 10 turns int64 inputs into int32; callers need not know."""
    node = helper.make_node("Cast", ["site"], ["logits"], to=TensorProto.FLOAT)
    values = [
        helper.make_tensor_value_info("site", TensorProto.INT32, ["batch"]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch"]),
    ]
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(
        helper.make_graph([node], "ids", values[:1], values[1:]), opset_imports=opset, ir_version=10
    )
    cuda = CudaDouble()
    module = tensorrt_double("8.6", cuda)
    key = EngineKey(SHA, "tensorrt", module.__version__, "Orin", "8.7", CudaDriver(cuda).gpu.driver, "fp32", "1-8-64")
    plan = json.dumps({"profiles": [{"site": [[1], [8], [64]]}]}).encode() + b"\n" + model.SerializeToString()
    store_engine(tmp_path / key.file_name, plan, key, {})
    engine = TensorRtEngine(tmp_path / key.file_name, SHA, module=module, driver=CudaDriver(cuda))
    assert engine.run({"site": np.array([3, 5], np.int64)})["logits"].tolist() == [3.0, 5.0]
    with pytest.raises(EngineError, match="site is float32, needed is int32"):
        engine.run({"site": np.array([3.0], np.float32)})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gpu": "Xavier", "capability": "7.2"}, r"built for Xavier \(sm7\.2\), this is Orin \(sm8\.7\)"),
        ({"version": "8.6.2"}, r"built by tensorrt 8\.6\.2, installed is 10\.3\.0"),
        ({"sms": 8}, "built for 8 multiprocessors, this Orin has 16"),
        ({"builder": 0}, "built by another version of this SDK's builder"),
        ({"onnx_sha256": "b" * 64}, "built from another model"),
        ({"flavour": "tensorrt-rtx"}, "built by tensorrt-rtx, this is tensorrt"),
        ({"platform": "linux-sparc"}, "built on linux-sparc"),
        ({"gpu": "any", "driver": "any", "capability": "8.6,8.9"}, r"built for sm8\.6,8\.9, this is sm8\.7"),
    ],
)
def test_a_foreign_engine_is_refused_with_the_reason(
    changes: dict[str, Any], reason: str, graph: bytes, tmp_path: Path
) -> None:
    cuda = CudaDouble()
    module = tensorrt_double("10.3", cuda)
    path = _store(tmp_path, module, cuda, graph, **changes)
    with pytest.raises(EngineError, match=f"is not for this machine: it was {reason}.*; run 'stetho compile' here"):
        TensorRtEngine(path, SHA, module=module, driver=CudaDriver(cuda))


def test_compatible_engines_run_where_nvidia_documents_it() -> None:
    def key(version: str, capability: str, options: str = "", gpu: str = "GPU") -> EngineKey:
        return EngineKey(SHA, "tensorrt", version, gpu, capability, "d", "fp32", "", options).on_platform()

    allowed = [
        (key("10.3.0", "8.6", "version-compatible"), key("11.4.1", "8.6")),
        (key("8.6.2", "8.6", "version-compatible"), key("10.3.0", "8.6")),
        (key("10.3.0", "8.0", "hardware-compatible:ampere", "A"), key("10.3.0", "12.0", gpu="B")),
        (key("10.16.2", "8.6", "hardware-compatible:same", "A"), key("10.16.2", "8.6", gpu="B")),
    ]
    refused = [
        (key("8.6.2", "8.6", "version-compatible"), key("11.4.1", "8.6")),
        (key("11.4.1", "8.6", "version-compatible"), key("10.3.0", "8.6")),
        (key("10.3.0", "8.6"), key("10.4.0", "8.6")),
        (key("10.3.0", "8.0", "hardware-compatible:ampere", "A"), key("10.3.0", "7.5", gpu="B")),
        (key("10.16.2", "8.6", "hardware-compatible:same", "A"), key("10.16.2", "8.9", gpu="B")),
    ]
    assert [foreign_reason(found, here) for found, here in allowed] == [None] * 4
    assert None not in [foreign_reason(found, here) for found, here in refused]


def test_a_changed_engine_and_a_missing_sidecar_are_refused(graph: bytes, tmp_path: Path) -> None:
    cuda = CudaDouble()
    module = tensorrt_double("10.3", cuda)
    path = _store(tmp_path, module, cuda, graph)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EngineError, match="does not match its sha256"):
        TensorRtEngine(path, SHA, module=module, driver=CudaDriver(cuda))
    sidecar_path(path).unlink()
    with pytest.raises(EngineError, match="run 'stetho compile' again"):
        TensorRtEngine(path, SHA, module=module, driver=CudaDriver(cuda))


def test_what_the_driver_refuses_is_named_as_cuda_names_it(graph: bytes, tmp_path: Path) -> None:
    driver = CudaDriver(CudaDouble())
    with pytest.raises(EngineError, match=r"cuMemFree_v2 failed: CUDA_ERROR_ILLEGAL_ADDRESS \(700\)"):
        driver.free(12345)


def test_a_gpu_is_described_by_what_engines_depend_on() -> None:
    gpu = find_gpu(CudaDouble("NVIDIA RTX A4000", (8, 6), 13000))
    assert gpu is not None
    assert (gpu.name, gpu.capability) == ("NVIDIA RTX A4000", "8.6") and gpu.driver.startswith("CUDA 13.0")
