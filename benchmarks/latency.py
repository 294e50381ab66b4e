"""Model latency per cycle: bundles × artefacts × engines × threads × batches, next to the network in torch eager."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compare import ratio_interval
from benchmarks.core.audio import PreloadedRecording, Samples, cycle_windows, folder_recordings, phantom_recordings
from benchmarks.core.energy import EnergyMeter
from benchmarks.core.harness import Interrupted, Row, interleave, machine_row, percentiles, pinned
from benchmarks.core.roofline import Ceilings, count_macs, measure_ceilings
from edge_sdk.errors import RecipeError, StethoError
from edge_sdk.runtime.bundle.files import require
from edge_sdk.runtime.bundle.load import Bundle, file_checks, load_bundle, read_manifest, resolve_bundle

TORCH = "torch-eager"


@dataclass(frozen=True, slots=True)
class LatencyOptions:
    """What to measure."""

    bundles: tuple[str, ...] = ("default",)
    artefacts: tuple[str, ...] = ()  # formats; empty: all of a bundle
    engines: tuple[str, ...] = ("cpu",)  # names for load_bundle
    threads: tuple[int, ...] = (1,)
    batches: tuple[int, ...] = (1,)
    rounds: int = 300
    warm_up: int = 20
    root: Path | None = None  # folder of real recordings; simulated patients where absent
    stages_s: float = 60.0  # of audio through the stream for its stages; 0: no stages
    quick: bool = False


@dataclass
class Contender:
    """What is timed: an artefact in an engine, or the network in torch."""

    entry: Row  # the row's subject, without its batch
    call: Callable[[Samples], object]
    threads: int
    bundle: Bundle | None = None
    load_s: float | None = None
    engine: str = "cpu"  # name for load_bundle
    extra: Row = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Unique name."""
        return " ".join(str(value) for value in self.entry.values())


def run_latency(options: LatencyOptions, on_round: Callable[[int, int], None] | None = None) -> Iterator[Row]:
    """Rows: the machine, its ceilings, every contender × batch timed in turn in the same rounds, then the stages.

    ``ratio_to_torch`` is the median over rounds of torch's time divided by the contender's: above 1 is faster than
    torch. ``cpu_ratio`` is the contender's CPU time divided by torch's, which other load moves less.
    ``roofline_pct`` is the shortest time that the measured ceilings allow, divided by the median time. Both ceilings
    are for float32 on the CPU, so that int8 may exceed 100 %.
    """
    _check(options)
    yield machine_row()
    _import_torch()  # before pinning, because torch sizes its thread pool by the usable cores
    with pinned(max(options.threads)) as cores:
        ceilings = {threads: measure_ceilings(threads, quick=options.quick) for threads in options.threads}
        yield from (found.row() for found in ceilings.values())
        contenders: list[Contender] = []
        for made in _contenders(options):
            if isinstance(made, Contender):
                contenders.append(made)
            else:
                yield made
        for batch in options.batches:
            yield from _timed(contenders, batch, options, ceilings, cores, on_round)
        if options.stages_s > 0:
            from benchmarks.stream.stages import stage_rows

            seen = {id(c.bundle): c.bundle for c in contenders if c.bundle and c.bundle.artefact.default}
            for bundle in seen.values():
                yield from stage_rows(bundle, _recordings(options), options.stages_s)


def _check(options: LatencyOptions) -> None:
    """Refuse a damaged bundle and formats that no bundle holds; what cannot run here becomes a row later."""
    held: set[str] = set()
    for name in options.bundles:
        bundle_folder = resolve_bundle(name)
        manifest = read_manifest(bundle_folder)
        for check in file_checks(bundle_folder, manifest):
            require(check)
        held |= {artefact.format for artefact in manifest.artefacts}
    if options.artefacts and held.isdisjoint(options.artefacts):
        raise StethoError(f"no bundle here holds {', '.join(options.artefacts)}; there are {', '.join(sorted(held))}")


def _recordings(options: LatencyOptions) -> Iterator[PreloadedRecording]:
    seconds = 15.0 if options.quick else max(options.stages_s, 60.0)
    return phantom_recordings(seconds, 8000) if options.root is None else folder_recordings(options.root, seconds)


def _input(options: LatencyOptions) -> str:
    audio = "phantom patients" if options.root is None else f"recordings under {options.root.name}"
    return f"breaths of {audio}, PCM in, logits out"


