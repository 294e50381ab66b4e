"""A bundle on disk, checked and loaded: what crosses from the train side to the device, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from edge_sdk.errors import BundleError, StethoError
from edge_sdk.protocols import Engine
from edge_sdk.runtime.decoding import decode
from edge_sdk.runtime.engine import OrtEngine
from edge_sdk.runtime.envelope import EnvelopeParams
from edge_sdk.runtime.quality import QualityParams
from edge_sdk.runtime.schema import MANIFEST, SCHEMA, ArtefactEntry, Manifest, decode_manifest, encode_manifest
from edge_sdk.signal.spec import FrontEndSpec

if TYPE_CHECKING:
    from edge_sdk.protocols import Engine
    from edge_sdk.runtime.stream import Stream

DEFAULT_BUNDLE = Path(__file__).resolve().parent.parent / "bundles" / "default"
"""The bundle that ships in the wheel."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was verified of a bundle."""

    name: str  # "sha256 classifier.int8.onnx", "golden onnx-int8-cpu", ...
    ok: bool
    detail: str


class Bundle:
    """A loaded bundle: stateless, shared by any number of streams and threads.

    Made by :func:`load_bundle`.
    """

    def __init__(self, path: Path, manifest: Manifest, artefact: ArtefactEntry, engine: Engine) -> None:
        self.path = path
        self.manifest = manifest
        self.artefact = artefact
        self.engine = engine
        self.front_end = _front_end(path, artefact)
        self.segmenter_params, self.quality_params = _settings(path, manifest)
        self.labels: tuple[str, ...] = tuple(manifest.labels)

    def __repr__(self) -> str:
        return f"Bundle({self.manifest.name} {self.manifest.version}, {self.artefact.format}, {self.path})"

    @property
    def untrained(self) -> bool:
        """Weights are random: good for timing, not for sound."""
        return self.manifest.untrained

    @property
    def shortest_s(self) -> float:
        """Seconds of sound below which no breath can be found."""
        return self.segmenter_params.shortest_s

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Calibrated probabilities ``[B, C]`` of logits ``[B, C]``, by the bundle's decoder."""
        return decode(logits, self.manifest.decoder)

    def logits(self, pcm: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits ``[B, C]`` of windowed PCM ``[B, window_samples]`` at the front end's rate."""
        result: npt.NDArray[np.float32] = self.engine.run({self.artefact.input: pcm})[self.artefact.output]
        return result

    def classify(self, pcm: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Probabilities ``[B, C]`` of windowed PCM ``[B, window_samples]`` at the front end's rate."""
        return self.probabilities(self.logits(pcm))

    def stream(self, sample_rate: int, metadata: Mapping[str, Any] | None = None) -> Stream:
        """A new stream over this bundle for sound at ``sample_rate`` Hz."""
        from edge_sdk.runtime.stream import Stream

        return Stream(self, sample_rate, metadata)


def load_bundle(
    path: str | Path | None = None,
    *,
    artefact: str | None = None,
    threads: int = 1,
    verify: bool = True,
    allow_untrained: bool = False,
) -> Bundle:
    """Load a bundle and prove that it computes what it computed where it was made.

    Parameters
    ----------
    path
        Bundle directory; ``None`` or ``"default"`` is the one in the wheel.
    artefact
        Format of the classifier to load, for example ``onnx-fp32``; the bundle's default one where absent.
    threads
        Intra-op threads of the engine.
    verify
        Compare with the golden vector. Hashes are always checked.
    allow_untrained
        Accept random weights (benchmarks, tests).

    Raises
    ------
    BundleError
        Missing, incomplete, corrupt, newer than this SDK, untrained, or its golden vector does not come out.
    EngineError
        The engine cannot load the artefact.
    """
    folder = resolve_bundle(path)
    manifest = read_manifest(folder)
    if manifest.untrained and not allow_untrained:
        raise BundleError(
            f"{folder} holds untrained weights, made for benchmarks; its answers would mean nothing: "
            "export a trained checkpoint, or use the default bundle"
        )
    entry = _choose(folder, manifest, artefact)
    _require(_hash_check(folder, entry.file, entry.sha256))
    engine = OrtEngine(_inside(folder, entry.file), threads)
    bundle = Bundle(folder, manifest, entry, engine)
    if verify:
        _require(_hash_check(folder, manifest.golden.file, manifest.golden.sha256))
        _require(_golden_check(bundle))
    return bundle


def resolve_bundle(path: str | Path | None) -> Path:
    """The directory that a bundle argument names; raises ``BundleError`` when there is none."""
    folder = DEFAULT_BUNDLE if path is None or str(path) == "default" else Path(path)
    if not folder.exists():
        raise BundleError(f"bundle {folder} does not exist; give a directory made by 'stetho export', or 'default'")
    if not folder.is_dir() or not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} is not a bundle (no {MANIFEST} in it); give a directory made by 'stetho export'")
    return folder


def read_manifest(folder: Path) -> Manifest:
    """``bundle.json``, checked; files are not opened."""
    try:
        text = (folder / MANIFEST).read_bytes()
        raw = json.loads(text)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{folder / MANIFEST} is not readable JSON ({error}); copy or export the bundle again"
        ) from error
    if not isinstance(raw, dict) or not isinstance(raw.get("schema"), int):
        raise BundleError(f"{folder / MANIFEST} has no schema number; export the bundle again")
    if raw["schema"] > SCHEMA:
        raise BundleError(
            f"{folder} was made by a newer SDK (schema {raw['schema']}, this SDK reads {SCHEMA}); "
            "upgrade stethoscope-edge-sdk"
        )
    try:
        manifest = decode_manifest(text)
    except msgspec.DecodeError as error:
        raise BundleError(f"{folder / MANIFEST}: {error}; export the bundle again") from error
    _check_consistency(folder, manifest)
    return manifest


