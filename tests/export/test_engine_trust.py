"""A device that wants signatures runs no compiled engine that nobody signed for this bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.runtime.bundle.engine_trust import secret_file
from edge_sdk.runtime.bundle.load import load_bundle
from edge_sdk.runtime.engines.cache import sidecar_path
from export.signing import make_key, sign_bundle
from export.tensorrt import builder
from export.tensorrt.api import TrtApi
from export.tensorrt.builder import EngineFile, compile_bundle
from tests.support.gpu.cuda_double import CudaDouble
from tests.support.gpu.machine import gpu_machine, put_engine
from tests.support.tiny_bundle import write_tiny_bundle


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CudaDouble:
    library = gpu_machine(tmp_path, monkeypatch)
    monkeypatch.setattr(builder, "find_api", lambda flavour: TrtApi(library.module, "tensorrt"))
    make_key(tmp_path / "maker", "clinic")
    monkeypatch.setenv("STETHO_TRUSTED_KEYS", str(tmp_path / "maker.pub"))
    return library


@pytest.fixture
def folder(tmp_path: Path, machine: CudaDouble) -> Path:
    bundle = write_tiny_bundle(tmp_path / "bundle", untrained=False, version="1.0.0")
    sign_bundle(bundle, tmp_path / "maker")
    return bundle


def _compiled(folder: Path, **options: Any) -> EngineFile:
    return compile_bundle(folder, **options)[1]


def _change(engine: EngineFile, **fields: Any) -> None:
    path = sidecar_path(engine.path)
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_an_engine_that_nobody_signed_is_refused(folder: Path, machine: CudaDouble) -> None:
    put_engine(folder, machine)
    bundle = load_bundle(folder)
    assert bundle.engine.name.endswith("-cpu")
    assert "the engine is not signed, and this device wants signatures" in bundle.attempts[0].detail


def test_an_engine_that_was_compiled_here_for_the_signed_bundle_runs(folder: Path) -> None:
    engine = _compiled(folder)
    assert load_bundle(folder).engine.name.startswith("tensorrt")
    assert secret_file().stat().st_mode & 0o777 == 0o600
    assert _compiled(folder).cached and engine.sidecar["seal"]


@pytest.mark.parametrize("changed", ["engine", "key", "seal", "bundle"])
def test_whatever_is_changed_afterwards_breaks_the_seal(changed: str, folder: Path, tmp_path: Path) -> None:
    engine = _compiled(folder)
    if changed == "engine":
        import hashlib

        content = engine.path.read_bytes() + b" "
        engine.path.write_bytes(content)
        _change(engine, sha256=hashlib.sha256(content).hexdigest())
    elif changed == "key":
        _change(engine, key=engine.sidecar["key"] | {"options": "version-compatible"})
    elif changed == "seal":
        _change(engine, seal="0" * 64)
    else:
        write_tiny_bundle(folder, untrained=False, version="1.0.1")
        sign_bundle(folder, tmp_path / "maker")
    bundle = load_bundle(folder)
    assert bundle.engine.name.endswith("-cpu") and "compile" in bundle.attempts[0].detail
    assert not _compiled(folder).cached  # it is built again, and runs
    assert load_bundle(folder).engine.name.startswith("tensorrt")


def test_an_engine_of_the_maker_runs_on_every_board_that_trusts_the_key(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _compiled(folder, sign=tmp_path / "maker")
    secret_file().unlink()  # the seal of the board it was built on means nothing elsewhere
    assert load_bundle(folder).engine.name.startswith("tensorrt")
    make_key(tmp_path / "other", "other")
    shutil.copy(engine.path, tmp_path / "copy.engine")
    sign_bundle(folder, tmp_path / "other")
    monkeypatch.setenv("STETHO_TRUSTED_KEYS", str(tmp_path / "other.pub"))
    assert load_bundle(folder).engine.name.endswith("-cpu")


def test_without_trusted_keys_nothing_is_asked_of_engines(
    folder: Path, machine: CudaDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STETHO_TRUSTED_KEYS")
    put_engine(folder, machine)
    assert load_bundle(folder).engine.name.startswith("tensorrt")
    assert not secret_file().exists()
