"""Defects of engine builds that an audit found without a GPU: each test failed before its correction."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge_sdk.errors import ExportError
from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE, read_manifest
from edge_sdk.runtime.engines.cache import read_sidecar
from edge_sdk.runtime.engines.cuda_driver import Gpu
from edge_sdk.runtime.engines.library import onnxruntime
from export.portability.front_end_part import front_end_outputs
from export.portability.opset import to_opset_17
from export.tensorrt import builder
from export.tensorrt.api import TrtApi
from export.tensorrt.builder import build_engine
from export.tensorrt.options import BuildOptions
from export.tensorrt.plan import EngineBuild
from export.tensorrt.proof import prove_engine
from tests.cli.conftest import Stetho, stetho  # noqa: F401
from tests.support.gpu.machine import gpu_machine, put_engine
from tests.support.gpu.tensorrt_double import RELEASES, tensorrt_double
from tests.support.tiny_bundle import ARTEFACT, tiny_graph, tiny_spec, write_tiny_bundle

ORIN = Gpu("Orin", "8.7", "CUDA 12.6, 540.4.0", 16)


@pytest.fixture(scope="module")
def graph() -> bytes:
    return tiny_graph(tiny_spec())


def _api(release: str, **changes: Any) -> TrtApi:
    return TrtApi(tensorrt_double(release, **changes), "tensorrt-rtx" if release == "rtx" else "tensorrt")


def _build(api: TrtApi, graph: bytes, folder: Path, **options: Any) -> Any:
    return build_engine(graph, BuildOptions(cache=folder, **options), api=api, gpu=ORIN)


def test_an_engine_that_computes_something_else_is_not_called_proven_and_never_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older engine that is right must not stand in for the one that was just built."""
    folder = write_tiny_bundle(tmp_path / "bundle", untrained=False)
    machine = gpu_machine(tmp_path, monkeypatch)
    entry = read_manifest(folder).artefacts[0]
    good = put_engine(folder, machine)
    wrong = write_tiny_bundle(tmp_path / "other", seed=5)
    bad = put_engine(folder, machine, (wrong / ARTEFACT).read_bytes(), precision="fp16", options="builder-precision")
    os.utime(good, (bad.stat().st_mtime + 5,) * 2)
    proof = prove_engine(folder, entry, bad)
    assert proof.ok is False and "the golden vector" in proof.detail and "was renamed" in proof.detail
    assert not bad.exists() and bad.with_suffix(".refused").is_file()
    assert prove_engine(folder, entry, good).ok is True


