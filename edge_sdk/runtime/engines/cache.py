"""The cache of compiled engines: what an engine depends on, where it is stored, and why a foreign one is refused."""

from __future__ import annotations

import contextlib
import json
import platform
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge_sdk.digests import sha256
from edge_sdk.errors import EngineError, StorageError
from edge_sdk.files import own_folder, write_whole

SIDECAR_SCHEMA = 2
BUILDER = 1
"""Version of what this SDK's builder does to a graph; an engine of another one is built again."""

ANY_GPU = "any"
"""GPU name and driver of an engine built ahead of time for a compute capability, not for one machine."""


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Everything a compiled engine depends on; two engines with one key are interchangeable."""

    onnx_sha256: str
    flavour: str  # "tensorrt" or "tensorrt-rtx"
    version: str  # of TensorRT
    gpu: str
    capability: str  # "8.7", or several: "8.6,8.9"
    driver: str
    precision: str
    profiles: str  # batch sizes, lowest-best-highest: "1-1-1,1-8-64"
    options: str = ""  # what else changes the result: "dla0", "hardware-compatible"
    platform: str = ""  # "linux-aarch64"; filled in where absent
    sms: int = 0  # multiprocessors of the GPU; 0: any
    builder: int = BUILDER

    @property
    def digest(self) -> str:
        """Hex digest of all fields."""
        return sha256(json.dumps(asdict(self.on_platform()), sort_keys=True).encode())

    @property
    def file_name(self) -> str:
        """Name in the cache: readable, and different for different keys."""
        capability = self.capability.replace(",", "+")
        return (
            f"{self.onnx_sha256[:16]}-{self.flavour}-{self.version}-sm{capability}-{self.precision}"
            f"-{self.digest[:16]}.engine"
        )

    def on_platform(self) -> EngineKey:
        """Return the key with ``platform`` filled in."""
        return self if self.platform else replace(self, platform=this_platform())


def this_platform() -> str:
    """Operating system and processor, for example ``linux-x86_64``."""
    return f"{sys.platform}-{platform.machine().lower()}"


def cache_folder() -> Path:
    """Folder of engines and timing caches: ``$STETHO_CACHE``, else the user's cache folder."""
    return own_folder("cache") / "engines"


def sidecar_path(engine: Path) -> Path:
    """Path of the JSON file beside an engine that holds its key."""
    return engine.with_suffix(".json")


def store_engine(engine: Path, content: bytes, key: EngineKey, facts: dict[str, Any]) -> dict[str, Any]:
    """Write an engine and its sidecar so that a reader finds both or none; return the sidecar.

    Raises
    ------
    EngineError
        The folder cannot be written.
    """
    sidecar = {
        "schema": SIDECAR_SCHEMA,
        "key": asdict(key.on_platform()),
        "sha256": sha256(content),
        "bytes": len(content),
        **facts,
    }
    try:
        engine.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            sidecar_path(engine).unlink()  # valid only for this engine: removed before it changes, written after
        write_whole(engine, content)
        write_whole(sidecar_path(engine), json.dumps(sidecar, indent=2).encode() + b"\n")
    except OSError as error:
        raise EngineError(
            f"cannot write the engine to {engine.parent} ({error.strerror or error}); make the folder writable or set "
            "STETHO_CACHE to another one"
        ) from error
    return sidecar


