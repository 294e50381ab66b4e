"""``stetho doctor`` on GPUs: driver, JetPack, TensorRT, ONNX Runtime's providers, and the engine a bundle would use."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from edge_sdk.cli.doctor.board import device_code_check, power_check
from edge_sdk.cli.doctor.checks import Check, guarded, version_of

_RELEASE_FILE = Path("/etc/nv_tegra_release")
_JETPACKS = (  # L4T release from which on → JetPack, its TensorRT
    ((39, 0, 0), "7.2", "10.16"),
    ((38, 0, 0), "7.0/7.1", "10.13"),
    ((36, 4, 4), "6.2.1", "10.3"),
    ((36, 4, 3), "6.2", "10.3"),
    ((36, 4, 0), "6.1", "10.3"),
    ((36, 0, 0), "6.0", "8.6"),
    ((35, 0, 0), "5", "8.5"),
)
_WHEELS = (
    "tensorrt", "tensorrt-cu12", "tensorrt-cu12-bindings", "tensorrt-cu12-libs", "tensorrt-cu13",
    "tensorrt-cu13-bindings", "tensorrt-cu13-libs", "tensorrt-rtx-cu13",
)  # fmt: skip
Versions = Callable[[str], "str | None"]


def gpu_checks(bundle: str) -> Iterator[Check]:
    """Run every check in order; none of them raises."""
    yield from guarded("gpu", gpu_check)
    yield from guarded("jetpack", jetpack_check)
    yield from guarded("power", power_check)
    yield from guarded("onnxruntime providers", onnxruntime_providers_check)
    yield from guarded("onnxruntime device code", device_code_check)
    for flavour, module in (("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")):
        yield from guarded(flavour, partial(tensorrt_check, flavour, module))
    yield from guarded("engines", partial(engines_check, bundle))


def gpu_check() -> Check:
    """Find an NVIDIA GPU and its driver."""
    from edge_sdk.runtime.engines.cuda_driver import find_gpu

    found = find_gpu()
    if found is None:
        return Check("gpu", "absent", "no NVIDIA driver or GPU: the CPU runs everything")
    return Check("gpu", "ok", f"{found}, {found.sms} multiprocessors")


def jetpack_check(
    release_file: Path = _RELEASE_FILE, versions: Versions = version_of, python: Sequence[int] = sys.version_info[:2]
) -> Check | None:
    """Check JetPack and its TensorRT; None where this is no Jetson."""
    if not is_jetson(release_file):
        return None
    release = _l4t(release_file)
    if release is None:
        return Check("jetpack", "absent", f"a Jetson, but {release_file} names no release")
    name, trt = next(((j, t) for least, j, t in _JETPACKS if release >= least), ("older than 5", "8"))
    text = f"JetPack {name} (L4T {'.'.join(map(str, release))}), whose TensorRT is {trt}"
    if tuple(python[:2]) < (3, 10):
        fix = "the runtime needs Python 3.10: flash JetPack 6 or later"
        return Check("jetpack", "failed", f"{text}; its Python is {python[0]}.{python[1]}", fix)
    wrong = [wheel for wheel in _WHEELS if versions(wheel)]
    if wrong:
        fix = f"pip uninstall -y {' '.join(wrong)}; then use JetPack's: python3 -m venv --system-site-packages"
        return Check("jetpack", "failed", f"{text}; TensorRT wheels from pip are not for Jetson", fix)
    return Check("jetpack", "ok", text)


def is_jetson(release_file: Path = _RELEASE_FILE) -> bool:
    """Return whether this is a Jetson, by its kernel or its release file."""
    return "tegra" in platform.release() or release_file.is_file()


def _l4t(release_file: Path) -> tuple[int, int, int] | None:
    try:
        text = release_file.read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"R(\d+) \(release\), REVISION: (\d+)(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def onnxruntime_providers_check(versions: Versions = version_of, available: Sequence[str] | None = None) -> Check:
    """List the devices this ONNX Runtime was built for; whether they work is tested by ``engines_check``."""
    if available is None:
        from edge_sdk.runtime.engines.library import onnxruntime

        available = onnxruntime.get_available_providers()
    listed = ", ".join(p.removesuffix("ExecutionProvider") for p in available)
    plain, on_gpu = versions("onnxruntime"), versions("onnxruntime-gpu")
    if plain and on_gpu and "CUDAExecutionProvider" not in available:
        return Check(
            "onnxruntime providers", "failed",
            f"onnxruntime {plain} lies over onnxruntime-gpu {on_gpu}, so that the GPU is not used ({listed})",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda,cudnn]'",
        )  # fmt: skip
    if plain and on_gpu:
        return Check(
            "onnxruntime providers", "absent",
            f"onnxruntime {plain} and onnxruntime-gpu {on_gpu} share one folder; the GPU one is on top now ({listed})",
            "pip uninstall -y onnxruntime, then reinstall onnxruntime-gpu",
        )  # fmt: skip
    return Check("onnxruntime providers", "ok", listed)


def tensorrt_check(flavour: str, module: str) -> Check:
    """Check that TensorRT is installed and can build: on its GPU, or for RTX ahead of time on any machine."""
    import importlib
    import importlib.util

    if importlib.util.find_spec(module) is None:
        fix = (
            "use JetPack's TensorRT: python3 -m venv --system-site-packages"
            if is_jetson()
            else f"pip install 'stethoscope-edge-sdk[{flavour}]'"
        )
        return Check(flavour, "absent", "not installed", fix)
    imported = importlib.import_module(module)
    version = imported.__version__
    try:  # the bindings raise TypeError where the library finds no usable GPU
        builder = imported.Builder(imported.Logger(imported.Logger.ERROR))
    except Exception as error:
        return Check(flavour, "absent", f"{version}, no usable GPU ({error})")
    if builder is None:
        return Check(flavour, "absent", f"{version}, no usable GPU")
    if gpu_check().status == "ok":
        return Check(flavour, "ok", f"{version}: builds engines ('stetho compile')")
    return Check(
        flavour, "ok", f"{version}: can build engines ahead of time ('stetho compile --for'); none was run here"
    )


def engines_check(bundle: str) -> Check:
    """Try every engine that a bundle could use here with one real inference; mark the one it would take."""
    from edge_sdk.errors import BundleError, StethoError
    from edge_sdk.runtime.bundle.load import load_bundle
    from edge_sdk.runtime.engines.selection import wanted_engine

    wanted = wanted_engine()
    try:
        with load_bundle(bundle, engine=wanted, allow_untrained=True) as loaded:
            in_use, attempts = loaded.engine.name, loaded.attempts
    except BundleError:
        return Check("engines", "absent", f"not tried: bundle {bundle} cannot be loaded")
    results = []
    for kind in ("tensorrt", "cuda", "cpu"):
        try:
            with load_bundle(bundle, engine=kind, allow_untrained=True) as loaded:
                name = loaded.engine.name
        except StethoError as error:
            results.append(f"{kind}: no, {error}")
        else:
            results.append(f"{kind}: {name} computes the golden vector{' (in use)' if name == in_use else ''}")
    slower = [a.detail for a in attempts if "the CPU stays" in a.detail]
    results += [f"{line}" for line in slower]
    prefix = "" if wanted == "auto" else f"STETHO_ENGINE={wanted}; "
    return Check("engines", "ok", prefix + "; ".join(results))
