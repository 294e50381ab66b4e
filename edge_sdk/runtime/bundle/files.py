"""The files of a bundle: resolved inside it, verified by their sha256, and written all or none."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.digests import sha256_file
from edge_sdk.errors import BundleError
from edge_sdk.files import is_file
from edge_sdk.runtime.bundle.schema import MANIFEST, ArtefactEntry, Manifest, encode_manifest


@dataclass(frozen=True, slots=True)
class BundleCheck:
    """One verified property of a bundle."""

    name: str  # "sha256 classifier.int8.onnx", "golden onnx-int8-cpu", ...
    ok: bool
    detail: str


def file_inside(folder: Path, name: str) -> Path:
    """Path of a file of the bundle.

    The file itself may be a link, as in the caches of model hubs: its checksum in the manifest protects it.

    Raises
    ------
    BundleError
        The file is missing, or its name leads out of the bundle's directory.
    """
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise BundleError(
            f"{folder / MANIFEST} names {name!r}, which lies outside the bundle; do not trust this bundle"
        )
    if not is_file(path):
        raise BundleError(f"{folder} is incomplete: {name[:200]} is missing; copy or export the bundle again")
    return path


def require(check: BundleCheck) -> None:
    """Raise ``BundleError`` with the detail of a check that failed."""
    if not check.ok:
        raise BundleError(check.detail)


def hash_check(folder: Path, name: str, expected: str) -> BundleCheck:
    """Compare a file of the bundle with its sha256; raises ``BundleError`` where the file is missing."""
    found = sha256_file(file_inside(folder, name))
    ok = found == expected
    detail = (
        found[:16] if ok else f"{folder}: {name} does not match its sha256; re-run 'stetho export' or delete the bundle"
    )
    return BundleCheck(f"sha256 {name}", ok, detail)


def checked_file(folder: Path, entry: ArtefactEntry) -> Path:
    """Path of an artefact; raises ``BundleError`` where it is missing or does not match its sha256."""
    require(hash_check(folder, entry.file, entry.sha256))
    return file_inside(folder, entry.file)


def write_bundle(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Write a bundle completely or not at all; an existing one is replaced. ``$STETHO_AUDIT`` keeps a log of it.

    Parameters
    ----------
    folder
        Target directory. Its parent is created.
    manifest
        Must name exactly what ``files`` holds.
    files
        Name → content of every file but ``bundle.json``.

    Raises
    ------
    BundleError
        ``folder`` exists and is not a bundle, so it is not replaced; a name leads out of it; or it cannot be written.
    AuditError
        The bundle is written, but the audit log cannot be.
    """
    import tempfile

    from edge_sdk.audit import audit_log, file_facts

    if outside := [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise BundleError(f"{outside[0]!r} lies outside the bundle {folder}; give names relative to it")
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST).is_file())):
        raise BundleError(f"{folder} exists and is not a bundle; give another --out or remove it")
    replaced = file_facts([folder / MANIFEST])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise BundleError(f"cannot write {folder} ({error.strerror}); choose a folder that you may write to") from error
    try:
        for name, content in {**files, MANIFEST: encode_manifest(manifest)}.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(content)
        staging.chmod(0o755)  # mkdtemp creates it private
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.replace(old)
        staging.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise BundleError(f"cannot write {folder} ({error}); free some space or choose another folder") from error
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    if log := audit_log():
        written = {"bundle": str(folder), "name": manifest.name, "version": manifest.version}
        log.append("bundle-written", {**written, "files": file_facts([folder]), "replaced": replaced})
