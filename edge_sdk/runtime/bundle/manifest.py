"""Reading ``bundle.json``: parsed, checked, and turned into the settings of the runtime."""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edge_sdk.errors import BundleError
from edge_sdk.metadata import MetadataSchema
from edge_sdk.runtime.bundle.files import file_inside
from edge_sdk.runtime.bundle.schema import MANIFEST, SCHEMA, ArtefactEntry, Manifest, SegmenterEntry, decode_manifest
from edge_sdk.runtime.bundle.signature import TrustedKey, check_signature
from edge_sdk.runtime.decoding import MULTILABEL, decoder_problem
from edge_sdk.runtime.quality import QualityParams
from edge_sdk.runtime.segmentation.factory import SegmenterParams, segmenter_params
from edge_sdk.signal.spec import FrontEndSpec

_PACKAGED = Path(__file__).resolve().parents[2] / "bundles"
"""Bundles in the wheel: ``default`` for small devices, ``standard`` with a larger classifier."""

DEFAULT_BUNDLE = _PACKAGED / "default"
"""The bundle that is taken where none is named."""


def packaged_bundles() -> tuple[str, ...]:
    """Names of the bundles in the wheel, which go before folders of the same name."""
    return tuple(sorted(path.parent.name for path in _PACKAGED.glob(f"*/{MANIFEST}")))


def resolve_bundle(path: str | Path | None) -> Path:
    """Directory that a bundle argument names; raises ``BundleError`` when there is none."""
    names = packaged_bundles()
    folder = DEFAULT_BUNDLE if path is None else _PACKAGED / str(path) if str(path) in names else Path(path)
    if not folder.exists():
        raise BundleError(
            f"bundle {folder} does not exist; give a directory made by 'stetho export', or one of {', '.join(names)}"
        )
    if not folder.is_dir() or not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} is not a bundle (no {MANIFEST} in it); give a directory made by 'stetho export'")
    return folder


def read_manifest(folder: Path, keys: Sequence[TrustedKey] = ()) -> Manifest:
    """Read and check ``bundle.json``, its signature first where there are keys; no other file is opened.

    Raises
    ------
    BundleError
        It is unreadable, inconsistent, from a newer SDK, or not signed by one of ``keys``.
    """
    try:
        text = (folder / MANIFEST).read_bytes()
        if keys:
            check_signature(folder, text, keys)
        text = text.removeprefix(codecs.BOM_UTF8)  # an editor's; msgspec does not read it
        raw = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(
            f"{folder / MANIFEST} is not readable JSON ({error}); copy or export the bundle again"
        ) from error
    if not isinstance(raw, dict) or not isinstance(raw.get("schema"), int):
        raise BundleError(f"{folder / MANIFEST} has no schema number; export the bundle again")
    if raw["schema"] > SCHEMA:
        raise BundleError(
            f"{folder} was made by a newer SDK (schema {raw['schema']}, this SDK reads {SCHEMA}); "
            "upgrade stethoscope-edge-sdk"
        )
    try:
        manifest = decode_manifest(text)
    except msgspec.DecodeError as error:
        raise BundleError(f"{folder / MANIFEST}: {error}; export the bundle again") from error
    _check_consistency(folder, manifest)
    return manifest


def _check_consistency(folder: Path, manifest: Manifest) -> None:
    labels, decoder = manifest.labels, manifest.decoder
    problem = None
    if len(set(labels)) != len(labels) or len(labels) < 2:
        problem = "labels must be two or more different names"
    elif not manifest.artefacts:
        problem = "it lists no artefact"
    else:
        problem = decoder_problem(decoder, labels)
    entry = manifest.verdict
    joins = not isinstance(entry, msgspec.UnsetType) and not isinstance(entry.breaths, msgspec.UnsetType)
    if not problem and joins and tuple(labels) != MULTILABEL:
        problem = f"verdict: breaths needs the labels {', '.join(MULTILABEL)}, not {', '.join(labels)}"
    if problem:
        raise BundleError(f"{folder / MANIFEST}: {problem}; export the bundle again")


def choose_artefact(folder: Path, manifest: Manifest, wanted: str | None) -> ArtefactEntry:
    """Artefact of a format, or the default one; raises ``BundleError`` where there is none."""
    if wanted is None:
        return next((a for a in manifest.artefacts if a.default), manifest.artefacts[0])
    for entry in manifest.artefacts:
        if entry.format == wanted:
            return entry
    have = ", ".join(a.format for a in manifest.artefacts)
    raise BundleError(f"{folder} holds no artefact {wanted!r}; it holds {have}")


def metadata_schema(folder: Path, manifest: Manifest) -> MetadataSchema | None:
    """Metadata inputs of the model; raises ``BundleError`` where they cannot be read."""
    try:
        return MetadataSchema.from_dict(manifest.metadata) if manifest.metadata else None
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(f"{folder / MANIFEST}: {error}; export the bundle again") from error


def front_end(folder: Path, entry: ArtefactEntry) -> FrontEndSpec:
    """Front end of an artefact; raises ``BundleError`` where this SDK does not support it."""
    try:
        return FrontEndSpec.from_dict(entry.front_end)
    except (ValueError, TypeError) as error:
        raise BundleError(f"{folder / MANIFEST}: {entry.file}: {error}; export the bundle again") from error


def settings(folder: Path, manifest: Manifest) -> tuple[SegmenterParams, QualityParams]:
    """Settings of segmenter and quality gate; raises ``BundleError`` where they are out of range."""
    try:
        if not 500 <= manifest.segmenter.rate_hz <= 192_000:
            raise ValueError(f"segmenter: rate_hz {manifest.segmenter.rate_hz} is out of range")
        return segmenter_params(manifest.segmenter), QualityParams.from_dict(manifest.quality)
    except ValueError as error:
        raise BundleError(f"{folder / MANIFEST}: {error}; export the bundle again") from error


def segmenter_file(folder: Path, entry: SegmenterEntry) -> Path | None:
    """Path of the step graph of a learned segmenter, else None; raises ``BundleError`` where it is missing."""
    if entry.kind == "learned" and not (entry.file and entry.sha256):
        raise BundleError(f"{folder / MANIFEST}: a learned segmenter without file and sha256; export the bundle again")
    return file_inside(folder, entry.file) if entry.file else None