def read_sidecar(engine: Path) -> dict[str, Any]:
    """Read the sidecar of an engine.

    Raises
    ------
    EngineError
        There is no sidecar (an interrupted copy), it is not ours, or it is of a newer SDK.
    """
    path = sidecar_path(engine)
    try:
        sidecar = json.loads(path.read_text("utf-8"))
        EngineKey(**sidecar["key"])
        schema, _ = int(sidecar["schema"]), str(sidecar["sha256"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EngineError(f"{engine} has no usable {path.name} beside it; run 'stetho compile' again") from error
    if schema != SIDECAR_SCHEMA:
        age = "a newer" if schema > SIDECAR_SCHEMA else "an older"
        raise EngineError(f"{engine} was compiled by {age} SDK; run 'stetho compile' again")
    return dict(sidecar)


def foreign_reason(found: EngineKey, here: EngineKey) -> str | None:
    """Reason why an engine cannot run here, for a message; ``None`` where it can.

    Parameters
    ----------
    found
        The engine's key.
    here
        This machine's key; its ``precision``, ``profiles`` and ``options`` are not compared.
    """
    if found.onnx_sha256 != here.onnx_sha256:
        return f"it was built from another model (ONNX {found.onnx_sha256[:12]}, not {here.onnx_sha256[:12]})"
    if found.platform != here.on_platform().platform:
        return f"it was built on {found.platform}, this is {here.on_platform().platform}"
    if found.builder != here.builder:
        return f"it was built by another version of this SDK's builder ({found.builder}, not {here.builder})"
    if found.flavour != here.flavour:
        return f"it was built by {found.flavour}, this is {here.flavour}"
    if found.version != here.version and not _version_compatible(found, here):
        return f"it was built by {found.flavour} {found.version}, installed is {here.version}"
    ahead_of_time = found.gpu == ANY_GPU
    if ahead_of_time or "hardware-compatible" in found.options:
        return None if _runs_on(found, here) else f"it was built for sm{found.capability}, this is sm{here.capability}"
    if (found.gpu, found.capability) != (here.gpu, here.capability):
        return f"it was built for {found.gpu} (sm{found.capability}), this is {here.gpu} (sm{here.capability})"
    if found.sms and here.sms and found.sms != here.sms:
        return f"it was built for {found.sms} multiprocessors, this {here.gpu} has {here.sms}"
    return None


def other_driver(found: EngineKey, here: EngineKey) -> str | None:
    """Warning about an engine that another driver built; the golden vector decides whether it runs here.

    An update of the driver keeps an engine usable in general, and silence would hide that the fastest one is gone.
    """
    if found.driver in (here.driver, ANY_GPU):
        return None
    return (
        f"it was built with driver {found.driver}, installed is {here.driver}: checked by the golden vector; "
        "'stetho compile' builds one for this driver"
    )


def check_engine(engine: Path, here: EngineKey) -> tuple[dict[str, Any], bytes]:
    """Return sidecar and content of an engine that can run here.

    Raises
    ------
    EngineError
        It is foreign, damaged or incomplete; the message names the reason and the fix.
    """
    sidecar = read_sidecar(engine)
    if reason := foreign_reason(EngineKey(**sidecar["key"]), here):
        raise EngineError(f"{engine.name} is not for this machine: {reason}; run 'stetho compile' here")
    try:
        content = engine.read_bytes()
    except OSError as error:
        raise EngineError(f"{engine} cannot be read ({error}); run 'stetho compile' again") from error
    if sha256(content) != sidecar["sha256"]:
        raise EngineError(f"{engine} does not match its sha256; delete it and run 'stetho compile' again")
    return sidecar, content


def quarantine(engine: Path) -> Path:
    """Take an engine that computes wrong numbers out of use; it is kept under another name for an inspection.

    Raises
    ------
    EngineError
        It cannot be renamed.
    """
    kept = engine.with_suffix(".refused")
    try:
        with contextlib.suppress(FileNotFoundError):
            sidecar_path(engine).replace(kept.with_suffix(".refused.json"))
        engine.replace(kept)
    except OSError as error:
        raise EngineError(f"cannot rename {engine} ({error.strerror or error}); delete it by hand") from error
    return kept


def engines_of(onnx_sha256: str, folder: Path | None = None) -> list[Path]:
    """Engines in the cache built from this ONNX file, newest first; foreign ones included."""
    try:
        found = (folder or cache_folder()).glob(f"{onnx_sha256[:16]}-*.engine")
    except StorageError:  # a user without a home has no cache either
        return []
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _runs_on(found: EngineKey, here: EngineKey) -> bool:
    built_for = [_number(c) for c in found.capability.split(",")]
    if "hardware-compatible:ampere" in found.options:
        return _number(here.capability) >= (8, 0)
    return _number(here.capability) in built_for


def _version_compatible(found: EngineKey, here: EngineKey) -> bool:
    """Whether ``version-compatible`` allows it: later versions of the same major and of the next one (10 for 8)."""
    if "version-compatible" not in found.options:
        return False
    old, new = _number(found.version), _number(here.version)
    return old <= new and new[0] <= (10 if old[0] == 8 else old[0] + 1)


def _number(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())
