"""Fixtures every room shares: where the real recordings lie, and single-threaded arithmetic."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from edge_sdk.json_lines import readable

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # two pytest workers share two cores; must precede the first numpy import

REPO_ROOT = Path(__file__).resolve().parent.parent

# What takes a worker longest begins first, so that none is left with it at the end; the rest follows by folder.
LONGEST = (
    "export/tensorrt/test_gate.py",
    "capture/test_pulse.py",
    "export/onnx/test_quantise.py",
    "training/segmentation/test_tuning.py",
    "export/test_export_command.py",
    "capture/test_serial.py",
    "docs/test_examples.py",
    "training/test_every_recipe.py",
    "training/figures/test_figures.py",
    "firmware_bridge/test_firmware_listen.py",
    "export/onnx/test_dass_export.py",
    "server/test_page.py",
    "models/test_conditioning.py",
    "export/test_segmenter_bundle.py",
    "benchmarks/test_bench_commands.py",
    "benchmarks/test_development.py",
    "training/loop/test_parallel.py",
    "export/test_pipeline.py",
    "training/classification/test_joint.py",
    "corpora/test_check.py",
    "sinks/test_mqtt_faults.py",
    "training/test_train_command.py",
)

settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put :data:`LONGEST` first; ``--no-loadscope-reorder`` keeps that order between workers."""
    places = {REPO_ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    """What is imported stays: the garbage collector need not visit it again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Workers send reports as UTF-8: a file name that is none must not end them where a test logs or prints it."""
    report = yield
    report.sections = [(name, readable(text)) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout."""
    return REPO_ROOT


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Real recordings: ``STETHO_DATA``, or ``../shared/data`` beside the checkout."""
    root = Path(os.environ.get("STETHO_DATA", REPO_ROOT.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.fail(f"no recordings at {root}; set STETHO_DATA to the folder that holds sprsound/, kauh/, ...")
    return root


@pytest.fixture(scope="session")
def sprsound_file(data_root: Path) -> Path:
    """One real recording of a child, 8 kHz."""
    return sorted((data_root / "sprsound").rglob("*.flac"))[0]


@pytest.fixture(scope="session")
def kauh_file(data_root: Path) -> Path:
    """One real recording of an adult, 4 kHz, another stethoscope."""
    return sorted((data_root / "kauh").rglob("*.flac"))[0]
