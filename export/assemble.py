"""Puts measured artefacts, golden vector and model card into one bundle directory."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edge_sdk import __version__
from edge_sdk.errors import BundleError
from edge_sdk.runtime.bundle.files import hash_check, require
from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE, read_manifest, write_bundle
from edge_sdk.runtime.bundle.schema import MANIFEST, ArtefactEntry, FeaturesEntry, Golden, Manifest, SegmenterEntry
from edge_sdk.training.checkpoint import Checkpoint
from export.card import model_card
from export.golden import golden_clips, golden_file, golden_metadata
from export.pipeline import RESEARCH_USE, Artefact, Subject, decoder_of, today
from export.sbom import FILE as SBOM_FILE
from export.sbom import sbom
from export.segmenter import SegmenterPart, segmenter_part

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
        Checkpoint or step graph of a learned segmenter. Without one the bundle gets a copy of the default bundle's.

    Raises
    ------
    BundleError
        ``out`` exists and is no bundle, or cannot be written.
    ExportError, CheckpointError
        The segmenter is not there, or is none.
    """
    schema = Subject(checkpoint, fixed).schema
    part = segmenter_part(segmenter) if segmenter is not None else _default_segmenter()
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
        segmenter=part.entry,
        golden=Golden(
            file=GOLDEN_FILE,
            sha256=hashlib.sha256(golden).hexdigest(),
            tolerance={a.format.name: a.format.golden_tolerance for a in artefacts},
        ),
        model_card=CARD_FILE,
        training=_training(checkpoint, fixed, part),
    )
    files = {a.format.file: a.content for a in artefacts} | _segmenter_files(part)
    files |= {a.format.features_file: a.features for a in artefacts if a.features is not None}
    return _write(manifest, files | {GOLDEN_FILE: golden}, out)


def with_segmenter(base: Path, segmenter: Path, out: Path, *, name: str | None = None, version: str) -> Manifest:
    """Write a bundle with the classifier of another one and a segmenter of its own.

    Parameters
    ----------
    base
        Bundle whose artefacts and golden vector are taken over, byte for byte.
    segmenter
        Checkpoint or step graph.
    out
        The bundle's directory; may be ``base``.
    name
        Of the bundle; that of ``base`` where absent.
    version
        Of the bundle.

    Raises
    ------
    BundleError
        ``base`` is damaged, or ``out`` is no bundle or cannot be written.
    ExportError, CheckpointError
        The segmenter is not there, or is none.
    """
    old = read_manifest(base)
    part = segmenter_part(segmenter)
    taken = {a.file: a.sha256 for a in old.artefacts} | {old.golden.file: old.golden.sha256}
    taken |= {a.features.file: a.features.sha256 for a in old.artefacts if a.features}
    for file, digest in taken.items():
        require(hash_check(base, file, digest))
    manifest = msgspec.structs.replace(
        old,
        name=name or old.name,
        version=version,
        created=today(),
        sdk_version=__version__,
        segmenter=part.entry,
        files={},
        model_card=CARD_FILE,
        training={**{k: v for k, v in old.training.items() if k != "segmenter"}, **_told_of(part)},
    )
    files = {file: (base / file).read_bytes() for file in taken} | _segmenter_files(part)
    return _write(manifest, files, out)


def _write(manifest: Manifest, files: dict[str, bytes], out: Path) -> Manifest:
    """Add model card and bill of materials, and write it all."""
    files = files | {CARD_FILE: model_card(msgspec.to_builtins(manifest)).encode()}
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


def _default_segmenter() -> SegmenterPart:
    """What the default bundle has."""
    if not (DEFAULT_BUNDLE / MANIFEST).is_file():
        return SegmenterPart(SegmenterEntry(), b"")
    manifest = read_manifest(DEFAULT_BUNDLE)
    entry = manifest.segmenter
    if entry.kind != "learned" or entry.file is None:
        return SegmenterPart(SegmenterEntry(), b"")
    return SegmenterPart(entry, (DEFAULT_BUNDLE / entry.file).read_bytes(), manifest.training.get("segmenter", {}))


def _segmenter_files(part: SegmenterPart) -> dict[str, bytes]:
    return {} if part.entry.file is None else {part.entry.file: part.content}


def _told_of(part: SegmenterPart) -> dict[str, Any]:
    return {"segmenter": part.training} if part.training else {}


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


def _training(checkpoint: Checkpoint, fixed: Mapping[str, Any] | None, part: SegmenterPart) -> dict[str, Any]:
    own = {"model": checkpoint.model, "size": checkpoint.size, "recipe": checkpoint.recipe}
    return {**checkpoint.provenance, **own, **({"fixed_metadata": dict(fixed)} if fixed else {}), **_told_of(part)}
