"""Fixtures every room shares: where the real recordings lie, and single-threaded arithmetic."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from edge_sdk.json_lines import readable

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # two pytest workers share two cores; must precede the first numpy import

REPO_ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")


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
