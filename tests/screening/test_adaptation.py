"""``stetho adapt``: what a few recordings of one stethoscope change in a bundle, and what they do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile

from edge_sdk.cli.main import run
from edge_sdk.errors import AudioError, BundleError
from edge_sdk.runtime.bundle.load import load_bundle, read_manifest, verify_bundle, write_bundle
from edge_sdk.runtime.bundle.schema import Manifest
from edge_sdk.runtime.decoding import decode
from edge_sdk.runtime.verdict.breath_sounds import BreathParams
from edge_sdk.runtime.verdict.familiarity import FEATURES
from edge_sdk.runtime.verdict.params import VerdictParams
from edge_sdk.screening.adaptation import (
    Fit,
    RecordingEvidence,
    adapt_bundle,
    adapted,
    fit_device,
    label_shift,
    recording_evidence,
    score_offset,
)
from edge_sdk.sources.phantom import PhantomSource
from tests.support.tiny_verdict import FILE, tiny_verdict_entry, write_tiny_sounds

KNOWN = tuple(tuple(float(k + j) for j in range(FEATURES)) for k in (0.0, 5.0))
FAMILIARITY = {"centres": KNOWN, "whitening": np.eye(FEATURES).tolist(), "farthest": 3.0}
PARAMS = {"both": [0.0, 0.5, 0.5, 0.0, 0.3], "normal_score": -2.0, "normal_spread": 1.0, "device_spread": 2.0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default bundle with a verdict of a few nodes."""
    folder = tmp_path_factory.mktemp("bundles")
    write_tiny_sounds(folder)
    source = load_bundle("default").path
    entry = tiny_verdict_entry(folder, PARAMS, familiarity=FAMILIARITY)
    manifest = msgspec.structs.replace(read_manifest(source), verdict=entry)
    files = {p.name: p.read_bytes() for p in source.iterdir() if p.name != "bundle.json"}
    write_bundle(folder / "base", manifest, files | {FILE: (folder / FILE).read_bytes()})
    return folder / "base"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("normals")
    for seed in range(4):
        with PhantomSource("healthy", seed=seed, duration_s=10.0, sample_rate=4000) as source:
            samples = np.concatenate([block.samples for block in source])
        soundfile.write(folder / f"person{seed}.wav", samples, 4000, subtype="FLOAT")
    return sorted(folder.iterdir())


def rows(margins: Sequence[Any], **changes: Any) -> list[RecordingEvidence]:
    features = np.arange(FEATURES) + 50.0
    given = {"usable_s": 9.0, "network": 1.0, "features": features, **changes}
    return [RecordingEvidence(f"r{k}", margins=tuple(m), **given) for k, m in enumerate(margins)]


# -- fitting -----------------------------------------------------------------------------------------------------------


def test_labels_are_shifted_until_most_normals_are_right_and_less_with_few_recordings(base: Path) -> None:
    manifest = read_manifest(base)
    cycles = np.linspace(-1.0, 3.0, 200)
    many, few = (label_shift(manifest, rows([cycles] * n)) for n in (50, 3))
    edge = float(np.quantile(cycles, 0.8))
    assert many == pytest.approx(edge * 50 / 51, abs=0.03)
    assert few == pytest.approx(edge * 3 / 4, abs=0.03)


def test_labels_that_are_right_are_not_shifted(base: Path) -> None:
    """Normal recordings cannot tell that more abnormal labels would be right."""
    assert label_shift(read_manifest(base), rows([[-8.0, -4.0, -3.0]] * 5)) == 0.0
    assert label_shift(read_manifest(base), rows([[]] * 5)) == 0.0


def test_the_score_moves_to_that_of_the_calibration_by_what_the_number_is_worth() -> None:
    params = VerdictParams.from_dict(PARAMS)
    found = rows([[]] * 5)  # no cycles: the network alone, weight 1, score 1.0
    assert score_offset(params, found, 0.0) == pytest.approx(20 / 21 * -3.0)
    assert score_offset(params, found[:1], 0.0) == pytest.approx(4 / 5 * -3.0)
    assert score_offset(params, rows([[]] * 3, network=None), 0.0) == 0.0


