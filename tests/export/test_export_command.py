"""``stetho export``: conditioned models end to end, and one clear error for each thing that can be wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from benchmarks.core.exported import randomise_zero_weights
from edge_sdk.cli.main import run
from edge_sdk.corpora import load_corpus
from edge_sdk.corpora.table import SITES
from edge_sdk.errors import BundleError, ExportError
from edge_sdk.models.conditioning import Metadata
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.runtime.bundle.load import load_bundle, read_manifest, verify_bundle
from edge_sdk.runtime.bundle.signature import check_signature
from edge_sdk.signal.padding import fit_window
from edge_sdk.sources.phantom import PhantomSource
from edge_sdk.training.checkpoint import Checkpoint, save_checkpoint
from edge_sdk.training.untrained import untrained_checkpoint
from export.assemble import assemble
from export.cycles import gather_cycles
from export.export_bundle import ExportOptions, export_bundle
from export.formats import FORMATS, formats_help, formats_table
from export.onnx.runner import GraphRunner
from export.pipeline import make_artefacts
from export.signing import make_key

RATE = 4000
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def stetho(capfd: pytest.CaptureFixture[str]) -> Call:
    """Exit status, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run([str(argument) for argument in arguments])
        return (int(ended.value.code or 0), *capfd.readouterr())

    return call


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """A small network that reads site, device and age."""
    checkpoint = randomise_zero_weights(untrained_checkpoint("film", size="tiny"))
    categorical = checkpoint.metadata["categorical"] | {"site": list(SITES)}
    return replace(checkpoint, metadata=checkpoint.metadata | {"categorical": categorical})


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "patient.wav"
    source = PhantomSource("asthma", seed=1_000_300, duration_s=20.0, sample_rate=RATE)
    soundfile.write(path, np.concatenate([block.samples for block in source]), RATE)
    return path


