"""Puts measured artefacts, golden vector and model card into one bundle directory."""

from __future__ import annotations

import datetime as dt
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edge_sdk import __version__
from edge_sdk.errors import BundleError
from edge_sdk.notices import RESEARCH_USE_IN_BUNDLES
from edge_sdk.runtime.bundle.files import hash_check, require
from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE, read_manifest, write_bundle
from edge_sdk.runtime.bundle.schema import MANIFEST, ArtefactEntry, FeaturesEntry, Golden, Manifest, SegmenterEntry
from edge_sdk.training.checkpoint import Checkpoint
from export.documents.card import model_card
from export.documents.sbom import SBOM_FILE, sbom
from export.golden import golden_clips, golden_file, golden_metadata
from export.model import ModelUnderExport
from export.pipeline import Artefact
from export.segmenter_part import SegmenterPart, segmenter_part, with_cross_validation
from export.training_record import classifier_record, read_cross_validation, training_record, without_folders
from export.verdict_part import VerdictPart, verdict_part

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
    verdict: Path | None = None,
    cross_validation: Path | None = None,
) -> Manifest:
    """Write the bundle, whole or not at all, and return its manifest.

    Parameters
    ----------
    checkpoint
        Source of the artefacts.
    artefacts
        From :func:`export.pipeline.make_artefacts`.
    out
        Directory of the bundle; a bundle already there is replaced.
    name, version
        Name and version of the bundle.
    untrained
        Mark the weights as random.
    default_format
        Artefact that is loaded by default; absent: the smallest verified one, else the first.
    fixed
        Metadata that was built into the network.
    segmenter
        Checkpoint or step graph of a learned segmenter; absent: a copy of the default bundle's.
    verdict
        Checkpoint of the network of crackles and wheezes, calibrated; absent: the bundle gives no verdicts.
    cross_validation
        ``cv.json`` of the classifier's recipe; its figures go into the manifest and the card.

    Raises
    ------
    BundleError
        ``out`` exists and is not a bundle, or cannot be written.
    ExportError, CheckpointError
        The file of the segmenter or the verdict does not exist or does not hold one.
    """
    model = ModelUnderExport(checkpoint, fixed)
    part = segmenter_part(segmenter) if segmenter is not None else _default_segmenter()
    judge = None if verdict is None else verdict_part(verdict)
    validated: dict[str, Any] = {}
    if cross_validation is not None:
        report = read_cross_validation(cross_validation, str(checkpoint.recipe.get("name", checkpoint.model)))
        validated = {"cross_validation": classifier_record(report)}
    chosen = default_format or _best(artefacts).format.name
    golden = _golden(model, artefacts)
    manifest = Manifest(
        name=name,
        version=version,
        created=_today(),
        sdk_version=__version__,
        description=_description(checkpoint),
        research_use=RESEARCH_USE_IN_BUNDLES,
        untrained=untrained,
        labels=list(checkpoint.labels),
        decoder=model.decoder,
        metadata=model.schema.to_dict() if model.schema is not None else {},
        artefacts=[_entry(checkpoint, a, default=a.format.name == chosen) for a in artefacts],
        segmenter=part.entry,
        verdict=msgspec.UNSET if judge is None else judge.entry,
        golden=Golden(
            file=GOLDEN_FILE,
            sha256=hashlib.sha256(golden).hexdigest(),
            tolerance={a.format.name: a.format.golden_tolerance for a in artefacts},
        ),
        model_card=CARD_FILE,
        training=_with_verdict_training(_training(checkpoint, fixed, part), judge) | validated,
    )
    files = {GOLDEN_FILE: golden, **_artefact_files(artefacts), **_segmenter_files(part)}
    return _write(manifest, files | _verdict_files(judge), out)


