"""The GPU itself: what it is, how it is set, and what it reaches at best."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.core.machine import machine_row
from benchmarks.gpu.folder import GpuSubject
from edge_sdk.errors import StethoError
from edge_sdk.runtime.engines.cuda_driver import CudaDriver, Gpu
from edge_sdk.runtime.engines.onnx import CPU, OrtEngine
from edge_sdk.runtime.engines.selection import cuda_options, has_provider


@dataclass(frozen=True, slots=True)
class GpuCeilings:
    """What the GPU reached in large products and copies."""

    gpu: Gpu
    memory_mb: float
    gemm_flops: dict[str, float]  # precision → operations a second of a large product; a multiply-add counts as two
    copy_bytes: float  # bytes a second from page-locked memory to the GPU

    def share(self, subject: GpuSubject, cycles_per_s: float) -> float | None:
        """Percent of the product's speed in the graph's precision; None where it was not measured."""
        reached = self.gemm_flops.get(subject.precision) or self.gemm_flops.get("fp16")
        return 100 * 2 * subject.macs * cycles_per_s / reached if reached else None

    def row(self) -> dict[str, Any]:
        """As a line of benchmark JSON."""
        about = machine_row()
        return {
            "benchmark": "gpu", "subject": {"part": "device"}, "gpu": self.gpu.name, "capability": self.gpu.capability,
            "driver": self.gpu.driver, "multiprocessors": self.gpu.sms, "gpu_memory_mb": self.memory_mb,
            "board": about["board"], "clocks": gpu_clocks(),
            "gemm_gflops": {name: flops / 1e9 for name, flops in self.gemm_flops.items()},
            "copy_gb_s": self.copy_bytes / 1e9,
        }  # fmt: skip


def measure_gpu(driver: CudaDriver, *, quick: bool = False) -> GpuCeilings:
    """Measure the GPU of a driver, which is released afterwards."""
    try:
        with driver.current():
            memory = driver.memory_mb()[1]
            copied = _copy_speed(driver, (1 if quick else 64) << 20, 3 if quick else 20)
    finally:
        driver.release()
    return GpuCeilings(driver.gpu, memory, _gemm_speeds(256 if quick else 4096, 3 if quick else 10), copied)


def gpu_clocks() -> dict[str, int]:
    """Frequencies of the GPU as a Jetson's kernel gives them, Hz; empty elsewhere."""
    found = {}
    for folder in sorted(Path("/sys/class/devfreq").glob("*gpu*")):
        for name in ("cur_freq", "max_freq"):
            try:
                found[name] = int((folder / name).read_text())
            except (OSError, ValueError):
                continue
    return found


def _copy_speed(driver: CudaDriver, size: int, rounds: int) -> float:
    stream, device = driver.make_stream(), driver.allocate(size)
    pinned, _ = driver.allocate_pinned(size)
    best = 0.0
    try:
        for _ in range(rounds):
            before = time.perf_counter()
            driver.to_device(device, pinned, size, stream)
            driver.synchronise(stream)
            best = max(best, size / (time.perf_counter() - before))
    finally:
        driver.free(device)
        driver.free_pinned(pinned)
        driver.free_stream(stream)
    return best


def _gemm_speeds(size: int, rounds: int) -> dict[str, float]:
    """Of ONNX Runtime's CUDA provider; empty without one. TF32 is off, as in every engine of the SDK."""
    if not has_provider("CUDAExecutionProvider"):
        return {}
    found = {}
    with TemporaryDirectory() as folder:
        for name, kind in (("fp32", np.float32), ("fp16", np.float16)):
            path = Path(folder) / f"{name}.onnx"
            path.write_bytes(_product(size, kind))
            try:
                engine = OrtEngine(path, 1, (("CUDAExecutionProvider", cuda_options()), CPU))
            except StethoError:
                continue
            x = np.ones((1,), np.float32)
            engine.run({"x": x})
            best = np.inf
            for _ in range(rounds):
                before = time.perf_counter()
                engine.run({"x": x})
                best = min(best, time.perf_counter() - before)
            found[name] = _CHAIN * 2 * size**3 / best
    return found


_CHAIN = 8  # products in one run, so that the call itself does not count


def _product(size: int, kind: Any) -> bytes:
    """``x [1]`` → one number after a chain of products that stay on the GPU."""
    from onnx import TensorProto, helper, numpy_helper

    element = TensorProto.FLOAT16 if kind is np.float16 else TensorProto.FLOAT
    matrix = numpy_helper.from_array((np.eye(size) + 1e-3).astype(kind), "m")
    nodes = [helper.make_node("Cast", ["x"], ["scale"], to=element), helper.make_node("Mul", ["m", "scale"], ["a0"])]
    nodes += [helper.make_node("MatMul", [f"a{i}", "m"], [f"a{i + 1}"]) for i in range(_CHAIN)]
    nodes += [
        helper.make_node("ReduceMax", [f"a{_CHAIN}"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes, "product", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])], [matrix],
    )  # fmt: skip
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    )
