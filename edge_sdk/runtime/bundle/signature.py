"""Signed bundles on the device: an ed25519 signature over ``bundle.json``, and protection against rollback.

``bundle.json`` holds the sha256 of every other file, so one signature covers the bundle. Nothing is enforced until a
trusted key is configured; from then on an unsigned bundle is refused like a changed one.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.digests import sha256
from edge_sdk.errors import BundleError, MissingDependencyError
from edge_sdk.files import own_folder, write_whole

if TYPE_CHECKING:
    from packaging.version import Version

SIGNATURE = "bundle.sig"
KEYS_VARIABLE = "STETHO_TRUSTED_KEYS"
"""Files of trusted keys, separated as in ``PATH``."""

_ALGORITHM = "ed25519"
_CONTEXT = b"stetho bundle 1\n"  # a signature made for anything else must not pass here


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key whose bundles may run."""

    public: bytes  # 32 bytes
    name: str  # from its file

    @property
    def key_id(self) -> str:
        """First 16 hex digits of the key's sha256."""
        return sha256(self.public)[:16]

    @property
    def line(self) -> str:
        """Line of the key in a file of trusted keys."""
        return f"{_ALGORITHM} {base64.b64encode(self.public).decode()} {self.name}"


def signed_content(manifest: bytes) -> bytes:
    """Bytes that are signed: a fixed prefix, then the exact bytes of ``bundle.json``."""
    return _CONTEXT + manifest


def signature_file(key: TrustedKey, signature: bytes) -> bytes:
    """Content of ``bundle.sig``, JSON."""
    fields = {
        "schema": 1,
        "algorithm": _ALGORITHM,
        "key_id": key.key_id,
        "signature": base64.b64encode(signature).decode(),
    }
    return json.dumps(fields, indent=2).encode() + b"\n"


def trusted_keys(files: Sequence[Path] | None = None) -> list[TrustedKey]:
    """Read the keys of ``files``, else of ``$STETHO_TRUSTED_KEYS``; without keys signatures are not enforced.

    Raises
    ------
    BundleError
        A file is missing or holds no key: a device configured to check signatures must not continue without.
    """
    if files is None:
        files = [Path(p) for p in os.environ.get(KEYS_VARIABLE, "").split(os.pathsep) if p]
    return [key for file in files for key in _read_keys(file)]


def check_signature(folder: Path, manifest: bytes, keys: Sequence[TrustedKey]) -> TrustedKey:
    """Check the signature of a bundle and return the trusted key that signed it.

    Parameters
    ----------
    folder
        The bundle's directory.
    manifest
        The bytes of ``bundle.json`` that will be used, so that the file cannot change in between.
    keys
        From :func:`trusted_keys`; at least one.

    Raises
    ------
    BundleError
        Unsigned, signed by someone else, or changed after it was signed.
    MissingDependencyError
        ``cryptography`` is not installed.
    """
    found = _read_signature(folder)
    if found is None:
        raise BundleError(
            f"{folder} is not signed, and trusted keys are configured; sign it with 'stetho keys sign', or unset "
            f"{KEYS_VARIABLE}"
        )
    key_id, signature = found
    key = next((k for k in keys if k.key_id == key_id), None)
    if key is None:
        trusted = ", ".join(f"{k.name} {k.key_id}" for k in keys)
        raise BundleError(
            f"{folder} is signed by key {key_id}, which is not trusted here (trusted: {trusted}); do not use this "
            "bundle, or add its maker's public key"
        )
    if not is_valid_signature(key.public, signature, signed_content(manifest)):
        raise BundleError(
            f"{folder} was changed after {key.name} signed it; do not use this bundle, copy it again from its maker"
        )
    return key


def describe_signature(folder: Path) -> str:
    """Describe the signature of a bundle that is not checked, in one line."""
    found = _read_signature(folder)
    if found is None:
        return "unsigned; no trusted key is configured"
    return f"signed by key {found[0]}; not checked: no trusted key is configured ({KEYS_VARIABLE} or --trusted-key)"


