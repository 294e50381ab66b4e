"""Proof of an engine that was just built: that very file computes the golden vector here, or is taken out of use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_sdk.errors import BundleError, EngineError
from edge_sdk.runtime.bundle.engine_trust import EngineTrust
from edge_sdk.runtime.bundle.files import hash_check, require
from edge_sdk.runtime.bundle.load import read_manifest
from edge_sdk.runtime.bundle.schema import ArtefactEntry
from edge_sdk.runtime.bundle.signature import trusted_keys
from edge_sdk.runtime.bundle.verification import golden_check
from edge_sdk.runtime.engines.cache import quarantine, read_sidecar
from edge_sdk.runtime.engines.cuda_driver import find_gpu
from edge_sdk.runtime.engines.failover import close_engine
from edge_sdk.runtime.engines.selection import compiled_candidate


@dataclass(frozen=True, slots=True)
class EngineProof:
    """Result of running an engine once."""

    ok: bool | None  # None: it cannot run on this machine
    detail: str


def prove_engine(folder: Path, entry: ArtefactEntry, path: Path, *, ahead_of_time: bool = False) -> EngineProof:
    """Run an engine on the golden vector of its bundle; one that computes anything else is renamed and never used.

    Parameters
    ----------
    folder
        The bundle's directory.
    entry
        Artefact that the engine was built from.
    path
        The engine.
    ahead_of_time
        It was built for another GPU than this machine's, which may have none.
    """
    if ahead_of_time and find_gpu() is None:
        return EngineProof(None, "built, never run: there is no GPU on this machine")
    keys = trusted_keys()
    manifest, trust = read_manifest(folder, keys), EngineTrust.of(folder, keys)
    try:
        require(hash_check(folder, manifest.golden.file, manifest.golden.sha256))
        candidate = compiled_candidate(
            manifest, entry, path, read_sidecar(path), None if trust is None else trust.check
        )
        engine = candidate.make()
    except (EngineError, BundleError) as error:  # of another machine, or this one lacks something
        return EngineProof(None if ahead_of_time else False, str(error))
    try:
        check = golden_check(folder, manifest, entry, engine, candidate.tolerance)
        name, ok, detail = engine.name, check.ok, check.detail
    except EngineError as error:
        name, ok, detail = engine.name, False, str(error)
    finally:
        close_engine(engine)
    if ok:
        return EngineProof(True, f"{name} computes the golden vector: {detail}")
    return EngineProof(False, f"{detail}; the engine was renamed to {quarantine(path).name} and is not used")
