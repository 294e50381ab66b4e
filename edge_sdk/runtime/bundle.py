"""A bundle on disk, checked and loaded: what crosses from the train side to the device, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from edge_sdk.errors import BundleError, StethoError
from edge_sdk.metadata import MetadataSchema
from edge_sdk.protocols import Engine
from edge_sdk.runtime.decoding import decide, decode, decoder_problem
from edge_sdk.runtime.engine import OrtEngine
from edge_sdk.runtime.quality import QualityParams
from edge_sdk.runtime.schema import (
    MANIFEST,
    SCHEMA,
    ArtefactEntry,
    Manifest,
    SegmenterEntry,
    decode_manifest,
    encode_manifest,
)
from edge_sdk.runtime.segmenters import (
    EnvelopeFactory,
    LearnedFactory,
    SegmenterParams,
    segmenter_factory,
    segmenter_params,
)
from edge_sdk.runtime.selection import Attempt, Candidate, candidates, choose, wanted_engine
from edge_sdk.runtime.trust import (
    TrustedKey,
    check_signature,
    check_version,
    describe_signature,
    record_version,
    trusted_keys,
)
from edge_sdk.signal.spec import FrontEndSpec

if TYPE_CHECKING:
    from edge_sdk.protocols import Engine
    from edge_sdk.runtime.stream import Stream

MetadataRows: TypeAlias = Sequence[Mapping[str, Any]]

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

    attempts: tuple[Attempt, ...] = ()
    """Engines that were tried, the one in use last."""

    def __init__(self, path: Path, manifest: Manifest, artefact: ArtefactEntry, engine: Engine) -> None:
        self.path = path
        self.manifest = manifest
        self.artefact = artefact
        self.engine = engine
        self.front_end = _front_end(path, artefact)
        self.segmenter_params, self.quality_params = _settings(path, manifest)
        self.labels: tuple[str, ...] = tuple(manifest.labels)
        self.metadata_schema = _metadata_schema(path, manifest)

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

    @cached_property
    def segmenter(self) -> EnvelopeFactory | LearnedFactory:
        """Makes the segmenter of each stream; a learned one is loaded once and shared."""
        entry = self.manifest.segmenter
        return segmenter_factory(entry, self.segmenter_params, _segmenter_file(self.path, entry))

    def with_segmenter(self, factory: EnvelopeFactory | LearnedFactory) -> Bundle:
        """The same bundle, whose new streams find breaths with another segmenter; this one is left as it is."""
        other = Bundle(self.path, self.manifest, self.artefact, self.engine)
        other.segmenter_params = factory.params
        other.__dict__["segmenter"] = factory  # where cached_property looks first
        return other

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Calibrated probabilities ``[B, C]`` of logits ``[B, C]``, by the bundle's decoder."""
        return decode(logits, self.manifest.decoder)

    def decide(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Indices ``[B]`` of the labels that the decoder gives for probabilities ``[B, C]``, by its thresholds."""
        decoder = self.manifest.decoder
        return decide(probabilities, decoder, self.labels.index(decoder.normal_label))

    def logits(self, pcm: npt.NDArray[np.float32], metadata: MetadataRows | None = None) -> npt.NDArray[np.float32]:
        """Logits ``[B, C]`` of windowed PCM ``[B, window_samples]`` at the front end's rate.

        Parameters
        ----------
        pcm
            float32 in ±1.
        metadata
            What is known of each of the B breaths; nothing where absent. A bundle without metadata does not look at it.

        Raises
        ------
        EngineError
            Shapes do not fit the graph.
        """
        inputs: dict[str, npt.NDArray[Any]] = {self.artefact.input: pcm}
        if self.metadata_schema is not None:
            inputs |= self.metadata_schema.encode(metadata if metadata is not None else [{}] * len(pcm))
        result: npt.NDArray[np.float32] = self.engine.run(inputs)[self.artefact.output]
        return result

    def classify(self, pcm: npt.NDArray[np.float32], metadata: MetadataRows | None = None) -> npt.NDArray[np.float64]:
        """Probabilities ``[B, C]``; parameters and errors as :meth:`logits`."""
        return self.probabilities(self.logits(pcm, metadata))

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
    engine: str | None = None,
    trusted: Sequence[Path] | None = None,
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
    engine
        ``auto``, ``tensorrt``, ``tensorrt-ep``, ``cuda`` or ``cpu``; absent: ``$STETHO_ENGINE``, else ``auto``, the
        best one that is proven here. GPU engines are always compared with the golden vector.
    trusted
        Files of trusted public keys; absent: ``$STETHO_TRUSTED_KEYS``. With any, the bundle must be signed by one of
        them and not be older than a version that this device has run.

    Raises
    ------
    BundleError
        Missing, incomplete, corrupt, newer than this SDK, untrained, unsigned or older where that matters, or its
        golden vector does not come out.
    EngineError
        The engine cannot load the artefact, or there is no such engine.
    """
    folder = resolve_bundle(path)
    keys = trusted_keys(trusted)
    manifest = read_manifest(folder, keys)
    if keys:
        check_version(manifest.name, manifest.version)
    if manifest.untrained and not allow_untrained:
        raise BundleError(
            f"{folder} holds untrained weights, made for benchmarks; its answers would mean nothing: "
            "export a trained checkpoint, or use the default bundle"
        )
    found = candidates(
        manifest,
        _choose(folder, manifest, artefact),
        wanted_engine(engine),
        threads,
        partial(checked_file, folder),
        chosen=artefact is not None,
    )

    def prove(candidate: Candidate, made: Engine) -> None:
        if verify or candidate.kind != "cpu":
            _require(_hash_check(folder, manifest.golden.file, manifest.golden.sha256))
            _require(_golden_check(Bundle(folder, manifest, candidate.artefact, made), candidate.tolerance))

    made, entry, attempts = choose(found, prove)
    bundle = Bundle(folder, manifest, entry, made)
    bundle.attempts = attempts
    if manifest.segmenter.file:
        _require(_hash_check(folder, manifest.segmenter.file, manifest.segmenter.sha256 or ""))
    segmenter = bundle.segmenter
    if verify and isinstance(segmenter, LearnedFactory):
        _require(_segmenter_check(folder, manifest, segmenter))
    if keys:
        record_version(manifest.name, manifest.version)
    return bundle


def checked_file(folder: Path, entry: ArtefactEntry) -> Path:
    """The file of an artefact; raises ``BundleError`` where it is missing or does not match its sha256."""
    _require(_hash_check(folder, entry.file, entry.sha256))
    return _inside(folder, entry.file)


def resolve_bundle(path: str | Path | None) -> Path:
    """The directory that a bundle argument names; raises ``BundleError`` when there is none."""
    folder = DEFAULT_BUNDLE if path is None or str(path) == "default" else Path(path)
    if not folder.exists():
        raise BundleError(f"bundle {folder} does not exist; give a directory made by 'stetho export', or 'default'")
    if not folder.is_dir() or not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} is not a bundle (no {MANIFEST} in it); give a directory made by 'stetho export'")
    return folder


