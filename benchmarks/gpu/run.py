"""Everything that is to be known of a GPU in eight minutes: parity, builds, latency, throughput, memory, layers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core.harness import Row, machine_row, peak_rss_mb, percentiles
from benchmarks.gpu.ceilings import GpuCeilings, measure_gpu
from benchmarks.gpu.folder import GpuSubject, bundle_subjects, cpu_engine, read_folder
from edge_sdk.errors import EngineError, StethoError
from edge_sdk.protocols import Engine
from edge_sdk.runtime.engines.cuda_driver import CudaDriver, find_gpu
from edge_sdk.runtime.engines.failover import close_engine
from edge_sdk.runtime.engines.onnx import CPU, OrtEngine
from edge_sdk.runtime.engines.selection import cuda_options, has_provider

BUDGET_S = 480.0
BATCHES = (1, 8, 64)
DEADLINE_MS = 50.0
_CYCLE_S = 3.0  # of a resting adult: a live stream asks for one classification in this time
_LAYERS = 10

OnStep = Callable[[str], None]
Make = Callable[[], Engine]


@dataclass(frozen=True, slots=True)
class GpuBenchOptions:
    """What to measure."""

    folder: Path | None = None  # of ``--pack``; absent: the bundle's artefacts only
    bundle: str = "default"
    batches: tuple[int, ...] = BATCHES
    rounds: int = 200
    seconds: float = 2.0  # at most for each batch
    budget_s: float = BUDGET_S
    quick: bool = False  # few rounds; the CPU stands in where there is no GPU


def run_gpu(options: GpuBenchOptions, on_step: OnStep | None = None) -> Iterator[Row]:
    """Rows: the machine, the GPU and its ceilings, parity with torch, then every graph on every engine.

    Raises
    ------
    EngineError
        There is no GPU, and this is no quick run.
    StethoError
        The packed folder cannot be read.
    """
    step = on_step or (lambda _: None)
    end_s = time.monotonic() + options.budget_s
    subjects = read_folder(options.folder) if options.folder is not None else bundle_subjects(options.bundle)
    gpu = find_gpu()
    if gpu is None and not options.quick:
        raise EngineError("no NVIDIA GPU on this machine; --quick tries the command on the CPU")
    yield machine_row()
    step("the GPU and its ceilings")
    ceilings = None if gpu is None else measure_gpu(CudaDriver(), quick=options.quick)
    yield _row("gpu", "device", failed="no NVIDIA GPU: the CPU stands in") if ceilings is None else ceilings.row()
    yield _preload_row()
    if options.quick:
        subjects = subjects[:4]
    for subject in subjects:
        for kind, make in _engines(subject, with_gpu=gpu is not None):
            if time.monotonic() > end_s:
                yield _row("gpu", "left out", subject, failed=f"{options.budget_s:g} s are over")
                return
            step(f"{subject.name} {subject.precision} on {kind}")
            yield from _measured(subject, kind, make, options, ceilings)


def _engines(subject: GpuSubject, *, with_gpu: bool) -> Iterator[tuple[str, Make]]:
    if not with_gpu:
        if subject.precision != "bf16":
            yield "cpu", partial(cpu_engine, subject)
        return
    if has_provider("CUDAExecutionProvider") and subject.precision != "bf16":
        providers = (("CUDAExecutionProvider", cuda_options()), CPU)
        yield "cuda", lambda: OrtEngine(Path(subject.file), 1, providers)
    from edge_sdk.runtime.engines.tensorrt import installed_flavours

    for flavour in installed_flavours():
        yield flavour, partial(_built, subject, flavour)


def _built(subject: GpuSubject, flavour: str) -> Engine:
    from edge_sdk.runtime.engines.tensorrt import TensorRtEngine
    from export.tensorrt.builder import build_engine
    from export.tensorrt.options import BuildOptions

    precision = "fp16" if subject.precision == "bf16" else subject.precision
    content = Path(subject.file).read_bytes()
    file = build_engine(content, BuildOptions(flavour=flavour, precision=precision))
    return TensorRtEngine(file.path, str(file.sidecar["key"]["onnx_sha256"]), flavour)


def _measured(
    subject: GpuSubject, kind: str, make: Make, options: GpuBenchOptions, ceilings: GpuCeilings | None
) -> Iterator[Row]:
    before, engine = time.perf_counter(), None
    try:
        engine = make()
        load_s = time.perf_counter() - before
        yield from _parity(subject, kind, engine)
        if subject.parity_only:
            return
        best = 0.0
        for batch in options.batches[: 1 if options.quick else None]:
            row = _timed(subject, kind, engine, batch, options)
            if row["p99_ms"] is None or row["p99_ms"] <= DEADLINE_MS:
                best = max(best, float(row["cycles_per_s"]))
            if ceilings is not None:
                row["roofline_pct"] = ceilings.share(subject, float(row["cycles_per_s"]))
            yield {**row, "load_s": load_s}
        yield _row(
            "gpu", "capacity", subject, kind, streams_at_deadline=int(best * _CYCLE_S), deadline_ms=DEADLINE_MS,
            input=f"cycles of {_CYCLE_S:g} s at the fastest batch whose P99 keeps the deadline",
            rss_mb=peak_rss_mb(), gpu_memory_mb=_gpu_memory(), trtexec=_trtexec(subject, options.batches),
            layers=_layers(engine, subject),
        )  # fmt: skip
    except StethoError as error:
        yield _row("gpu", "failed", subject, kind, failed=str(error))
    finally:
        if engine is not None:
            close_engine(engine)


def _parity(subject: GpuSubject, kind: str, engine: Engine) -> Iterator[Row]:
    if subject.reference is None:
        expected = cpu_engine(subject).run(subject.inputs(2))["logits"] if subject.precision != "bf16" else None
        inputs, against = subject.inputs(2), "ONNX Runtime on the CPU"
    else:
        with np.load(subject.reference, allow_pickle=False) as arrays:
            expected, inputs = arrays["logits"], {name: arrays[name] for name in subject.rows}
        against = "torch in fp32"
    if expected is not None:
        found = engine.run(inputs)["logits"]
        error = float(np.linalg.norm(found - expected) / max(float(np.linalg.norm(expected)), 1e-12))
        yield _row("gpu", "parity", subject, kind, relative_error=error, n=len(expected), input=f"against {against}")


def _timed(subject: GpuSubject, kind: str, engine: Engine, batch: int, options: GpuBenchOptions) -> Row:
    inputs = subject.inputs(batch)
    for _ in range(5):  # a CUDA graph is recorded at the fourth run
        engine.run(inputs)
    seconds: list[float] = []
    end_s = time.monotonic() + options.seconds
    rounds = 5 if options.quick else options.rounds
    cpu_s = time.process_time()
    while len(seconds) < rounds and (len(seconds) < 3 or time.monotonic() < end_s):
        before = time.perf_counter()
        engine.run(inputs)
        seconds.append(time.perf_counter() - before)
    row = _row("gpu", "latency", subject, kind, batch, cpu_s=time.process_time() - cpu_s, **percentiles(seconds))
    return {**row, "engine_name": engine.name, "cycles_per_s": batch / float(np.median(seconds))}


def _layers(engine: Engine, subject: GpuSubject) -> dict[str, float]:
    """The slowest layers of one run of batch 8, ms; of TensorRT only."""
    times: Callable[..., dict[str, float]] | None = getattr(engine, "layer_times", None)
    found = {} if times is None else times(subject.inputs(8))
    slowest = sorted(found.items(), key=lambda item: item[1], reverse=True)[:_LAYERS]
    return {name: round(ms, 4) for name, ms in slowest}


def _trtexec(subject: GpuSubject, batches: tuple[int, ...]) -> str:
    """The command of NVIDIA's tool that checks these figures."""

    def shapes(batch: int) -> str:
        return ",".join(f"{n}:{'x'.join(map(str, (batch, *row)))}" for n, (_, row) in subject.rows.items())

    low, best, high = min(batches), sorted(batches)[len(batches) // 2], max(batches)
    return (
        f"trtexec --onnx={Path(subject.file).name} --minShapes={shapes(low)} --optShapes={shapes(best)} "
        f"--maxShapes={shapes(high)} --shapes={shapes(best)} --stronglyTyped --noTF32 --useCudaGraph --useSpinWait"
    )


def _gpu_memory() -> float | None:
    if find_gpu() is None:
        return None
    driver = CudaDriver()
    try:
        with driver.current():
            free, total = driver.memory_mb()
    finally:
        driver.release()
    return total - free


_PRELOAD = """
import json, sys
onnxruntime = __import__("onnxruntime")  # bare: without what the SDK preloads; its telemetry is off by the environment
if sys.argv[1] == 'preload' and hasattr(onnxruntime, 'preload_dlls'):
    import contextlib, io
    with contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE
name = 'CUDAExecutionProvider'
if name not in onnxruntime.get_available_providers():
    print('absent')
else:
    try:
        path = str(DEFAULT_BUNDLE / 'classifier.fp32.onnx')
        s = onnxruntime.InferenceSession(path, providers=[name], enable_fallback=0)
        print('works' if s.get_providers()[0] == name else 'falls back')
    except Exception as error:
        print('fails: ' + str(error).splitlines()[0][:200])
"""


def _preload_row() -> Row:
    """Whether ONNX Runtime's CUDA provider works in a new process, with its libraries loaded first and without."""
    found = {}
    for way in ("plain", "preload"):
        done = subprocess.run([sys.executable, "-c", _PRELOAD, way], capture_output=True, text=True, check=False)
        found[way] = next(iter(done.stdout.splitlines()), f"exit {done.returncode}")
    return _row("gpu", "CUDA provider", cuda_plain=found["plain"], cuda_preloaded=found["preload"])


def _row(
    benchmark: str, part: str, subject: GpuSubject | None = None, engine: str | None = None, batch: int | None = None,
    **figures: Any,
) -> Row:  # fmt: skip
    about = {"part": part, "engine": engine, "batch": batch}
    if subject is not None:
        about |= {"model": subject.name, "artefact": subject.precision}
    return {"benchmark": benchmark, "subject": about, **figures}
