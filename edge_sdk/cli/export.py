"""``stetho export``: a checkpoint becomes a verified bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_sdk.cli._common import JsonOption, emit_json

if TYPE_CHECKING:
    from edge_sdk.runtime.schema import Manifest
    from edge_sdk.training.checkpoint import Checkpoint


def export(
    model: Annotated[
        str,
        typer.Argument(metavar="CHECKPOINT|RECIPE", help="Checkpoint of 'stetho train'; a recipe with --untrained."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Bundle directory to write.")],
    formats: Annotated[
        str | None, typer.Option("--formats", help="Comma-separated artefact formats (default: all of the table).")
    ] = None,
    corpus: Annotated[
        str | None, typer.Option("--corpus", help="Corpus for calibration and verification: the one trained on.")
    ] = None,
    root: Annotated[Path | None, typer.Option("--root", help="Folder of the corpus.")] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Random weights, for benchmarks; such a bundle refuses to screen.")
    ] = False,
    size: Annotated[str | None, typer.Option("--size", help="Size of an untrained model.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the bundle.")] = None,
    json_: JsonOption = False,
) -> None:
    """Export a checkpoint to ONNX, quantise it, measure it on real cycles and write a bundle."""
    from edge_sdk.errors import ExportError, MissingDependencyError

    if (corpus is None) != (root is None):
        raise ExportError("give --corpus and --root together")
    try:
        import onnx  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed; run 'pip install \"stethoscope-edge-sdk[export]\"'"
        ) from error
    manifest = _export(model, out, formats, corpus, root, untrained, size, name, quiet=json_)
    _report(manifest, out, json_)


def _export(
    model: str,
    out: Path,
    formats: str | None,
    corpus: str | None,
    root: Path | None,
    untrained: bool,
    size: str | None,
    name: str | None,
    *,
    quiet: bool,
) -> Manifest:
    from export.assemble import assemble
    from export.formats import parse_formats
    from export.pipeline import gather, make_artefacts

    def progress(step: str) -> None:
        if not quiet and sys.stderr.isatty():
            typer.echo(f"· {step}", err=True)

    wanted = parse_formats(formats or ("onnx-fp32" if corpus is None else None))
    checkpoint = _untrained(model, size) if untrained else _checkpoint(model)
    data = None
    if corpus is not None and root is not None:
        progress(f"reading the cycles of {corpus}")
        data = gather(checkpoint, corpus, root)
    artefacts = make_artefacts(checkpoint, wanted, data, progress)
    return assemble(checkpoint, artefacts, out, name=name or out.resolve().name, untrained=untrained)


def _checkpoint(path: str) -> Checkpoint:
    from edge_sdk.training.checkpoint import load_checkpoint

    return load_checkpoint(Path(path))


def _untrained(recipe: str, size: str | None) -> Checkpoint:
    from edge_sdk.training.untrained import untrained_checkpoint

    return untrained_checkpoint(recipe, size=size)


def _report(manifest: Manifest, out: Path, json_: bool) -> None:
    if json_:
        for a in manifest.artefacts:
            emit_json(_row(a, out))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{manifest.name} {manifest.version} → {out}", title_justify="left")
    for column in ("artefact", "kB", "verified", "relative error", "same decision", "AUROC drop", "Score drop"):
        table.add_column(column)
    for a in manifest.artefacts:
        figures = [a.parity.get(k) for k in ("relative_error", "agreement", "auroc_drop", "score_drop")]
        cells = ["–" if f is None else f"{f:.4g}" for f in figures]
        table.add_row(a.format, f"{a.bytes / 1000:.0f}", "yes" if a.verified else "; ".join(a.failures), *cells)
    Console().print(table)


def _row(artefact: Any, out: Path) -> dict[str, Any]:
    import msgspec

    row = msgspec.to_builtins(artefact)
    row.pop("front_end")
    return {"type": "artefact", "bundle": str(out), **row}
