"""A bundle states the origin of both networks in one form, whatever SDK wrote the checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE, read_manifest
from edge_sdk.training.provenance import Provenance
from edge_sdk.training.untrained import untrained_checkpoint
from export.assemble import assemble
from export.formats import FORMATS
from export.pipeline import make_artefacts
from export.training_record import ANY_LABEL, training_record

CURRENT = Provenance(
    corpus="csv",
    split="train",
    patients=3,
    recordings=4,
    cycles={"normal": 5, "wheeze": 1},
    noise_recordings=1,
    phase_clips=2,
    heart_recordings=0,
    joined_corpora=["icbhi"],
    seed=0,
    threads=1,
    git_commit=None,
    versions={"python": "3.11.7", "torch": "2.11.0", "sdk": "0.1.0"},
).to_dict()
FIELDS = set(Provenance.__struct_fields__)
OLD: dict[str, Any] = read_manifest(DEFAULT_BUNDLE).training  # written before networks had one form


def test_a_record_of_this_sdk_stays_as_it_is() -> None:
    assert training_record(CURRENT) == CURRENT
    assert training_record(training_record(OLD)) == training_record(OLD)


def test_an_older_classifiers_record_gets_the_missing_fields() -> None:
    record = training_record({name: value for name, value in OLD.items() if name != "segmenter"})
    provenance = msgspec.convert({name: record[name] for name in FIELDS}, Provenance)
    assert (provenance.patients, provenance.phase_clips) == (209, 0)
    assert provenance.cycles["crackle"] == 1088


def test_an_older_segmenters_count_of_other_patients_is_not_called_patients() -> None:
    record = training_record(OLD["segmenter"])
    assert set(record) >= FIELDS - {"patients"} and "patients" not in record
    assert record["patients_of_cycles_and_noise"] == 213
    assert record["cycles"] == {ANY_LABEL: 6749}
    assert set(record["versions"]) == {"python", "torch", "sdk"}
    assert all(record[name] == OLD["segmenter"][name] for name in ("name", "parameters", "recordings", "git_commit"))


def test_an_untrained_network_has_no_counts() -> None:
    assert training_record({"untrained": True, "seed": 3}) == {"untrained": True, "seed": 3}
    assert training_record({}) == {}


@pytest.mark.parametrize("provenance", [CURRENT, {k: v for k, v in OLD.items() if k in FIELDS}])
def test_classifier_and_segmenter_of_a_new_bundle_have_fields_of_equal_types(
    provenance: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint = untrained_checkpoint("compact", size="tiny")
    checkpoint.provenance.clear()
    checkpoint.provenance.update(provenance)
    artefacts = make_artefacts(checkpoint, [FORMATS["onnx-fp32"]], None, lambda _: None)
    training = assemble(checkpoint, artefacts, tmp_path / "b", name="b", untrained=True).training
    segmenter = training["segmenter"]
    shared = FIELDS & set(training) & set(segmenter)
    assert shared == FIELDS - {"patients"}  # the default bundle's segmenter is an older one
    assert all(type(training[name]) is type(segmenter[name]) for name in shared - {"git_commit"})
    assert training["model"] == "compact" and training["size"] == "tiny"
    assert "patients of cycles and noise: 213" in (tmp_path / "b" / "MODEL_CARD.md").read_text()
