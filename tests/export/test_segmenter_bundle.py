"""From 'stetho train segmenter' to a bundle that finds breaths with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_sdk.events import BreathCycle
from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE, load_bundle, read_manifest, verify_bundle
from edge_sdk.training.checkpoint import save_checkpoint
from edge_sdk.training.provenance import Provenance
from edge_sdk.training.run_folder import RunOptions
from edge_sdk.training.segmentation.building import decoder_params
from edge_sdk.training.segmentation.run import train_segmenter
from edge_sdk.training.untrained import untrained_checkpoint
from tests.cli.conftest import Stetho, stetho  # noqa: F401
from tests.runtime.conftest import phantom
from tests.support.tiny_segmentation import tiny_recipe, write_corpus


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segmenter")
    write_corpus(folder / "corpus")
    recipe = tiny_recipe("segment.window_s=4.0", "fit.epochs=1")
    options = RunOptions("sprsound", folder / "corpus", folder / "run", cache=folder / "cache", logs=(), resamples=20)
    return Path(train_segmenter(recipe, options)["checkpoint"])


def test_a_trained_segmenter_joins_the_default_classifier(
    stetho: Stetho,  # noqa: F811
    run: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "ward"
    result = stetho("export", str(run), "--out", str(out), "--version", "1.2.0", "--json")
    assert result.status == 0, result.err
    row = next(r for r in result.records if r["type"] == "segmenter")
    assert row["kind"] == "learned" and row["accuracy"]["sprsound val"]["n_true"] >= 1
    manifest = read_manifest(out)
    assert (manifest.name, manifest.version) == ("compact", "1.2.0")
    assert manifest.training["segmenter"]["name"] == "segmenter" and manifest.training["segmenter"]["seed"] == 0
    names = Provenance.__struct_fields__
    for record in (manifest.training, manifest.training["segmenter"]):  # one form for both networks
        msgspec.convert({name: record[name] for name in names}, Provenance)
    for artefact in read_manifest(DEFAULT_BUNDLE).artefacts:
        assert (out / artefact.file).read_bytes() == (DEFAULT_BUNDLE / artefact.file).read_bytes()
    assert (out / "segmenter.onnx").read_bytes() != (DEFAULT_BUNDLE / "segmenter.onnx").read_bytes()
    assert [check.name for check in verify_bundle(out) if not check.ok] == []
    card = (out / "MODEL_CARD.md").read_text()
    assert "## Segmenter" in card and "| event F1, IoU ≥ 0.5" in card and "`learned` segmenter" in card
    stream = load_bundle(out).stream(4000)
    events = [*stream.accept(phantom("asthma", 20.0).astype(np.float32)), *stream.finish()]
    assert all(isinstance(e.start_s, float) for e in events if isinstance(e, BreathCycle))


def test_a_classifier_takes_a_segmenter_along(stetho: Stetho, run: Path, tmp_path: Path) -> None:  # noqa: F811
    checkpoint = tmp_path / "compact.pt"
    save_checkpoint(untrained_checkpoint("compact", size="tiny"), checkpoint)
    result = stetho("export", str(checkpoint), "--out", str(tmp_path / "b"), "--segmenter", str(run))
    assert result.status == 0, result.err
    assert "segmenter: learned" in result.out
    entry = read_manifest(tmp_path / "b").segmenter
    assert entry.kind == "learned" and entry.params == decoder_params(tiny_recipe()).to_dict()


def _cv(path: Path, recipe: str, metrics: Mapping[str, object], **more: object) -> str:
    path.write_text(json.dumps({"recipe": recipe, "seed": 0, "folds": 3, "metrics": metrics, **more}))
    return str(path)


def test_the_figures_of_a_cross_validation_stand_in_manifest_and_card(
    stetho: Stetho,  # noqa: F811
    run: Path,
    tmp_path: Path,
) -> None:
    """A network that was trained on everyone has no other figures."""
    figures = {"recordings": 7, "patients": 5, "n_true": 70, "event_f1": 0.8125, "frame_f1": 0.5}
    cv = _cv(tmp_path / "cv.json", "segmenter", {"cycles": figures})
    base = tmp_path / "b"
    result = stetho("export", str(run), "--out", str(base), "--cv", cv)
    assert result.status == 0, result.err
    step = read_manifest(base).segmenter.step
    assert not isinstance(step, msgspec.UnsetType)
    name = "3-fold cross-validation by patient, recordings with annotated cycles"
    assert step.accuracy[name] == {key: value for key, value in figures.items() if key != "frame_f1"}
    assert "0.812" in (base / "MODEL_CARD.md").read_text()
    checkpoint = tmp_path / "compact.pt"
    save_checkpoint(untrained_checkpoint("compact", size="tiny"), checkpoint)
    whole = {"n": 90, "patients": 9, "specificity": 0.9375, "sensitivity": 0.5, "score": 0.7188, "auroc": 0.875}
    cv = _cv(tmp_path / "cv.json", "compact", whole, by={"icbhi/Meditron": {"n": 12, "auroc": 0.625, "counts": {}}})
    result = stetho("export", str(checkpoint), "--out", str(tmp_path / "c"), "--cv", cv)
    assert result.status == 0, result.err
    record = read_manifest(tmp_path / "c").training["cross_validation"]
    assert record == {
        "folds": 3,
        "seed": 0,
        "figures": {"all cycles": whole, "icbhi/Meditron": {"n": 12, "auroc": 0.625}},
    }
    card = (tmp_path / "c" / "MODEL_CARD.md").read_text()
    assert "| all cycles | 90 | 9 | 0.938 | 0.500 | 0.719 | 0.875 |" in card and "icbhi/Meditron" in card


@pytest.mark.parametrize("content", ["", "{}", '{"recipe": "compact", "metrics": {}, "seed": 0}'])
def test_a_report_of_something_else_is_refused(
    content: str,
    stetho: Stetho,  # noqa: F811
    run: Path,
    tmp_path: Path,
) -> None:
    path = tmp_path / "cv.json"
    path.write_text(content)
    result = stetho("export", str(run), "--out", str(tmp_path / "b"), "--cv", str(path))
    assert result.status == 1 and "cv.json" in result.error and not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--formats", "onnx-fp32"], "one step graph"),
        (["--base", "nowhere"], "nowhere"),
        (["--segmenter", "other.onnx"], "one step graph"),
    ],
)
def test_options_of_classifiers_are_refused(
    options: list[str],
    message: str,
    stetho: Stetho,  # noqa: F811
    run: Path,
    tmp_path: Path,
) -> None:
    result = stetho("export", str(run), "--out", str(tmp_path / "b"), *options)
    assert result.status == 1 and message in result.error
    assert not (tmp_path / "b").exists()


def test_a_damaged_base_is_refused_and_a_classifier_has_none(
    stetho: Stetho,  # noqa: F811
    run: Path,
    tmp_path: Path,
) -> None:
    base = tmp_path / "base"
    shutil.copytree(DEFAULT_BUNDLE, base)
    with (base / "classifier.int8.onnx").open("ab") as file:
        file.write(b"x")
    result = stetho("export", str(run), "--out", str(tmp_path / "b"), "--base", str(base))
    assert result.status == 1 and "does not match its sha256" in result.error
    checkpoint = tmp_path / "compact.pt"
    save_checkpoint(untrained_checkpoint("compact", size="tiny"), checkpoint)
    result = stetho("export", str(checkpoint), "--out", str(tmp_path / "b"), "--base", "default")
    assert result.status == 1 and "--base goes with the checkpoint of a segmenter" in result.error
    result = stetho("export", str(checkpoint), "--out", str(tmp_path / "b"), "--segmenter", str(checkpoint))
    assert result.status == 1 and "not of a segmenter" in result.error
    assert json.loads((base / "bundle.json").read_text())["name"] == "compact"
