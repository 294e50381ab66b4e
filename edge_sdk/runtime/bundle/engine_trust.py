"""Compiled engines on a device that wants signatures: each is bound to a signed bundle, by a signature or a seal.

An engine is code that the signer of the bundle has not seen. Its sidecar therefore states the sha256 of the engine and
of the ``bundle.json`` it was built from, and proves both by the signature of the maker (for a fleet of equal boards) or
by a seal: an HMAC with a secret that this device made for itself and that only its owner can read.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_sdk.errors import BundleError, EngineError
from edge_sdk.runtime.bundle.schema import MANIFEST
from edge_sdk.runtime.bundle.signature import TrustedKey, check_signature, is_valid_signature, versions_file

_CONTEXT = b"stetho engine 1\n"  # a signature made for anything else must not pass here
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class EngineTrust:
    """What engines of one bundle must prove on this device.

    Parameters
    ----------
    manifest_sha256
        Of the bytes of ``bundle.json``, whose signature was checked.
    keys
        Trusted public keys.
    """

    manifest_sha256: str
    keys: Sequence[TrustedKey]

    @classmethod
    def of(cls, folder: Path, keys: Sequence[TrustedKey]) -> EngineTrust | None:
        """For a bundle; None where no key is trusted, so that nothing is asked of engines.

        Raises
        ------
        BundleError
            The bundle is not signed by one of the keys.
        """
        if not keys:
            return None
        text = (folder / MANIFEST).read_bytes()
        check_signature(folder, text, keys)
        return cls(hashlib.sha256(text).hexdigest(), tuple(keys))

    def check(self, sidecar: Mapping[str, Any]) -> None:
        """Check the sidecar of an engine whose own sha256 is compared when it is loaded.

        Raises
        ------
        EngineError
            It is unsigned, bound to another bundle, or was changed.
        """
        again = "run 'stetho compile' here again"
        found = sidecar.get("manifest_sha256")
        if found is None:
            raise EngineError(f"the engine is not signed, and this device wants signatures; {again}")
        if found != self.manifest_sha256:
            raise EngineError(f"the engine was built from another bundle than this signed one; {again}")
        content = engine_content(str(sidecar.get("sha256")), sidecar.get("key", {}), self.manifest_sha256)
        if not (self._is_sealed(sidecar, content) or self._is_signed(sidecar, content)):
            raise EngineError(f"neither this device nor a trusted key has signed the engine; {again}")

    def seal(self, sha256: str, key: Mapping[str, Any]) -> dict[str, str]:
        """Fields of the sidecar of an engine that was built here and now.

        Raises
        ------
        BundleError
            The secret of this device cannot be made.
        """
        content = engine_content(sha256, key, self.manifest_sha256)
        return {"manifest_sha256": self.manifest_sha256, "seal": _hmac(_secret(make=True), content)}

    def _is_sealed(self, sidecar: Mapping[str, Any], content: bytes) -> bool:
        seal, secret = sidecar.get("seal"), _secret(make=False)
        return bool(secret) and isinstance(seal, str) and hmac.compare_digest(seal, _hmac(secret, content))

    def _is_signed(self, sidecar: Mapping[str, Any], content: bytes) -> bool:
        try:
            key = next(k for k in self.keys if k.key_id == sidecar["signature"]["key_id"])
            signature = base64.b64decode(sidecar["signature"]["signature"], validate=True)
        except (StopIteration, KeyError, TypeError, ValueError, binascii.Error):
            return False
        return is_valid_signature(key.public, signature, content)


def engine_content(sha256: str, key: Mapping[str, Any], manifest_sha256: str) -> bytes:
    """Bytes that are signed or sealed: a fixed prefix, then engine, key and bundle as canonical JSON."""
    fields = {"engine_sha256": sha256, "key": dict(key), "manifest_sha256": manifest_sha256}
    return _CONTEXT + json.dumps(fields, sort_keys=True).encode()


def secret_file() -> Path:
    """File of this device's secret, beside the record of versions."""
    return versions_file().with_name("engine.key")


def _hmac(secret: bytes, content: bytes) -> str:
    return hmac.new(secret, content, hashlib.sha256).hexdigest()


def _secret(*, make: bool) -> bytes:
    """Secret of this device; empty where it has none."""
    path = secret_file()
    try:
        return path.read_bytes()
    except FileNotFoundError:
        if not make:
            return b""
    except OSError as error:
        raise BundleError(f"{path}, the secret that seals engines, cannot be read ({error})") from error
    secret = secrets.token_bytes(_SECRET_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(secret)
    except FileExistsError:
        return _secret(make=False)  # another process was faster
    except OSError as error:
        raise BundleError(
            f"cannot write {path} ({error.strerror or error}), the secret that seals engines; make its folder writable "
            "or set STETHO_STATE to another one"
        ) from error
    return secret
