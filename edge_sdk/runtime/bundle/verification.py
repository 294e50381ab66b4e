"""Verification of a bundle: hashes, signature, version, golden vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_sdk.errors import BundleError, StethoError
from edge_sdk.protocols import Engine
from edge_sdk.runtime.bundle.files import BundleCheck, file_inside, hash_check
from edge_sdk.runtime.bundle.manifest import (
    front_end,
    metadata_schema,
    read_manifest,
    resolve_bundle,
    segmenter_file,
    settings,
)
from edge_sdk.runtime.bundle.schema import MANIFEST, ArtefactEntry, Manifest, VerdictEntry
from edge_sdk.runtime.bundle.signature import (
    TrustedKey,
    check_signature,
    check_version,
    describe_signature,
    trusted_keys,
)
from edge_sdk.runtime.bundle.verdict_part import verdict_check, verdict_model
from edge_sdk.runtime.engines.onnx import OrtEngine
from edge_sdk.runtime.segmentation.factory import LearnedFactory, segmenter_factory


def verify_bundle(path: str | Path | None = None, trusted: Sequence[Path] | None = None) -> list[BundleCheck]:
    """Check everything in a bundle, past failures too: signature, version, hashes, engines, golden vectors.

    Parameters
    ----------
    path, trusted
        As in :func:`load_bundle`. The version is not recorded.

    Raises
    ------
    BundleError
        There is no bundle, or its manifest cannot be read; anything less is a failed :class:`BundleCheck`.
    """
    folder = resolve_bundle(path)
    keys = trusted_keys(trusted)
    manifest = read_manifest(folder)
    checks = [BundleCheck(MANIFEST, True, f"schema {manifest.schema}, {manifest.name} {manifest.version}")]
    checks.append(_attempt("signature", partial(_signature_check, folder, keys)))
    if keys:
        checks.append(_attempt("version", partial(_version_check, manifest)))
    checks += file_checks(folder, manifest)
    checks += [_attempt(f"golden {a.format}", partial(_golden_of, folder, manifest, a)) for a in manifest.artefacts]
    if manifest.segmenter.kind == "learned":
        checks.append(_attempt("golden segmenter", partial(_segmenter_of, folder, manifest)))
    if not isinstance(manifest.verdict, msgspec.UnsetType):
        checks.append(_attempt("golden verdict", partial(_verdict_of, folder, manifest.verdict)))
    card = folder / manifest.model_card
    checks.append(
        BundleCheck(f"model card {manifest.model_card}", card.is_file(), "present" if card.is_file() else "missing")
    )
    return checks


def file_checks(folder: Path, manifest: Manifest) -> list[BundleCheck]:
    """Check the sha256 of every file that a manifest names."""
    files = {a.file: a.sha256 for a in manifest.artefacts} | {manifest.golden.file: manifest.golden.sha256}
    if manifest.segmenter.file:
        files[manifest.segmenter.file] = manifest.segmenter.sha256 or ""
    if not isinstance(manifest.verdict, msgspec.UnsetType):
        files[manifest.verdict.file] = manifest.verdict.sha256
    files |= {a.features.file: a.features.sha256 for a in manifest.artefacts if a.features is not msgspec.UNSET}
    files |= manifest.files
    return [_attempt(f"sha256 {n}", partial(hash_check, folder, n, digest)) for n, digest in files.items()]


def golden_check(
    folder: Path, manifest: Manifest, entry: ArtefactEntry, engine: Engine, allowed: float | None = None
) -> BundleCheck:
    """Run the golden vector on an engine and compare its logits; ``allowed`` replaces the bundle's tolerance."""
    golden, form = manifest.golden, entry.format
    name = f"golden {form}"
    try:
        inputs, expected = golden_vector(folder, manifest, entry)
    except BundleError as error:
        return BundleCheck(name, False, str(error))
    outputs = engine.run(inputs)
    if entry.output not in outputs:
        return BundleCheck(name, False, f"{folder}: {form} has no output {entry.output!r}; export the bundle again")
    found = outputs[entry.output]
    tolerance = golden.tolerance.get(form, 1e-3) if allowed is None else allowed
    error_max = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
    ok = error_max <= tolerance  # NaN compares false, as it should
    if ok:
        return BundleCheck(name, True, f"largest difference {error_max:.2g} (allowed {tolerance:g})")
    return BundleCheck(
        name, False,
        f"{folder}: the golden vector of {form} comes out {error_max:.3g} off (allowed {tolerance:g}) on "
        f"{engine.name}; this engine does not compute the model correctly: use another artefact or engine",
    )  # fmt: skip


