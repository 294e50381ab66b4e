"""What every recipe's model becomes: graph size, parity with torch, and the TensorRT engine that is built of it.

    python -m benchmarks.studies.tensorrt_builds --size base --out benchmarks/results/tensorrt_builds.json
    python -m benchmarks.studies.tensorrt_builds --size tiny --recipe compact      # seconds

One JSON object a line: the machine, then a row per recipe. Weights are random, which changes neither sizes nor nodes.
Engines are built ahead of time by TensorRT-RTX, with the profiles that ``stetho compile`` uses, and never executed.
"""

from __future__ import annotations

import json
import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import typer

from benchmarks.core.exported import RECIPES, Exported
from benchmarks.core.harness import Row, machine_row
from benchmarks.core.rows import write_results
from edge_sdk.errors import StethoError
from export.tensorrt.builder import BuildOptions, build_engine

CAPABILITY = "8.6"
BATCHES = (1, 3)


def rows(recipes: Sequence[str], size: str) -> Iterator[Row]:
    """The machine, then a row per recipe; one that fails says why."""
    yield machine_row()
    torch.set_num_threads(1)
    for recipe in recipes:
        row: Row = {"benchmark": "tensorrt_builds", "subject": {"model": f"{recipe}/{size}", "artefact": "onnx-fp32"}}
        try:
            yield row | _measured(recipe, size)
        except StethoError as error:
            yield row | {"failed": str(error)}


def _measured(recipe: str, size: str) -> Row:
    begin = time.perf_counter()
    subject = Exported(recipe, size)
    exported_s = time.perf_counter() - begin
    content = subject.joined.SerializeToString()
    row: Row = {
        "onnx_mb": len(content) / 1e6,
        "nodes": len(subject.joined.graph.node),
        "export_s": round(exported_s, 1),
    }
    for batch in BATCHES:
        errors = subject.relative_errors(batch)
        row |= {f"relative_error_{kind}_batch_{batch}": error for kind, error in errors.items()}
    del subject  # the builder needs the memory
    return row | _engine(content)


def _engine(content: bytes) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        options = BuildOptions(flavour="tensorrt-rtx", capabilities=(CAPABILITY,), cache=Path(folder))
        engine = build_engine(content, options)
        key = engine.sidecar["key"]
    return {
        "engine_mb": engine.bytes / 1e6,
        "build_s": round(engine.seconds, 1),
        "profiles": key["profiles"],
        "capability": CAPABILITY,
    }


def main(
    size: str = typer.Option("base", help="Size of every model."),
    recipe: list[str] = typer.Option([], help="Only these; all recipes that classify where absent."),
    out: Path | None = typer.Option(None, help="Keep the rows in this file, too."),
) -> None:
    """Export and build; JSON lines on stdout."""
    if unknown := sorted(set(recipe) - set(RECIPES)):
        raise typer.BadParameter(f"{', '.join(unknown)}: recipes are {', '.join(RECIPES)}")
    command = f"python -m benchmarks.studies.tensorrt_builds --size {size}" + "".join(f" --recipe {r}" for r in recipe)
    command += f" --out {shlex.quote(str(out))}" if out else ""
    found: list[Row] = []
    for row in rows(recipe or RECIPES, size):
        found.append(row)
        typer.echo(json.dumps(row))
        if out is not None:
            write_results(out, command, found)


if __name__ == "__main__":
    typer.run(main)
