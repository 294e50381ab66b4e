"""``doctor`` names what is wrong with the GPU side of a machine, and what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edge_sdk.cli.doctor import gpu as doctor_gpu
from tests.cli.conftest import Stetho

_HEADER = "# R{major} (release), REVISION: {rest}, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan 8\n"


def _release(folder: Path, major: int, rest: str) -> Path:
    path = folder / "nv_tegra_release"
    path.write_text(_HEADER.format(major=major, rest=rest))
    return path


def _nothing(_: str) -> str | None:
    return None


@pytest.mark.parametrize(
    ("major", "rest", "name", "trt"),
    [(36, "3.0", "6.0", "8.6"), (36, "4.0", "6.1", "10.3"), (36, "4.3", "6.2 ", "10.3"), (39, "2.0", "7.2", "10.16")],
)
def test_the_jetpack_is_read_from_the_boards_release_file(
    major: int, rest: str, name: str, trt: str, tmp_path: Path
) -> None:
    check = doctor_gpu.jetpack_check(_release(tmp_path, major, rest), _nothing)
    assert check is not None and check.status == "ok"
    assert f"JetPack {name}" in check.detail and f"TensorRT is {trt}" in check.detail


def test_jetpack_5_fails_because_its_python_is_too_old(tmp_path: Path) -> None:
    check = doctor_gpu.jetpack_check(_release(tmp_path, 35, "4.1"), _nothing, (3, 8, 10))
    assert check is not None and check.status == "failed"
    assert check.fix is not None and "flash JetPack 6" in check.fix


def test_tensorrt_wheels_on_a_jetson_are_a_fault_with_the_command_that_removes_them(tmp_path: Path) -> None:
    check = doctor_gpu.jetpack_check(_release(tmp_path, 36, "4.3"), {"tensorrt-cu13": "11.4.0"}.get)
    assert check is not None and check.status == "failed"
    assert check.fix is not None and check.fix.startswith("pip uninstall -y tensorrt-cu13;")


def test_other_machines_have_no_jetpack_check(tmp_path: Path) -> None:
    assert doctor_gpu.jetpack_check(tmp_path / "absent", _nothing) is None


def test_an_onnxruntime_that_shadows_the_gpu_one_is_noticed() -> None:
    both = {"onnxruntime": "1.23.2", "onnxruntime-gpu": "1.23.2"}.get
    check = doctor_gpu.onnxruntime_providers_check(both, ["CPUExecutionProvider"])
    assert (
        check.status == "failed"
        and check.fix is not None
        and "pip uninstall -y onnxruntime onnxruntime-gpu" in check.fix
    )
    assert doctor_gpu.onnxruntime_providers_check(both, ["CUDAExecutionProvider"]).status == "absent"
    only = {"onnxruntime-gpu": "1.23.2"}.get
    assert doctor_gpu.onnxruntime_providers_check(only, ["CUDAExecutionProvider"]).status == "ok"


def test_doctor_tries_every_engine_and_marks_the_one_in_use(
    stetho: Stetho, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STETHO_CACHE", str(tmp_path))
    checks = {r["name"]: r for r in stetho("doctor", "--json").records[:-1]}
    assert checks["gpu"]["status"] in ("ok", "absent")
    assert "CPU" in checks["onnxruntime providers"]["detail"]
    detail = checks["engines"]["detail"]
    assert "tensorrt: no, there is no engine for this bundle" in detail and "run 'stetho compile BUNDLE' here" in detail
    assert "-cpu computes the golden vector" in detail and "(in use)" in detail


def test_doctor_survives_a_tensorrt_that_cannot_be_imported(stetho: Stetho, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    outcome = stetho("doctor", "--json")
    assert outcome.status == 0 and outcome.records[-1]["type"] == "summary"
