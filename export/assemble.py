"""Puts measured artefacts, golden vector and model card into one bundle directory."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edge_sdk import __version__
from edge_sdk.errors import BundleError, ExportError
from edge_sdk.runtime.bundle import DEFAULT_BUNDLE, read_manifest, write_bundle
from edge_sdk.runtime.schema import MANIFEST, ArtefactEntry, FeaturesEntry, Golden, Manifest, SegmenterEntry
from edge_sdk.runtime.segmenters import SEGMENTER_FILE, describe_segmenter
from edge_sdk.training.checkpoint import Checkpoint
from export.card import model_card
from export.golden import golden_clips, golden_file, golden_metadata
from export.pipeline import RESEARCH_USE, Artefact, Subject, decoder_of, today
from export.sbom import FILE as SBOM_FILE
from export.sbom import sbom

GOLDEN_FILE = "golden.npz"
CARD_FILE = "MODEL_CARD.md"


def assemble(
    checkpoint: Checkpoint,
    artefacts: Sequence[Artefact],
    out: Path,
    *,
    name: str,
    version: str = __version__,
    untrained: bool = False,
    default_format: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    segmenter: Path | None = None,
) -> Manifest:
    """Write the bundle, whole or not at all, and give back its manifest.

    Parameters
    ----------
    checkpoint
        What the artefacts were made from.
    artefacts
        From :func:`export.pipeline.make_artefacts`.
    out
        The bundle's directory; a bundle already there is replaced.
    name, version
        Of the bundle.
    untrained
        Mark the weights as random.
    default_format
        Artefact that is loaded unless another is asked for. Without one: the smallest verified artefact, else the
        first.
    fixed
        Metadata that was built into the network.
    segmenter
        Step graph of a learned segmenter. Without one the bundle gets a copy of the default bundle's.

    Raises
    ------
    BundleError
        ``out`` exists and is no bundle, or cannot be written.
    """
    schema = Subject(checkpoint, fixed).schema
    segmenter_entry, segmenter_files = _segmenter(segmenter)
    verified = [a for a in artefacts if not a.failures]
    chosen = default_format or (min(verified, key=lambda a: len(a.content)) if verified else artefacts[0]).format.name
    clips = golden_clips(checkpoint.front_end)
    golden = golden_file(
        clips,
        {a.format.name: a.golden_logits for a in artefacts},
        golden_metadata(schema, len(clips)) if schema is not None else None,
    )
    manifest = Manifest(
        name=name,
        version=version,
        created=today(),
        sdk_version=__version__,
        description=_description(checkpoint),
        research_use=RESEARCH_USE,
        untrained=untrained,
        labels=list(checkpoint.labels),
        decoder=decoder_of(checkpoint),
        metadata=schema.to_dict() if schema is not None else {},
        artefacts=[_entry(checkpoint, a, default=a.format.name == chosen) for a in artefacts],
        segmenter=segmenter_entry,
        golden=Golden(
            file=GOLDEN_FILE,
            sha256=hashlib.sha256(golden).hexdigest(),
            tolerance={a.format.name: a.format.golden_tolerance for a in artefacts},
        ),
        model_card=CARD_FILE,
        training=_training(checkpoint) | ({"fixed_metadata": dict(fixed)} if fixed else {}),
    )
    files = {a.format.file: a.content for a in artefacts} | segmenter_files
    files |= {a.format.features_file: a.features for a in artefacts if a.features is not None}
    files |= {GOLDEN_FILE: golden, CARD_FILE: model_card(msgspec.to_builtins(manifest)).encode()}
    files[SBOM_FILE] = sbom(manifest, files)
    told = {name: hashlib.sha256(files[name]).hexdigest() for name in (CARD_FILE, SBOM_FILE)}
    manifest = msgspec.structs.replace(manifest, files=told)
    write_bundle(out, manifest, files)
    return manifest


def require_writable(out: Path) -> None:
    """Ask before the work, not after it, whether a bundle can be written there.

    Raises
    ------
    BundleError
        It cannot: a file is in the way, a folder that is no bundle, or a folder that one may not write to.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).is_file())):
        raise BundleError(f"{out} exists and is not a bundle; give another --out or remove it")
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.absolute().parent):
            pass
    except OSError as error:
        raise BundleError(f"cannot write {out} ({error.strerror}); choose a folder that you may write to") from error


def _segmenter(path: Path | None) -> tuple[SegmenterEntry, dict[str, bytes]]:
    """The manifest's entry and its file: the graph given, else what the default bundle has."""
    if path is not None:
        if not path.is_file():
            raise ExportError(f"segmenter {path} does not exist; give the step graph of a trained segmenter")
        return describe_segmenter(path), {SEGMENTER_FILE: path.read_bytes()}
    entry = read_manifest(DEFAULT_BUNDLE).segmenter if (DEFAULT_BUNDLE / MANIFEST).is_file() else SegmenterEntry()
    if entry.kind != "learned" or entry.file is None:
        return SegmenterEntry(), {}
    return entry, {entry.file: (DEFAULT_BUNDLE / entry.file).read_bytes()}


def _entry(checkpoint: Checkpoint, artefact: Artefact, *, default: bool) -> ArtefactEntry:
    return ArtefactEntry(
        file=artefact.format.file,
        features=_features_entry(artefact),
        format=artefact.format.name,
        precision=artefact.format.precision,
        sha256=hashlib.sha256(artefact.content).hexdigest(),
        bytes=len(artefact.content),
        front_end=checkpoint.front_end.to_dict(),
        default=default,
        verified=not artefact.failures,
        failures=list(artefact.failures),
        parity=artefact.parity,
        accuracy=artefact.accuracy,
    )


def _features_entry(artefact: Artefact) -> FeaturesEntry | msgspec.UnsetType:
    content = artefact.features
    if content is None:
        return msgspec.UNSET
    return FeaturesEntry(
        file=artefact.format.features_file, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content)
    )


def _description(checkpoint: Checkpoint) -> str:
    title = checkpoint.recipe.get("title") or checkpoint.model
    return f"{title} ({checkpoint.model}, size {checkpoint.size}): one breath → {', '.join(checkpoint.labels)}."


def _training(checkpoint: Checkpoint) -> dict[str, Any]:
    return {**checkpoint.provenance, "model": checkpoint.model, "size": checkpoint.size, "recipe": checkpoint.recipe}
