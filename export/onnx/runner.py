"""An ONNX graph in memory, run on the CPU, and two of them timed side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edge_sdk.errors import ExportError
from edge_sdk.runtime.engines.onnx import LARGE_BYTES, exact_session_options
from export.onnx.quantise import Feed


class GraphRunner:
    """Runs a graph with one output on one thread: more threads slow each other down at these sizes.

    Raises
    ------
    ExportError
        ONNX Runtime does not load the graph.
    """

    def __init__(self, model: onnx.ModelProto | bytes) -> None:
        from edge_sdk.runtime.engines.library import onnxruntime

        options = exact_session_options(onnxruntime)
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        content = model if isinstance(model, bytes) else model.SerializeToString()
        large = len(content) > LARGE_BYTES  # as on the device
        options.enable_cpu_mem_arena, options.enable_mem_pattern = large, not large
        try:
            self._session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base class
            raise ExportError(f"ONNX Runtime does not load the exported graph: {error}") from error

    def run(self, feed: Feed) -> npt.NDArray[np.float32]:
        """The graph's output ``[B, …]`` for one batch of inputs."""
        result: npt.NDArray[np.float32] = self._session.run(None, dict(feed))[0]
        return result


def latency_ratio(
    artefact: Callable[[], object], reference: Callable[[], object], *, rounds: int = 30, budget_s: float = 20.0
) -> dict[str, float]:
    """Latency of the artefact over that of the reference, measured in turn: other load on the machine affects both.

    Returns
    -------
    dict
        ``latency_ratio``: median over rounds, below 1 is faster; ``latency_rounds``; ``latency_ms``: median of the
        artefact, which only means something on a quiet machine.
    """
    for call in (artefact, reference):
        call()
    ratios: list[float] = []
    times: list[float] = []
    begin = time.perf_counter()
    while len(ratios) < rounds and (len(ratios) < 3 or time.perf_counter() - begin < budget_s):
        start = time.perf_counter()
        artefact()
        middle = time.perf_counter()
        reference()
        times.append(middle - start)
        ratios.append((middle - start) / (time.perf_counter() - middle))
    return {
        "latency_ratio": statistics.median(ratios),
        "latency_rounds": len(ratios),
        "latency_ms": 1e3 * statistics.median(times),
    }
