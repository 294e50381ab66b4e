"""A bundle states the origin of both networks in one form, whatever SDK wrote the checkpoints."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE
from edge_sdk.runtime.bundle.schema import MANIFEST
from edge_sdk.training.checkpoint import Checkpoint
from edge_sdk.training.provenance import Provenance
from edge_sdk.training.untrained import untrained_checkpoint
from export.assemble import assemble
from export.formats import FORMATS
from export.pipeline import Artefact, make_artefacts
from export.training_record import ANY_LABEL, training_record, without_folders

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
OLD: dict[str, Any] = {  # of a bundle that was written before networks had one form
    "corpus": "sprsound",
    "split": "train",
    "patients": 209,
    "recordings": 1877,
    "cycles": {"normal": 5039, "crackle": 1088, "wheeze": 591, "both": 31},
    "noise_recordings": 140,
    "heart_recordings": 195,
    "seed": 0,
    "threads": 1,
    "git_commit": "3a90a78023d4f51868deddba018a278ad2092d8d",
    "versions": {"python": "3.11.7", "torch": "2.11.0+cu130", "sdk": "0.1.0"},
    "segmenter": {
        "name": "segmenter",
        "parameters": 59262,
        "corpus": "sprsound",
        "split": "train",
        "patients": 213,
        "recordings": 1877,
        "cycles": 6749,
        "noise_recordings": 141,
        "phase_clips": 2935,
        "heart_recordings": 195,
        "seed": 0,
        "threads": 1,
        "git_commit": "ca1fe32ef94f878f3a43015523d6196ecd64f0b8",
        "versions": {"torch": "2.11.0+cu130", "sdk": "0.1.0"},
    },
}


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


@pytest.fixture(scope="module")
def exported() -> tuple[Checkpoint, list[Artefact]]:
    """A network without provenance, and its graphs, which these tests do not read the record in."""
    checkpoint = replace(untrained_checkpoint("compact", size="tiny"), provenance={})
    return checkpoint, make_artefacts(checkpoint, [FORMATS["onnx-fp32"]], None, lambda _: None)


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("provenance", [CURRENT, {k: v for k, v in OLD.items() if k in FIELDS}])
def test_classifier_and_segmenter_of_a_new_bundle_have_fields_of_equal_types(
    provenance: dict[str, Any],
    older: bool,
    exported: tuple[Checkpoint, list[Artefact]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the segmenter of the default bundle, also where an older SDK wrote that."""
    base = tmp_path / "default"
    shutil.copytree(DEFAULT_BUNDLE, base)
    manifest = json.loads((base / MANIFEST).read_text())
    if older:
        manifest["training"]["segmenter"] = OLD["segmenter"]
        (base / MANIFEST).write_text(json.dumps(manifest))
    monkeypatch.setattr("export.assemble.DEFAULT_BUNDLE", base)
    checkpoint, artefacts = replace(exported[0], provenance=dict(provenance)), exported[1]
    training = assemble(checkpoint, artefacts, tmp_path / "b", name="b", untrained=True).training
    segmenter = training["segmenter"]
    shared = FIELDS & set(training) & set(segmenter)
    assert shared == (FIELDS - {"patients"} if older else FIELDS)
    assert all(type(training[name]) is type(segmenter[name]) for name in shared - {"git_commit"})
    assert training["model"] == "compact" and training["size"] == "tiny"
    counted = manifest["training"]["segmenter"]["patients"]
    wanted = f"patients of cycles and noise: {counted}" if older else f"* patients: {counted}"
    assert wanted in (tmp_path / "b" / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("/data/weights/yamnet.tflite", "yamnet.tflite"),
        ("icbhi=/data/ICBHI_final_database", "icbhi=ICBHI_final_database"),
        ("hf_lung_labels=hf_lung_phase_clips", "hf_lung_labels=hf_lung_phase_clips"),
        (
            "SPRSound split.csv: trained on train / reported on val",
            "SPRSound split.csv: trained on train / reported on val",
        ),
        ({"a": ["/x/y.pt", 3, None], "b": {"c": ("/z",)}}, {"a": ["y.pt", 3, None], "b": {"c": ["z"]}}),
    ],
)
def test_no_folder_of_the_training_machine_is_in_a_record(value: object, kept: object) -> None:
    assert without_folders(value) == kept
