"""``stetho export``: a checkpoint becomes a verified bundle."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_sdk.cli.options import JsonOption, emit_json

if TYPE_CHECKING:
    from edge_sdk.runtime.bundle.schema import Manifest
    from edge_sdk.training.checkpoint import Checkpoint


def _formats_help() -> str:
    try:
        from export.formats import formats_help
    except ImportError:  # the SDK without its export side
        return "Comma-separated artefact formats."
    return formats_help()


def export(
    model: Annotated[
        str,
        typer.Argument(metavar="CHECKPOINT|RECIPE", help="Checkpoint of 'stetho train'; a recipe with --untrained."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Bundle directory to write.")],
    formats: Annotated[str | None, typer.Option("--formats", help=_formats_help())] = None,
    corpus: Annotated[
        str | None, typer.Option("--corpus", help="Corpus for calibration and verification: the one trained on.")
    ] = None,
    root: Annotated[Path | None, typer.Option("--root", help="Folder of the corpus.")] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Random weights, for benchmarks; such a bundle refuses to screen.")
    ] = False,
    size: Annotated[str | None, typer.Option("--size", help="Size of an untrained model.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the bundle.")] = None,
    features_graph: Annotated[
        bool, typer.Option("--features-graph", help="Also write each network alone: features → logits.")
    ] = False,
    fix: Annotated[
        list[str] | None,
        typer.Option("--fix", metavar="FIELD=VALUE", help="Build metadata into the network (site=Trachea); repeat."),
    ] = None,
    segmenter: Annotated[
        Path | None,
        typer.Option("--segmenter", help="A segmenter's checkpoint or step graph; else the default bundle's."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="BUNDLE", help="Of a segmenter's checkpoint: whose classifier it goes with."),
    ] = None,
    version: Annotated[str | None, typer.Option("--version", help="Of the bundle; the SDK's where absent.")] = None,
    sign: Annotated[
        Path | None, typer.Option("--sign", metavar="KEY", help="Sign the bundle: private key of 'stetho keys new'.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Export a checkpoint to ONNX, quantise it, measure it on real cycles and write a bundle."""
    from edge_sdk.errors import ExportError, MissingDependencyError

    if (corpus is None) != (root is None):
        raise ExportError("give --corpus and --root together")
    if size is not None and not untrained:
        raise ExportError("--size goes with --untrained; a checkpoint has the size it was trained with")
    try:
        import onnx  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed; run 'pip install \"stethoscope-edge-sdk[export]\"'"
        ) from error
    order = _Order(
        model, out, formats, corpus, root, untrained, size, name, version, features_graph, _fixed(fix), segmenter, sign
    )
    with _progress(quiet=json_) as progress:
        checkpoint = None if untrained else _checkpoint(model)
        segmenter_only = checkpoint is not None and checkpoint.model == "segmenter"
        if segmenter_only:
            manifest, made = _export_segmenter(order, base or "default", progress), list[Path]()
        elif base is not None:
            raise ExportError("--base goes with the checkpoint of a segmenter; a classifier brings its own artefacts")
        else:
            manifest, made = _export(order, checkpoint, progress)
    _report(manifest, out, made, json_, segmenter=segmenter_only)


@dataclass(frozen=True)
class _Order:
    """What the command line asks for."""

    model: str
    out: Path
    formats: str | None
    corpus: str | None
    root: Path | None
    untrained: bool
    size: str | None
    name: str | None
    version: str | None
    features_graph: bool
    fixed: dict[str, str] | None
    segmenter: Path | None
    sign: Path | None


def _export(
    order: _Order, checkpoint: Checkpoint | None, progress: Callable[[str], None]
) -> tuple[Manifest, list[Path]]:
    from export.assemble import assemble, require_writable
    from export.formats import parse_formats
    from export.pipeline import gather, make_artefacts
    from export.signing import require_key, sign_bundle

    wanted = parse_formats(order.formats or ("onnx-fp32" if order.corpus is None else None))
    require_writable(order.out)
    if order.sign is not None:
        require_key(order.sign)
    checkpoint = checkpoint or _untrained(order.model, order.size)
    data = None
    if order.corpus is not None and order.root is not None:
        progress(f"reading the cycles of {order.corpus}")
        data = gather(checkpoint, order.corpus, order.root)
    artefacts = make_artefacts(
        checkpoint,
        wanted,
        data,
        progress,
        untrained=order.untrained,
        features_graph=order.features_graph,
        fixed=order.fixed,
    )
    progress("writing the bundle")
    name = order.name or order.out.resolve().name
    manifest = assemble(
        checkpoint,
        artefacts,
        order.out,
        name=name,
        **({} if order.version is None else {"version": order.version}),
        untrained=order.untrained,
        fixed=order.fixed,
        segmenter=order.segmenter,
    )
    if order.sign is not None:
        sign_bundle(order.out, order.sign)
    made: list[Path] = []
    for row in wanted:
        if row.made_from == "bundle":
            progress(f"{row.name}: building")
            module, _, function = row.builder.partition(":")
            made += getattr(import_module(module), function)(order.out, progress)
    return manifest, made