def _timed(
    contenders: Sequence[Contender],
    batch: int,
    options: LatencyOptions,
    ceilings: dict[int, Ceilings],
    cores: list[int],
    on_round: Callable[[int, int], None] | None,
) -> Iterator[Row]:
    ready: dict[str, tuple[Contender, Samples]] = {}
    prepared: dict[str, Samples] = {}  # digest of the front end → windows
    for contender in contenders:
        assert contender.bundle is not None
        spec = contender.bundle.front_end
        if spec.digest not in prepared:
            prepared[spec.digest] = cycle_windows(_recordings(options), spec, max(8, 2 * batch))
        windows = prepared[spec.digest]
        try:
            contender.call(windows[:batch])
        except StethoError as error:
            yield _failed(contender.entry | {"batch": batch}, str(error))
            continue
        ready[contender.key] = (contender, windows)
    if not ready:
        return
    calls = {key: _call(contender.call, windows, batch) for key, (contender, windows) in ready.items()}
    interrupted = False
    try:
        timings = interleave(calls, rounds=options.rounds, warm_up=options.warm_up, on_round=on_round)
    except Interrupted as stopped:
        timings, interrupted = stopped.timings, True
    for key, (contender, windows) in ready.items():
        timing = timings[key]
        row: Row = {
            "benchmark": "latency",
            "subject": contender.entry | {"batch": batch},
            **percentiles(timing["seconds"]),
            "cpu_s": timing["cpu_s"],
            "rss_mb": None,
            "load_s": contender.load_s,
            **_ratio_to_torch(contender, timings),
            "cycles_per_s": batch / float(np.median(timing["seconds"])),
            "cores": cores,
            "input": _input(options),
            **contender.extra,
        }
        row |= _work(contender, windows[:batch], float(np.median(timing["seconds"])), ceilings[contender.threads])
        if not interrupted:
            row |= _separate_figures(contender, calls[key], options)
        yield row
    if interrupted:
        raise KeyboardInterrupt


def _call(call: Callable[[Samples], object], windows: Samples, batch: int) -> Callable[[int], object]:
    def one(index: int) -> object:
        start = index % (len(windows) - batch + 1)
        return call(windows[start : start + batch])

    return one


def _ratio_to_torch(contender: Contender, timings: dict[str, dict[str, Any]]) -> Row:
    torch_key = " ".join(str(v) for v in {**contender.entry, "artefact": TORCH, "engine": _torch_name()}.values())
    if torch_key not in timings:
        return {"ratio_to_torch": None}
    torch, own = timings[torch_key], timings[contender.key]
    ratio, *ends = ratio_interval(torch["seconds"], own["seconds"], paired=True)
    row: Row = {"ratio_to_torch": ratio, "ratio_to_torch_ci": ends}
    if torch_key != contender.key:
        row["cpu_ratio"], low, high = ratio_interval(own["cpu_seconds"], torch["cpu_seconds"], paired=True)
        row |= {"cpu_ratio_low": low, "cpu_ratio_high": high, "reference": TORCH}
    return row


def _work(contender: Contender, windows: Samples, median_s: float, ceilings: Ceilings) -> Row:
    """The amount of computation, and the share of the machine's ceiling that was reached."""
    bundle = contender.bundle
    assert bundle is not None
    path = bundle.path / bundle.artefact.file
    try:
        macs = count_macs(path, _inputs_of(bundle, windows))
    except StethoError as error:
        return {"roofline_failed": str(error)}
    least_s, bound = ceilings.least_s(macs, path.stat().st_size + windows.nbytes)
    work: Row = {"macs": macs, "gflops": 2 * macs / median_s / 1e9, "bytes": path.stat().st_size}
    if contender.engine == "cpu":  # the ceilings are for the CPU
        work |= {"roofline_pct": 100 * least_s / median_s, "bound": bound}
    return work


