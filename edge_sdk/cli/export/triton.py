"""``stetho triton``: a bundle as a model repository of Triton Inference Server, and a load test of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_sdk.cli.messages import emit_json
from edge_sdk.cli.options import JsonOption

app = typer.Typer(help="Serve a bundle with Triton Inference Server.", no_args_is_help=True, add_completion=False)


@app.command("repo")
def repo_command(
    bundle: Annotated[str, typer.Argument(help="Bundle directory, or 'default'.", metavar="BUNDLE")],
    out: Annotated[Path, typer.Option("--out", help="Folder for tritonserver --model-repository.")],
    artefact: Annotated[str | None, typer.Option("--artefact", help="Format to serve.", metavar="FORMAT")] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Run on GPUs.")] = False,
    instances: Annotated[int, typer.Option("--instances", help="Copies that run at once.")] = 1,
    max_batch: Annotated[int, typer.Option("--max-batch", help="Largest batch.")] = 64,
    delay_us: Annotated[int, typer.Option("--delay-us", help="Longest wait for a fuller batch, µs.")] = 2000,
    sequences: Annotated[int, typer.Option("--sequences", help="Streams that the segmenter follows at once.")] = 1024,
    plan: Annotated[
        bool, typer.Option("--plan", help="Serve the engine of 'stetho compile' too, as the model NAME_plan.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write a model repository: PCM of a breath in, label and probabilities out."""
    from edge_sdk.extras import require_extra

    require_extra("export", "stetho triton repo", "onnx")
    from export.triton.config import TritonOptions
    from export.triton.repository import write_repository

    options = TritonOptions(artefact, gpu, instances, max_batch, delay_us, sequences=sequences, plan=plan)
    files = write_repository(Path(bundle), out, options)
    if json:
        emit_json({"type": "repository", "bundle": bundle, "path": out, "files": sorted(files)})
    else:
        typer.echo(f"{out}: {len(files)} files; tritonserver --model-repository {out.resolve()}")


@app.command("load")
def load_command(
    url: Annotated[str, typer.Argument(help="Server, for example http://localhost:8000.", metavar="URL")],
    model: Annotated[str, typer.Option("--model", help="Name of the ensemble: the bundle's.")] = "compact",
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=256, help="Requests at once.")] = 4,
    batch: Annotated[int, typer.Option("--batch", min=1, max=1024, help="Cycles a request.")] = 1,
    requests: Annotated[int, typer.Option("--requests", min=1, help="Stop after this many.")] = 1000,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, max=3600, help="Stop after this time.")] = 10.0,
    json: JsonOption = False,
) -> None:
    """Time a running server with noise; stops by itself."""
    from edge_sdk.errors import ExportError
    from export.triton.load_test import TritonLoadOptions, load_test

    options = TritonLoadOptions(model, concurrency, batch, requests, seconds)
    row = load_test(url, options).summary(options)
    if row["n"] == 0:
        raise ExportError(f"no request succeeded; the first error: {row['first_error']}")
    if json:
        emit_json({"type": "load", "url": url, **row})
        return
    typer.echo(
        f"{row['n']} requests of {batch} in {row['seconds']:.1f} s: {row['cycles_per_s']:.0f} breaths/s, "
        f"p50 {row['p50_ms']:.1f} ms, p95 {row['p95_ms']:.1f} ms, p99 {row['p99_ms']:.1f} ms, {row['errors']} errors"
    )
