"""The machine that figures were measured on, as far as the system reports it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "soxr", "soundfile", "torch", "torchaudio", "onnx", "tensorrt")
_MARKS = re.compile(r"\((?:R|TM|C)\)|\b(?:CPU|Processor)\b", re.IGNORECASE)
_GPU_QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")


def machine_row() -> dict[str, Any]:
    """The first line of every benchmark: what the figures below it were measured on.

    ``usable_cores`` are those that this process may run on (cgroups and affinity), ``gpu`` is ``None`` where there is
    none.
    """
    return {
        "benchmark": "machine",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "gpu": _gpu(),
        "board": _board(),
        "architecture": platform.machine(),
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_mb": _memory_mb(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": _versions(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else [],
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def machine_name(row: Mapping[str, Any]) -> str:
    """Processor, cores, board and GPU of a machine's row in a few words; equal for machines of one kind."""
    cpu = _MARKS.sub(" ", str(row.get("cpu") or "unknown")).partition(" @ ")[0]
    gpu = row.get("gpu")
    cores = f"{row['cores']} cores" if row.get("cores") else ""
    parts = [" ".join(cpu.split()), cores, str(row.get("board") or "").partition(",")[0]]
    return ", ".join(
        part for part in (*parts, str(gpu.get("name") or "GPU") if isinstance(gpu, Mapping) else "") if part
    )


def usable_cores() -> list[int]:
    """Cores that this thread may run on; all cores where the system does not report it."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _first_line(path: str) -> str | None:
    try:
        return Path(path).read_text().splitlines()[0].strip("\0 ")
    except (OSError, IndexError):
        return None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _board() -> str | None:
    """Model name of a Jetson or a Raspberry Pi, with the power mode of a Jetson."""
    name = _first_line("/proc/device-tree/model")
    mode = _first_line("/var/lib/nvpmodel/status")
    return f"{name}, power mode {mode}" if name and mode else name


def _gpu() -> dict[str, str] | None:
    if shutil.which(_GPU_QUERY[0]) is None:
        return None
    try:
        done = subprocess.run(_GPU_QUERY, capture_output=True, text=True, check=False, timeout=10)
        name, driver, memory = done.stdout.splitlines()[0].split(", ")
    except (OSError, subprocess.TimeoutExpired, IndexError, ValueError):
        return None
    return {"name": name, "driver": driver, "memory": memory}


def _memory_mb() -> int | None:
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20)
    except (ValueError, OSError, AttributeError):
        return None
