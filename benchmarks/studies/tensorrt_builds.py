"""The model of every recipe: graph size, parity with torch, and the TensorRT engine.

    python -m benchmarks.studies.tensorrt_builds --size base --out benchmarks/results/tensorrt_builds.json
    python -m benchmarks.studies.tensorrt_builds --size tiny --recipe compact      # seconds

Prints JSON lines: the machine, then one per recipe. Weights are random; sizes and nodes do not depend on them.
TensorRT-RTX builds the engines ahead of time with the profiles of ``stetho compile``; they are not executed.
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
from export.tensorrt.builder import build_engine
from export.tensorrt.options import BuildOptions

CAPABILITY = "8.6"
BATCHES = (1, 3)


def tensorrt_build_rows(recipes: Sequence[str], size: str) -> Iterator[Row]:
    """Rows: the machine, then one per recipe; a failed one holds the reason."""
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
    exported = Exported(recipe, size)
    exported_s = time.perf_counter() - begin
    content = exported.joined.SerializeToString()
    row: Row = {
        "onnx_mb": len(content) / 1e6,
        "nodes": len(exported.joined.graph.node),
        "export_s": round(exported_s, 1),
    }
    for batch in BATCHES:
        errors = exported.relative_errors(batch)
        row |= {f"relative_error_{kind}_batch_{batch}": error for kind, error in errors.items()}
    del exported  # the builder needs its memory
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
    recipe: list[str] = typer.Option([], help="Only these recipes; may be repeated; all classifiers where absent."),
    out: Path | None = typer.Option(None, help="Also write the rows as a JSON file."),
) -> None:
    """Export and build every recipe; JSON lines on stdout."""
    if unknown := sorted(set(recipe) - set(RECIPES)):
        raise typer.BadParameter(f"{', '.join(unknown)}: recipes are {', '.join(RECIPES)}")
    command = f"python -m benchmarks.studies.tensorrt_builds --size {size}" + "".join(f" --recipe {r}" for r in recipe)
    command += f" --out {shlex.quote(str(out))}" if out else ""
    found: list[Row] = []
    for row in tensorrt_build_rows(recipe or RECIPES, size):
        found.append(row)
        typer.echo(json.dumps(row))
        if out is not None:
            write_results(out, command, found)


if __name__ == "__main__":
    typer.run(main)