def test_compile_exits_with_1_for_an_engine_that_it_had_to_refuse(
    stetho: Stetho,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write_tiny_bundle(tmp_path / "bundle", untrained=False)
    machine = gpu_machine(tmp_path, monkeypatch)
    wrong = (write_tiny_bundle(tmp_path / "other", seed=5) / ARTEFACT).read_bytes()
    monkeypatch.setattr(builder, "find_api", lambda flavour: TrtApi(machine.module, "tensorrt"))
    assert stetho("compile", str(folder), "--json").records[0]["proven"] is True
    real = EngineBuild.plan
    monkeypatch.setattr(EngineBuild, "plan", lambda self, content: real(self, wrong))  # a builder gone wrong
    outcome = stetho("compile", str(folder), "--json", "--force")
    assert outcome.status == 1 and outcome.records[0]["proven"] is False


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_tf32_is_off_in_every_precision_for_the_front_end_stays_fp32(
    release: str, precision: str, graph: bytes, tmp_path: Path
) -> None:
    api = _api(release)
    _build(api, graph, tmp_path, precision=precision)
    assert ("clear_flag", "TF32") in api.module.calls


@pytest.mark.parametrize(("release", "baked"), [("8.6", False), ("8.6", True), ("10.3", False), ("10.16", False)])
def test_where_the_builder_chooses_precision_the_front_end_is_fixed_to_fp32(
    release: str, baked: bool, graph: bytes, tmp_path: Path
) -> None:
    api = _api(release)
    _build(api, graph, tmp_path, precision="fp16", baked=baked)
    assert ("set_flag", "OBEY_PRECISION_CONSTRAINTS") in api.module.calls
    kinds = {layer.get_output(0).name: layer.precision for layer in api.module.network.layers}
    fp32 = api.module.DataType.FLOAT
    assert all(kinds[name] == fp32 for name in ("samples", "spectrum", "squares", "re", "energy", "logmel"))
    assert kinds["mean"] is None and kinds["logits"] is None
    types = next(layer.output_types for layer in api.module.network.layers if layer.get_output(0).name == "energy")
    assert types == {0: fp32}


def test_the_front_end_of_shipped_graphs_is_found_by_its_names_and_of_others_by_its_logarithm(graph: bytes) -> None:
    shipped = onnx.load(str(DEFAULT_BUNDLE / "classifier.fp32.onnx"))
    found = front_end_outputs(shipped)
    kinds = {node.op_type for node in shipped.graph.node if node.output[0] in found}
    assert {"Conv", "Log"} <= kinds and "Gemm" not in kinds
    assert "logmel" in front_end_outputs(onnx.load_from_string(graph))
    assert "mean" not in front_end_outputs(onnx.load_from_string(graph))


def test_a_graph_of_opset_17_gives_the_same_logits(graph: bytes) -> None:
    clips = (np.random.default_rng(0).standard_normal((2, tiny_spec().window_samples)) * 0.1).astype(np.float32)
    with np.load(DEFAULT_BUNDLE / "golden.npz") as golden:
        golden_clips = golden["pcm"].astype(np.float32) / 32768
    shipped = (DEFAULT_BUNDLE / "classifier.fp32.onnx").read_bytes()
    for content, pcm in ((graph, clips), (shipped, golden_clips)):
        old = to_opset_17(onnx.load_from_string(content))
        assert {o.version for o in old.opset_import if not o.domain} == {17}
        assert all(len(node.input) == 1 for node in old.graph.node if node.op_type.startswith("Reduce"))
        runs = [onnxruntime.InferenceSession(c) for c in (content, old.SerializeToString())]
        first, second = (run.run(None, {"pcm": pcm})[0] for run in runs)
        np.testing.assert_array_equal(first, second)


def test_what_opset_17_cannot_say_is_named() -> None:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", 4]) for n in "xy"]
    mish = helper.make_node("Mish", ["x"], ["y"], name="act")
    model = helper.make_model(
        helper.make_graph([mish], "g", values[:1], values[1:]), opset_imports=[helper.make_opsetid("", 18)]
    )
    with pytest.raises(ExportError, match=r"node act \(Mish\) does not exist in opset 17"):
        to_opset_17(model)
    model.opset_import[0].version = 19
    with pytest.raises(ExportError, match="opset 19"):
        to_opset_17(model)


def test_tensorrt_8_6_gets_the_graph_in_opset_17_and_the_key_of_the_artefact(graph: bytes, tmp_path: Path) -> None:
    engine = _build(_api("8.6"), graph, tmp_path)
    import hashlib

    assert engine.sidecar["key"]["onnx_sha256"] == hashlib.sha256(graph).hexdigest()
    built = onnx.load_from_string(engine.path.read_bytes().partition(b"\n")[2])
    assert built.opset_import[0].version == 17


def test_dla_gets_one_fixed_batch_and_every_layer_that_falls_back_is_named(graph: bytes, tmp_path: Path) -> None:
    api = _api("10.3", dla_cores=2, on_dla=0.9)
    lines: list[str] = []
    options = BuildOptions(cache=tmp_path, dla_core=0, precision="fp16")
    engine = build_engine(graph, options, api=api, gpu=ORIN, progress=lines.append)
    samples = tiny_spec().window_samples
    assert api.module.calls[-1] == ("build", [[((1, samples),) * 3]])
    assert engine.sidecar["key"]["profiles"] == "1-1-1"
    (on_gpu,) = read_sidecar(engine.path)["dla"]["on_gpu"]
    assert on_gpu == "node_of_logits" and any("1 of 10 layers run on the GPU" in line for line in lines)
    fixed = BuildOptions(cache=tmp_path, dla_core=0, precision="fp16", profiles=((8, 8, 8),))
    assert build_engine(graph, fixed, api=api, gpu=ORIN).sidecar["key"]["profiles"] == "8-8-8"
    with pytest.raises(ExportError, match="DLA takes one fixed batch"):
        _build(api, graph, tmp_path, dla_core=0, precision="fp16", profiles=((1, 8, 64),))
    with pytest.raises(ExportError, match="DLA takes no Q/DQ"):
        _build(api, graph, tmp_path, dla_core=0, precision="int8")


def test_scratch_memory_and_multiprocessors_are_parts_of_the_key(graph: bytes, tmp_path: Path) -> None:
    api = _api("10.3")
    free = _build(api, graph, tmp_path)
    limited = _build(api, graph, tmp_path, workspace_mb=64)
    nano = build_engine(graph, BuildOptions(cache=tmp_path), api=api, gpu=Gpu("Orin", "8.7", "CUDA 12.6, 540.4.0", 8))
    assert not limited.cached and not nano.cached
    assert len({free.path, limited.path, nano.path}) == 3
    assert json.loads(free.path.with_suffix(".json").read_text())["key"]["sms"] == 16
