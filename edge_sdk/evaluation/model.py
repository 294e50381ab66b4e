"""The model that is evaluated: a classifier with its name and origin, and the streams it runs in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.extras import from_train_side
from edge_sdk.runtime.classifier import Classifier
from edge_sdk.runtime.quality import QualityParams
from edge_sdk.runtime.segmentation.factory import EnvelopeFactory, SegmenterFactory
from edge_sdk.runtime.stream import Stream

if TYPE_CHECKING:
    from edge_sdk.runtime.bundle.load import Bundle
    from edge_sdk.runtime.verdict.monitor import VerdictModel

_CHECKPOINT_LOADER = "edge_sdk.training.checkpoint_classifier:load_checkpoint_classifier"
_CHECKPOINT_SUFFIXES = (".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class ModelUnderTest:
    """A bundle or a checkpoint as the evaluation sees it.

    A checkpoint has no segmenter and no settings of the quality gate: its streams use the envelope and the defaults.
    """

    name: str
    version: str
    artefact: str  # format of the artefact; "torch" of a checkpoint
    classifier: Classifier
    segmenter: SegmenterFactory = field(default_factory=EnvelopeFactory)
    quality: QualityParams = field(default_factory=QualityParams)
    verdict: VerdictModel | None = None
    training: Mapping[str, Any] = field(default_factory=dict)  # provenance: corpus, split, labels_scheme, ...

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> ModelUnderTest:
        """The classifier and the streams of a loaded bundle."""
        return cls(
            bundle.manifest.name,
            bundle.manifest.version,
            bundle.artefact.format,
            bundle.classifier,
            bundle.segmenter,
            bundle.quality_params,
            bundle.verdict,
            bundle.manifest.training,
        )

    def stream(self, sample_rate: int, metadata: Mapping[str, Any] | None = None) -> Stream:
        """Make a stream for a recording at ``sample_rate`` Hz."""
        parts = (self.classifier, self.segmenter, self.quality, sample_rate, metadata, self.verdict)
        return Stream(*parts, offline=True)


def load_model(model: str | Path | Bundle | ModelUnderTest, artefact: str | None = None) -> ModelUnderTest:
    """Load a bundle's folder or one in the wheel (``"default"``) or a checkpoint (``.pt``).

    Raises
    ------
    BundleError
        Not a usable bundle.
    CheckpointError
        Not a usable checkpoint.
    MissingDependencyError
        A checkpoint without torch.
    """
    from edge_sdk.runtime.bundle.load import Bundle, load_bundle, packaged_bundles

    if isinstance(model, ModelUnderTest):
        return model
    if isinstance(model, Bundle):
        return ModelUnderTest.of_bundle(model)
    path = Path(model)
    if str(model) not in packaged_bundles() and (path.is_file() or path.suffix in _CHECKPOINT_SUFFIXES):
        name, classifier, training = from_train_side(_CHECKPOINT_LOADER)(path)
        return ModelUnderTest(name, "0", "torch", classifier, training=training)
    return ModelUnderTest.of_bundle(load_bundle(model, artefact=artefact))


def shown_name(model: str | Path | Bundle | ModelUnderTest) -> str:
    """The model as the caller named it."""
    if isinstance(model, str | Path):
        return str(model)
    return model.name if isinstance(model, ModelUnderTest) else str(model.path)
