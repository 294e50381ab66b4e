"""A machine with TensorRT and a GPU, both doubles, and compiled engines in a cache of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.runtime.bundle.load import read_manifest
from edge_sdk.runtime.engines import cuda_driver, selection
from edge_sdk.runtime.engines import tensorrt as tensorrt_engine
from edge_sdk.runtime.engines.cache import EngineKey, cache_folder, store_engine
from edge_sdk.runtime.engines.cuda_driver import CudaDriver
from tests.support.gpu.cuda_double import CudaDouble
from tests.support.gpu.tensorrt_double import tensorrt_double
from tests.support.tiny_bundle import ARTEFACT


def gpu_machine(folder: Path, monkeypatch: pytest.MonkeyPatch, release: str = "10.3", **cuda: Any) -> CudaDouble:
    """Install the doubles, with a cache below ``folder``; the GPU is faster than the CPU."""
    library = CudaDouble(**cuda)
    library.module = module = tensorrt_double(release, library)
    monkeypatch.setenv("STETHO_CACHE", str(folder / "cache"))
    monkeypatch.setenv("STETHO_STATE", str(folder / "state"))
    monkeypatch.setattr(cuda_driver, "_load", lambda: library)
    monkeypatch.setattr(tensorrt_engine, "load_module", lambda flavour: module)
    monkeypatch.setattr(selection, "times_of_one_cycle", lambda *_: [0.001, 0.002])
    return library


def put_engine(
    bundle: Path,
    library: CudaDouble,
    content: bytes | None = None,
    *,
    profiles: tuple[tuple[int, int, int], ...] = ((1, 8, 64),),
    facts: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Store an engine of a tiny bundle in the cache; ``content``: the graph that it computes, else the bundle's own."""
    entry = read_manifest(bundle).artefacts[0]
    gpu = CudaDriver(library).gpu
    fields: dict[str, Any] = {
        "onnx_sha256": entry.sha256, "flavour": "tensorrt", "version": "10.3.0", "gpu": gpu.name,
        "capability": gpu.capability, "driver": gpu.driver, "precision": "fp32", "profiles": "1-8-64", "sms": gpu.sms,
    }  # fmt: skip
    key = EngineKey(**(fields | changes))
    samples = round(entry.front_end["window_s"] * entry.front_end["rate_hz"])
    shapes = [{"pcm": [[n, samples] for n in profile]} for profile in profiles]
    graph = (bundle / ARTEFACT).read_bytes() if content is None else content
    path = cache_folder() / key.file_name
    store_engine(path, json.dumps({"profiles": shapes}).encode() + b"\n" + graph, key, facts or {})
    return path
