"""A checkpoint becomes a bundle whose figures were measured on real files, or which reports that they were not."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile

from edge_sdk.errors import BundleError, ExportError
from edge_sdk.runtime.bundle.load import load_bundle, read_manifest, verify_bundle
from edge_sdk.sources.phantom import PhantomSource
from edge_sdk.training.checkpoint import Checkpoint
from edge_sdk.training.untrained import untrained_checkpoint
from export.assemble import assemble
from export.cycles import ExportCycles, gather_cycles
from export.documents.card import model_card
from export.formats import FORMATS, Gate
from export.golden import golden_clips
from export.pipeline import make_artefacts
from export.verify import MIN_CYCLES, gate_failures

RATE = 4000


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return untrained_checkpoint("compact", size="tiny")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated patients in the generic form: six of them, two held out."""
    root = tmp_path_factory.mktemp("corpus")
    rows = []
    for index, scenario in enumerate(("healthy", "asthma", "pneumonia", "healthy", "asthma", "pneumonia")):
        source = PhantomSource(scenario, seed=1_000_200 + index, duration_s=30.0, sample_rate=RATE)
        samples = np.concatenate([block.samples for block in source])
        soundfile.write(root / f"p{index}.wav", samples, RATE)
        for breath in source.truth:
            if breath.end <= samples.size:
                rows.append((f"p{index}.wav", breath.onset / RATE, breath.end / RATE, breath.label, f"p{index}",
                             "val" if index > 3 else "train"))  # fmt: skip
    with (root / "cycles.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "start_s", "end_s", "label", "patient", "split"))
        writer.writerows(rows)
    return root


@pytest.fixture(scope="module")
def data(checkpoint: Checkpoint, corpus: Path) -> ExportCycles:
    return gather_cycles(checkpoint, "csv", corpus)


@pytest.fixture(scope="module")
def bundle(checkpoint: Checkpoint, data: ExportCycles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "bundle"
    artefacts = make_artefacts(checkpoint, list(FORMATS.values()), data, lambda _: None, features_graph=True)
    assemble(checkpoint, artefacts, out, name="tiny")
    return out


def test_calibration_draws_on_training_patients_only(data: ExportCycles) -> None:
    assert set(data.calibration.patients) <= {"p0", "p1", "p2", "p3"}
    assert set(data.verification.patients) == {f"p{i}" for i in range(6)}
    assert set(data.held_out) == {"val"}


def test_every_check_of_a_fresh_bundle_passes(bundle: Path) -> None:
    checks = verify_bundle(bundle)
    assert [c for c in checks if not c.ok] == []
    assert {c.name for c in checks} >= {"golden onnx-fp32", "golden onnx-int8-cpu", "sha256 golden.npz"}


def test_the_bundle_holds_the_measured_figures_and_why_it_is_not_verified(bundle: Path, data: ExportCycles) -> None:
    manifest = read_manifest(bundle)
    assert len(data.verification) < MIN_CYCLES
    for artefact in manifest.artefacts:
        assert artefact.parity["n"] == len(data.verification)
        assert artefact.parity["relative_error"] < 0.2
        assert not artefact.verified
        assert any("real cycles" in failure for failure in artefact.failures)
        assert artefact.accuracy["val"]["n"] == int(data.held_out["val"].sum())
    fp32 = next(a for a in manifest.artefacts if a.format == "onnx-fp32")
    assert fp32.parity["relative_error"] < 1e-4
    assert fp32.parity["agreement"] == 1.0


def test_a_bundle_gives_torchs_logits(bundle: Path, checkpoint: Checkpoint) -> None:
    import torch

    loaded = load_bundle(bundle, artefact="onnx-fp32")
    pcm = golden_clips(checkpoint.front_end).astype(np.float32) / np.float32(32768)
    with torch.inference_mode():
        expected = checkpoint.build_end_to_end()(torch.from_numpy(pcm)).numpy()
    np.testing.assert_allclose(loaded.classifier.logits(pcm), expected, atol=1e-3)


def test_without_a_corpus_nothing_is_called_verified(checkpoint: Checkpoint, tmp_path: Path) -> None:
    artefacts = make_artefacts(checkpoint, [FORMATS["onnx-fp32"]], None, lambda _: None)
    manifest = assemble(checkpoint, artefacts, tmp_path / "b", name="b", untrained=True)
    assert [a.verified for a in manifest.artefacts] == [False]
    assert "Not measured" in (tmp_path / "b" / "MODEL_CARD.md").read_text()
    with pytest.raises(BundleError, match="untrained"):
        load_bundle(tmp_path / "b")


def test_int8_without_a_corpus_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(ExportError, match="--corpus"):
        make_artefacts(checkpoint, [FORMATS["onnx-int8-cpu"]], None, lambda _: None)


def test_a_corpus_without_the_training_split_is_refused(checkpoint: Checkpoint, corpus: Path) -> None:
    elsewhere = replace(checkpoint, provenance={"split": "fold-7"})
    with pytest.raises(ExportError, match="fold-7"):
        gather_cycles(elsewhere, "csv", corpus)


def test_a_folder_that_is_not_a_bundle_is_never_replaced(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    artefacts = make_artefacts(checkpoint, [FORMATS["onnx-fp32"]], None, lambda _: None)
    with pytest.raises(BundleError, match="not a bundle"):
        assemble(checkpoint, artefacts, tmp_path, name="b", untrained=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_gate_names_every_figure_that_fails() -> None:
    gate = Gate(max_relative_error=0.1, min_agreement=0.97, max_auroc_drop=0.005, max_score_drop=0.01)
    good = {
        "n": MIN_CYCLES,
        "relative_error": 0.05,
        "agreement": 0.99,
        "auroc_drop": 0.0,
        "auroc_drop_ci": [0.0, 0.005],
        "score_drop": 0.0,
    }
    assert gate_failures(gate, good) == []
    bad = {
        "n": 3,
        "relative_error": float("nan"),
        "agreement": 0.9,
        "auroc_drop": 0.2,
        "auroc_drop_ci": [0.1, 0.3],
        "score_drop": 0.2,
    }
    assert len(gate_failures(gate, bad)) == 6


def test_the_card_repeats_the_manifest(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert (bundle / manifest.model_card).read_text() == model_card(msgspec.to_builtins(manifest))
    assert manifest.research_use in model_card(json.loads((bundle / "bundle.json").read_text()))