def _check_consistency(folder: Path, manifest: Manifest) -> None:
    labels, decoder = manifest.labels, manifest.decoder
    problem = None
    if len(set(labels)) != len(labels) or len(labels) < 2:
        problem = "labels must be two or more different names"
    elif decoder.normal_label not in labels:
        problem = f"the normal label {decoder.normal_label!r} is not among the labels"
    elif decoder.bias and len(decoder.bias) != len(labels):
        problem = f"{len(decoder.bias)} biases for {len(labels)} labels"
    elif not decoder.temperature > 0:
        problem = "the temperature must be positive"
    elif not manifest.artefacts:
        problem = "it lists no artefact"
    if problem:
        raise BundleError(f"{folder / MANIFEST}: {problem}; export the bundle again")


def _choose(folder: Path, manifest: Manifest, wanted: str | None) -> ArtefactEntry:
    if wanted is None:
        return next((a for a in manifest.artefacts if a.default), manifest.artefacts[0])
    for entry in manifest.artefacts:
        if entry.format == wanted:
            return entry
    have = ", ".join(a.format for a in manifest.artefacts)
    raise BundleError(f"{folder} holds no artefact {wanted!r}; it holds {have}")


def _front_end(folder: Path, entry: ArtefactEntry) -> FrontEndSpec:
    try:
        return FrontEndSpec.from_dict(entry.front_end)
    except (ValueError, TypeError) as error:
        raise BundleError(f"{folder / MANIFEST}: {entry.file}: {error}; export the bundle again") from error


def _settings(folder: Path, manifest: Manifest) -> tuple[EnvelopeParams, QualityParams]:
    try:
        if not 500 <= manifest.segmenter.rate_hz <= 192_000:
            raise ValueError(f"segmenter: rate_hz {manifest.segmenter.rate_hz} is out of range")
        return EnvelopeParams.from_dict(manifest.segmenter.params), QualityParams.from_dict(manifest.quality)
    except ValueError as error:
        raise BundleError(f"{folder / MANIFEST}: {error}; export the bundle again") from error


def _inside(folder: Path, name: str) -> Path:
    """A file of the bundle; names that lead out of its directory are refused."""
    path = folder / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(
            f"{folder / MANIFEST} names {name!r}, which lies outside the bundle; do not trust this bundle"
        )
    if not path.is_file():
        raise BundleError(f"{folder} is incomplete: {name} is missing; copy or export the bundle again")
    return path