def check_version(name: str, version: str) -> None:
    """Refuse a version older than one that this device has run; PEP 440 orders them.

    Raises
    ------
    BundleError
        It is older or no PEP 440 version, or the record cannot be read.
    """
    ordered = _ordered(version)
    highest = _read_versions().get(name)
    if highest is not None and ordered < _recorded(name, highest):
        raise BundleError(
            f"bundle {name} {version} is older than {highest}, which this device has run; install {highest} or newer, "
            f"or, to go back on purpose, delete {name!r} from {versions_file()}"
        )


def record_version(name: str, version: str) -> None:
    """Record a version that was loaded, if it is the highest so far.

    Raises
    ------
    BundleError
        It is no PEP 440 version, or the record cannot be written.
    """
    ordered, versions = _ordered(version), _read_versions()
    if name in versions and ordered <= _recorded(name, versions[name]):
        return
    path = versions_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(versions | {name: version}, indent=2, sort_keys=True).encode() + b"\n")
    except OSError as error:
        raise BundleError(
            f"cannot record the version in {path} ({error.strerror or error}), which protects against older bundles; "
            "make it writable or set STETHO_STATE to another folder"
        ) from error


def versions_file() -> Path:
    """File of the highest versions so far: in ``$STETHO_STATE``, else in the user's state folder."""
    return own_folder("state") / "versions.json"


def ed25519() -> Any:
    """Import the module of ``cryptography`` that signs and verifies.

    Raises
    ------
    MissingDependencyError
        It is not installed.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519 as module
    except ImportError as error:
        raise MissingDependencyError(
            "cryptography is not installed, so signatures cannot be checked; run 'pip install "
            '"stethoscope-edge-sdk[trust]"\''
        ) from error
    return module


def is_valid_signature(public: bytes, signature: bytes, content: bytes) -> bool:
    """Whether the holder of a key signed these bytes."""
    from cryptography.exceptions import InvalidSignature

    try:
        ed25519().Ed25519PublicKey.from_public_bytes(public).verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _read_keys(file: Path) -> list[TrustedKey]:
    ed25519()
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"the trusted keys {file} cannot be read ({error}); check {KEYS_VARIABLE}") from error
    keys = []
    for number, line in enumerate(lines, start=1):
        words = line.split(maxsplit=2)
        if not words or words[0].startswith("#"):
            continue
        with contextlib.suppress(binascii.Error, IndexError):
            public = base64.b64decode(words[1], validate=True)
            if words[0] == _ALGORITHM and len(public) == 32:
                keys.append(TrustedKey(public, words[2] if len(words) > 2 else file.stem))
                continue
        raise BundleError(f"{file}, line {number}: not a public key; give the .pub file of 'stetho keys new'")
    if not keys:
        raise BundleError(f"{file} holds no key; give the .pub file of 'stetho keys new'")
    return keys


def _read_signature(folder: Path) -> tuple[str, bytes] | None:
    """Key id and signature; ``None`` where the bundle is not signed."""
    path = folder / SIGNATURE
    if not path.exists():
        return None
    try:
        fields = json.loads(path.read_text("utf-8"))
        if fields["schema"] != 1 or fields["algorithm"] != _ALGORITHM:
            raise ValueError(f"schema {fields['schema']}, algorithm {fields['algorithm']}")
        return str(fields["key_id"]), base64.b64decode(fields["signature"], validate=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} is no signature of this SDK ({error}); copy or sign the bundle again") from error


def _read_versions() -> dict[str, str]:
    path = versions_file()
    try:
        versions = json.loads(path.read_text("utf-8"))
        if not isinstance(versions, dict) or not all(isinstance(v, str) for v in versions.values()):
            raise ValueError("not a table of versions")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}, the record of versions, cannot be read ({error}); repair or delete it") from error
    return versions


def _ordered(version: str) -> Version:
    """The version in the order of PEP 440; other texts have no order and are refused."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(version)
    except InvalidVersion as error:
        raise BundleError(
            f"version {version!r} is not a PEP 440 version such as 1.2.0 or 1.2.0rc1, so it cannot be ordered; "
            "export the bundle again with one"
        ) from error


def _recorded(name: str, version: str) -> Version:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(version)
    except InvalidVersion as error:  # from an SDK before PEP 440 was required
        raise BundleError(
            f"{versions_file()} records {version!r} for bundle {name}, which is not a PEP 440 version; correct it or "
            f"delete {name!r} from the file"
        ) from error
