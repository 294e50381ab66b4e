"""Engine selection: TensorRT, ONNX Runtime on the GPU, ONNX Runtime on the CPU; the first that is proven runs a bundle.

A GPU engine is proven by the bundle's golden vector. A failure is logged as a warning and the next engine is tried.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edge_sdk.errors import BundleError, EngineError
from edge_sdk.protocols import Engine
from edge_sdk.runtime.bundle.schema import ArtefactEntry, Manifest
from edge_sdk.runtime.engines.onnx import CPU, OrtEngine

_log = logging.getLogger(__name__)

KINDS = ("auto", "tensorrt", "tensorrt-ep", "cuda", "cpu")
"""Values of ``STETHO_ENGINE``. ``auto``: a compiled TensorRT engine, then CUDA, then the CPU. ``tensorrt-ep`` (ONNX
Runtime's own TensorRT provider, which compiles for minutes at its first load) only on request."""

VARIABLE = "STETHO_ENGINE"

_GPU_FORMATS = ("onnx-fp16", "onnx-fp32")  # int8 files for CPUs are slow on a GPU
_GPU_TOLERANCE = {"fp32": 5e-3, "fp16": 5e-2, "int8": 0.5}  # on logits, where the bundle's own is tighter


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine to try."""

    kind: str  # of KINDS
    artefact: ArtefactEntry
    make: Callable[[], Engine]
    tolerance: float | None = None  # of the golden vector; the bundle's own where absent


@dataclass(frozen=True, slots=True)
class Attempt:
    """Result of trying a candidate."""

    kind: str
    artefact: str  # format
    ok: bool
    detail: str  # the engine's name, or why it is not used


def wanted_engine(engine: str | None = None) -> str:
    """Kind of engine: the argument, else ``$STETHO_ENGINE``, else ``auto``.

    Raises
    ------
    EngineError
        There is no such engine.
    """
    kind = engine or os.environ.get(VARIABLE) or "auto"
    if kind not in KINDS:
        raise EngineError(f"engine {kind!r} does not exist; choose {', '.join(KINDS)} (STETHO_ENGINE)")
    return kind


def candidates(
    manifest: Manifest,
    default: ArtefactEntry,
    kind: str,
    threads: int,
    file_of: Callable[[ArtefactEntry], Path],
    *,
    chosen: bool = False,
) -> list[Candidate]:
    """List the engines to try, best first; on a machine without GPU only the CPU, in under a millisecond.

    Parameters
    ----------
    manifest
        The bundle's.
    default
        The artefact for the CPU.
    kind
        From :func:`wanted_engine`.
    threads
        Of ONNX Runtime on the CPU.
    file_of
        Returns the verified file of an artefact; called when the engine is made.
    chosen
        The caller chose this artefact: no other is used.

    Raises
    ------
    EngineError
        An engine requested by name is not available.
    """
    entries = [default] if chosen else _for_gpu(manifest, default)
    found: list[Candidate] = []
    if kind in ("auto", "tensorrt"):
        found += _compiled(manifest, entries)
    if kind in ("auto", "cuda"):
        found += _provider("cuda", "CUDAExecutionProvider", {"use_tf32": "0"}, entries, threads, file_of)
    if kind == "tensorrt-ep":
        found += _tensorrt_provider(entries, threads, file_of)
    if found and kind == "auto" and not _has_gpu():
        found = []  # installed for another machine: no warning at every start
    if kind in ("auto", "cpu"):
        found.append(Candidate("cpu", default, lambda: OrtEngine(file_of(default), threads)))
    if not found:
        raise EngineError(_MISSING[kind])
    return found


_MISSING = {
    "tensorrt": "there is no engine for this bundle, GPU and TensorRT in the cache; run 'stetho compile BUNDLE' here",
    "tensorrt-ep": "this onnxruntime has no TensorRT provider; install onnxruntime-gpu in place of onnxruntime",
    "cuda": "this onnxruntime has no CUDA provider; install onnxruntime-gpu in place of onnxruntime",
}


def choose(
    found: Sequence[Candidate], prove: Callable[[Candidate, Engine], None]
) -> tuple[Engine, ArtefactEntry, tuple[Attempt, ...]]:
    """Return the first candidate that loads and is proven: engine, artefact and all attempts.

    Parameters
    ----------
    found
        From :func:`candidates`.
    prove
        Runs the engine once; raises ``BundleError`` or ``EngineError`` where its output is wrong.

    Raises
    ------
    EngineError, BundleError
        None works; the error is the last candidate's.
    """
    attempts: list[Attempt] = []
    for candidate in found:
        try:
            engine = candidate.make()
            prove(candidate, engine)
        except (EngineError, BundleError) as error:
            attempts.append(Attempt(candidate.kind, candidate.artefact.format, False, str(error)))
            if candidate is found[-1]:
                raise
            _log.warning("engine %s is not used: %s", candidate.kind, error)
            continue
        attempts.append(Attempt(candidate.kind, candidate.artefact.format, True, engine.name))
        return engine, candidate.artefact, tuple(attempts)
    raise EngineError("there is no engine to try; run 'stetho doctor'")


def _for_gpu(manifest: Manifest, default: ArtefactEntry) -> list[ArtefactEntry]:
    by_format = {entry.format: entry for entry in manifest.artefacts}
    return [by_format[f] for f in _GPU_FORMATS if f in by_format] or [default]


def _has_gpu() -> bool:
    from edge_sdk.runtime.engines.cuda_driver import find_gpu

    return find_gpu() is not None


def _compiled(manifest: Manifest, entries: Sequence[ArtefactEntry]) -> Iterator[Candidate]:
    """Engines in the cache; TensorRT is imported only when one for this bundle's files is there."""
    from edge_sdk.runtime.engines.cache import engines_of, read_sidecar

    quantised = [a for a in manifest.artefacts if a.format == "onnx-int8-trt" and a not in entries]
    for artefact in [*entries, *quantised]:
        for path in engines_of(artefact.sha256):
            try:
                key: dict[str, Any] = read_sidecar(path)["key"]
            except EngineError as error:
                _log.warning("%s", error)
                continue
            own = manifest.golden.tolerance.get(artefact.format, 0.0)
            tolerance = max(_GPU_TOLERANCE.get(key["precision"], 0.0), own)
            yield Candidate(
                "tensorrt", artefact, partial(_open_engine, path, artefact.sha256, key["flavour"]), tolerance
            )


def _open_engine(path: Path, onnx_sha256: str, flavour: str) -> Engine:
    from edge_sdk.runtime.engines.tensorrt import TensorRtEngine

    return TensorRtEngine(path, onnx_sha256, flavour)


def _provider(
    kind: str,
    name: str,
    options: dict[str, str],
    entries: Sequence[ArtefactEntry],
    threads: int,
    file_of: Callable[[ArtefactEntry], Path],
) -> Iterator[Candidate]:
    try:
        from edge_sdk.runtime.engines.library import onnxruntime
    except ImportError:
        return
    if name not in onnxruntime.get_available_providers():
        return

    def make(entry: ArtefactEntry) -> Engine:
        return OrtEngine(file_of(entry), threads, ((name, options), CPU))

    for entry in entries:
        yield Candidate(kind, entry, partial(make, entry), _GPU_TOLERANCE.get(entry.precision))


def _tensorrt_provider(
    entries: Sequence[ArtefactEntry], threads: int, file_of: Callable[[ArtefactEntry], Path]
) -> Iterator[Candidate]:
    from edge_sdk.runtime.engines.cache import cache_folder

    cache = cache_folder() / "onnxruntime"
    options = {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(cache),
    }
    yield from _provider("tensorrt-ep", "TensorrtExecutionProvider", options, entries, threads, file_of)
