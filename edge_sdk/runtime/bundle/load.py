"""Loading a bundle: the only thing that crosses from the train side to the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edge_sdk.digests import sha256_file
from edge_sdk.errors import BundleError
from edge_sdk.protocols import Engine
from edge_sdk.runtime.bundle.files import BundleCheck, checked_file, hash_check, require, write_bundle
from edge_sdk.runtime.bundle.manifest import (
    DEFAULT_BUNDLE,
    choose_artefact,
    front_end,
    metadata_schema,
    packaged_bundles,
    read_manifest,
    resolve_bundle,
    segmenter_file,
    settings,
)
from edge_sdk.runtime.bundle.schema import MANIFEST, ArtefactEntry, Manifest
from edge_sdk.runtime.bundle.signature import TrustedKey, check_version, record_version, trusted_keys
from edge_sdk.runtime.bundle.verdict_part import verdict_check, verdict_model
from edge_sdk.runtime.bundle.verification import (
    file_checks,
    golden_check,
    golden_vector,
    segmenter_check,
    verify_bundle,
)
from edge_sdk.runtime.classifier import Classifier
from edge_sdk.runtime.engines.batching import DEADLINE_S, BatchingEngine
from edge_sdk.runtime.engines.failover import close_engine
from edge_sdk.runtime.engines.selection import (
    Attempt,
    Candidate,
    EngineChooser,
    candidates,
    cpu_candidate,
    wanted_engine,
)
from edge_sdk.runtime.segmentation.factory import LearnedFactory, SegmenterFactory, segmenter_factory
from edge_sdk.runtime.stream import Stream
from edge_sdk.runtime.verdict.monitor import VerdictModel
from edge_sdk.signal.spec import FrontEndSpec

if TYPE_CHECKING:
    from edge_sdk.runtime.bundle.engine_trust import EngineTrust

__all__ = [
    "DEFAULT_BUNDLE",
    "Bundle",
    "BundleCheck",
    "checked_file",
    "file_checks",
    "load_bundle",
    "packaged_bundles",
    "read_manifest",
    "resolve_bundle",
    "verify_bundle",
    "write_bundle",
]


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
        self.segmenter_params, self.quality_params = settings(path, manifest)
        self.classifier = Classifier(
            front_end(path, artefact),
            engine,
            manifest.decoder,
            tuple(manifest.labels),
            metadata_schema(path, manifest),
            artefact.input,
            artefact.output,
        )

    def __repr__(self) -> str:
        return f"Bundle({self.manifest.name} {self.manifest.version}, {self.artefact.format}, {self.path})"

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the classifier, in the order of its probabilities."""
        return self.classifier.labels

    @property
    def front_end(self) -> FrontEndSpec:
        """Rate and window of the classifier."""
        return self.classifier.front_end

    @property
    def engine(self) -> Engine:
        """The engine that runs the classifier."""
        return self.classifier.engine

    @property
    def untrained(self) -> bool:
        """Whether the weights are random: for timing only."""
        return self.manifest.untrained

    @property
    def shortest_s(self) -> float:
        """Shortest recording, in seconds, in which a cycle can be found."""
        return self.segmenter_params.shortest_s

    @property
    def identity(self) -> dict[str, str]:
        """Name, version, artefact, and the hashes of ``bundle.json`` (which holds those of all files) and artefact."""
        return {
            "name": self.manifest.name,
            "version": self.manifest.version,
            "artefact": self.artefact.format,
            "sha256": sha256_file(self.path / MANIFEST),
            "artefact_sha256": self.artefact.sha256,
        }

    @cached_property
    def segmenter(self) -> SegmenterFactory:
        """Makes the segmenter of each stream; a learned one is loaded once and shared."""
        entry = self.manifest.segmenter
        return segmenter_factory(entry, self.segmenter_params, segmenter_file(self.path, entry))

    @cached_property
    def verdict(self) -> VerdictModel | None:
        """Gives the verdicts of each stream; loaded once and shared. None: the bundle has none."""
        entry = self.manifest.verdict
        return None if isinstance(entry, msgspec.UnsetType) else verdict_model(self.path, entry)

    def with_segmenter(self, factory: SegmenterFactory) -> Bundle:
        """Copy of the bundle whose new streams use another segmenter."""
        other = copy(self)
        other.segmenter_params = factory.params
        other.__dict__["segmenter"] = factory  # where cached_property looks first
        return other

    def with_engine(self, engine: Engine) -> Bundle:
        """Copy of the bundle whose classifier runs in another engine."""
        other = copy(self)
        other.classifier = replace(self.classifier, engine=engine)
        return other

    def batched(self, deadline_s: float = DEADLINE_S) -> Bundle:
        """Copy of the bundle whose streams, each in a thread, join their classifications into runs of the engine.

        For a GPU, whose calls cost more than their arithmetic. On a CPU it saves nothing with small networks.

        Parameters
        ----------
        deadline_s
            Longest wait of a cycle for others.
        """
        return self.with_engine(BatchingEngine(self.engine, deadline_s))

    def close(self) -> None:
        """Free the GPU memory of the engine; the bundle classifies nothing afterwards. May be called twice."""
        close_engine(self.engine)

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stream(self, sample_rate: int, metadata: Mapping[str, Any] | None = None, *, offline: bool = False) -> Stream:
        """Make a stream for a source at ``sample_rate`` Hz.

        Parameters
        ----------
        sample_rate
            Hz, of the source.
        metadata
            Of patient and device: see :class:`~edge_sdk.runtime.stream.Stream`, also for the errors.
        offline
            The samples are a file's: the same events in about half the time, but seconds later.
        """
        parts = (self.classifier, self.segmenter, self.quality_params, sample_rate, metadata, self.verdict)
        return Stream(*parts, offline=offline)


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
    """Load a bundle and check that it computes here what it computed where it was made.

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
    if not allow_untrained:
        _refuse_untrained(folder, manifest)
    default = choose_artefact(folder, manifest, artefact)
    trust, file_of = _engine_trust(folder, keys), partial(checked_file, folder)
    found = candidates(
        manifest,
        default,
        wanted_engine(engine),
        threads,
        file_of,
        chosen=artefact is not None,
        trust=None if trust is None else trust.check,
    )

    def prove(candidate: Candidate, made: Engine) -> None:
        if verify or not candidate.on_cpu:
            require(hash_check(folder, manifest.golden.file, manifest.golden.sha256))
            require(golden_check(folder, manifest, candidate.artefact, made, candidate.tolerance))

    def one_cycle(entry: ArtefactEntry) -> dict[str, Any]:
        return {name: rows[:1] for name, rows in golden_vector(folder, manifest, entry)[0].items()}

    choice = EngineChooser(prove, one_cycle, cpu_candidate(default, threads, file_of)).choose(found)
    bundle = Bundle(folder, manifest, choice.artefact, choice.engine)
    bundle.attempts = choice.attempts
    _prove_segmenter(bundle, golden=verify)
    _prove_verdict(bundle, golden=verify)
    if keys:
        record_version(manifest.name, manifest.version)
    return bundle


def _engine_trust(folder: Path, keys: Sequence[TrustedKey]) -> EngineTrust | None:
    if not keys:  # nothing is asked of engines, and what checks them is not loaded
        return None
    from edge_sdk.runtime.bundle.engine_trust import EngineTrust

    return EngineTrust.of(folder, keys)


def _refuse_untrained(folder: Path, manifest: Manifest) -> None:
    if manifest.untrained:
        raise BundleError(
            f"{folder} holds untrained weights, made for benchmarks; its labels would mean nothing: "
            "export a trained checkpoint, or use the default bundle"
        )


def _prove_segmenter(bundle: Bundle, *, golden: bool) -> None:
    entry = bundle.manifest.segmenter
    if entry.file:
        require(hash_check(bundle.path, entry.file, entry.sha256 or ""))
    segmenter = bundle.segmenter
    if golden and isinstance(segmenter, LearnedFactory):
        require(segmenter_check(bundle.path, bundle.manifest, segmenter))


def _prove_verdict(bundle: Bundle, *, golden: bool) -> None:
    entry = bundle.manifest.verdict
    if isinstance(entry, msgspec.UnsetType):
        return
    require(hash_check(bundle.path, entry.file, entry.sha256))
    model = bundle.verdict
    if golden and model is not None:
        require(verdict_check(bundle.path, entry, model))