@pytest.fixture(scope="module")
def corpus(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    rows = []
    for index, site in enumerate(("trachea", "left anterior", "trachea")):
        (root / f"p{index}.wav").write_bytes(recording.read_bytes())
        split = "val" if index == 2 else "train"
        rows += [(f"p{index}.wav", s, s + 1.9, "normal" if s % 4 else "wheeze", f"p{index}", split, site, 30 + index)
                 for s in range(0, 18, 2)]  # fmt: skip
    with (root / "cycles.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "start_s", "end_s", "label", "patient", "split", "site", "age_years"))
        writer.writerows(rows)
    return root


@pytest.fixture(scope="module")
def bundle(checkpoint: Checkpoint, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "bundle"
    formats = [FORMATS["onnx-fp32"], FORMATS["onnx-int8-cpu"]]
    artefacts = make_artefacts(checkpoint, formats, gather_cycles(checkpoint, "csv", corpus), lambda _: None)
    assemble(checkpoint, artefacts, out, name="conditioned", default_format="onnx-fp32")
    return out


def test_a_conditioned_bundle_lists_its_metadata_and_keeps_its_golden_vector(
    bundle: Path, checkpoint: Checkpoint
) -> None:
    manifest = read_manifest(bundle)
    assert manifest.metadata == checkpoint.metadata
    assert [check for check in verify_bundle(bundle) if not check.ok] == []
    schema = checkpoint.metadata_schema
    assert schema is not None
    with np.load(bundle / manifest.golden.file) as golden:
        assert {f"metadata_{name}" for name in schema.inputs} <= set(golden)
    assert set(manifest.files) == {"MODEL_CARD.md", "sbom.cdx.json"}
    card = (bundle / manifest.model_card).read_text()
    assert "left posterior" in card and "age_years" in card
    assert "dynamic" in card and "not verified: only" in card


def test_a_conditioned_bundle_gives_torchs_logits_for_each_breaths_own_metadata(
    bundle: Path, checkpoint: Checkpoint, corpus: Path
) -> None:
    from edge_sdk.corpora.audio import cycle_pcm

    cycles = load_corpus("csv", corpus, split="all", partial=True).cycles[::5]
    pcm = np.stack([window for _, window in cycle_pcm(cycles, checkpoint.front_end)])
    rows = [{"site": c.site, "age_years": c.age_years, "duration_s": c.duration_s} for c in cycles]
    assert {row["site"] for row in rows} == {"trachea", "left anterior"}
    schema = checkpoint.metadata_schema
    assert schema is not None
    with torch.no_grad():
        features = FoldedFrontEnd(checkpoint.front_end)(torch.from_numpy(pcm))
        expected = checkpoint.build()(features, Metadata.from_arrays(schema.encode(rows))).numpy()
    loaded = load_bundle(bundle)
    np.testing.assert_allclose(loaded.classifier.logits(pcm, rows), expected, atol=1e-3)
    assert np.abs(loaded.classifier.logits(pcm) - expected).max() > 1e-3


def test_screen_uses_the_metadata_options(bundle: Path, recording: Path, stetho: Call) -> None:
    def probabilities(*options: object) -> list[dict[str, float]]:
        status, out, err = stetho("screen", recording, "--bundle", bundle, "--json", *options)
        assert status == 0, err
        records = [json.loads(line) for line in out.splitlines()]
        return [r["probabilities"] for r in records if r["type"] == "cycle" and r["label"]]

    plain, conditioned = (
        probabilities(),
        probabilities("--site", "left anterior", "--age", 80, "--device-model", "device 2"),
    )
    assert len(plain) == len(conditioned) > 1
    assert all(abs(a["normal"] - b["normal"]) > 1e-6 for a, b in zip(plain, conditioned, strict=True))
    assert probabilities("--site", "unknown") == probabilities("--site", "")
    status, _, err = stetho("screen", recording, "--bundle", bundle, "--site", "nowhere")
    assert status == 1 and "unknown site 'nowhere'" in err and "left anterior" in err


def test_evaluate_feeds_each_breaths_metadata_to_bundles_and_checkpoints(
    bundle: Path, checkpoint: Checkpoint, corpus: Path, tmp_path: Path, stetho: Call
) -> None:
    save_checkpoint(checkpoint, tmp_path / "checkpoint.pt")
    found = []
    for model in (bundle, tmp_path / "checkpoint.pt"):
        lines = tmp_path / "predictions.jsonl"
        status, _, err = stetho(
            "evaluate", model, "csv", corpus, "--split", "all", "--partial", "--json", "--predictions", lines
        )
        assert status == 0, err
        found.append([list(json.loads(line)["probabilities"].values()) for line in lines.read_text().splitlines()])
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
    by_patient = np.array(found[0]).reshape(3, -1, 4)  # the same audio at two sites and three ages
    assert np.abs(by_patient[0] - by_patient[1]).max() > 1e-5


def test_fixed_metadata_becomes_part_of_the_network(checkpoint: Checkpoint, recording: Path, tmp_path: Path) -> None:
    fixed = {"site": "left anterior", "age_years": "60"}
    artefacts = make_artefacts(
        checkpoint, [FORMATS["onnx-fp32"]], None, lambda _: None, fixed=fixed, features_graph=True
    )
    assemble(checkpoint, artefacts, tmp_path / "b", name="b", untrained=True, fixed=fixed)
    loaded = load_bundle(tmp_path / "b", allow_untrained=True)
    assert loaded.classifier.metadata_schema is None and loaded.manifest.training["fixed_metadata"] == fixed
    samples, _ = soundfile.read(recording, dtype="float32")
    pcm = fit_window(samples[:8000], checkpoint.front_end)[None]
    schema = checkpoint.metadata_schema
    assert schema is not None
    with torch.no_grad():
        features = FoldedFrontEnd(checkpoint.front_end)(torch.from_numpy(pcm))
        expected = checkpoint.build()(features, Metadata.from_arrays(schema.encode([fixed]))).numpy()
    np.testing.assert_allclose(loaded.classifier.logits(pcm), expected, atol=1e-3)
    alone = GraphRunner((tmp_path / "b" / "classifier.fp32.features.onnx").read_bytes())
    np.testing.assert_allclose(alone.run({"features": features.numpy()}), expected, atol=1e-3)


def test_untrained_int8_is_calibrated_on_simulated_breaths_and_is_marked_untrained(
    tmp_path: Path, stetho: Call
) -> None:
    out = tmp_path / "b"
    key = make_key(tmp_path / "key.pem")
    status, text, err = stetho(
        "export", "compact", "--untrained", "--size", "tiny", "--out", out, "--json", "--sign", tmp_path / "key.pem",
        "--formats", "onnx-fp32,onnx-int8-cpu,onnx-int8-trt",
    )  # fmt: skip
    assert status == 0, err
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["verified"] for row in rows] == [False] * 3
    assert rows[1]["parity"]["scheme"] == "static-u8s8" and rows[1]["parity"]["latency_ratio"] > 0
    with pytest.raises(BundleError, match="untrained"):
        load_bundle(out)
    assert check_signature(out, (out / "bundle.json").read_bytes(), [key]).key_id == key.key_id
    assert [check for check in verify_bundle(out) if not check.ok] == []


def test_a_bare_graph_describes_itself_completely(bundle: Path) -> None:
    import onnx

    props = {p.key: p.value for p in onnx.load(bundle / "classifier.fp32.onnx").metadata_props}
    described = {
        "labels",
        "decoder",
        "metadata",
        "front_end",
        "front_end_sha256",
        "model",
        "recipe",
        "trained_on",
        "format",
    }
    assert described | {"precision", "input", "sdk_version", "research_use"} == set(props)
    assert "left posterior" in props["metadata"]


@pytest.fixture
def written(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    save_checkpoint(checkpoint, tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


def _newer(path: Path) -> None:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    torch.save(content | {"schema": 99}, path)


def test_each_wrong_thing_is_one_line_and_leaves_nothing(
    written: Path, corpus: Path, tmp_path: Path, stetho: Call
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    (few / "p0.wav").write_bytes((corpus / "p0.wav").read_bytes())
    (few / "cycles.csv").write_text(
        "file,start_s,end_s,label,patient,split\np0.wav,0,2,normal,p0,train\np0.wav,2,4,wheeze,p0,train\n"
    )
    newer = tmp_path / "newer.pt"
    newer.write_bytes(written.read_bytes())
    _newer(newer)
    file = tmp_path / "file"
    file.write_text("")
    out = tmp_path / "bundle"
    cases = {
        "newer SDK": ("export", newer, "--out", out),
        "at least 16": ("export", written, "--out", out, "--corpus", "csv", "--root", few),
        "--corpus": ("export", written, "--out", out, "--formats", "onnx-int8-cpu"),
        "choose a folder that you may write to": ("export", written, "--out", file / "bundle"),
        "is not a bundle": ("export", written, "--out", few),
        "unknown format onnx-fp33": ("export", written, "--out", out, "--formats", "onnx-fp33"),
        "made from a bundle": ("export", written, "--out", out, "--formats", "triton"),
        "does not read colour": ("export", written, "--out", out, "--fix", "colour=red"),
        "--size goes with --untrained": ("export", written, "--out", out, "--size", "tiny"),
        "is not a readable private key": ("export", written, "--out", out, "--sign", file),
        "--corpus and --root together": ("export", written, "--out", out, "--corpus", "csv"),
    }
    for message, arguments in cases.items():
        status, stdout, err = stetho(*arguments)
        assert (status, stdout, len(err.splitlines())) == (1, "", 1), (message, err)
        assert message in err
    assert not out.exists() and not list(tmp_path.glob(".*"))


def test_an_interrupted_export_leaves_no_half_bundle(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artefacts = make_artefacts(untrained_checkpoint("compact", size="tiny"), [FORMATS["onnx-fp32"]], None, print)

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        assemble(untrained_checkpoint("compact", size="tiny"), artefacts, tmp_path / "b", name="b", untrained=True)
    assert list(tmp_path.iterdir()) == []


def test_help_and_readme_hold_the_formats_table(repo_root: Path) -> None:
    assert all(name in formats_help() for name in FORMATS)
    assert formats_table() in (repo_root / "export" / "README.md").read_text(encoding="utf-8")


def test_a_version_that_devices_cannot_order_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="'spring' is no PEP 440 version"):
        export_bundle(ExportOptions(model="compact", out=tmp_path / "bundle", untrained=True, version="spring"))
    assert not (tmp_path / "bundle").exists()