def sha256_file(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _require(check: Check) -> None:
    if not check.ok:
        raise BundleError(check.detail)


def _hash_check(folder: Path, name: str, expected: str) -> Check:
    found = sha256_file(_inside(folder, name))
    ok = found == expected
    detail = (
        found[:16] if ok else f"{folder}: {name} does not match its sha256; re-run 'stetho export' or delete the bundle"
    )
    return Check(f"sha256 {name}", ok, detail)


def _golden_check(bundle: Bundle) -> Check:
    golden, form = bundle.manifest.golden, bundle.artefact.format
    name = f"golden {form}"
    try:
        with np.load(_inside(bundle.path, golden.file), allow_pickle=False) as arrays:
            pcm = arrays["pcm"].astype(np.float32) / 32768
            expected = arrays[f"logits_{form.replace('-', '_')}"]
    except (OSError, ValueError, KeyError) as error:
        return Check(
            name, False, f"{bundle.path}: {golden.file} is not a golden vector of {form} ({error}); export again"
        )
    found = bundle.logits(pcm)
    tolerance = golden.tolerance.get(form, 1e-3)
    error_max = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
    ok = error_max <= tolerance  # NaN compares false, as it should
    if ok:
        return Check(name, True, f"largest difference {error_max:.2g} (allowed {tolerance:g})")
    return Check(
        name, False,
        f"{bundle.path}: the golden vector of {form} comes out {error_max:.3g} off (allowed {tolerance:g}) on "
        f"{bundle.engine.name}; this engine does not compute the model correctly: use another artefact or engine",
    )  # fmt: skip


def verify_bundle(path: str | Path | None = None) -> list[Check]:
    """Check everything in a bundle and go on past failures: hashes, engines, golden vectors, signatures.

    Raises
    ------
    BundleError
        There is no bundle, or its manifest cannot be read; anything less is a failed :class:`Check`.
    """
    folder = resolve_bundle(path)
    manifest = read_manifest(folder)
    checks = [Check(MANIFEST, True, f"schema {manifest.schema}, {manifest.name} {manifest.version}")]
    files = {a.file: a.sha256 for a in manifest.artefacts} | {manifest.golden.file: manifest.golden.sha256}
    checks += [_attempt(f"sha256 {n}", partial(_hash_check, folder, n, digest)) for n, digest in files.items()]
    checks += [_attempt(f"golden {a.format}", partial(_golden_of, folder, manifest, a)) for a in manifest.artefacts]
    card = folder / manifest.model_card
    checks.append(
        Check(f"model card {manifest.model_card}", card.is_file(), "present" if card.is_file() else "missing")
    )
    return checks


def _golden_of(folder: Path, manifest: Manifest, entry: ArtefactEntry) -> Check:
    engine = OrtEngine(_inside(folder, entry.file))
    bundle = Bundle(folder, manifest, entry, engine)
    if list(engine.inputs) != [entry.input] or list(engine.outputs) != [entry.output]:
        found = f"{list(engine.inputs)} → {list(engine.outputs)}"
        return Check(f"signature {entry.format}", False, f"{entry.file}: is {found}; export the bundle again")
    return _golden_check(bundle)


def _attempt(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except StethoError as error:
        return Check(name, False, str(error))


def write_bundle(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Write a bundle so that it is there whole or not at all; one already there is replaced.

    Parameters
    ----------
    folder
        Where it shall be. Its parent is made.
    manifest
        Must name exactly what ``files`` holds.
    files
        Name → content of every file but ``bundle.json``.

    Raises
    ------
    BundleError
        ``folder`` exists and is not a bundle, so it is not ours to replace; or a name leads out of it.
    """
    if outside := [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise BundleError(f"{outside[0]!r} lies outside the bundle {folder}; give names relative to it")
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST).is_file())):
        raise BundleError(f"{folder} exists and is not a bundle; give another --out or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, content in {**files, MANIFEST: encode_manifest(manifest)}.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(content)
        staging.chmod(0o755)  # mkdtemp makes it private
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.replace(old)
        staging.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
