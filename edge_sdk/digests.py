"""SHA-256 for what is checked at every start, without OpenSSL: ``hashlib`` loads it, 3.5 MB, for a megabyte of hashing.

The interpreter has an implementation of its own, which ``random`` of the standard library prefers for the same reason.
It takes five times as long a byte, so large content goes to OpenSSL.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

_LARGE_BYTES = 4 << 20
_CHUNK = 1 << 20


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


def sha256(content: bytes) -> str:
    """SHA-256 of content in memory, as a hex digest."""
    digest = _new(len(content))
    digest.update(content)
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, as a hex digest."""
    with path.open("rb") as stream:
        digest = _new(path.stat().st_size)
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _new(size: int) -> _Hash:
    if size < _LARGE_BYTES and (own := _interpreters_own()) is not None:
        found: _Hash = own()
        return found
    import hashlib

    return hashlib.sha256()


@lru_cache(maxsize=1)
def _interpreters_own() -> Any:
    """Constructor of the implementation in the interpreter; None: this one was built without it."""
    for module in ("_sha2", "_sha256"):  # from 3.12 on, and before
        try:
            return import_module(module).sha256
        except (ImportError, AttributeError):
            continue
    return None
