"""Engine selection: TensorRT, ONNX Runtime on the GPU, ONNX Runtime on the CPU; the first that is proven runs a bundle.

A GPU engine is proven by the bundle's golden vector, and where the choice is free it must beat the CPU on one cycle. A
failure is logged as a warning and the next engine is tried; what fails in mid-stream is replaced in the same order.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from edge_sdk.errors import BundleError, EngineError
from edge_sdk.protocols import Engine
from edge_sdk.runtime.bundle.schema import ArtefactEntry, Manifest
from edge_sdk.runtime.engines.failover import FailoverEngine, Replacement, close_engine
from edge_sdk.runtime.engines.onnx import CPU, OrtEngine

_log = logging.getLogger(__name__)

KINDS = ("auto", "tensorrt", "tensorrt-ep", "cuda", "cpu")
"""Values of ``STETHO_ENGINE``. ``auto``: a compiled TensorRT engine, then CUDA, then the CPU. ``tensorrt-ep`` (ONNX
Runtime's own TensorRT provider, which compiles for minutes at its first load) only on request."""

VARIABLE = "STETHO_ENGINE"

_GPU_FORMATS = ("onnx-fp16", "onnx-fp32")  # int8 files for CPUs are slow on a GPU
GPU_TOLERANCE = {"fp32": 5e-3, "fp16": 5e-2, "int8": 0.5}
"""Precision → allowed difference of logits on a GPU, where the bundle's own is tighter."""

_LARGEST_BATCH, _BEST_BATCH = 64, 8  # of ONNX Runtime's TensorRT provider, which builds anew for any other
_WARM_UPS, _TIMED = 5, 15  # runs of one cycle: a CUDA graph is recorded at the fourth

TrustCheck = Callable[[Mapping[str, Any]], None]
"""Raises ``EngineError`` where a device that wants signatures must not run the compiled engine of this sidecar."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine to try."""

    kind: str  # of KINDS
    artefact: ArtefactEntry
    make: Callable[[], Engine]
    tolerance: float | None = None  # of the golden vector; the bundle's own where absent

    @property
    def on_cpu(self) -> bool:
        """Whether ONNX Runtime on the CPU runs it."""
        return self.kind == "cpu"


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
    trust: TrustCheck | None = None,
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
    trust
        Checks compiled engines, and forbids caches that nobody signs; None: the device wants no signatures.

    Raises
    ------
    EngineError
        An engine requested by name is not available.
    """
    entries = [default] if chosen else _for_gpu(manifest, default)
    found: list[Candidate] = []
    if kind in ("auto", "tensorrt"):
        found += _compiled(manifest, entries, trust, chosen=chosen)
    if kind in ("auto", "cuda"):
        found += _cuda(entries, threads, file_of)
    if kind == "tensorrt-ep":
        found += _tensorrt_provider(entries, threads, file_of, cached=trust is None)
    if found and kind == "auto" and not _has_gpu():
        found = []  # installed for another machine: no warning at every start
    if kind in ("auto", "cpu"):
        found.append(cpu_candidate(default, threads, file_of))
    if not found:
        raise EngineError(_MISSING[kind])
    return found


def cpu_candidate(default: ArtefactEntry, threads: int, file_of: Callable[[ArtefactEntry], Path]) -> Candidate:
    """ONNX Runtime on the CPU."""
    return Candidate("cpu", default, lambda: OrtEngine(file_of(default), threads))


_IN_PLACE = "install onnxruntime-gpu in place of it (extra gpu-cu12 or gpu-cu13)"
_MISSING = {
    "tensorrt": "there is no engine for this bundle, GPU and TensorRT in the cache; run 'stetho compile BUNDLE' here",
    "tensorrt-ep": f"this onnxruntime has no TensorRT provider; {_IN_PLACE}",
    "cuda": f"this onnxruntime has no CUDA provider; {_IN_PLACE}",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine that runs a bundle."""

    engine: Engine
    artefact: ArtefactEntry
    attempts: tuple[Attempt, ...]  # the one in use last


class EngineChooser:
    """Chooses the engine of a bundle among candidates.

    Parameters
    ----------
    prove
        Runs an engine on the golden vector; raises ``BundleError`` or ``EngineError`` where its output is wrong.
    cycle
        Inputs of one cycle for an artefact, to time engines with.
    cpu
        What every GPU engine must beat where the choice is free, and what goes on where all GPU engines have failed.
    """

    def __init__(
        self,
        prove: Callable[[Candidate, Engine], None],
        cycle: Callable[[ArtefactEntry], Mapping[str, Any]],
        cpu: Candidate,
    ) -> None:
        self._prove, self._cycle, self._cpu = prove, cycle, cpu
        self._made_for_cpu = cache(lambda: self._proven(cpu))

    def choose(self, found: Sequence[Candidate]) -> Choice:
        """Return the first candidate that loads and is proven; GPU engines with fail-over to those after them.

        Raises
        ------
        EngineError, BundleError
            None works; the error is the last candidate's.
        """
        free = any(candidate.on_cpu for candidate in found)
        attempts: list[Attempt] = []
        for place, candidate in enumerate(found):
            engine: Engine | None = None
            try:
                engine = self._made_for_cpu() if candidate.on_cpu else self._proven(candidate)
                if free and not candidate.on_cpu:
                    self._require_faster(candidate, engine)
            except (EngineError, BundleError) as error:
                close_engine(engine)
                attempts.append(Attempt(candidate.kind, candidate.artefact.format, False, str(error)))
                if candidate is found[-1]:
                    raise
                _log.warning("engine %s is not used: %s", candidate.kind, error)
                continue
            attempts.append(Attempt(candidate.kind, candidate.artefact.format, True, engine.name))
            if not candidate.on_cpu:
                engine = FailoverEngine(engine, self._replacements(candidate, found[place + 1 :]))
            return Choice(engine, candidate.artefact, tuple(attempts))
        raise EngineError("there is no engine to try; run 'stetho doctor'")

    def _proven(self, candidate: Candidate) -> Engine:
        engine: Engine | None = None
        try:
            engine = candidate.make()
            self._prove(candidate, engine)
        except (EngineError, BundleError):
            close_engine(engine)
            raise
        except Exception as error:  # GPU libraries raise whatever they like
            close_engine(engine)
            if candidate.on_cpu:
                raise
            raise EngineError(f"it fails with {type(error).__name__}: {error}") from error
        return engine

    def _require_faster(self, candidate: Candidate, engine: Engine) -> None:
        cpu = self._made_for_cpu()
        own, other = times_of_one_cycle(
            (engine, self._cycle(candidate.artefact)), (cpu, self._cycle(self._cpu.artefact))
        )
        if own > other:
            raise EngineError(
                f"{engine.name} takes {own * 1e3:.2f} ms for one cycle, {cpu.name} only {other * 1e3:.2f} ms: the CPU "
                f"stays; {VARIABLE}={candidate.kind} asks for this engine all the same"
            )

    def _replacements(self, used: Candidate, others: Sequence[Candidate]) -> list[Replacement]:
        """What goes on after ``used``: the engines not tried yet, and the CPU; with the same inputs and labels only."""
        same = [c for c in others if not c.on_cpu and _interchangeable(c.artefact, used.artefact)]
        found = [Replacement(c.kind, partial(self._proven, c)) for c in same]
        if _interchangeable(self._cpu.artefact, used.artefact):
            found.append(Replacement(self._cpu.kind, self._made_for_cpu))
        return found


def times_of_one_cycle(*subjects: tuple[Engine, Mapping[str, Any]]) -> list[float]:
    """Median seconds of each engine for one cycle, measured in turns."""
    seconds: list[list[float]] = [[] for _ in subjects]
    for round_ in range(_WARM_UPS + _TIMED):
        for own, (engine, inputs) in zip(seconds, subjects, strict=True):
            before = time.perf_counter()
            engine.run(inputs)
            if round_ >= _WARM_UPS:
                own.append(time.perf_counter() - before)
    return [sorted(own)[len(own) // 2] for own in seconds]


def _interchangeable(one: ArtefactEntry, other: ArtefactEntry) -> bool:
    return (one.input, one.output, one.front_end) == (other.input, other.output, other.front_end)


def _for_gpu(manifest: Manifest, default: ArtefactEntry) -> list[ArtefactEntry]:
    by_format = {entry.format: entry for entry in manifest.artefacts}
    return [by_format[f] for f in _GPU_FORMATS if f in by_format] or [default]


def _has_gpu() -> bool:
    from edge_sdk.runtime.engines.cuda_driver import find_gpu

    return find_gpu() is not None


def _compiled(
    manifest: Manifest, entries: Sequence[ArtefactEntry], trust: TrustCheck | None, *, chosen: bool
) -> Iterator[Candidate]:
    """Engines in the cache; TensorRT is imported only when one for this bundle's files is there."""
    from edge_sdk.runtime.engines.cache import engines_of, read_sidecar

    quantised = [] if chosen else [a for a in manifest.artefacts if a.format == "onnx-int8-trt" and a not in entries]
    for artefact in [*entries, *quantised]:
        for path in engines_of(artefact.sha256):
            try:
                yield compiled_candidate(manifest, artefact, path, read_sidecar(path), trust)
            except EngineError as error:
                _log.warning("%s", error)


def compiled_candidate(
    manifest: Manifest, artefact: ArtefactEntry, path: Path, sidecar: Mapping[str, Any], trust: TrustCheck | None = None
) -> Candidate:
    """One compiled engine."""
    key: dict[str, Any] = sidecar["key"]
    tolerance = max(GPU_TOLERANCE.get(key["precision"], 0.0), manifest.golden.tolerance.get(artefact.format, 0.0))
    make = partial(_open_engine, path, artefact.sha256, key["flavour"], trust)
    return Candidate("tensorrt", artefact, make, tolerance)


def _open_engine(path: Path, onnx_sha256: str, flavour: str, trust: TrustCheck | None) -> Engine:
    from edge_sdk.runtime.engines.tensorrt import TensorRtEngine

    return TensorRtEngine(path, onnx_sha256, flavour, accept=trust)


def has_provider(name: str) -> bool:
    """Whether this ONNX Runtime was built with a provider; then its CUDA libraries are loaded from their wheels."""
    try:
        from edge_sdk.runtime.engines.library import onnxruntime
    except ImportError:
        return False
    if name not in onnxruntime.get_available_providers():
        return False
    preload = getattr(onnxruntime, "preload_dlls", None)  # from 1.21 on
    if preload is not None:
        printed = io.StringIO()  # it prints what it does not find
        with contextlib.redirect_stdout(printed), contextlib.suppress(Exception):
            preload()
        _log.debug("onnxruntime.preload_dlls: %s", printed.getvalue().strip() or "done")
    return True


def cuda_options() -> dict[str, str]:
    """Options of ONNX Runtime's CUDA provider."""
    from edge_sdk.runtime.engines.cuda_driver import wanted_gpu

    # TF32 has 10 bits of mantissa: too few for the front end, whose log would show them. HEURISTIC: every new batch
    # size would stall for cuDNN's exhaustive search.
    return {"device_id": str(wanted_gpu()), "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


def _cuda(
    entries: Sequence[ArtefactEntry], threads: int, file_of: Callable[[ArtefactEntry], Path]
) -> Iterator[Candidate]:
    name = "CUDAExecutionProvider"

    def make(entry: ArtefactEntry) -> Engine:
        return OrtEngine(file_of(entry), threads, ((name, cuda_options()), CPU))

    if has_provider(name):
        for entry in entries:
            yield Candidate("cuda", entry, partial(make, entry), GPU_TOLERANCE.get(entry.precision))


def _tensorrt_provider(
    entries: Sequence[ArtefactEntry], threads: int, file_of: Callable[[ArtefactEntry], Path], *, cached: bool
) -> Iterator[Candidate]:
    name = "TensorrtExecutionProvider"

    def make(entry: ArtefactEntry) -> Engine:
        file = file_of(entry)
        shapes = OrtEngine(file, threads).inputs
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # this provider has no option against TF32
        providers = ((name, _tensorrt_options(shapes, cached=cached)), ("CUDAExecutionProvider", cuda_options()), CPU)
        return OrtEngine(file, threads, providers, largest_batch=_LARGEST_BATCH)

    if has_provider(name):
        for entry in entries:
            yield Candidate("tensorrt-ep", entry, partial(make, entry), GPU_TOLERANCE.get(entry.precision))


def _tensorrt_options(shapes: Mapping[str, Sequence[Any]], *, cached: bool) -> dict[str, str]:
    """One profile for all batches, without which every new batch size builds an engine for minutes; and caches."""
    from edge_sdk.runtime.engines.cache import cache_folder
    from edge_sdk.runtime.engines.cuda_driver import wanted_gpu

    def profile(batch: int) -> str:
        return ",".join(f"{n}:{'x'.join(str(size) for size in (batch, *shape[1:]))}" for n, shape in shapes.items())

    options = {
        "device_id": str(wanted_gpu()),
        "trt_profile_min_shapes": profile(1),
        "trt_profile_opt_shapes": profile(_BEST_BATCH),
        "trt_profile_max_shapes": profile(_LARGEST_BATCH),
    }
    if not cached:
        return options
    folder = cache_folder() / "onnxruntime"
    try:
        folder.mkdir(parents=True, exist_ok=True)  # the provider makes only the last folder itself
    except OSError as error:
        _log.warning("%s cannot be made (%s): engines are built at every start; set STETHO_CACHE", folder, error)
        return options
    for what in ("engine", "timing"):
        options |= {f"trt_{what}_cache_enable": "True", f"trt_{what}_cache_path": str(folder)}
    return options
