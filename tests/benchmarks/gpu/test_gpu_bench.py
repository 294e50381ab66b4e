"""``stetho bench gpu`` runs whole on doubles of a GPU, from a packed folder, and ends in time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.core.rows import check_row, read_results
from benchmarks.gpu import folder as gpu_folder
from benchmarks.gpu import run as gpu_run
from benchmarks.gpu.folder import bundle_subjects, read_folder
from benchmarks.gpu.run import GpuBenchOptions, run_gpu
from edge_sdk.errors import EngineError, StethoError
from edge_sdk.runtime.engines import tensorrt as tensorrt_engine
from export.portability.precision import to_bfloat16
from export.tensorrt import builder
from export.tensorrt.api import TrtApi
from tests.cli.conftest import Stetho, stetho  # noqa: F401
from tests.support.gpu.machine import gpu_machine


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    library = gpu_machine(tmp_path, monkeypatch, sms=16)
    monkeypatch.setattr(builder, "find_api", lambda flavour: TrtApi(library.module, "tensorrt"))
    monkeypatch.setattr(tensorrt_engine, "installed_flavours", lambda: ["tensorrt"])
    return library


def _parts(rows: list[dict[str, Any]], part: str) -> list[dict[str, Any]]:
    return [row for row in rows if (row.get("subject") or {}).get("part") == part]


def test_quick_on_doubles_gives_every_kind_of_row(
    gpu: Any,
    stetho: Stetho,  # noqa: F811
    tmp_path: Path,
) -> None:
    outcome = stetho("bench", "gpu", "--quick", "--json", "--out", str(tmp_path / "gpu.json"))
    assert outcome.status == 0, outcome.err
    rows = outcome.records
    for row in rows:
        check_row(row)
    (device,) = _parts(rows, "device")
    assert (device["gpu"], device["multiprocessors"], device["gpu_memory_mb"]) == ("Orin", 16, 8192)
    assert device["copy_gb_s"] > 0
    (provider,) = _parts(rows, "CUDA provider")
    assert provider["cuda_plain"] and provider["cuda_preloaded"]
    assert {row["subject"]["artefact"] for row in _parts(rows, "latency")} == {"fp32", "fp16"}
    for row in _parts(rows, "parity"):
        assert row["subject"]["engine"] == "tensorrt" and row["relative_error"] < 1e-3
    for row in _parts(rows, "latency"):
        assert row["cycles_per_s"] > 0 and row["engine_name"].startswith("tensorrt-10.3.0")
    for row in _parts(rows, "capacity"):
        assert row["streams_at_deadline"] > 0 and len(row["layers"]) == 10
        assert "--minShapes=pcm:1x12000" in row["trtexec"] and "--noTF32" in row["trtexec"]
    assert len(read_results(tmp_path / "gpu.json").rows) == len(rows)
    assert gpu.memory == {} and gpu.streams_left == 0


def test_a_packed_folder_is_measured_without_torch(
    gpu: Any,
    stetho: Stetho,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_folder, "_steps", lambda *, quick: iter(()))  # the bundle's own graphs only
    folder = tmp_path / "packed"
    assert stetho("bench", "gpu", "--pack", str(folder)).status == 0
    monkeypatch.setitem(sys.modules, "torch", None)
    subjects = read_folder(folder)
    assert {s.name for s in subjects} == {"compact"} and all(Path(s.file).is_file() for s in subjects)
    rows = list(run_gpu(GpuBenchOptions(folder=folder, quick=True)))
    assert {row["subject"]["artefact"] for row in _parts(rows, "latency")} == {"fp32", "fp16"}
    with pytest.raises(StethoError, match="no packed folder"):
        read_folder(tmp_path)


@pytest.mark.long
def test_a_packed_folder_holds_torchs_logits(
    gpu: Any,
    stetho: Stetho,  # noqa: F811
    tmp_path: Path,
) -> None:
    folder = tmp_path / "packed"
    assert stetho("bench", "gpu", "--pack", str(folder), "--quick").status == 0
    rows = list(run_gpu(GpuBenchOptions(folder=folder, quick=True)))
    tiny = next(row for row in _parts(rows, "parity") if row["subject"]["model"] == "standard-tiny")
    assert tiny["input"] == "against torch in fp32" and tiny["relative_error"] < 1e-4


def test_an_engine_that_fails_is_a_row_and_the_others_are_measured(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = gpu_run._built

    def built(subject: Any, flavour: str) -> Any:
        if subject.precision == "fp32":
            raise EngineError("no memory")
        return real(subject, flavour)

    monkeypatch.setattr(gpu_run, "_built", built)
    rows = list(run_gpu(GpuBenchOptions(quick=True)))
    assert [row["failed"] for row in _parts(rows, "failed")] == ["no memory"]
    assert [row["subject"]["artefact"] for row in _parts(rows, "latency")] == ["fp16"]


def test_it_ends_when_its_time_is_over(gpu: Any) -> None:
    rows = list(run_gpu(GpuBenchOptions(quick=True, budget_s=0.0)))
    assert len(_parts(rows, "left out")) == 1 and not _parts(rows, "latency")


def test_without_a_gpu_it_is_one_line_and_quick_takes_the_cpu(
    stetho: Stetho,  # noqa: F811
) -> None:
    outcome = stetho("bench", "gpu")
    assert (
        outcome.status == 1 and "no NVIDIA GPU on this machine; --quick tries the command on the CPU" in outcome.error
    )
    rows = list(run_gpu(GpuBenchOptions(quick=True)))
    assert {row["subject"]["engine"] for row in _parts(rows, "latency")} == {"cpu"}


def test_graphs_in_bf16_keep_the_range_of_fp32() -> None:
    weights = np.array([1.0, 1e-3, 60000.0, -3.1415], np.float16)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT16, [4]) for n in "xy")
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    cast = helper.make_node("Cast", ["y"], ["z"], to=TensorProto.FLOAT16)
    graph = helper.make_graph([node, cast], "g", [x], [y], [numpy_helper.from_array(weights, "w")], value_info=[y])
    found = to_bfloat16(helper.make_model(graph))
    (tensor,) = found.graph.initializer
    assert tensor.data_type == TensorProto.BFLOAT16 and found.graph.node[1].attribute[0].i == TensorProto.BFLOAT16
    bits = np.frombuffer(tensor.raw_data, np.uint16).astype(np.uint32) << 16
    np.testing.assert_allclose(bits.view(np.float32), weights.astype(np.float32), rtol=2**-8)


def test_the_subjects_of_a_bundle_are_its_graphs_for_gpus() -> None:
    subjects = bundle_subjects("default")
    assert [s.precision for s in subjects] == ["fp32", "fp16"]
    assert all(s.macs > 1_000_000 and s.rows == {"pcm": ("float32", [12000])} for s in subjects)
    with pytest.raises(StethoError, match="no fp32 or fp16 artefact"):
        bundle_subjects("standard")
