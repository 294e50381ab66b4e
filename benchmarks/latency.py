"""Model latency per breath: every artefact of a bundle beside the same network in torch eager."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Row, interleave, machine_row, median_ratio, percentiles
from edge_sdk.errors import RecipeError
from edge_sdk.runtime.bundle import Bundle, load_bundle, read_manifest, resolve_bundle
from edge_sdk.signal.padding import fit_window
from edge_sdk.signal.spec import FrontEndSpec

Clips = npt.NDArray[np.float32]
TORCH = "torch-eager"


@dataclass(frozen=True, slots=True)
class LatencyOptions:
    """What to measure."""

    bundle: str = "default"
    threads: int = 1
    batches: tuple[int, ...] = (1,)
    rounds: int = 300
    warm_up: int = 20


def phantom_clips(spec: FrontEndSpec, count: int) -> Clips:
    """Breaths of simulated patients in the classifier's window, ``[count, window_samples]``."""
    from edge_sdk.sources.phantom import DEFAULT_SEED, PhantomSource

    source = PhantomSource("pneumonia", seed=DEFAULT_SEED, duration_s=4.0 * count + 8.0, sample_rate=spec.rate_hz)
    samples = np.concatenate([block.samples for block in source])
    breaths = [t for t in source.truth if t.end <= samples.size][:count]
    clips = [fit_window(samples[t.onset : t.end], spec) for t in breaths]
    return np.stack([clips[i % len(clips)] for i in range(count)])


def run(options: LatencyOptions, on_round: Callable[[int, int], None] | None = None) -> Iterator[Row]:
    """Rows: the machine, then every artefact × batch, all timed in turn in the same rounds.

    ``ratio_to_torch`` is the median over rounds of torch's time by this subject's time: above 1 is faster.
    """
    yield machine_row()
    folder = resolve_bundle(options.bundle)
    manifest = read_manifest(folder)
    bundles, loads = {}, {}
    for entry in manifest.artefacts:
        before = time.perf_counter_ns()
        bundles[entry.format] = load_bundle(
            folder, artefact=entry.format, threads=options.threads, verify=False, allow_untrained=True
        )
        loads[entry.format] = (time.perf_counter_ns() - before) / 1e9
    any_bundle = next(iter(bundles.values()))
    network, reason = _torch_network(any_bundle, options.threads)
    model = f"{manifest.name} {manifest.version}"
    for batch in options.batches:
        clips = phantom_clips(any_bundle.front_end, max(8, batch))
        subjects: dict[str, Callable[[int], object]] = {
            name: _bundle_call(bundle, clips, batch) for name, bundle in bundles.items()
        }
        if network is not None:
            subjects[TORCH] = _torch_call(network, clips, batch)
        timings = interleave(subjects, rounds=options.rounds, warm_up=options.warm_up, on_round=on_round)
        for name, timing in timings.items():
            yield {
                "benchmark": "latency",
                "subject": {
                    "model": model,
                    "artefact": name,
                    "engine": bundles[name].engine.name if name in bundles else _torch_name(),
                    "threads": options.threads,
                    "batch": batch,
                },
                **percentiles(timing["seconds"]),
                "cpu_s": timing["cpu_s"],
                "rss_mb": _resident_mb(folder, name, options.threads) if name in bundles else None,
                "load_s": loads.get(name),
                "ratio_to_torch": median_ratio(timings[TORCH]["seconds"], timing["seconds"])
                if TORCH in timings
                else None,
                "input": "phantom pneumonia breaths, PCM in, logits out",
            }
    if network is None:
        yield {
            "benchmark": "latency",
            "subject": {"model": model, "artefact": TORCH, "engine": "torch", "threads": options.threads, "batch": 1},
            "failed": reason,
        }


def _bundle_call(bundle: Bundle, clips: Clips, batch: int) -> Callable[[int], object]:
    return lambda index: bundle.logits(_pick(clips, index, batch))


def _pick(clips: Clips, index: int, batch: int) -> Clips:
    start = index % (len(clips) - batch + 1)
    return clips[start : start + batch]


def _torch_network(bundle: Bundle, threads: int) -> tuple[Any, str]:
    """The network of the bundle's recipe with fresh weights (they do not change its speed), or why there is none."""
    training = bundle.manifest.training
    recipe = training.get("recipe") or {}
    if "model" not in recipe:
        return None, "the bundle does not name the recipe it was trained by"
    try:
        import torch

        from edge_sdk.models.frontend import FoldedFrontEnd
        from edge_sdk.models.registry import build_model
    except ImportError as error:
        return None, f"{error.name} is not installed; run 'pip install \"stethoscope-edge-sdk[train]\"'"
    torch.set_num_threads(threads)
    part = recipe["model"]
    try:
        network = build_model(
            part["name"],
            size=part["size"],
            classes=len(bundle.labels),
            front_end=bundle.front_end,
            options=part.get("options"),
        )
    except RecipeError as error:
        return None, str(error)
    return torch.nn.Sequential(FoldedFrontEnd(bundle.front_end), network).eval(), ""


def _torch_call(network: Any, clips: Clips, batch: int) -> Callable[[int], object]:
    import torch

    def call(index: int) -> object:
        with torch.inference_mode():
            return network(torch.from_numpy(_pick(clips, index, batch))).numpy()

    return call


def _torch_name() -> str:
    from importlib.metadata import version

    return f"torch-{version('torch')}-eager-cpu"


_PROBE = """
import sys
import numpy as np
from benchmarks.harness import peak_rss_mb
from edge_sdk.runtime.bundle import load_bundle
bundle = load_bundle(sys.argv[1], artefact=sys.argv[2], threads=int(sys.argv[3]), verify=False, allow_untrained=True)
for _ in range(5):
    bundle.logits(np.zeros((1, bundle.front_end.window_samples), np.float32))
print(peak_rss_mb())
"""


def _resident_mb(folder: Path, artefact: str, threads: int) -> float | None:
    """Peak memory of a fresh process that loads the artefact and runs it: Python, numpy and the engine included."""
    command = [sys.executable, "-c", _PROBE, str(folder.resolve()), artefact, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None
