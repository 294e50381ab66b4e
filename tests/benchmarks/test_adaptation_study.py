"""The study of ``stetho adapt`` on recordings whose devices differ by an offset alone."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.studies.adaptation import Row, study
from edge_sdk.errors import CorpusError
from edge_sdk.runtime.bundle.load import load_bundle
from edge_sdk.screening.adaptation import RecordingEvidence


def rows(device: str, offset: float, patients: int = 20, seed: int = 0) -> list[Row]:
    """Half of the patients are abnormal, by two units of log odds; the device adds ``offset``."""
    random = np.random.default_rng(seed)
    found = []
    for k in range(patients):
        margins = random.normal(offset + (2.0 if k % 2 else -2.0), 0.5, 8)
        evidence = RecordingEvidence(f"{device}{k}", 10.0, None, tuple(margins.tolist()), None)
        found.append(Row(device, f"{device}{k}", bool(k % 2), evidence))
    return found


def test_an_offset_of_a_device_goes_and_a_device_without_one_stays() -> None:
    manifest = load_bundle("default").manifest
    report = study(manifest, [*rows("right", 0.0), *rows("loud", 4.5)], normals=5, draws=5)
    figures = report["figures"]
    assert figures["loud"]["specificity_before"] == 0.0 and figures["loud"]["specificity_after"] > 0.2
    assert figures["right"]["specificity_before"] == figures["right"]["specificity_after"] == 1.0
    assert figures["all devices"]["auroc_after"] > figures["all devices"]["auroc_before"]
    assert report["recordings"] == {"loud": 20, "right": 20}


def test_a_device_with_too_few_normals_is_left_out() -> None:
    manifest = load_bundle("default").manifest
    with pytest.raises(CorpusError, match="no device has 5 normal patients"):
        study(manifest, rows("small", 0.0, patients=12), normals=5, draws=2)
