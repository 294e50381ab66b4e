"""Effect of int8 on a transformer on a CPU: torch eager, ONNX Runtime fp32 and dynamic int8, one thread, in turn.

    python -m benchmarks.studies.ast_int8                 # the published AST on an 8 s clip, random weights
    python -m benchmarks.studies.ast_int8 --size tiny     # seconds

Prints JSON lines. Speed does not depend on the weights. Memory is the peak of a new process that loads the graph and
runs one clip.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import typer

from benchmarks.core.harness import Row, interleave, machine_row, median_ratio, percentiles
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.training.untrained import untrained_checkpoint
from export.formats import FORMATS
from export.onnx.build import BuildRequest, fp32, int8_cpu
from export.onnx.runner import GraphRunner

_MEMORY = """
import sys
import numpy as np
from benchmarks.core.harness import peak_rss_mb
from edge_sdk.runtime.engines.onnx import OrtEngine
from pathlib import Path
engine = OrtEngine(Path(sys.argv[1]))
shape = [int(n) for n in sys.argv[2:]]
engine.run({"features": np.zeros(shape, np.float32)})
print(peak_rss_mb())
"""


def run_ast_int8(recipe: str, size: str, rounds: int) -> Iterator[Row]:
    """Rows: the machine, then one per engine; ratios are medians over rounds against torch eager and ONNX fp32."""
    yield machine_row()
    torch.set_num_threads(1)
    checkpoint = untrained_checkpoint(recipe, size=size)
    model, spec = checkpoint.build(), checkpoint.front_end
    request = BuildRequest(model, spec, checkpoint.metadata_schema, lambda _: None)
    graphs = {
        "onnx-fp32": fp32(FORMATS["onnx-fp32"], request),
        "onnx-int8-cpu": int8_cpu(FORMATS["onnx-int8-cpu"], request),
    }
    features = FoldedFrontEnd(spec)(0.1 * torch.randn(1, spec.window_samples))
    sessions = {name: GraphRunner(graph) for name, graph in graphs.items()}
    feed = {"features": features.numpy()}

    def eager(_: int) -> object:
        with torch.inference_mode():
            return model(features)

    calls: dict[str, Callable[[int], object]] = {"torch-eager": eager}
    calls |= {name: lambda _, s=session: s.run(feed) for name, session in sessions.items()}  # type: ignore[misc]
    timings = interleave(calls, rounds=rounds, warm_up=1)
    del sessions, calls
    for name in timings:
        seconds = timings[name]["seconds"]
        row: Row = {
            "benchmark": "ast_int8",
            "subject": {"model": f"{recipe}/{size}", "artefact": name, "threads": 1, "batch": 1},
            **percentiles(seconds),
            "faster_than_torch": median_ratio(timings["torch-eager"]["seconds"], seconds),
            "faster_than_onnx_fp32": median_ratio(timings["onnx-fp32"]["seconds"], seconds),
        }
        if name in graphs:
            content = graphs[name].SerializeToString()
            row |= {"bytes": len(content), "rss_mb": _peak(content, list(feed["features"].shape))}
        yield row


def _peak(content: bytes, shape: list[int]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        command = [sys.executable, "-c", _MEMORY, str(path), *map(str, shape)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(
    recipe: str = typer.Option("ast", help="Recipe of the network."),
    size: str = typer.Option("base", help="Size of the network."),
    rounds: int = typer.Option(10, help="Timed rounds."),
) -> None:
    """Time torch and ONNX Runtime in fp32 and int8; JSON lines on stdout."""
    for row in run_ast_int8(recipe, size, rounds):
        typer.echo(json.dumps(row))


if __name__ == "__main__":
    typer.run(main)
