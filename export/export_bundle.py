"""The whole export: a checkpoint or recipe in, a verified bundle on disk out."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from packaging.version import InvalidVersion, Version

from edge_sdk import __version__
from edge_sdk.errors import ExportError
from edge_sdk.runtime.bundle.load import packaged_bundles, read_manifest, resolve_bundle
from edge_sdk.runtime.bundle.schema import MANIFEST, Manifest
from edge_sdk.training.checkpoint import Checkpoint, load_checkpoint
from edge_sdk.training.untrained import untrained_checkpoint
from export.assemble import assemble, require_writable, with_parts
from export.cycles import gather_cycles
from export.formats import ReportStep, parse_formats
from export.pipeline import make_artefacts
from export.signing import require_key, sign_bundle

_PARTS = {"segmenter": "a segmenter", "adventitious": "a verdict's network"}
"""Models that join the classifier of another bundle."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export and how."""

    model: str  # path of a checkpoint, with ``untrained`` the name of a recipe, or a bundle to add formats to
    out: Path  # bundle directory to write
    formats: str | None = None  # names separated by commas; all that the data allows where absent
    corpus: str | None = None  # for calibration and verification, with ``root``
    root: Path | None = None
    untrained: bool = False  # random weights, for benchmarks
    size: str | None = None  # of an untrained model
    name: str | None = None  # of the bundle; that of the directory where absent
    version: str | None = None  # of the bundle; the SDK's where absent
    features_graph: bool = False  # also write each network alone: features → logits
    fixed: dict[str, str] | None = None  # metadata built into the network
    segmenter: Path | None = None  # checkpoint or step graph; the default bundle's where absent
    verdict: Path | None = None  # checkpoint of the network of crackles and wheezes; without it no verdicts are given
    cross_validation: Path | None = None  # cv.json of the checkpoint's recipe, for the model card
    base: str | None = None  # with the checkpoint of a segmenter or verdict: bundle that gives the classifier
    sign: Path | None = None  # private key


@dataclass(frozen=True)
class ExportedBundle:
    """What an export has written."""

    manifest: Manifest
    made: list[Path]  # files made from the bundle, outside it
    part_only: bool = False


def export_bundle(options: ExportOptions, on_step: ReportStep = lambda step: None) -> ExportedBundle:
    """Export a model and write its bundle.

    Raises
    ------
    ExportError
        If options exclude each other, or the model cannot be exported, quantised or verified.
    StethoError
        If the checkpoint, recipe, corpus or base bundle cannot be used.
    """
    _check_version(options.version)
    if not options.untrained and _is_bundle(options.model):
        return ExportedBundle(_add_formats(options, on_step), [])
    checkpoint = None if options.untrained else load_checkpoint(Path(options.model))
    if checkpoint is not None and checkpoint.model in _PARTS:
        return ExportedBundle(_export_part(options, checkpoint.model, on_step), [], part_only=True)
    if options.base is not None:
        raise ExportError(
            "--base goes with the checkpoint of a segmenter or verdict; a classifier brings its own artefacts"
        )
    return _export_classifier(options, checkpoint, on_step)


def _is_bundle(model: str) -> bool:
    return model in packaged_bundles() or (Path(model) / MANIFEST).is_file()


def _add_formats(options: ExportOptions, on_step: ReportStep) -> Manifest:
    """Write a bundle with further formats made from its own fp32 graph."""
    unused = (
        options.segmenter, options.verdict, options.cross_validation, options.base, options.fixed, options.size,
        options.features_graph or None,
    )  # fmt: skip
    if options.formats is None or any(value is not None for value in unused):
        raise ExportError("a bundle is given: --formats adds artefacts to it (onnx-fp16), with --corpus, --root, --out")
    require_writable(options.out)
    if options.sign is not None:
        require_key(options.sign)
    from export.more_formats import add_formats

    base = resolve_bundle(options.model)
    manifest = add_formats(
        base,
        options.out,
        parse_formats(options.formats),
        on_step,
        corpus=options.corpus,
        root=options.root,
        name=options.name,
        version=options.version or read_manifest(base).version,
    )
    if options.sign is not None:
        sign_bundle(options.out, options.sign)
    return manifest


def _check_version(version: str | None) -> None:
    """Refuse at once what a device with a trusted key would refuse to order."""
    try:
        Version(version or __version__)
    except InvalidVersion as error:
        raise ExportError(f"version {version!r} is no PEP 440 version; give one such as 1.2.0 or 1.3rc1") from error


def _export_classifier(options: ExportOptions, checkpoint: Checkpoint | None, on_step: ReportStep) -> ExportedBundle:
    formats = parse_formats(options.formats or ("onnx-fp32" if options.corpus is None else None))
    require_writable(options.out)
    if options.sign is not None:
        require_key(options.sign)
    checkpoint = checkpoint or untrained_checkpoint(options.model, size=options.size)
    data = None
    if options.corpus is not None and options.root is not None:
        on_step(f"reading the cycles of {options.corpus}")
        data = gather_cycles(checkpoint, options.corpus, options.root)
    artefacts = make_artefacts(
        checkpoint,
        formats,
        data,
        on_step,
        untrained=options.untrained,
        features_graph=options.features_graph,
        fixed=options.fixed,
    )
    on_step("writing the bundle")
    manifest = assemble(
        checkpoint,
        artefacts,
        options.out,
        name=options.name or options.out.resolve().name,
        **({} if options.version is None else {"version": options.version}),
        untrained=options.untrained,
        fixed=options.fixed,
        segmenter=options.segmenter,
        verdict=options.verdict,
        cross_validation=options.cross_validation,
    )
    if options.sign is not None:
        sign_bundle(options.out, options.sign)
    made: list[Path] = []
    for row in formats:
        if row.made_from == "bundle":
            on_step(f"{row.name}: building")
            module, _, function = row.builder.partition(":")
            made += getattr(import_module(module), function)(options.out, on_step)
    return ExportedBundle(manifest, made)


def _export_part(options: ExportOptions, model: str, on_step: ReportStep) -> Manifest:
    """Write the classifier of the base bundle and the segmenter or the verdict of the checkpoint as one bundle."""
    twice = (options.segmenter and model == "segmenter") or (options.verdict and model == "adventitious")
    if options.formats or options.corpus or options.fixed or options.features_graph or twice:
        raise ExportError(
            f"{_PARTS[model]} is exported as the one step graph it is, with the figures of its run; leave --formats, "
            f"--corpus, --root, --fix, --features-graph and a second {model} out"
        )
    require_writable(options.out)
    if options.sign is not None:
        require_key(options.sign)
    on_step("exporting the step graph")
    folder = resolve_bundle(options.base)
    segmenter, verdict = options.segmenter, options.verdict
    if model == "segmenter":
        segmenter = Path(options.model)
    else:
        verdict = Path(options.model)
    manifest = with_parts(
        folder,
        options.out,
        segmenter=segmenter,
        verdict=verdict,
        name=options.name,
        version=options.version or __version__,
        segmenter_cv=options.cross_validation if model == "segmenter" else None,
        classifier_cv=options.cross_validation if model != "segmenter" else None,
    )
    if options.sign is not None:
        sign_bundle(options.out, options.sign)
    return manifest
