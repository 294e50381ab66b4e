"""Measured ceilings of this machine, and the counted multiply-adds of a graph."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_sdk.errors import EngineError

_MATRIX_OPS = frozenset({"MatMul", "Gemm", "MatMulInteger", "QLinearMatMul"})
_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "QLinearConv", "ConvTranspose"})
_BLAS_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

# The best of several runs, not the median: a ceiling is what the undisturbed machine reaches.
_PROBE = """
import json, sys, time
import numpy as np
from benchmarks.core.harness import pinned
size, rounds, threads = (int(a) for a in sys.argv[1:])
a = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
b, out = a.T.copy(), np.empty_like(a)
line = np.ones(size * 12288, np.float32)  # 72 MiB at full size: larger than most caches
target = np.empty_like(line)
def best(call):
    times = []
    for _ in range(rounds):
        before = time.perf_counter(); call(); times.append(time.perf_counter() - before)
    return min(times)
with pinned(threads):
    np.matmul(a, b, out=out); np.copyto(target, line)
    flops = 2 * size**3 / best(lambda: np.matmul(a, b, out=out))
    moved = 2 * line.nbytes / best(lambda: np.copyto(target, line))
print(json.dumps([flops, moved]))
"""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Measured limits of some cores of this machine."""

    threads: int
    gemm_flops: float  # float32 operations a second of a large matrix product; a multiply-add counts as two
    memory_bytes: float  # bytes read and written a second, of a copy between arrays larger than the caches

    def least_s(self, macs: int, moved_bytes: int) -> tuple[float, str]:
        """Shortest possible time in seconds, and the ceiling that sets it: ``compute`` or ``memory``."""
        compute, memory = 2 * macs / self.gemm_flops, moved_bytes / self.memory_bytes
        return (compute, "compute") if compute >= memory else (memory, "memory")

    def row(self) -> dict[str, Any]:
        """As a line of benchmark JSON."""
        return {
            "benchmark": "roofline",
            "subject": {"part": "float32 GEMM and copy", "threads": self.threads},
            "gemm_gflops": self.gemm_flops / 1e9,
            "memory_gb_s": self.memory_bytes / 1e9,
        }


def measure_ceilings(threads: int = 1, *, quick: bool = False) -> Ceilings:
    """Measure in a new process, because BLAS reads its number of threads from the environment once.

    Raises
    ------
    EngineError
        The probe failed.
    """
    size, rounds = (512, 5) if quick else (1024, 40)  # short enough to fit between two interruptions
    command = [sys.executable, "-c", _PROBE, str(size), str(rounds), str(threads)]
    environment = os.environ | dict.fromkeys(_BLAS_THREADS, str(threads))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise EngineError(f"the ceilings of this machine cannot be measured: {done.stderr.strip()[-300:]}")
    flops, moved = json.loads(done.stdout)
    return Ceilings(threads, flops, moved)


def count_macs(path: Path, inputs: Mapping[str, Any]) -> int:
    """Multiply-adds of the convolutions and matrix products of one run, from ONNX Runtime's profile.

    Parameters
    ----------
    path
        An ``.onnx`` file.
    inputs
        Inputs of the run; the result is for their batch size.

    Raises
    ------
    EngineError
        ONNX Runtime cannot run it.
    """
    from edge_sdk.runtime.engines.library import onnxruntime

    options = onnxruntime.SessionOptions()
    # Neither fused nor packed, so that the profile holds the shapes of all weights.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            session.run(None, dict(inputs))
            profile = Path(session.end_profiling()).read_text()
        except Exception as error:  # ONNX Runtime exceptions share no base class
            raise EngineError(f"cannot count the operations of {path.name}: {error}") from error
    return sum(_macs_of(event["args"]) for event in json.loads(profile) if _is_kernel(event))


def _is_kernel(event: Mapping[str, Any]) -> bool:
    return event.get("cat") == "Node" and str(event["name"]).endswith("kernel_time")


def _macs_of(node: Mapping[str, Any]) -> int:
    kind = node.get("op_name")
    if kind not in _MATRIX_OPS | _CONVOLUTIONS:
        return 0
    shapes = [next(iter(entry.values())) for entry in node["input_type_shape"]]  # absent inputs have no shape
    out = math.prod(next(iter(node["output_type_shape"][0].values())))
    weight = shapes[3 if str(kind).startswith("QLinear") else 1]
    if kind == "ConvTranspose":
        return int(math.prod(shapes[0]) * math.prod(weight[1:]))
    if kind in _CONVOLUTIONS:
        return int(out * math.prod(weight[1:]))  # [out, in / groups, kernel]
    if kind == "Gemm":  # [m, k] x [k, n], either may be transposed
        return math.isqrt(math.prod(shapes[0]) * math.prod(weight) * out)
    return int(out * shapes[0][-1])