def test_recordings_of_anyone_move_neither_labels_nor_scores(base: Path) -> None:
    fit = fit_device(read_manifest(base), rows([[4.0]] * 5), normals=False)
    assert fit.label_shift == fit.offset == 0.0 and fit.centre is not None


# -- the adapted bundle ------------------------------------------------------------------------------------------------


def test_the_new_centre_has_its_offset_and_the_others_keep_theirs(base: Path) -> None:
    manifest = read_manifest(base)
    found = adapted(manifest, Fit(0.7, -1.5, np.full(FEATURES, 9.0)), _entry(base))
    assert not isinstance(found.verdict, msgspec.UnsetType)
    params = VerdictParams.from_dict(found.verdict.params)
    assert params.both == (0.0, 0.5, 0.5, 0.0, 0.3, 0.0, -1.5)
    assert params.network == (0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.5)
    assert found.verdict.familiarity["centres"][:2] == [list(row) for row in KNOWN]
    assert found.verdict.familiarity["centres"][2] == [9.0] * FEATURES
    assert found.version == f"{manifest.version}+adapted"


def test_the_shift_of_joined_labels_goes_to_the_join_and_leaves_the_verdict_alone(base: Path) -> None:
    manifest = read_manifest(base)
    assert not isinstance(manifest.verdict, msgspec.UnsetType)
    join = BreathParams(bias=(0.1, 0.0, 0.0, -0.2))
    changed = msgspec.structs.replace(manifest.verdict, breaths=join.to_dict())
    joining = msgspec.structs.replace(manifest, verdict=changed)
    found = adapted(joining, Fit(0.7), _entry(base))
    assert found.decoder == manifest.decoder and not isinstance(found.verdict, msgspec.UnsetType)
    assert found.verdict.breaths == {**join.to_dict(), "bias": [pytest.approx(0.8), 0.0, 0.0, -0.2]}
    multilabel = msgspec.structs.replace(joining, decoder=msgspec.structs.replace(manifest.decoder, kind="multilabel"))
    assert label_shift(multilabel, rows([[2.0] * 10] * 5)) > 1.0  # the join decides, whatever the classifier's decoder
    noticed, apart = rows([[4.0, 4.0]] * 5), rows([[4.0, 4.0]] * 5, alone=0.25)
    assert [row.cycles_abnormal(9.0) for row in apart] == [0.25] * 5 and (noticed[0].cycles_abnormal(9.0) or 1.0) < 0.1


def test_the_evidence_of_a_joining_bundle_is_the_classifiers_alone(base: Path, recordings: list[Path]) -> None:
    apart = load_bundle(base)
    assert apart.verdict is not None
    joining = load_bundle(base)
    object.__setattr__(joining, "verdict", replace(apart.verdict, breaths=BreathParams(own=0.0, running=2.0)))
    for path in recordings[:2]:
        plain, found = recording_evidence(apart, path), recording_evidence(joining, path)
        assert plain.alone is None and found.alone == pytest.approx(plain.cycles_abnormal(0.0), abs=1e-6)
        assert found.margins != plain.margins and found.network == plain.network


def test_the_shift_lowers_the_log_odds_of_abnormal_and_nothing_else(base: Path) -> None:
    manifest = read_manifest(base)
    found = adapted(manifest, Fit(0.7), _entry(base))
    logits = np.random.default_rng(0).normal(0, 3, (20, len(manifest.labels)))
    before, after = decode(logits, manifest.decoder), decode(logits, found.decoder)
    odds = [np.log((1 - p[:, 0]) / p[:, 0]) for p in (before, after)]
    np.testing.assert_allclose(odds[0] - odds[1], 0.7, atol=1e-9)
    np.testing.assert_allclose(after[:, 1] / after[:, 2], before[:, 1] / before[:, 2])


def _entry(base: Path) -> Any:
    from edge_sdk.runtime.bundle.schema import Adaptation

    return Adaptation(device="d", created="2026-01-01", base_version="1", base_sha256="0", recordings=5, normals=True)


