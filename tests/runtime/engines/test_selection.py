"""The best proven engine runs a bundle; the others are tried in order, with a warning, and never used unproven."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk.errors import BundleError, EngineError
from edge_sdk.runtime.bundle.load import load_bundle, read_manifest
from edge_sdk.runtime.engines import cuda_driver, selection
from edge_sdk.runtime.engines.library import onnxruntime
from tests.support.gpu.cuda_double import CudaDouble
from tests.support.gpu.machine import gpu_machine, put_engine
from tests.support.tiny_bundle import ARTEFACT, write_tiny_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle", untrained=False)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CudaDouble:
    return gpu_machine(tmp_path, monkeypatch)


def test_on_a_machine_without_gpu_the_cpu_runs_and_nothing_else_is_looked_at(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert [(a.kind, a.ok) for a in bundle.attempts] == [("cpu", True)]
    code = (
        "import json, sys; from edge_sdk.runtime.bundle.load import load_bundle; load_bundle(); "
        "print(json.dumps([m for m in ('tensorrt', 'tensorrt_rtx', 'edge_sdk.runtime.engines.tensorrt', "
        "'edge_sdk.runtime.engines.cuda_driver', 'cryptography') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_compiled_engine_comes_first_and_gives_the_logits_of_the_cpu(folder: Path, machine: CudaDouble) -> None:
    put_engine(folder, machine)
    bundle = load_bundle(folder)
    assert bundle.engine.name == "tensorrt-10.3.0-Orin"
    pcm = (np.random.default_rng(0).standard_normal((3, bundle.front_end.window_samples)) * 0.05).astype(np.float32)
    assert np.allclose(
        bundle.classifier.logits(pcm), load_bundle(folder, engine="cpu").classifier.logits(pcm), atol=1e-5
    )


@pytest.mark.requirement("BUN-4")
def test_an_engine_with_wrong_outputs_is_skipped_with_a_warning(
    folder: Path, tmp_path: Path, machine: CudaDouble, caplog: pytest.LogCaptureFixture
) -> None:
    other = write_tiny_bundle(tmp_path / "other", seed=5)
    put_engine(folder, machine, (other / ARTEFACT).read_bytes())  # the right hash, the wrong weights
    with caplog.at_level(logging.WARNING):
        bundle = load_bundle(folder, verify=False)  # a GPU engine is compared all the same
    assert bundle.engine.name.endswith("-cpu")
    assert [(a.kind, a.ok) for a in bundle.attempts] == [("tensorrt", False), ("cpu", True)]
    assert "the golden vector" in caplog.text
    with pytest.raises(BundleError, match="golden vector"):
        load_bundle(folder, engine="tensorrt")


def test_a_foreign_engine_in_the_cache_is_skipped(folder: Path, machine: CudaDouble) -> None:
    put_engine(folder, machine, gpu="Xavier")
    bundle = load_bundle(folder)
    assert [(a.kind, a.ok) for a in bundle.attempts] == [("tensorrt", False), ("cpu", True)]
    assert "built for Xavier" in bundle.attempts[0].detail


def test_engines_of_a_machine_without_gpu_are_not_tried_at_each_start(
    folder: Path, machine: CudaDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_engine(folder, machine)

    def no_driver() -> Any:
        raise EngineError("no NVIDIA driver")

    monkeypatch.setattr(cuda_driver, "_load", no_driver)
    assert [a.kind for a in load_bundle(folder).attempts] == ["cpu"]


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_only_claims_to_be_there_is_found_out(
    folder: Path, machine: CudaDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``get_available_providers`` lists what was compiled in; without libraries a session falls back in silence."""
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    bundle = load_bundle(folder)
    assert [(a.kind, a.ok) for a in bundle.attempts] == [("cuda", False), ("cpu", True)]
    assert "cannot use CUDAExecutionProvider" in bundle.attempts[0].detail


@pytest.mark.parametrize(
    ("engine", "fix"), [("tensorrt", "stetho compile"), ("cuda", "onnxruntime-gpu"), ("tensorrt-ep", "onnxruntime-gpu")]
)
def test_an_engine_asked_for_that_is_not_there_is_an_error_with_the_fix(
    engine: str, fix: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STETHO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STETHO_ENGINE", engine)
    with pytest.raises(EngineError, match=fix):
        load_bundle(folder)
    monkeypatch.setenv("STETHO_ENGINE", "gpu")
    with pytest.raises(EngineError, match="engine 'gpu' does not exist; choose auto, tensorrt, tensorrt-ep, cuda, cpu"):
        load_bundle(folder)


def test_looking_for_engines_leaves_no_trace(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STETHO_CACHE", str(tmp_path / "nothing"))
    manifest = read_manifest(folder)
    found = selection.candidates(manifest, manifest.artefacts[0], "auto", 1, lambda entry: folder / entry.file)
    assert [candidate.kind for candidate in found] == ["cpu"]
    assert not (tmp_path / "nothing").exists()
