"""A verdict in a bundle: exported from a checkpoint, verified, streamed; bundles without one load as before."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_sdk.errors import BundleError, ExportError
from edge_sdk.events import Verdict
from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE, load_bundle, read_manifest, verify_bundle
from edge_sdk.runtime.verdict.breath_sounds import BreathParams
from edge_sdk.screening.screen import screen
from edge_sdk.training.adventitious.crossval import cross_validate_adventitious
from edge_sdk.training.adventitious.run import CALIBRATION, train_adventitious
from edge_sdk.training.checkpoint import load_checkpoint, save_checkpoint
from export.verdict_part import verdict_part
from tests.cli.conftest import Stetho, stetho  # noqa: F401
from tests.runtime.conftest import phantom
from tests.support.sounds_corpus import write_sounds_corpora
from tests.training.adventitious.test_adventitious import options, tiny_recipe


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verdict")
    corpus = write_sounds_corpora(folder / "data")
    cross_validate_adventitious(tiny_recipe(), options(corpus, folder / "cv"), 2)
    recipe = tiny_recipe(f"adventitious.calibration={folder / 'cv' / 'cv.json'}")
    return Path(train_adventitious(recipe, options(corpus, folder / "run"))["checkpoint"])


@pytest.fixture
def ward(stetho: Stetho, checkpoint: Path, tmp_path: Path) -> Path:  # noqa: F811
    result = stetho("export", str(checkpoint), "--out", str(tmp_path / "ward"), "--version", "1.2.0", "--json")
    assert result.status == 0, result.err
    row = next(r for r in result.records if r["type"] == "verdict")
    assert row["accuracy"]["corpora"]["all"]["end"]["n"] == 8 and row["params"]["error"] == 0.1
    return tmp_path / "ward"


def test_a_trained_verdict_joins_the_default_bundle(ward: Path) -> None:
    manifest = read_manifest(ward)
    assert manifest.training["verdict"]["name"] == "adventitious" and manifest.training["verdict"]["parameters"] > 0
    for file in [a.file for a in manifest.artefacts] + [manifest.segmenter.file or ""]:
        assert (ward / file).read_bytes() == (DEFAULT_BUNDLE / file).read_bytes()
    checks = verify_bundle(ward)
    assert [check.name for check in checks if not check.ok] == []
    assert {"golden verdict", "sha256 verdict.onnx"} <= {check.name for check in checks}
    assert "## Verdict" in (ward / "MODEL_CARD.md").read_text()
    samples = phantom("asthma", 10.0).astype(np.float32)
    screening = screen((samples, 4000), bundle=str(ward))
    assert screening.verdict in ("normal", "abnormal", "uncertain") and 0.0 <= (screening.p_abnormal or 0.0) <= 1.0
    found = [event for event in screening.events if isinstance(event, Verdict)]
    assert found[-1].final and screening.verdict == found[-1].verdict and screening.verdict_reason == found[-1].reason
    assert screening.summary["usable_s"] == pytest.approx(10.0, abs=0.1)
    assert len(screening.adventitious) == sum(screening.summary["adventitious"].values())
    assert "verdict" not in {record["type"] for record in screening.records}  # running ones are for live sources


def test_a_bundle_without_a_verdict_gives_null(tmp_path: Path) -> None:
    bundle = load_bundle(DEFAULT_BUNDLE)
    entry = bundle.manifest.verdict
    if not isinstance(entry, msgspec.UnsetType):  # the one in the wheel has one: take it out
        shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bare")
        raw = json.loads((tmp_path / "bare" / "bundle.json").read_text())
        del raw["verdict"]
        (tmp_path / "bare" / "bundle.json").write_text(json.dumps(raw))
        bundle = load_bundle(tmp_path / "bare")
    assert bundle.verdict is None
    screening = screen((phantom("asthma", 10.0).astype(np.float32), 4000), bundle=bundle)
    assert screening.verdict is None and screening.p_abnormal is None and screening.verdict_reason is None
    assert screening.adventitious == () and screening.summary["adventitious"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "does not match its sha256"),
        ({"params": {"error": 2.0}}, "error"),
        ({"params": {"colour": 1}}, "unknown keys"),
        ({"golden": [0.0] * 70}, "off"),
        ({"file": "nowhere.onnx"}, "is missing"),
        ({"file": "segmenter.onnx"}, "sha256"),
    ],
)
def test_a_damaged_verdict_is_refused(ward: Path, change: dict[str, object], message: str) -> None:
    raw = json.loads((ward / "bundle.json").read_text())
    raw["verdict"] |= change
    (ward / "bundle.json").write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=message):
        load_bundle(ward)
    assert [check for check in verify_bundle(ward) if not check.ok]


def test_another_graph_is_no_network_of_sounds(ward: Path) -> None:
    raw = json.loads((ward / "bundle.json").read_text())
    raw["verdict"] |= {key: raw["segmenter"][key] for key in ("file", "sha256")}
    (ward / "bundle.json").write_text(json.dumps(raw))
    with pytest.raises(BundleError, match="crackles and wheezes"):
        load_bundle(ward)


def test_a_new_segmenter_keeps_the_verdict_of_its_base(stetho: Stetho, ward: Path, tmp_path: Path) -> None:  # noqa: F811
    from export.assemble import with_parts

    manifest = with_parts(ward, tmp_path / "next", segmenter=DEFAULT_BUNDLE / "segmenter.onnx", version="1.3.0")
    assert manifest.verdict == read_manifest(ward).verdict
    assert manifest.training["verdict"] == read_manifest(ward).training["verdict"]
    assert [check.name for check in verify_bundle(tmp_path / "next") if not check.ok] == []


def test_a_checkpoint_without_calibration_is_not_exported(checkpoint: Path, tmp_path: Path) -> None:
    corpus = write_sounds_corpora(tmp_path / "data")
    bare = Path(train_adventitious(tiny_recipe(), options(corpus, tmp_path / "run"))["checkpoint"])
    with pytest.raises(ExportError, match="no calibration"):
        verdict_part(bare)
    with pytest.raises(ExportError, match="does not exist"):
        verdict_part(tmp_path / "none.pt")
    assert verdict_part(checkpoint).entry.golden


def test_a_verdict_brings_its_join_and_the_figures_of_the_classifiers_cross_validation(
    stetho: Stetho,  # noqa: F811
    checkpoint: Path,
    tmp_path: Path,
) -> None:
    found = load_checkpoint(checkpoint)
    join = BreathParams(own=0.25, temperature=1.25)
    figures = {"breaths": {"icbhi": {"n": 9, "patients": 3, "score": 0.625, "auroc": 0.75, "ece": None}}}
    calibration = {**found.metrics[CALIBRATION], "breaths": join.to_dict()}
    calibration["figures"] = {**calibration["figures"], **figures}
    save_checkpoint(replace(found, metrics={**found.metrics, CALIBRATION: calibration}), tmp_path / "joining.pt")
    report = {"recipe": "compact-joint", "seed": 0, "folds": [{}, {}], "metrics": {"n": 7, "auroc": 0.5625}}
    (tmp_path / "cv.json").write_text(json.dumps(report))
    out = tmp_path / "b"
    arguments = ("--out", str(out), "--base", "default", "--cv", str(tmp_path / "cv.json"))
    assert stetho("export", str(tmp_path / "joining.pt"), *arguments).status == 0
    bundle = load_bundle(out)
    assert bundle.verdict is not None and bundle.verdict.breaths == join
    assert bundle.manifest.training["cross_validation"]["figures"] == {"all cycles": {"n": 7, "auroc": 0.5625}}
    card = (out / "MODEL_CARD.md").read_text()
    assert "0.25 of its logits over the breath and 0.5" in card
    assert "| icbhi | 9 | 3 | – | – | 0.625 | 0.750 | – | – | – |" in card and "0.562" in card
    (tmp_path / "cv.json").write_text(json.dumps({**report, "recipe": "standard"}))
    result = stetho("export", str(tmp_path / "joining.pt"), *arguments)
    assert result.status == 1 and "is the cross-validation of standard, not of compact-joint" in result.error