def test_the_command_writes_a_bundle_that_loads_and_says_what_it_is(
    base: Path, recordings: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ward"
    with pytest.raises(SystemExit) as ended:
        run(["adapt", str(base), "--normals", str(recordings[0].parent), "--out", str(out), "--device", "D1", "--json"])
    assert ended.value.code == 0
    line = json.loads(capsys.readouterr().out)
    assert line["type"] == "adaptation" and line["device"] == "D1" and line["recordings"] == 4
    assert sum(line["before"]["verdicts"].values()) == sum(line["after"]["verdicts"].values()) == 4
    assert all(check.ok for check in verify_bundle(out))
    found, old = read_manifest(out), read_manifest(base)
    assert isinstance(found.adaptation, msgspec.Struct) and found.adaptation.base_version == old.version
    assert [a.sha256 for a in found.artefacts] == [a.sha256 for a in old.artefacts]
    stream = load_bundle(out).stream(4000)
    assert stream.evidence is not None
    with pytest.raises(BundleError, match="adapted to D1 already"):
        adapt_bundle(out, recordings, tmp_path / "again", normals=True)


def test_the_device_becomes_familiar(base: Path, recordings: list[Path], tmp_path: Path) -> None:
    entry = adapt_bundle(base, recordings, tmp_path / "ward", normals=False)
    assert entry.before["verdicts"] == {"unfamiliar": 4}
    assert "unfamiliar" not in entry.after["verdicts"]
    assert entry.label_shift == entry.offset == 0.0


def test_the_table_names_before_and_after(
    base: Path, recordings: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["adapt", str(base), "--recordings", *map(str, recordings[:1]), "--out", str(tmp_path / "x")])
    assert ended.value.code == 1 and "too few to adapt to; give 3 or more" in capsys.readouterr().err
    arguments = [part for path in recordings for part in ("--normals", str(path))]
    with pytest.raises(SystemExit) as ended:
        run(["adapt", str(base), *arguments, "--out", str(tmp_path / "y")])
    printed = capsys.readouterr().out
    assert ended.value.code == 0 and "cycles labelled abnormal" in printed and "before" in printed


@pytest.mark.parametrize("options", [[], ["--normals", "a", "--recordings", "b"]])
def test_one_kind_of_recordings_must_be_given(base: Path, options: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["adapt", str(base), *options, "--out", str(tmp_path / "x")])
    assert ended.value.code == 2


def test_it_never_writes_over_its_base(base: Path, recordings: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    before = (copy / "bundle.json").read_bytes()
    with pytest.raises(BundleError, match="is the bundle that is adapted"):
        adapt_bundle(copy, recordings, copy, normals=True)
    assert (copy / "bundle.json").read_bytes() == before


def test_recordings_without_audio_are_no_basis(base: Path, tmp_path: Path) -> None:
    for k in range(3):
        soundfile.write(tmp_path / f"{k}.wav", np.zeros(4000 * 8), 4000)
    with pytest.raises(AudioError, match="only 0 of 3 recordings have usable audio"):
        adapt_bundle(base, sorted(tmp_path.glob("*.wav")), tmp_path / "x", normals=True)


def test_a_bundle_without_verdicts_learns_labels_alone(recordings: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    manifest: Manifest = read_manifest(load_bundle("default").path)
    files = {p.name: p.read_bytes() for p in load_bundle("default").path.iterdir() if p.name != "bundle.json"}
    if not isinstance(manifest.verdict, msgspec.UnsetType):
        files.pop(manifest.verdict.file)
    write_bundle(folder, msgspec.structs.replace(manifest, verdict=msgspec.UNSET), files)
    with pytest.raises(BundleError, match="gives no verdicts"):
        adapt_bundle(folder, recordings, tmp_path / "x", normals=False)
    assert "verdicts" not in adapt_bundle(folder, recordings, tmp_path / "x", normals=True).after


def test_evidence_without_cycles_has_no_mean() -> None:
    row = rows([[0.0, 0.0]])[0]
    assert row.cycles_abnormal(0.0) == pytest.approx(0.5) and row.cycles_abnormal(2.0) == pytest.approx(
        0.1192, abs=1e-4
    )
    assert replace(row, margins=()).cycles_abnormal(0.0) is None
