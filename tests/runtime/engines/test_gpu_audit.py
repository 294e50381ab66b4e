"""Defects that an audit of the GPU path found without a GPU: each test failed before its correction."""

from __future__ import annotations

import gc
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk.errors import EngineError
from edge_sdk.runtime.bundle.load import load_bundle, read_manifest
from edge_sdk.runtime.engines import cuda_driver, selection
from edge_sdk.runtime.engines.cuda_driver import CudaDriver
from edge_sdk.runtime.engines.library import onnxruntime
from edge_sdk.runtime.engines.onnx import OrtEngine
from edge_sdk.runtime.engines.tensorrt import TensorRtEngine
from tests.support.gpu.cuda_double import NOT_SUPPORTED, CudaDouble
from tests.support.gpu.machine import gpu_machine, put_engine
from tests.support.tiny_bundle import ARTEFACT, tiny_spec, write_tiny_bundle

SAMPLES = tiny_spec().window_samples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle", untrained=False)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CudaDouble:
    return gpu_machine(tmp_path, monkeypatch)


def _pcm(batch: int) -> np.ndarray:
    return (np.random.default_rng(batch).standard_normal((batch, SAMPLES)) * 0.05).astype(np.float32)


def test_a_runtime_that_cannot_be_made_falls_back(
    folder: Path, machine: CudaDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_engine(folder, machine)

    def runtime(_logger: Any) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")  # the real bindings, 8.6.1 to 11.4

    monkeypatch.setattr(machine.module, "Runtime", runtime)
    bundle = load_bundle(folder)
    assert bundle.engine.name.endswith("-cpu") and "finds no usable GPU" in bundle.attempts[0].detail


def test_any_exception_of_a_gpu_library_falls_back(
    folder: Path, machine: CudaDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_engine(folder, machine)
    monkeypatch.setattr(machine, "cuStreamCreate", lambda *_: (_ for _ in ()).throw(RuntimeError("driver reset")))
    bundle = load_bundle(folder)
    assert bundle.engine.name.endswith("-cpu") and "driver reset" in bundle.attempts[0].detail


def test_a_chosen_artefact_takes_no_engine_of_another(tmp_path: Path, machine: CudaDouble) -> None:
    folder = write_tiny_bundle(tmp_path / "bundle", untrained=False)
    manifest = read_manifest(folder)
    import msgspec

    int8 = msgspec.structs.replace(manifest.artefacts[0], format="onnx-int8-trt", default=False, sha256="b" * 64)
    both = msgspec.structs.replace(manifest, artefacts=[manifest.artefacts[0], int8])
    put_engine(folder, machine)
    put_engine(folder, machine, onnx_sha256="b" * 64, precision="int8")

    def found(*, chosen: bool) -> list[str]:
        candidates = selection.candidates(
            both, both.artefacts[0], "tensorrt", 1, lambda entry: folder / entry.file, chosen=chosen
        )
        return [candidate.artefact.format for candidate in candidates]

    assert found(chosen=False) == ["onnx-fp32", "onnx-int8-trt"]
    assert found(chosen=True) == ["onnx-fp32"]


def test_profiles_with_gaps_take_any_batch(folder: Path, machine: CudaDouble) -> None:
    put_engine(folder, machine, profiles=((4, 4, 4), (16, 16, 16)))
    bundle = load_bundle(folder)
    assert bundle.engine.name.startswith("tensorrt")
    cpu = load_bundle(folder, engine="cpu")
    for batch in (1, 3, 4, 5, 15, 16, 17, 40):
        pcm = _pcm(batch)
        found = bundle.classifier.logits(pcm)
        assert found.shape == (batch, 4) and np.allclose(found, cpu.classifier.logits(pcm), atol=1e-5), batch


def test_an_update_of_the_driver_is_a_warning_and_the_golden_vector_decides(
    folder: Path, machine: CudaDouble, caplog: pytest.LogCaptureFixture
) -> None:
    put_engine(folder, machine, driver="CUDA 12.2, 535.1")
    with caplog.at_level(logging.WARNING):
        assert load_bundle(folder).engine.name.startswith("tensorrt")
    assert "built with driver CUDA 12.2, 535.1" in caplog.text and "'stetho compile'" in caplog.text


def test_an_engine_of_a_larger_board_of_the_same_name_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_engine(folder, gpu_machine(tmp_path, monkeypatch, sms=16))
    gpu_machine(tmp_path, monkeypatch, sms=8)  # an Orin Nano calls itself "Orin" 8.7 like an AGX
    bundle = load_bundle(folder)
    assert bundle.engine.name.endswith("-cpu") and "16 multiprocessors" in bundle.attempts[0].detail


def test_candidates_that_failed_and_bundles_that_are_gone_leave_nothing_on_the_gpu(
    folder: Path, tmp_path: Path, machine: CudaDouble
) -> None:
    wrong = write_tiny_bundle(tmp_path / "other", seed=5)
    put_engine(folder, machine, (wrong / ARTEFACT).read_bytes(), precision="fp16")
    put_engine(folder, machine)
    for _ in range(3):
        with load_bundle(folder) as bundle:
            bundle.classifier.logits(_pcm(1))
        del bundle
    gc.collect()
    load_bundle(folder)  # never closed, but dropped
    gc.collect()
    assert (len(machine.memory), machine.streams_left, machine.graphs_left) == (0, 0, 0)
    assert machine.calls["cuDevicePrimaryCtxRetain"] == machine.calls["cuDevicePrimaryCtxRelease_v2"] > 0
    assert machine.current == []


def test_a_closed_engine_refuses_to_run(folder: Path, machine: CudaDouble) -> None:
    engine = TensorRtEngine(
        put_engine(folder, machine),
        read_manifest(folder).artefacts[0].sha256,
        module=machine.module,
        driver=CudaDriver(machine),
    )
    engine.run({"pcm": _pcm(1)})
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.run({"pcm": _pcm(1)})


@pytest.mark.parametrize("release", ["8.6", "10.3", "rtx"])
def test_memory_follows_the_profile_in_use_where_the_release_can_do_that(
    release: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = gpu_machine(tmp_path, monkeypatch, release)
    flavour = "tensorrt-rtx" if release == "rtx" else "tensorrt"
    put_engine(folder, machine, version=machine.module.__version__, flavour=flavour)
    load_bundle(folder, engine="tensorrt").close()
    expected = None if release == "8.6" else machine.module.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
    assert machine.module.strategies == [expected]


def test_what_rtx_compiles_at_the_first_start_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = gpu_machine(tmp_path, monkeypatch, "rtx")
    path = put_engine(folder, machine, version=machine.module.__version__, flavour="tensorrt-rtx")
    load_bundle(folder).close()
    assert path.with_suffix(".jit").read_bytes() == b"compiled"
    load_bundle(folder).close()
    assert ("runtime cache", b"compiled") in machine.module.calls


def test_the_gpu_can_be_chosen_and_another_librarys_choice_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    library = CudaDouble(devices=2)
    monkeypatch.setenv("STETHO_GPU", "1")
    driver = CudaDriver(library)
    assert driver.gpu.index == 1
    with driver.current():
        assert len(library.current) == 1
    assert library.current == [] and library.calls["cuCtxSetCurrent"] == 0
    monkeypatch.setenv("STETHO_GPU", "2")
    with pytest.raises(EngineError, match="no GPU 2, CUDA counts 2"):
        CudaDriver(library)
    monkeypatch.setenv("STETHO_GPU", "first")
    with pytest.raises(EngineError, match="is no number of a GPU"):
        CudaDriver(library)


def test_waiting_for_the_gpu_leaves_the_core_free_and_looking_for_one_takes_nothing() -> None:
    library = CudaDouble()
    cuda_driver.find_gpu(library)
    assert library.calls["cuDevicePrimaryCtxRetain"] == 0
    with CudaDriver(library).current():
        pass
    assert library.calls["cuDevicePrimaryCtxSetFlags_v2"] == 1


def test_a_capture_that_fails_leaks_no_graph() -> None:
    library = CudaDouble()
    driver = CudaDriver(library)
    with driver.current():
        stream = driver.make_stream()

        def fails() -> None:
            raise EngineError("a plug-in synchronised")

        with pytest.raises(EngineError, match="synchronised"):
            driver.capture(stream, fails)
        library.fails["cuGraphInstantiateWithFlags"] = NOT_SUPPORTED
        with pytest.raises(EngineError, match="NOT_SUPPORTED"):
            driver.capture(stream, lambda: None)
    assert library.graphs_left == 0


def test_a_driver_without_a_function_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        def cuInit(self, _flags: int) -> int:
            return 0

    with pytest.raises(EngineError, match="the NVIDIA driver has no cuDeviceGetCount; update it"):
        CudaDriver(Old())
    assert cuda_driver.find_gpu(Old()) is None


def test_onnx_runtime_never_falls_back_by_itself(folder: Path) -> None:
    """Its own fall-back prints to stdout and keeps the name of the GPU."""
    assert OrtEngine(folder / ARTEFACT)._session._enable_fallback is False


def test_onnx_runtimes_cuda_never_uses_tf32_nor_searches_at_every_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    options = selection.cuda_options()
    assert options["use_tf32"] == "0" and options["cudnn_conv_algo_search"] == "HEURISTIC"
    monkeypatch.setenv("STETHO_GPU", "1")
    assert selection.cuda_options()["device_id"] == "1"


def test_cuda_libraries_of_wheels_are_loaded_and_what_that_prints_stays_off_stdout(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    called: list[int] = []

    def preload() -> None:
        called.append(1)
        print("Failed to load libcublasLt")

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload, raising=False)
    assert selection.has_provider("CUDAExecutionProvider") and called == [1]
    assert capfd.readouterr().out == ""


def test_onnx_runtimes_tensorrt_has_one_profile_a_folder_and_cuda_behind_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STETHO_CACHE", str(tmp_path / "a" / "b"))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    monkeypatch.setattr(os, "environ", dict(os.environ))
    made: list[Any] = []

    def engine(file: Path, threads: int = 1, providers: Any = (), **options: Any) -> Any:
        if providers:
            made.append((providers, options))
        return OrtEngine(file, threads)

    monkeypatch.setattr(selection, "OrtEngine", engine)
    manifest = read_manifest(folder)
    (candidate,) = selection.candidates(manifest, manifest.artefacts[0], "tensorrt-ep", 1, lambda e: folder / e.file)
    candidate.make()
    (providers, options), environment = made[0], dict(os.environ)
    (_, trt), (cuda, cuda_options), cpu = providers
    assert trt["trt_profile_min_shapes"] == f"pcm:1x{SAMPLES}" and trt["trt_profile_max_shapes"] == f"pcm:64x{SAMPLES}"
    assert Path(trt["trt_engine_cache_path"]).is_dir() and options == {"largest_batch": 64}
    assert cuda == "CUDAExecutionProvider" and cuda_options["use_tf32"] == "0" and cpu == "CPUExecutionProvider"
    assert environment["NVIDIA_TF32_OVERRIDE"] == "0"


def test_batches_beyond_the_largest_profile_run_in_parts(folder: Path) -> None:
    limited, free = OrtEngine(folder / ARTEFACT, largest_batch=4), OrtEngine(folder / ARTEFACT)
    for batch in (1, 4, 5, 11):
        pcm = _pcm(batch)
        assert np.allclose(limited.run({"pcm": pcm})["logits"], free.run({"pcm": pcm})["logits"], atol=1e-5)


def test_the_cpu_stays_where_the_gpu_is_slower_for_one_cycle(
    folder: Path, machine: CudaDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_engine(folder, machine)
    monkeypatch.setattr(selection, "times_of_one_cycle", lambda *_: [0.003, 0.001])
    bundle = load_bundle(folder)
    assert bundle.engine.name.endswith("-cpu")
    assert "takes 3.00 ms for one cycle" in bundle.attempts[0].detail and "the CPU stays" in bundle.attempts[0].detail
    assert load_bundle(folder, engine="tensorrt").engine.name.startswith("tensorrt")  # asked for by name


def test_engines_are_timed_in_turns_on_one_cycle(folder: Path) -> None:
    class Slow:
        name = "slow"
        calls = 0

        def run(self, inputs: Any) -> dict[str, Any]:
            self.calls += 1
            return {name: rows * 2 for name, rows in inputs.items() for _ in range(300)}

    slow, fast = Slow(), OrtEngine(folder / ARTEFACT)
    times = selection.times_of_one_cycle((slow, {"pcm": _pcm(1)}), (fast, {"pcm": _pcm(1)}))
    assert len(times) == 2 and min(times) > 0 and slow.calls == 20
