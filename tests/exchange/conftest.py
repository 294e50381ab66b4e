"""Examinations of real recordings, screened once a module."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import pytest

import edge_sdk
from edge_sdk.exchange.examination import BundleIdentity, Examination, ExaminedRecording, recording_of

STARTED = datetime(2024, 2, 29, 23, 59, 58, 125_000, tzinfo=timezone.utc)


def examined(paths: Sequence[Path], sites: Sequence[str | None]) -> Examination:
    """Screen recordings, with everything that a session may know of them."""
    bundle = edge_sdk.load_bundle()
    identity = BundleIdentity.of(bundle.identity)
    recordings: list[ExaminedRecording] = []
    for number, (path, site) in enumerate(zip(paths, sites, strict=True)):
        metadata = {"site": site, "age_years": 91.5, "sex": "female", "bmi": 21.5, "name": "Erika Mustermann"}
        made = recording_of(
            edge_sdk.screen(path, bundle=bundle).records,
            audio=path,
            bundle=identity,
            sdk_version="0.1.0",
            metadata={key: value for key, value in metadata.items() if value is not None},
            device={"model": "Phantom S", "serial_number": "SN-4711", "firmware": "1.2.3", "owner": "Dr. Mustermann"},
            started=STARTED if number % 2 == 0 else None,
        )
        recordings.append(made)
    return Examination(tuple(recordings))


@pytest.fixture(scope="session")
def examination(data_root: Path, kauh_file: Path) -> Examination:
    """Two recordings of adults: one with a finding, of two stethoscopes."""
    crackles = data_root / "icbhi" / "107_2b3_Ar_mc_AKGC417L.flac"
    return examined([kauh_file, crackles], ["left lateral", "right anterior"])