def with_parts(
    base: Path,
    out: Path,
    *,
    segmenter: Path | None = None,
    verdict: Path | None = None,
    name: str | None = None,
    version: str,
    segmenter_cv: Path | None = None,
    classifier_cv: Path | None = None,
) -> Manifest:
    """Write a bundle with the classifier of another bundle and a new segmenter, a new verdict, or both.

    Parameters
    ----------
    base
        Bundle whose artefacts and golden vector are copied, byte for byte, and every part that is not replaced.
    out
        Directory of the new bundle; may be ``base``.
    segmenter
        Checkpoint or step graph.
    verdict
        Checkpoint of the network of crackles and wheezes, calibrated with this classifier and segmenter.
    name
        Name of the new bundle; that of ``base`` where absent.
    version
        Version of the new bundle.
    segmenter_cv, classifier_cv
        ``cv.json`` of the recipe of the segmenter, and of that of the classifier of ``base``.

    Raises
    ------
    BundleError
        ``base`` is damaged, or ``out`` is not a bundle or cannot be written.
    ExportError, CheckpointError
        The file of the segmenter or the verdict does not exist or does not hold one.
    """
    old = read_manifest(base)
    part = _kept_segmenter(base, old) if segmenter is None else segmenter_part(segmenter)
    if segmenter_cv is not None:
        part = with_cross_validation(part, segmenter_cv)
    own = _own(old.training)
    if classifier_cv is not None:
        recipe = str((own.get("recipe") or {}).get("name", own.get("model")))
        own["cross_validation"] = classifier_record(read_cross_validation(classifier_cv, recipe))
    judge = _kept_verdict(base, old) if verdict is None else verdict_part(verdict)
    copied = {a.file: a.sha256 for a in old.artefacts} | {old.golden.file: old.golden.sha256}
    copied |= {a.features.file: a.features.sha256 for a in old.artefacts if a.features}
    for file, digest in copied.items():
        require(hash_check(base, file, digest))
    manifest = msgspec.structs.replace(
        old,
        name=name or old.name,
        version=version,
        created=_today(),
        sdk_version=__version__,
        segmenter=part.entry,
        verdict=msgspec.UNSET if judge is None else judge.entry,
        files={},
        model_card=CARD_FILE,
        training=_with_verdict_training(_with_segmenter_training(own, part), judge),
    )
    files = {file: (base / file).read_bytes() for file in copied} | _segmenter_files(part) | _verdict_files(judge)
    return _write(manifest, files, out)


def rewrite(base: Path, manifest: Manifest, files: Mapping[str, bytes], out: Path) -> Manifest:
    """Write a bundle with new or changed files; every other file of ``base`` that the manifest names is copied.

    Raises
    ------
    BundleError
        ``base`` is damaged, or ``out`` is not a bundle or cannot be written.
    """
    named = {a.file: a.sha256 for a in manifest.artefacts}
    named |= {a.features.file: a.features.sha256 for a in manifest.artefacts if a.features}
    if manifest.segmenter.file is not None:
        named[manifest.segmenter.file] = manifest.segmenter.sha256 or ""
    if not isinstance(manifest.verdict, msgspec.UnsetType):
        named[manifest.verdict.file] = manifest.verdict.sha256
    copied = {file: digest for file, digest in named.items() if file not in files}
    for file, digest in copied.items():
        require(hash_check(base, file, digest))
    kept = {file: (base / file).read_bytes() for file in copied}
    changed = msgspec.structs.replace(
        manifest, created=_today(), sdk_version=__version__, files={}, model_card=CARD_FILE
    )
    return _write(changed, kept | dict(files), out)


def _own(training: Mapping[str, Any]) -> dict[str, Any]:
    """The classifier's record, without those of the other parts."""
    return {key: value for key, value in training.items() if key not in ("segmenter", "verdict")}


def _kept_segmenter(base: Path, manifest: Manifest) -> SegmenterPart:
    entry = manifest.segmenter
    if entry.file is None:
        return SegmenterPart(entry, b"")
    require(hash_check(base, entry.file, entry.sha256 or ""))
    record = training_record(manifest.training.get("segmenter", {}))
    return SegmenterPart(entry, (base / entry.file).read_bytes(), record)


