"""``stetho bench latency``: time of one inference, and of the stages of a stream."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_sdk.cli.bench.options import MarkdownOption, OutOption, QuickOption, RootOption
from edge_sdk.cli.bench.rows_output import run_and_show
from edge_sdk.cli.options import BundleOption, JsonOption

_COLUMNS = (
    "p50_ms", "p95_ms", "p99_ms", "max_ms", "n", "ratio_to_torch", "cpu_ratio", "cycles_per_s", "roofline_pct", "bound",
    "rss_mb", "share", "cpu_s_per_hour", "gemm_gflops", "memory_gb_s",
)  # fmt: skip


def latency_command(
    bundles: Annotated[
        list[str] | None, typer.Argument(metavar="BUNDLE", help="Bundles, timed in the same rounds.")
    ] = None,
    bundle: BundleOption = "default",
    artefact: Annotated[
        list[str] | None, typer.Option("--artefact", help="Format; may be repeated; all of a bundle where absent.")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option("--engine", help="cpu, cuda, tensorrt, tensorrt-ep; may be repeated.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option("--threads", min=1, help="Intra-op threads of every engine; may be repeated.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option("--batch", min=1, help="Batch size; may be repeated.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Timed calls of each model.")] = 300,
    root: RootOption = None,
    stages: Annotated[float, typer.Option("--stages", min=0, help="Seconds of audio for the stages of a stream.")] = 60,
    quick: QuickOption = False,
    out: OutOption = None,
    markdown: MarkdownOption = None,
    json_: JsonOption = False,
) -> None:
    """Measure model latency per breath: bundles × artefacts × engines × threads × batches.

    Torch eager stands beside them, then the stages of a stream. 'roofline' is the share of what this machine could do
    at best.
    """
    from benchmarks.latency import LatencyOptions, run_latency
    from edge_sdk.runtime.engines.selection import KINDS

    if unknown := [kind for kind in engine or () if kind not in KINDS]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(KINDS)}", param_hint="--engine")
    options = LatencyOptions(
        bundles=tuple(bundles or [bundle]),
        artefacts=tuple(artefact or ()),
        engines=tuple(engine or ["cpu"]),
        threads=tuple(threads or [1]),
        batches=tuple(batch or [1]),
        rounds=20 if quick else rounds,
        warm_up=3 if quick else 20,
        root=root,
        stages_s=min(stages, 5.0) if quick else stages,
        quick=quick,
    )
    run_and_show(
        lambda report: run_latency(options, lambda done, total: report("rounds", done, total)),
        "Model latency per breath (PCM in, logits out)",
        _COLUMNS,
        out,
        json_,
        markdown,
    )
