"""Makes keys and signs bundles; ``edge_sdk.runtime.bundle.signature`` checks them."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from edge_sdk.errors import BundleError, ExportError
from edge_sdk.files import write_whole
from edge_sdk.runtime.bundle.engine_trust import engine_content
from edge_sdk.runtime.bundle.load import file_checks, read_manifest
from edge_sdk.runtime.bundle.schema import MANIFEST
from edge_sdk.runtime.bundle.signature import SIGNATURE, TrustedKey, ed25519, signature_file, signed_content


def make_key(path: Path, name: str | None = None) -> TrustedKey:
    """Write a new private key to ``path`` (PEM, readable by its owner only) and the public one to ``path.pub``.

    Raises
    ------
    ExportError
        One of the files exists or cannot be written.
    MissingDependencyError
        ``cryptography`` is not installed.
    """
    private = ed25519().Ed25519PrivateKey.generate()
    from cryptography.hazmat.primitives import serialization as s

    public_path = path.with_name(path.name + ".pub")
    if path.exists() or public_path.exists():
        raise ExportError(f"{path} exists already; a key is never overwritten: give another name")
    pem = private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    key = TrustedKey(_public(private), name or path.stem)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(pem)
        public_path.write_text(key.line + "\n", "utf-8")
    except OSError as error:
        raise ExportError(f"cannot write the key to {path} ({error.strerror or error})") from error
    return key


def sign_bundle(folder: Path, key_file: Path, name: str | None = None) -> TrustedKey:
    """Check a bundle's files against its manifest, sign it, and return the key that devices must trust.

    Parameters
    ----------
    folder
        A written bundle; a signature already there is replaced.
    key_file
        Private key: PEM of :func:`make_key` or of ``openssl genpkey -algorithm ed25519``.
    name
        Name of the key in messages; that of the file where absent.

    Raises
    ------
    ExportError
        The key is missing, of another kind or encrypted, or the bundle cannot be written.
    BundleError
        The folder is not a bundle, or a file is missing or changed.
    """
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} is not a bundle (no {MANIFEST} in it); give a directory made by 'stetho export'")
    manifest = (folder / MANIFEST).read_bytes()
    failed = [check for check in file_checks(folder, read_manifest(folder)) if not check.ok]
    if failed:
        raise BundleError(f"{failed[0].detail}; a damaged bundle is not signed")
    private = _read_key(key_file)
    key = TrustedKey(_public(private), name or key_file.stem)
    content = signature_file(key, private.sign(signed_content(manifest)))
    if (folder / MANIFEST).read_bytes() != manifest:
        raise BundleError(f"{folder / MANIFEST} changed while it was signed; sign it again")
    try:
        write_whole(folder / SIGNATURE, content)
        (folder / SIGNATURE).chmod(0o644)
    except OSError as error:
        raise ExportError(f"cannot write {folder / SIGNATURE} ({error.strerror or error})") from error
    return key


SignEngine: TypeAlias = Callable[[str, Mapping[str, Any]], dict[str, Any]]
"""sha256 and key of an engine → fields of its sidecar."""


def engine_signer(key_file: Path, manifest: bytes) -> SignEngine:
    """Sign engines of one bundle with a private key, for every device of their kind that trusts it.

    Raises
    ------
    ExportError
        The key is missing, of another kind or encrypted.
    """
    private = _read_key(key_file)
    key_id = TrustedKey(_public(private), key_file.stem).key_id
    bundle = hashlib.sha256(manifest).hexdigest()

    def sign(sha256: str, key: Mapping[str, Any]) -> dict[str, Any]:
        signature = base64.b64encode(private.sign(engine_content(sha256, key, bundle))).decode()
        return {"manifest_sha256": bundle, "signature": {"key_id": key_id, "signature": signature}}

    return sign


def require_key(path: Path) -> None:
    """Check before the work that a private key can sign.

    Raises
    ------
    ExportError
        The key is missing, of another kind, or encrypted.
    """
    _read_key(path)


def _read_key(path: Path) -> Any:
    module = ed25519()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ExportError(
            f"{path} is not a readable private key ({error}); make one with 'stetho keys new {path}'"
        ) from error
    if not isinstance(private, module.Ed25519PrivateKey):
        raise ExportError(f"{path} is not an ed25519 key; make one with 'stetho keys new FILE'")
    return private


def _public(private: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    return bytes(private.public_key().public_bytes(s.Encoding.Raw, s.PublicFormat.Raw))
