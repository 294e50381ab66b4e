"""Segmenter factories: a manifest's entry becomes a factory that makes one segmenter for each stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeAlias

import msgspec

from edge_sdk.digests import sha256_file
from edge_sdk.errors import BundleError
from edge_sdk.runtime.bundle.schema import SegmenterEntry, StepEntry
from edge_sdk.runtime.engines.onnx import OrtEngine
from edge_sdk.runtime.segmentation.decoder_params import DecoderParams
from edge_sdk.runtime.segmentation.envelope import EnvelopeSegmenter
from edge_sdk.runtime.segmentation.level import EnvelopeParams
from edge_sdk.runtime.segmentation.network import LearnedSegmenter, StepModel, StepSettings, golden_outputs
from edge_sdk.signal.spec import FrontEndSpec

SEGMENTER_FILE = "segmenter.onnx"

SegmenterParams: TypeAlias = EnvelopeParams | DecoderParams


@dataclass(frozen=True)
class EnvelopeFactory:
    """Makes envelope segmenters, which have no weights: fallback and baseline."""

    kind: ClassVar[str] = "envelope"
    params: EnvelopeParams = field(default_factory=EnvelopeParams)
    rate_hz: int = 4000

    @property
    def look_ahead_s(self) -> float:
        """Seconds of audio after a moment that its output needs: half of the smoothing."""
        return self.params.smooth_s / 2

    @property
    def blur_s(self) -> float:
        """Seconds before a gap within which the end of a cycle is uncertain."""
        return self.params.smooth_s

    def new(self, *, offline: bool = False) -> EnvelopeSegmenter:
        """Make a segmenter for one stream."""
        return EnvelopeSegmenter(self.rate_hz, self.params)


@dataclass(frozen=True)
class LearnedFactory:
    """Makes learned segmenters, which share the network; each stream has its own state."""

    kind: ClassVar[str] = "learned"
    model: StepModel
    params: DecoderParams = field(default_factory=DecoderParams)

    @property
    def rate_hz(self) -> int:
        """Sample rate of the network's input."""
        return self.model.settings.front_end.rate_hz

    @property
    def look_ahead_s(self) -> float:
        """Seconds of audio after a moment that its output needs."""
        return self.model.settings.look_ahead_s

    @property
    def blur_s(self) -> float:
        """Seconds before a gap within which the end of a cycle is uncertain."""
        return self.look_ahead_s

    def new(self, *, offline: bool = False) -> LearnedSegmenter:
        """Make a segmenter for one stream; ``offline``: of a file, whose steps are run many at once."""
        return LearnedSegmenter(self.model, self.params, offline=offline)

    def golden(self) -> list[float]:
        """See :func:`~edge_sdk.runtime.segmentation.network.golden_outputs`."""
        return golden_outputs(self.model)


SegmenterFactory: TypeAlias = EnvelopeFactory | LearnedFactory


def segmenter_params(entry: SegmenterEntry) -> SegmenterParams:
    """Parse the settings in a manifest; raises ``ValueError`` where they are wrong."""
    if entry.kind == "learned":
        return DecoderParams.from_dict(entry.params)
    return EnvelopeParams.from_dict(entry.params)


def segmenter_factory(entry: SegmenterEntry, params: SegmenterParams, path: Path | None) -> SegmenterFactory:
    """Make the factory that a manifest describes; ``path`` is the step graph of a learned segmenter.

    Raises
    ------
    BundleError
        Manifest and graph do not match.
    EngineError
        The graph cannot be loaded.
    """
    if isinstance(params, EnvelopeParams):
        return EnvelopeFactory(params, entry.rate_hz)
    step = entry.step
    if path is None or isinstance(step, msgspec.UnsetType):
        raise BundleError("a learned segmenter without its file or its step; export the bundle again")
    try:
        spec = FrontEndSpec.from_dict(step.front_end)
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path.parent}: segmenter: {error}; export the bundle again") from error
    if (
        spec.rate_hz != entry.rate_hz
        or step.stride < 1
        or step.frames_per_step % step.stride
        or step.frames_per_step < 1
        or step.look_ahead_frames < 0
    ):
        raise BundleError(f"{path.parent}: the segmenter's rate, step or look-ahead is wrong; export the bundle again")
    settings = StepSettings(spec, step.frames_per_step, step.look_ahead_frames, step.stride, params)
    return LearnedFactory(StepModel(OrtEngine(path), settings), params)


def load_segmenter(path: Path, params: DecoderParams | None = None) -> LearnedFactory:
    """Load a step graph outside any bundle, with the settings stored in it.

    Raises
    ------
    BundleError
        It is no step graph.
    EngineError
        It cannot be loaded.
    """
    model = StepModel(OrtEngine(path))
    return LearnedFactory(model, params or model.settings.decoder)


def describe_segmenter(path: Path, params: DecoderParams | None = None) -> SegmenterEntry:
    """Make the manifest's entry for a step graph that goes into a bundle as :data:`SEGMENTER_FILE`.

    Raises
    ------
    BundleError
        It is no step graph.
    EngineError
        It cannot be loaded.
    """
    factory = load_segmenter(path, params)
    settings = factory.model.settings
    return SegmenterEntry(
        kind="learned",
        rate_hz=settings.front_end.rate_hz,
        params=factory.params.to_dict(),
        file=SEGMENTER_FILE,
        sha256=sha256_file(path),
        step=StepEntry(
            front_end=settings.front_end.to_dict(),
            frames_per_step=settings.frames_per_step,
            look_ahead_frames=settings.look_ahead_frames,
            look_ahead_s=settings.look_ahead_s,
            stride=settings.stride,
            golden=factory.golden(),
        ),
    )
