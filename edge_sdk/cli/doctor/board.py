"""``stetho doctor`` on boards with a GPU: device code of ONNX Runtime, power mode and clocks."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from edge_sdk.cli.doctor.checks import Check
from edge_sdk.cli.doctor.device_code import DeviceCode, device_code

_MODE_FILE, _MODE_NAMES = Path("/var/lib/nvpmodel/status"), Path("/etc/nvpmodel.conf")
_FREQUENCIES = Path("/sys/class/devfreq")


def device_code_check(library: Path | None = None, capability: str | None = None) -> Check | None:
    """Compare the code in ONNX Runtime's CUDA provider with this GPU; None without provider or GPU."""
    library = library or _cuda_provider()
    capability = capability or _capability()
    if library is None or capability is None:
        return None
    name = "onnxruntime device code"
    found = device_code(library)
    if found == DeviceCode(frozenset(), frozenset()):
        return Check(name, "absent", f"{library.name} holds no GPU code that could be read")
    if found.runs_on(capability):
        return Check(name, "ok", f"has kernels for compute capability {capability} (built for {found})")
    number = capability.replace(".", "")
    return Check(
        name, "failed", f"no kernel for sm_{number}: {library.name} was built for {found}",
        "use TensorRT, which builds for this GPU ('stetho compile'), or an onnxruntime-gpu of the maker of the board",
    )  # fmt: skip


def power_check(mode: Path = _MODE_FILE, names: Path = _MODE_NAMES, frequencies: Path = _FREQUENCIES) -> Check | None:
    """Power mode and GPU clock of a Jetson; None where this is none. Figures are comparable in one mode only."""
    try:
        found = re.search(r"pmode:\s*(\d+)", mode.read_text(errors="replace"))
    except OSError:
        return None
    number = int(found[1]) if found else None
    title = _mode_name(names, number)
    parts = [f"mode {number}{f' ({title})' if title else ''}" if number is not None else "unknown mode"]
    clock = _gpu_clock(frequencies)
    if clock is None:
        return Check("power", "ok", parts[0])
    now, most = clock
    parts.append(f"GPU at {now / 1e6:.0f} of {most / 1e6:.0f} MHz")
    if now < most:
        return Check("power", "ok", ", ".join(parts), "before a benchmark: sudo nvpmodel -m 0; sudo jetson_clocks")
    return Check("power", "ok", ", ".join(parts))


def _cuda_provider() -> Path | None:
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return None
    found = sorted((Path(spec.origin).parent / "capi").glob("*onnxruntime_providers_cuda.*"))
    return found[0] if found else None


def _capability() -> str | None:
    from edge_sdk.runtime.engines.cuda_driver import find_gpu

    gpu = find_gpu()
    return None if gpu is None else gpu.capability


def _mode_name(names: Path, number: int | None) -> str | None:
    try:
        found = re.search(rf"POWER_MODEL\s+ID={number}\s+NAME=(\S+?)\s*>", names.read_text(errors="replace"))
    except OSError:
        return None
    return found[1] if found else None


def _gpu_clock(frequencies: Path) -> tuple[int, int] | None:
    """Present and highest frequency of the GPU, Hz."""
    for folder in sorted(frequencies.glob("*gpu*")) + sorted(frequencies.glob("*.g?20b")):
        try:
            return int((folder / "cur_freq").read_text()), int((folder / "max_freq").read_text())
        except (OSError, ValueError):
            continue
    return None