def golden_vector(folder: Path, manifest: Manifest, entry: ArtefactEntry) -> tuple[dict[str, Any], Any]:
    """Inputs of the golden vector by name, and the logits ``[k, K]`` that an artefact gives for them.

    Raises
    ------
    BundleError
        The file is missing or does not hold them.
    """
    golden, form = manifest.golden, entry.format
    metadata = metadata_schema(folder, manifest)
    try:
        with np.load(file_inside(folder, golden.file), allow_pickle=False) as arrays:
            inputs = {entry.input: arrays["pcm"].astype(np.float32) / 32768}
            if metadata is not None:
                inputs |= {key: arrays[f"metadata_{key}"] for key in metadata.inputs}
            return inputs, arrays[f"logits_{form.replace('-', '_')}"]
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(
            f"{folder}: {golden.file} is not a golden vector of {form} ({error}); export again"
        ) from error


def segmenter_check(folder: Path, manifest: Manifest, segmenter: LearnedFactory) -> BundleCheck:
    """Run a learned segmenter on its golden signal and compare the outputs."""
    entry, step = manifest.segmenter, manifest.segmenter.step
    if isinstance(step, msgspec.UnsetType) or not step.golden:
        return BundleCheck("golden segmenter", True, "the bundle holds none")
    found, expected = np.array(segmenter.golden()), np.array(step.golden)
    error = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
    if error <= step.golden_tolerance:
        detail = f"largest difference {error:.2g} (allowed {step.golden_tolerance:g})"
        return BundleCheck("golden segmenter", True, detail)
    return BundleCheck(
        "golden segmenter", False,
        f"{folder}: {entry.file} comes out {error:.3g} off (allowed {step.golden_tolerance:g}); this engine does not "
        "compute the segmenter correctly: upgrade onnxruntime or export the bundle again",
    )  # fmt: skip


def _segmenter_of(folder: Path, manifest: Manifest) -> BundleCheck:
    entry = manifest.segmenter
    factory = segmenter_factory(entry, settings(folder, manifest)[0], segmenter_file(folder, entry))
    assert isinstance(factory, LearnedFactory)
    return segmenter_check(folder, manifest, factory)


def _verdict_of(folder: Path, entry: VerdictEntry) -> BundleCheck:
    return verdict_check(folder, entry, verdict_model(folder, entry))


def _signature_check(folder: Path, keys: Sequence[TrustedKey]) -> BundleCheck:
    if not keys:
        return BundleCheck("signature", True, describe_signature(folder))
    key = check_signature(folder, (folder / MANIFEST).read_bytes(), keys)
    return BundleCheck("signature", True, f"by {key.name} {key.key_id}")


def _version_check(manifest: Manifest) -> BundleCheck:
    check_version(manifest.name, manifest.version)
    return BundleCheck("version", True, f"{manifest.version} is not older than what this device has run")


def _golden_of(folder: Path, manifest: Manifest, entry: ArtefactEntry) -> BundleCheck:
    engine = OrtEngine(file_inside(folder, entry.file))
    front_end(folder, entry)
    settings(folder, manifest)
    schema = metadata_schema(folder, manifest)
    metadata = schema.inputs if schema is not None else ()
    if list(engine.inputs) != [entry.input, *metadata] or list(engine.outputs) != [entry.output]:
        found = f"{list(engine.inputs)} → {list(engine.outputs)}"
        return BundleCheck(f"signature {entry.format}", False, f"{entry.file}: is {found}; export the bundle again")
    return golden_check(folder, manifest, entry, engine)


def _attempt(name: str, check: Callable[[], BundleCheck]) -> BundleCheck:
    try:
        return check()
    except StethoError as error:
        return BundleCheck(name, False, str(error))