class _Recorder:
    """An engine that keeps its last inputs."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.last_inputs: Mapping[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, inputs: Mapping[str, Any]) -> Any:
        self.last_inputs = inputs
        return self._engine.run(inputs)


def _inputs_of(bundle: Bundle, windows: Samples) -> Mapping[str, Any]:
    """All inputs of the graph, metadata included."""
    recorder = _Recorder(bundle.engine)
    bundle.with_engine(recorder).classifier.logits(windows)
    return recorder.last_inputs


def _separate_figures(contender: Contender, call: Callable[[int], object], options: LatencyOptions) -> Row:
    """What interleaved rounds cannot measure: memory, and energy where the machine has a meter."""
    row: Row = {}
    bundle = contender.bundle
    if bundle is not None and contender.entry["artefact"] != TORCH:
        row["rss_mb"] = _resident_mb(bundle.path, bundle.artefact.format, contender.threads, contender.engine)
    meter = EnergyMeter()
    if meter.available:
        with meter:
            for index in range(options.rounds):
                call(index)
        if meter.joules is not None:
            row |= meter.figures() | {"mj_per_call": 1e3 * meter.joules / options.rounds}
    return row


# -- contenders --------------------------------------------------------------------------------------------------------


def _contenders(options: LatencyOptions) -> Iterator[Contender | Row]:
    """Everything that can be loaded; what cannot is a row with the reason."""
    named: set[str] = set()
    for name in options.bundles:
        bundle_folder = resolve_bundle(name)
        manifest = read_manifest(bundle_folder)
        model = f"{manifest.name} {manifest.version}"
        if model in named:  # two states of one model differ by their folder
            model = f"{model} ({Path(name).name}{'' if f'{model} ({Path(name).name})' not in named else len(named)})"
        named.add(model)
        formats = [a.format for a in manifest.artefacts]
        for threads in options.threads:
            loaded: list[Bundle] = []
            for form in options.artefacts or formats:
                for engine in options.engines:
                    entry = {"model": model, "artefact": form, "engine": engine, "threads": threads}
                    made = _loaded(bundle_folder, form, engine, threads, entry)
                    if isinstance(made, Contender) and made.bundle is not None:
                        loaded.append(made.bundle)
                    yield made
            if loaded:
                yield _torch(loaded[0], model, threads)


def _failed(entry: Row, reason: str) -> Row:
    return {"benchmark": "latency", "subject": entry, "failed": reason}


def _loaded(bundle_folder: Path, form: str, engine: str, threads: int, entry: Row) -> Contender | Row:
    before = time.perf_counter_ns()
    try:
        bundle = load_bundle(
            bundle_folder, artefact=form, threads=threads, verify=False, allow_untrained=True, engine=engine
        )
    except StethoError as error:
        return _failed(entry | {"batch": 1}, str(error))
    load_s = (time.perf_counter_ns() - before) / 1e9
    return Contender(entry | {"engine": bundle.engine.name}, bundle.classifier.logits, threads, bundle, load_s, engine)


def _torch(bundle: Bundle, model: str, threads: int) -> Contender | Row:
    entry = {"model": model, "artefact": TORCH, "engine": _torch_name(), "threads": threads}
    network, reason = torch_network(bundle)
    if network is None:
        return _failed(entry | {"batch": 1}, reason)
    import torch

    def call(windows: Samples) -> object:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return network(torch.from_numpy(windows)).numpy()

    return Contender(entry, call, threads, bundle)


def torch_network(bundle: Bundle) -> tuple[Any, str]:
    """The network of the bundle's recipe, untrained (speed does not depend on weights), or why there is none."""
    recipe = bundle.manifest.training.get("recipe") or {}
    if "model" not in recipe:
        return None, "the bundle does not name the recipe of its training"
    try:
        import torch

        from edge_sdk.models.layers.front_end import FoldedFrontEnd
        from edge_sdk.models.registry import build_model
    except ImportError as error:
        return None, f"{error.name} is not installed; run 'pip install \"stethoscope-edge-sdk[train]\"'"
    part = recipe["model"]
    try:
        network = build_model(
            part["name"],
            size=part["size"],
            classes=len(bundle.labels),
            front_end=bundle.front_end,
            options=part.get("options"),
        )
    except (RecipeError, TypeError) as error:
        return None, str(error)
    return torch.nn.Sequential(FoldedFrontEnd(bundle.front_end), network).eval(), ""


def _import_torch() -> None:
    with suppress(ImportError):
        import torch  # noqa: F401


def _torch_name() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"torch-{version('torch')}-eager-cpu"
    except PackageNotFoundError:
        return "torch"


_PROBE = """
import sys
import numpy as np
from benchmarks.core.harness import peak_rss_mb
from edge_sdk.runtime.bundle.load import load_bundle
folder, form, threads, engine = sys.argv[1:]
bundle = load_bundle(
    folder, artefact=form, threads=int(threads), verify=False, allow_untrained=True, engine=engine
)
for _ in range(5):
    bundle.classifier.logits(np.zeros((1, bundle.front_end.window_samples), np.float32))
print(peak_rss_mb())
"""


@cache
def _resident_mb(bundle_folder: Path, artefact: str, threads: int, engine: str) -> float | None:
    """Peak memory of a new process that loads the artefact and runs it: Python, numpy and the engine included."""
    command = [sys.executable, "-c", _PROBE, str(bundle_folder.resolve()), artefact, str(threads), engine]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None