def read_manifest(folder: Path, keys: Sequence[TrustedKey] = ()) -> Manifest:
    """``bundle.json``, checked, and first of all its signature where there are keys; files are not opened."""
    try:
        text = (folder / MANIFEST).read_bytes()
        if keys:
            check_signature(folder, text, keys)
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
    elif not manifest.artefacts:
        problem = "it lists no artefact"
    else:
        problem = decoder_problem(decoder, labels)
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


def _metadata_schema(folder: Path, manifest: Manifest) -> MetadataSchema | None:
    try:
        return MetadataSchema.from_dict(manifest.metadata) if manifest.metadata else None
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(f"{folder / MANIFEST}: {error}; export the bundle again") from error


def _front_end(folder: Path, entry: ArtefactEntry) -> FrontEndSpec:
    try:
        return FrontEndSpec.from_dict(entry.front_end)
    except (ValueError, TypeError) as error:
        raise BundleError(f"{folder / MANIFEST}: {entry.file}: {error}; export the bundle again") from error


def _settings(folder: Path, manifest: Manifest) -> tuple[SegmenterParams, QualityParams]:
    try:
        if not 500 <= manifest.segmenter.rate_hz <= 192_000:
            raise ValueError(f"segmenter: rate_hz {manifest.segmenter.rate_hz} is out of range")
        return segmenter_params(manifest.segmenter), QualityParams.from_dict(manifest.quality)
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


def _golden_check(bundle: Bundle, allowed: float | None = None) -> Check:
    golden, form = bundle.manifest.golden, bundle.artefact.format
    name = f"golden {form}"
    try:
        with np.load(_inside(bundle.path, golden.file), allow_pickle=False) as arrays:
            pcm = arrays["pcm"].astype(np.float32) / 32768
            expected = arrays[f"logits_{form.replace('-', '_')}"]
            inputs = {bundle.artefact.input: pcm}
            if bundle.metadata_schema is not None:
                inputs |= {key: arrays[f"metadata_{key}"] for key in bundle.metadata_schema.inputs}
    except (OSError, ValueError, KeyError) as error:
        return Check(
            name, False, f"{bundle.path}: {golden.file} is not a golden vector of {form} ({error}); export again"
        )
    found = bundle.engine.run(inputs)[bundle.artefact.output]
    tolerance = golden.tolerance.get(form, 1e-3) if allowed is None else allowed
    error_max = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
    ok = error_max <= tolerance  # NaN compares false, as it should
    if ok:
        return Check(name, True, f"largest difference {error_max:.2g} (allowed {tolerance:g})")
    return Check(
        name, False,
        f"{bundle.path}: the golden vector of {form} comes out {error_max:.3g} off (allowed {tolerance:g}) on "
        f"{bundle.engine.name}; this engine does not compute the model correctly: use another artefact or engine",
    )  # fmt: skip


