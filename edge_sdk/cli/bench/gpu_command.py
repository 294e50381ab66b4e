"""``stetho bench gpu``: one command for the day a GPU is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_sdk.cli.bench.options import MarkdownOption, OutOption, QuickOption
from edge_sdk.cli.bench.rows_output import run_and_show
from edge_sdk.cli.options import BundleOption, JsonOption
from edge_sdk.cli.progress import progress_bar

_COLUMNS = (
    "relative_error", "p50_ms", "p99_ms", "max_ms", "n", "cycles_per_s", "roofline_pct", "streams_at_deadline",
    "load_s", "gpu_memory_mb", "cuda_plain", "cuda_preloaded", "copy_gb_s",
)  # fmt: skip


def gpu_command(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Packed folder; the bundle alone where absent.")
    ] = None,
    pack: Annotated[
        Path | None,
        typer.Option("--pack", help="Pack graphs and torch's logits into this folder, for a machine without network."),
    ] = None,
    bundle: BundleOption = "default",
    batch: Annotated[list[int] | None, typer.Option("--batch", min=1, help="Batch size; may be repeated.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=3, help="Timed calls at most for each batch.")] = 200,
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="Longest time of the whole run.")] = 8.0,
    quick: QuickOption = False,
    out: OutOption = None,
    markdown: MarkdownOption = None,
    json_: JsonOption = False,
) -> None:
    """Measure a GPU: parity with torch, engines built and run, latency, throughput, memory, streams, layers."""
    from benchmarks.gpu.run import BATCHES, GpuBenchOptions, run_gpu
    from edge_sdk.extras import require_extra

    if pack is not None:
        from benchmarks.gpu.folder import pack as pack_folder

        require_extra("export", "bench gpu --pack", "torch", "onnx")
        with progress_bar("packing", quiet=json_) as report:
            subjects = pack_folder(pack, report, quick=quick)
        typer.echo(f"{pack}: {len(subjects)} graphs; on the GPU machine: stetho bench gpu {pack.name} --out gpu.json")
        return
    require_extra("gpu-cu13", "stetho bench gpu", "onnx")
    options = GpuBenchOptions(
        folder=folder,
        bundle=bundle,
        batches=tuple(batch or BATCHES),
        rounds=rounds,
        budget_s=60 * minutes,
        quick=quick,
    )
    run_and_show(lambda report: run_gpu(options, report), "GPU", _COLUMNS, out, json_, markdown)
