"""A bundle is used only after every check; every problem is one clear line."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk.digests import sha256_file
from edge_sdk.errors import BundleError, EngineError, StethoError
from edge_sdk.runtime.bundle import files as bundle_files
from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE, Bundle, load_bundle, read_manifest, verify_bundle, write_bundle
from edge_sdk.runtime.bundle.schema import decode_manifest, encode_manifest
from edge_sdk.runtime.quality import QualityParams
from edge_sdk.runtime.segmentation.level import EnvelopeParams
from tests.support.tiny_bundle import ARTEFACT, FORMAT, tiny_graph, tiny_spec, write_tiny_bundle


@pytest.fixture
def folder(bundle_folder: Path, tmp_path: Path) -> Path:
    """A bundle of one's own to damage."""
    return Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))


def load(folder: Path, **options: Any) -> Bundle:
    return load_bundle(folder, allow_untrained=True, **options)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    change(manifest)
    (folder / "bundle.json").write_text(json.dumps(manifest))


def rehash(folder: Path, name: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        digest = sha256_file(folder / name)
        for entry in [*manifest["artefacts"], manifest["golden"]]:
            if entry["file"] == name:
                entry["sha256"] = digest

    edit(folder, change)


def other_weights(folder: Path) -> None:
    (folder / ARTEFACT).write_bytes(tiny_graph(tiny_spec(), seed=99))
    rehash(folder, ARTEFACT)


def golden_without_our_format(folder: Path) -> None:
    np.savez(folder / "golden.npz", pcm=np.zeros((1, 12000), np.int16))
    rehash(folder, "golden.npz")


def pickled_golden(folder: Path) -> None:
    np.savez(folder / "golden.npz", pcm=np.array([{"no": "data"}], dtype=object), allow_pickle=True)
    rehash(folder, "golden.npz")


def set_in(*path: str | int, to: Any) -> Callable[[Path], None]:
    def change(manifest: Any) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = to

    return lambda folder: edit(folder, change)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "does not exist"),
    "no manifest": (lambda f: (f / "bundle.json").unlink(), "is not a bundle"),
    "half a manifest": (lambda f: (f / "bundle.json").write_text('{"schema": 1, "na'), "not readable JSON"),
    "no text at all": (lambda f: (f / "bundle.json").write_bytes(b"\xff\xfe\x00"), "not readable JSON"),
    "a list": (lambda f: (f / "bundle.json").write_text("[]"), "no schema number"),
    "no schema": (lambda f: edit(f, lambda m: m.pop("schema")), "no schema number"),
    "newer schema": (set_in("schema", to=2), "made by a newer SDK (schema 2, this SDK reads 1); upgrade"),
    "missing key": (lambda f: edit(f, lambda m: m.pop("labels")), "labels"),
    "unknown key": (set_in("colour", to="blue"), "colour"),
    "unknown key deep down": (set_in("artefacts", 0, "colour", to="blue"), "colour"),
    "wrong type": (set_in("artefacts", 0, "bytes", to="many"), "bytes"),
    "unknown decoder": (set_in("decoder", "kind", to="oracle"), "oracle"),
    "no artefact": (set_in("artefacts", to=[]), "lists no artefact"),
    "one label": (set_in("labels", to=["normal"]), "two or more"),
    "normal label unknown": (set_in("decoder", "normal_label", to="fine"), "normal label 'fine'"),
    "biases": (set_in("decoder", "bias", to=[0.0]), "1 biases for 4 labels"),
    "temperature": (set_in("decoder", "temperature", to=0), "temperature must be positive"),
    "front end key": (set_in("artefacts", 0, "front_end", "colour", to=1), "unknown keys ['colour']"),
    "front end value": (set_in("artefacts", 0, "front_end", "high_hz", to=9000.0), "half the rate"),
    "segmenter key": (set_in("segmenter", "params", to={"magic": 1}), "segmenter: unknown keys ['magic']"),
    "segmenter value": (set_in("segmenter", "params", to={"on": "high"}), "segmenter: on: Expected `float`, got `str`"),
    "segmenter rate": (set_in("segmenter", "rate_hz", to=0), "out of range"),
    "quality key": (set_in("quality", to={"magic": 1}), "quality: unknown keys ['magic']"),
    "artefact gone": (lambda f: (f / ARTEFACT).unlink(), "is incomplete: classifier.fp32.onnx is missing"),
    "artefact changed": (lambda f: (f / ARTEFACT).write_bytes(b"x"), "its sha256; re-run 'stetho export'"),
    "golden gone": (lambda f: (f / "golden.npz").unlink(), "golden.npz is missing"),
    "golden changed": (lambda f: (f / "golden.npz").write_bytes(b"x"), "golden.npz does not match its sha256"),
    "golden of another format": (golden_without_our_format, "not a golden vector of onnx-fp32"),
    "golden pickled": (pickled_golden, "not a golden vector"),
    "other weights": (other_weights, "the golden vector of onnx-fp32 comes out"),
    "path upwards": (set_in("artefacts", 0, "file", to="../evil.onnx"), "lies outside the bundle"),
    "absolute path": (set_in("artefacts", 0, "file", to="/etc/passwd"), "lies outside the bundle"),
    "a name no file can have": (set_in("artefacts", 0, "file", to="x" * 5000), "is incomplete: xxx"),
    "golden upwards": (set_in("golden", "file", to="../../golden.npz"), "lies outside the bundle"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.requirement("BUN-1")
def test_every_damage_is_one_clear_line(folder: Path, damage: str) -> None:
    spoil, message = DAMAGE[damage]
    spoil(folder)
    with pytest.raises(BundleError) as raised:
        load(folder)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.requirement("BUN-1")
def test_verify_finds_every_damage(folder: Path, damage: str) -> None:
    spoil, message = DAMAGE[damage]
    spoil(folder)
    assert any(message in problem for problem in problems_of(folder))


def problems_of(folder: Path) -> list[str]:
    try:
        return [check.detail for check in verify_bundle(folder) if not check.ok]
    except BundleError as error:
        return [str(error)]


def hub_cache(folder: Path, cache: Path) -> Path:
    """The layout of a model hub's cache: names in a snapshot are links to blobs named by their checksum."""
    snapshot = cache / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for path in folder.iterdir():
        blob = cache / "blobs" / sha256_file(path)
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", blob.name))
    return snapshot


@pytest.mark.parametrize("outside", [False, True])
def test_a_bundle_of_links_is_used_when_its_checksums_match(folder: Path, tmp_path: Path, outside: bool) -> None:
    snapshot = hub_cache(folder, tmp_path / "cache")
    if outside:  # one file lies on another disk
        (snapshot / ARTEFACT).unlink()
        (snapshot / ARTEFACT).symlink_to(shutil.move(folder / ARTEFACT, tmp_path / "elsewhere.onnx"))
    assert load(snapshot).artefact.file == ARTEFACT
    assert problems_of(snapshot) == []


def test_a_bundle_of_links_to_other_content_is_refused(folder: Path, tmp_path: Path) -> None:
    snapshot = hub_cache(folder, tmp_path / "cache")
    (snapshot / ARTEFACT).resolve().write_bytes(b"x")
    with pytest.raises(BundleError, match="does not match its sha256"):
        load(snapshot)
    (snapshot / ARTEFACT).resolve().unlink()
    with pytest.raises(BundleError, match="is missing"):
        load(snapshot)


def test_a_byte_order_mark_is_no_damage(folder: Path) -> None:
    manifest = folder / "bundle.json"
    manifest.write_bytes(b"\xef\xbb\xbf" + manifest.read_bytes())
    assert load(folder).labels
    assert problems_of(folder) == []


LEARNED_DAMAGE = {
    "decoder key": (set_in("segmenter", "params", "magic", to=1), "segmenter decoder: unknown keys ['magic']"),
    "decoder value": (set_in("segmenter", "params", "onset_weight", to=None), "onset_weight"),
    "decoder is a list": (set_in("segmenter", "params", to=[]), "params"),
    "step key": (set_in("segmenter", "step", "magic", to=1), "magic"),
    "step front end": (set_in("segmenter", "step", "front_end", "magic", to=1), "magic"),
    "endless window": (set_in("segmenter", "step", "front_end", "window_s", to=1e308), "window_s"),
    "endless frame": (set_in("segmenter", "step", "front_end", "frame_samples", to=10**15), "a frame"),
    "no step": (set_in("segmenter", to={"kind": "learned"}), "segmenter"),
    "verdict key": (set_in("verdict", "params", "magic", to=1), "verdict: unknown keys ['magic']"),
    "familiarity key": (set_in("verdict", "familiarity", "magic", to=1), "unknown keys ['magic']"),
    "detector key": (set_in("verdict", "detector", "magic", to=1), "unknown keys ['magic']"),
    "quality value": (set_in("quality", to={"breathless_s": "long"}), "breathless_s"),
    "metadata key": (set_in("metadata", to={"magic": 1}), "unknown keys ['magic']"),
    "metadata is half": (set_in("metadata", to={"continuous": ["bmi"]}), "equal lengths"),
    "endless depth": (lambda f: (f / "bundle.json").write_text("[" * 100_000), "not readable JSON"),
    "UTF-16": (lambda f: (f / "bundle.json").write_bytes("{}".encode("utf-16")), "bundle.json"),
}  # fmt: skip


@pytest.mark.parametrize("damage", LEARNED_DAMAGE)
def test_an_old_or_foreign_manifest_is_one_line(tmp_path: Path, damage: str) -> None:
    for path in DEFAULT_BUNDLE.iterdir():
        if path.is_file():
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "bundle.json").unlink()
    shutil.copy(DEFAULT_BUNDLE / "bundle.json", tmp_path)
    spoil, message = LEARNED_DAMAGE[damage]
    spoil(tmp_path)
    with pytest.raises(BundleError, match=re.escape(message)) as raised:
        load_bundle(tmp_path, verify=False)
    assert "\n" not in str(raised.value)
    assert any(message in problem for problem in problems_of(tmp_path))