def _export_segmenter(order: _Order, base: str, progress: Callable[[str], None]) -> Manifest:
    """The classifier of ``base`` and the segmenter of the checkpoint, in one bundle."""
    from edge_sdk import __version__
    from edge_sdk.errors import ExportError
    from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE
    from export.assemble import require_writable, with_segmenter
    from export.signing import require_key, sign_bundle

    if order.formats or order.corpus or order.fixed or order.segmenter or order.features_graph:
        raise ExportError(
            "a segmenter is exported as the one step graph it is, with the figures of its run; leave --formats, "
            "--corpus, --root, --fix, --segmenter and --features-graph out"
        )
    require_writable(order.out)
    if order.sign is not None:
        require_key(order.sign)
    progress("exporting the step graph")
    folder = DEFAULT_BUNDLE if base == "default" else Path(base)
    manifest = with_segmenter(
        folder, Path(order.model), order.out, name=order.name, version=order.version or __version__
    )
    if order.sign is not None:
        sign_bundle(order.out, order.sign)
    return manifest


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """The step at hand beside a spinner where a person watches; elsewhere nothing."""
    if quiet or not sys.stderr.isatty():
        yield lambda step: None
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield status.update


def _fixed(pairs: list[str] | None) -> dict[str, str] | None:
    """``["site=Trachea"]`` → ``{"site": "Trachea"}``."""
    for pair in pairs or []:
        if "=" not in pair:
            raise typer.BadParameter(f"{pair!r} is not FIELD=VALUE", param_hint="--fix")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs or [])} or None


def _checkpoint(path: str) -> Checkpoint:
    from edge_sdk.training.checkpoint import load_checkpoint

    return load_checkpoint(Path(path))


def _untrained(recipe: str, size: str | None) -> Checkpoint:
    from edge_sdk.training.untrained import untrained_checkpoint

    return untrained_checkpoint(recipe, size=size)


def _report(manifest: Manifest, out: Path, made: list[Path], json_: bool, *, segmenter: bool) -> None:
    if json_:
        for a in manifest.artefacts:
            emit_json(_row(a, out))
        if segmenter:
            emit_json({"type": "segmenter", "bundle": str(out), **_segmenter_row(manifest)})
        for path in made:
            emit_json({"type": "made", "bundle": str(out), "path": str(path)})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{manifest.name} {manifest.version} → {out}", title_justify="left")
    figures_of = ("relative_error", "agreement", "auroc_drop", "score_drop", "latency_ratio")
    for column in (
        "artefact",
        "kB",
        "verified",
        "rel. error",
        "same decision",
        "AUROC drop",
        "Score drop",
        "time/fp32",
    ):
        table.add_column(column)
    for a in manifest.artefacts:
        figures = [a.parity.get(k) for k in figures_of]
        cells = ["–" if f is None else f"{f:.4g}" for f in figures]
        table.add_row(a.format, f"{a.bytes / 1000:.0f}", "yes" if a.verified else "; ".join(a.failures), *cells)
    Console().print(table)
    row = _segmenter_row(manifest)
    measured = "; ".join(f"event F1 {f['event_f1']:.3f} on {split}" for split, f in row["accuracy"].items())
    typer.echo(f"segmenter: {row['kind']}" + (f", {measured}" if measured else ""))
    for path in made:
        typer.echo(f"→ {path}")


def _segmenter_row(manifest: Manifest) -> dict[str, Any]:
    step = manifest.segmenter.step
    known = {"look_ahead_s": step.look_ahead_s, "accuracy": step.accuracy} if step else {"accuracy": {}}
    return {"kind": manifest.segmenter.kind, "sha256": manifest.segmenter.sha256, **known}


def _row(artefact: Any, out: Path) -> dict[str, Any]:
    import msgspec

    row = msgspec.to_builtins(artefact)
    row.pop("front_end")
    return {"type": "artefact", "bundle": str(out), **row}