def _kept_verdict(base: Path, manifest: Manifest) -> VerdictPart | None:
    entry = manifest.verdict
    if isinstance(entry, msgspec.UnsetType):
        return None
    require(hash_check(base, entry.file, entry.sha256))
    record = training_record(manifest.training.get("verdict", {}))
    return VerdictPart(entry, (base / entry.file).read_bytes(), record)


def _write(manifest: Manifest, files: dict[str, bytes], out: Path) -> Manifest:
    """Add model card and bill of materials, and write all files."""
    files = files | {CARD_FILE: model_card(msgspec.to_builtins(manifest)).encode()}
    files[SBOM_FILE] = sbom(manifest, files)
    hashes = {name: hashlib.sha256(files[name]).hexdigest() for name in (CARD_FILE, SBOM_FILE)}
    manifest = msgspec.structs.replace(manifest, files=hashes)
    write_bundle(out, manifest, files)
    return manifest


def require_writable(out: Path) -> None:
    """Check before the work that a bundle can be written to ``out``.

    Raises
    ------
    BundleError
        ``out`` is a file or a folder that is not a bundle, or its folder is not writable.
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
    """The segmenter of the default bundle."""
    if not (DEFAULT_BUNDLE / MANIFEST).is_file():
        return SegmenterPart(SegmenterEntry(), b"")
    manifest = read_manifest(DEFAULT_BUNDLE)
    entry = manifest.segmenter
    if entry.kind != "learned" or entry.file is None:
        return SegmenterPart(SegmenterEntry(), b"")
    training = training_record(manifest.training.get("segmenter", {}))
    return SegmenterPart(entry, (DEFAULT_BUNDLE / entry.file).read_bytes(), training)


def _artefact_files(artefacts: Sequence[Artefact]) -> dict[str, bytes]:
    files = {a.format.file: a.content for a in artefacts}
    return files | {a.format.features_file: a.features for a in artefacts if a.features is not None}


def _segmenter_files(part: SegmenterPart) -> dict[str, bytes]:
    return {} if part.entry.file is None else {part.entry.file: part.content}


def _verdict_files(part: VerdictPart | None) -> dict[str, bytes]:
    return {} if part is None else {part.entry.file: part.content}


def _best(artefacts: Sequence[Artefact]) -> Artefact:
    """The smallest verified artefact, else the first."""
    verified = [a for a in artefacts if not a.failures]
    return min(verified, key=lambda a: len(a.content)) if verified else artefacts[0]


def _golden(model: ModelUnderExport, artefacts: Sequence[Artefact]) -> bytes:
    clips = golden_clips(model.checkpoint.front_end)
    return golden_file(
        clips,
        {a.format.name: a.golden_logits for a in artefacts},
        golden_metadata(model.schema, len(clips)) if model.schema is not None else None,
    )


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
    own = {"model": checkpoint.model, "size": checkpoint.size, "recipe": without_folders(checkpoint.recipe)}
    training = {**checkpoint.provenance, **own, **({"fixed_metadata": dict(fixed)} if fixed else {})}
    return _with_segmenter_training(training, part)


def _with_segmenter_training(training: Mapping[str, Any], part: SegmenterPart) -> dict[str, Any]:
    """The ``training`` object: the classifier's record, and the segmenter's in it, both of one form."""
    return training_record(training) | ({"segmenter": part.training} if part.training else {})


def _with_verdict_training(training: Mapping[str, Any], part: VerdictPart | None) -> dict[str, Any]:
    return {**training, **({"verdict": part.training} if part is not None and part.training else {})}


def _today() -> str:
    """ISO date, UTC."""
    return dt.datetime.now(dt.timezone.utc).date().isoformat()