def test_a_file_is_not_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match="is not a bundle"):
        load(tmp_path / "model.onnx")


def test_a_file_that_no_engine_can_load_is_an_engine_error(folder: Path) -> None:
    (folder / ARTEFACT).write_bytes(b"not a graph")
    rehash(folder, ARTEFACT)
    with pytest.raises(EngineError, match="cannot load"):
        load(folder)


@pytest.mark.requirement("BUN-3")
def test_untrained_weights_are_refused(folder: Path) -> None:
    with pytest.raises(BundleError, match="untrained"):
        load_bundle(folder)
    assert load(folder).untrained


def test_a_bundle_without_the_artefact_asked_for(folder: Path) -> None:
    with pytest.raises(BundleError, match="holds no artefact 'onnx-int4'; it holds onnx-fp32"):
        load(folder, artefact="onnx-int4")
    assert load(folder, artefact=FORMAT).artefact.format == FORMAT


def test_verify_false_skips_only_the_golden_vector(folder: Path) -> None:
    other_weights(folder)
    assert load(folder, verify=False).labels
    (folder / ARTEFACT).write_bytes(b"x")
    with pytest.raises(BundleError, match="sha256"):
        load(folder, verify=False)


def test_a_good_bundle_passes_every_check(folder: Path) -> None:
    checks = verify_bundle(folder)
    assert [c.name for c in checks if not c.ok] == []
    assert {f"golden {FORMAT}", f"sha256 {ARTEFACT}", "sha256 golden.npz"} <= {c.name for c in checks}