def _segmenter_file(folder: Path, entry: SegmenterEntry) -> Path | None:
    if entry.kind == "learned" and not (entry.file and entry.sha256):
        raise BundleError(f"{folder / MANIFEST}: a learned segmenter without file and sha256; export the bundle again")
    return _inside(folder, entry.file) if entry.file else None


def _segmenter_check(folder: Path, manifest: Manifest, segmenter: LearnedFactory) -> Check:
    entry, step = manifest.segmenter, manifest.segmenter.step
    if isinstance(step, msgspec.UnsetType) or not step.golden:
        return Check("golden segmenter", True, "the bundle holds none")
    found, expected = np.array(segmenter.golden()), np.array(step.golden)
    error = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
    if error <= step.golden_tolerance:
        detail = f"largest difference {error:.2g} (allowed {step.golden_tolerance:g})"
        return Check("golden segmenter", True, detail)
    return Check(
        "golden segmenter", False,
        f"{folder}: {entry.file} comes out {error:.3g} off (allowed {step.golden_tolerance:g}); this engine does not "
        "compute the segmenter correctly: upgrade onnxruntime or export the bundle again",
    )  # fmt: skip


def _segmenter_of(folder: Path, manifest: Manifest) -> Check:
    entry = manifest.segmenter
    factory = segmenter_factory(entry, segmenter_params(entry), _segmenter_file(folder, entry))
    assert isinstance(factory, LearnedFactory)
    return _segmenter_check(folder, manifest, factory)


def verify_bundle(path: str | Path | None = None, trusted: Sequence[Path] | None = None) -> list[Check]:
    """Check everything in a bundle and go on past failures: signature, version, hashes, engines, golden vectors.

    Parameters
    ----------
    path, trusted
        As of :func:`load_bundle`. Nothing is recorded of the version.

    Raises
    ------
    BundleError
        There is no bundle, or its manifest cannot be read; anything less is a failed :class:`Check`.
    """
    folder = resolve_bundle(path)
    keys = trusted_keys(trusted)
    manifest = read_manifest(folder)
    checks = [Check(MANIFEST, True, f"schema {manifest.schema}, {manifest.name} {manifest.version}")]
    checks.append(_attempt("signature", partial(_signature_check, folder, keys)))
    if keys:
        checks.append(_attempt("version", partial(_version_check, manifest)))
    checks += file_checks(folder, manifest)
    checks += [_attempt(f"golden {a.format}", partial(_golden_of, folder, manifest, a)) for a in manifest.artefacts]
    if manifest.segmenter.kind == "learned":
        checks.append(_attempt("golden segmenter", partial(_segmenter_of, folder, manifest)))
    card = folder / manifest.model_card
    checks.append(
        Check(f"model card {manifest.model_card}", card.is_file(), "present" if card.is_file() else "missing")
    )
    return checks


def file_checks(folder: Path, manifest: Manifest) -> list[Check]:
    """The sha256 of every file that a manifest names."""
    files = {a.file: a.sha256 for a in manifest.artefacts} | {manifest.golden.file: manifest.golden.sha256}
    if manifest.segmenter.file:
        files[manifest.segmenter.file] = manifest.segmenter.sha256 or ""
    files |= {a.features.file: a.features.sha256 for a in manifest.artefacts if a.features is not msgspec.UNSET}
    files |= manifest.files
    return [_attempt(f"sha256 {n}", partial(_hash_check, folder, n, digest)) for n, digest in files.items()]


def _signature_check(folder: Path, keys: Sequence[TrustedKey]) -> Check:
    if not keys:
        return Check("signature", True, describe_signature(folder))
    key = check_signature(folder, (folder / MANIFEST).read_bytes(), keys)
    return Check("signature", True, f"by {key.name} {key.key_id}")


def _version_check(manifest: Manifest) -> Check:
    check_version(manifest.name, manifest.version)
    return Check("version", True, f"{manifest.version} is not older than what this device has run")


def _golden_of(folder: Path, manifest: Manifest, entry: ArtefactEntry) -> Check:
    engine = OrtEngine(_inside(folder, entry.file))
    bundle = Bundle(folder, manifest, entry, engine)
    metadata = bundle.metadata_schema.inputs if bundle.metadata_schema is not None else ()
    if list(engine.inputs) != [entry.input, *metadata] or list(engine.outputs) != [entry.output]:
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
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise BundleError(f"cannot write {folder} ({error.strerror}); choose a folder that you may write to") from error
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
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise BundleError(f"cannot write {folder} ({error}); free some space or choose another folder") from error
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
