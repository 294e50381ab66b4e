"""``stetho export``: a checkpoint becomes a verified bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_sdk.cli.messages import emit_json
from edge_sdk.cli.options import JsonOption
from edge_sdk.cli.progress import progress_bar
from edge_sdk.cli.tables import Column, print_table

if TYPE_CHECKING:
    from edge_sdk.runtime.bundle.schema import Manifest
    from export.export_bundle import ExportedBundle

_PARITY = ("relative_error", "agreement", "auroc_drop", "score_drop", "latency_ratio")


def _formats_help() -> str:
    try:
        from export.formats import formats_help
    except ImportError:  # the SDK without its export side
        return "Comma-separated artefact formats."
    return formats_help()


def export_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT|RECIPE|BUNDLE",
            help="Checkpoint of 'stetho train'; a recipe with --untrained; a bundle that gets more --formats.",
        ),
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
    verdict: Annotated[
        Path | None,
        typer.Option("--verdict", help="Calibrated checkpoint of 'stetho train adventitious'; else no verdicts."),
    ] = None,
    cross_validation: Annotated[
        Path | None,
        typer.Option(
            "--cv",
            metavar="FILE",
            help="cv.json of the recipe, for the model card; for a verdict, of its classifier's.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="BUNDLE",
            help="With a segmenter's or verdict's checkpoint: the bundle of the classifier.",
        ),
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="Version of the bundle; the SDK's where absent.")
    ] = None,
    sign: Annotated[
        Path | None, typer.Option("--sign", metavar="KEY", help="Sign the bundle: private key of 'stetho keys new'.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Export a checkpoint to ONNX, quantise it, measure it on real cycles and write a bundle."""
    from edge_sdk.errors import ExportError
    from edge_sdk.extras import require_extra

    if (corpus is None) != (root is None):
        raise ExportError("give --corpus and --root together")
    if size is not None and not untrained:
        raise ExportError("--size goes with --untrained; a checkpoint has the size it was trained with")
    require_extra("export", "export", "onnx", "torch")
    from export.export_bundle import ExportOptions, export_bundle

    options = ExportOptions(
        model=model,
        out=out,
        formats=formats,
        corpus=corpus,
        root=root,
        untrained=untrained,
        size=size,
        name=name,
        version=version,
        features_graph=features_graph,
        fixed=_fixed(fix),
        segmenter=segmenter,
        verdict=verdict,
        cross_validation=cross_validation,
        base=base,
        sign=sign,
    )
    with progress_bar("starting", quiet=json_) as progress:
        exported = export_bundle(options, progress)
    _print(exported, out, json_)


def _fixed(pairs: list[str] | None) -> dict[str, str] | None:
    """``["site=Trachea"]`` → ``{"site": "Trachea"}``."""
    for pair in pairs or []:
        if "=" not in pair:
            raise typer.BadParameter(f"{pair!r} is not FIELD=VALUE", param_hint="--fix")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs or [])} or None


def _print(exported: ExportedBundle, out: Path, json_: bool) -> None:
    manifest = exported.manifest
    if json_:
        for a in manifest.artefacts:
            emit_json(_row(a, out))
        if exported.part_only:
            emit_json({"type": "segmenter", "bundle": str(out), **_segmenter_row(manifest)})
        if manifest.verdict:
            emit_json({"type": "verdict", "bundle": str(out), **_verdict_row(manifest)})
        for path in exported.made:
            emit_json({"type": "made", "bundle": str(out), "path": str(path)})
        return
    columns = [Column("artefact", "name"), Column("verified", "text", keep=True)]
    columns += [Column(t) for t in ("kB", "rel. error", "same decision", "AUROC drop", "Score drop", "time/fp32")]
    rows = []
    for a in manifest.artefacts:
        verified = "yes" if a.verified else "; ".join(a.failures)
        figures = [a.parity.get(k) for k in _PARITY]
        rows.append([a.format, verified, f"{a.bytes / 1000:.0f}", *("–" if f is None else f"{f:.4g}" for f in figures)])
    print_table(columns, rows, title=f"{manifest.name} {manifest.version} → {out}")
    row = _segmenter_row(manifest)
    measured = "; ".join(f"event F1 {f['event_f1']:.3f} on {split}" for split, f in row["accuracy"].items())
    typer.echo(f"segmenter: {row['kind']}" + (f", {measured}" if measured else ""))
    if manifest.verdict:
        corpora = manifest.verdict.accuracy.get("corpora", {})
        scores = "; ".join(f"AUROC {c['end']['auroc']:.3f} on {name}" for name, c in corpora.items())
        typer.echo("verdict: " + (scores or "no figures"))
    for path in exported.made:
        typer.echo(f"→ {path}")


def _segmenter_row(manifest: Manifest) -> dict[str, Any]:
    step = manifest.segmenter.step
    figures = {"look_ahead_s": step.look_ahead_s, "accuracy": step.accuracy} if step else {"accuracy": {}}
    return {"kind": manifest.segmenter.kind, "sha256": manifest.segmenter.sha256, **figures}


def _verdict_row(manifest: Manifest) -> dict[str, Any]:
    entry = manifest.verdict
    return {"sha256": entry.sha256, "params": entry.params, "accuracy": entry.accuracy} if entry else {}


def _row(artefact: Any, out: Path) -> dict[str, Any]:
    import msgspec

    row = msgspec.to_builtins(artefact)
    row.pop("front_end")
    return {"type": "artefact", "bundle": str(out), **row}