def test_the_manifest_survives_a_round_trip(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert decode_manifest(encode_manifest(manifest)) == manifest
    assert (folder / "bundle.json").read_bytes() == encode_manifest(manifest)


def test_one_bundle_serves_many_threads(bundle: Bundle) -> None:
    rng = np.random.default_rng(3)
    clips = rng.standard_normal((6, 1, bundle.front_end.window_samples)).astype(np.float32) * 0.01
    expected = [bundle.classifier.classify(clip) for clip in clips]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(20):
            if not np.array_equal(bundle.classifier.classify(clips[i]), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(clips))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_params_of_the_manifest_reach_the_stream(tmp_path: Path) -> None:
    from edge_sdk.runtime.bundle.schema import SegmenterEntry

    folder = write_tiny_bundle(
        tmp_path / "b", segmenter=SegmenterEntry(params={"shortest_s": 0.5}), quality={"silence_dbfs": -70}
    )
    bundle = load(folder)
    assert bundle.segmenter_params == EnvelopeParams(shortest_s=0.5)
    assert bundle.quality_params == QualityParams(silence_dbfs=-70.0)
    assert bundle.shortest_s == 0.5


# -- writing -----------------------------------------------------------------------------------------------------------


def test_writing_replaces_a_bundle_whole(folder: Path) -> None:
    (folder / "left-over.bin").write_bytes(b"old")
    manifest = read_manifest(folder)
    files = {name: (folder / name).read_bytes() for name in (ARTEFACT, "golden.npz", "MODEL_CARD.md")}
    write_bundle(folder, manifest, files)
    assert sorted(p.name for p in folder.iterdir()) == sorted([ARTEFACT, "golden.npz", "MODEL_CARD.md", "bundle.json"])
    assert sorted(p.name for p in folder.parent.iterdir()) == ["bundle"]
    assert load(folder).labels


def test_writing_never_replaces_what_is_no_bundle(folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="is not a bundle"):
        write_bundle(precious, read_manifest(folder), {})
    assert (precious / "thesis.txt").read_text() == "years of work"


def test_a_write_that_fails_leaves_the_old_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def fail(_: object) -> bytes:
        raise OSError("disk full")

    monkeypatch.setattr(bundle_files, "encode_manifest", fail)
    with pytest.raises(BundleError, match="disk full"):
        write_bundle(folder, read_manifest(folder), {"a": b"a"})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "sub/../../outside"])
def test_writing_stays_inside(folder: Path, name: str) -> None:
    with pytest.raises(StethoError, match="outside"):
        write_bundle(folder, read_manifest(folder), {name: b"x"})
    assert load(folder).labels
