"""``doctor`` compares the code in a provider with the board, and the extras for GPUs fit each other."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomllib
from packaging.requirements import Requirement

from edge_sdk.cli.doctor import gpu as doctor_gpu
from edge_sdk.cli.doctor.board import device_code_check, power_check
from edge_sdk.cli.doctor.device_code import device_code
from tests.cli.conftest import Stetho, stetho  # noqa: F401
from tests.support.gpu.machine import gpu_machine, put_engine
from tests.support.tiny_bundle import write_tiny_bundle

_ROOT = Path(__file__).resolve().parents[3]


def _entry(kind: int, architecture: int, code: bytes) -> bytes:
    header = struct.pack("<HHIQIIHHI", kind, 0x101, 64, len(code), 0, 0, 0, 1, architecture)
    return header + bytes(64 - len(header)) + code


def _library(folder: Path, *binaries: list[tuple[int, int]]) -> Path:
    """A shared library in whose sections fat binaries lie, among other bytes and the magic number by chance."""
    content = b"\x7fELF" + bytes(100) + b"\x50\xed\x55\xba" + b"\xff" * 40
    for entries in binaries:
        body = b"".join(_entry(kind, sm, bytes(48)) for kind, sm in entries)
        content += bytes(12) + struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body
    path = folder / "libonnxruntime_providers_cuda.so"
    path.write_bytes(content)
    return path


def test_device_code_is_read_from_the_library(tmp_path: Path) -> None:
    found = device_code(_library(tmp_path, [(2, 89), (2, 90)], [(2, 120), (1, 121)]))
    assert (set(found.binaries), set(found.ptx)) == ({89, 90, 120}, {121})
    assert str(found) == "sm_89, sm_90, sm_120, compute_121 (PTX)"


@pytest.mark.parametrize(
    ("capability", "entries", "runs"),
    [
        ("8.7", [(2, 89), (2, 90), (2, 120), (2, 121)], False),  # onnxruntime-gpu 1.31.1 for aarch64, on an Orin
        ("11.0", [(2, 89), (2, 90), (2, 120), (2, 121)], False),  # on a Thor
        ("9.0", [(2, 89), (2, 90)], True),
        ("8.9", [(2, 86)], True),  # an earlier minor
        ("8.7", [(2, 86)], False),  # machine code of other GPUs does not run on a Jetson
        ("8.7", [(2, 87)], True),
        ("8.9", [(2, 87)], False),
        ("8.7", [(1, 80)], True),  # PTX
        ("7.5", [(1, 80)], False),
    ],
)
def test_a_missing_kernel_is_named(capability: str, entries: list[tuple[int, int]], runs: bool, tmp_path: Path) -> None:
    check = device_code_check(_library(tmp_path, entries), capability)
    assert check is not None and check.status == ("ok" if runs else "failed")
    if not runs:
        assert f"no kernel for sm_{capability.replace('.', '')}" in check.detail
        assert check.fix is not None and "stetho compile" in check.fix


def test_power_mode_and_clocks_of_a_jetson(tmp_path: Path) -> None:
    mode, names, clocks = tmp_path / "status", tmp_path / "nvpmodel.conf", tmp_path / "devfreq"
    assert power_check(mode, names, clocks) is None
    mode.write_text("pmode:0002\n")
    names.write_text("< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=15W >\n")
    check = power_check(mode, names, clocks)
    assert check is not None and check.detail == "mode 2 (15W)"
    (clocks / "17000000.gpu").mkdir(parents=True)
    (clocks / "17000000.gpu/cur_freq").write_text("306000000\n")
    (clocks / "17000000.gpu/max_freq").write_text("612000000\n")
    check = power_check(mode, names, clocks)
    assert check is not None and check.detail.endswith("GPU at 306 of 612 MHz")
    assert check.fix is not None and "jetson_clocks" in check.fix


def test_doctor_gives_the_reason_why_the_cpu_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_sdk.runtime.engines import selection

    folder = write_tiny_bundle(tmp_path / "bundle", untrained=False)
    machine = gpu_machine(tmp_path, monkeypatch)
    put_engine(folder, machine)
    monkeypatch.setattr(selection, "times_of_one_cycle", lambda *_: [0.004, 0.001])
    check = doctor_gpu.engines_check(str(folder))
    assert "takes 4.00 ms for one cycle" in check.detail and "the CPU stays" in check.detail
    assert "16 multiprocessors" in doctor_gpu.gpu_check().detail
    assert machine.memory == {}  # nothing that doctor tried is left on the GPU


def test_a_tensorrt_that_finds_no_gpu_is_absent_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bindings:
        __version__ = "10.3.0"

        class Logger:
            ERROR = 1

            def __init__(self, severity: int) -> None: ...

        @staticmethod
        def Builder(logger: Any) -> None:
            raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setitem(sys.modules, "tensorrt", Bindings)  # type: ignore[arg-type]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    check = doctor_gpu.tensorrt_check("tensorrt", "tensorrt")
    assert check.status == "absent" and "no usable GPU" in check.detail


def _extra(name: str) -> dict[str, Requirement]:
    """Package → requirement."""
    text = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    found = [Requirement(line) for line in text["project"]["optional-dependencies"][name]]
    return {requirement.name: requirement for requirement in found}


GPU_WHEELS = {
    # extra: Python → newest wheel that fits, and the major of its cuBLAS
    "gpu-cu12": {"3.10": ("1.23.2", "12"), "3.12": ("1.26.0", "12")},
    "gpu-cu13": {"3.11": ("1.31.1", "13"), "3.12": ("1.31.1", "13")},
}
"""Read from PyPI in November 2026; a long test resolves them."""


def test_the_pins_of_the_gpu_extras_do_not_overlap_and_fit_the_libraries() -> None:
    runtime = {extra: _extra(extra)["onnxruntime-gpu"] for extra in GPU_WHEELS}
    for extra, rows in GPU_WHEELS.items():
        requirement = runtime[extra]
        assert requirement.extras == {"cuda", "cudnn"}  # preload_dlls finds CUDA and cuDNN in their wheels
        for python, (version, _) in rows.items():
            assert version in requirement.specifier, (extra, python)
            environment = {"python_version": python, "sys_platform": "linux", "platform_machine": "x86_64"}
            assert requirement.marker is not None and requirement.marker.evaluate(environment)
            assert not requirement.marker.evaluate({**environment, "platform_machine": "aarch64"})  # no Jetson kernels
    assert not any(v in runtime["gpu-cu12"].specifier for v in ("1.27.0", "1.31.1"))
    assert not any(v in runtime["gpu-cu13"].specifier for v in ("1.23.2", "1.26.0"))
    for extra, package in (("tensorrt", "tensorrt-cu13"), ("tensorrt-cu12", "tensorrt-cu12")):
        specifier = _extra(extra)[package].specifier
        assert "10.16.1.11" in specifier and "11.4.0.106" not in specifier


@pytest.mark.parametrize("extra", ["gpu-cu12", "gpu-cu13", "tensorrt", "tensorrt-cu12", "tensorrt-rtx"])
def test_every_extra_for_gpus_brings_what_reads_the_graphs(extra: str) -> None:
    assert str(_extra(extra)["onnx"]) == str(_extra("export")["onnx"])  # on every platform: no marker


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("compile", "default"), "tensorrt"),
        (("compile", "default", "--flavour", "tensorrt-rtx", "--for", "8.6"), "tensorrt-rtx"),
        (("triton", "repo", "default", "--out", "models"), "export"),
        (("bench", "gpu"), "gpu-cu13"),
        (("bench", "gpu", "--quick"), "gpu-cu13"),
        (("bench", "gpu", "--pack", "packed"), "export"),
    ],
)
def test_without_onnx_the_line_names_the_extra(
    stetho: Stetho,  # noqa: F811
    arguments: tuple[str, ...],
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] in ("onnx", "export")]:
        monkeypatch.delitem(sys.modules, name)  # as in a process of its own
    monkeypatch.setitem(sys.modules, "onnx", None)
    outcome = stetho(*arguments)
    assert (
        outcome.status == 1 and f"needs onnx; install with: pip install 'stethoscope-edge-sdk[{extra}]'" in outcome.err
    )
    assert "Traceback" not in outcome.err and list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize(("extra", "python"), [(e, p) for e, rows in GPU_WHEELS.items() for p in rows])
def test_the_gpu_extras_resolve(extra: str, python: str, tmp_path: Path) -> None:
    requirement = _extra(extra)["onnxruntime-gpu"]
    wanted = f"{requirement.name}[{','.join(sorted(requirement.extras))}]{requirement.specifier}"
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (17, 27, 28)] + [
        "--platform=manylinux2014_x86_64"
    ]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "-q", "--only-binary=:all:",
               f"--python-version={python}", *platforms, f"--target={tmp_path / 'none'}", "--report", "-",
               wanted]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {i["metadata"]["name"]: i["metadata"]["version"] for i in json.loads(done.stdout)["install"]}
    version, cuda = GPU_WHEELS[extra][python]
    assert found["onnxruntime-gpu"] >= version
    cublas = next(v for name, v in found.items() if name.startswith("nvidia-cublas"))
    assert cublas.split(".")[0] == cuda and any(name.startswith("nvidia-cudnn") for name in found)
