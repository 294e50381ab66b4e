"""The origin of a network as ``bundle.json`` holds it: one form for classifier and segmenter, also from older files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ANY_LABEL = "any label"
"""Key for cycles that an older segmenter counted without their labels."""


def training_record(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of :class:`~edge_sdk.training.provenance.Provenance`, and all other keys unchanged.

    Parameters
    ----------
    provenance
        Provenance of a checkpoint, or the ``training`` object of a bundle. Older classifiers lack ``phase_clips``.
        Older segmenters counted cycles without labels, and as patients also those of noise recordings: that number
        becomes ``patients_of_cycles_and_noise``, because ``patients`` has one meaning. An untrained network has no
        counts.
    """
    record = dict(provenance)
    if "cycles" not in record:
        return record
    if isinstance(record["cycles"], int):
        record["cycles"] = {ANY_LABEL: record["cycles"]}
        if "patients" in record:
            record["patients_of_cycles_and_noise"] = record.pop("patients")
    record.setdefault("phase_clips", 0)
    record.setdefault("joined_corpora", [])
    if isinstance(record.get("versions"), Mapping):
        record["versions"] = {"python": None, **record["versions"]}
    return record
