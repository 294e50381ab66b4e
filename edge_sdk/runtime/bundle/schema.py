"""The schema of ``bundle.json``, the contract between train side and device; unknown keys are refused."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from edge_sdk.runtime.quality import QualityParams
from edge_sdk.runtime.segmentation.level import EnvelopeParams

SCHEMA = 1
"""Schema version that this SDK writes, and the newest that it reads."""

MANIFEST = "bundle.json"


DecoderKind = Literal["softmax", "multilabel", "binary"]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the manifest."""


def _segmenter_params() -> dict[str, Any]:
    """Written out in full, so that a bundle finds the same cycles after the SDK's defaults have changed."""
    return EnvelopeParams().to_dict()


def _quality_settings() -> dict[str, Any]:
    return QualityParams().to_dict()


class Decoder(_Part, frozen=True, kw_only=True):
    """How logits become labels, by ``logits / temperature + bias``.

    ``softmax``: one logit a label, the most probable one. ``multilabel``: one logit for crackle and one for wheeze.
    ``binary``: one logit for abnormal. A disease head is a softmax over other labels.
    """

    kind: DecoderKind = "softmax"
    temperature: float = 1.0
    bias: list[float] = []  # one per logit; empty means zeros
    normal_label: str = "normal"
    # Probability from which a label is positive: one, or one per logit (multilabel); for softmax of "abnormal".
    # Absent: 0.5, and for softmax the most probable label.
    threshold: float | list[float] | None = None
    # Weight of the running mean of the recording's logits, see ``runtime.context``. Absent: 0, each cycle by itself;
    # such a bundle is also read by older SDKs.
    context: float | msgspec.UnsetType = msgspec.UNSET

    @property
    def context_share(self) -> float:
        """``context``, 0 where it is absent."""
        return 0.0 if self.context is msgspec.UNSET else self.context


class FeaturesEntry(_Part, frozen=True, kw_only=True):
    """An artefact's network alone: ``features [B, 1, M, T]`` (and metadata) → logits."""

    file: str
    sha256: str
    bytes: int


class ArtefactEntry(_Part, frozen=True, kw_only=True):
    """One file that an engine runs."""

    role: Literal["classifier"] = "classifier"
    file: str
    features: FeaturesEntry | msgspec.UnsetType = msgspec.UNSET  # the same network without front end, if present
    format: str  # a name of the export layer's format table
    precision: str
    sha256: str
    bytes: int
    input: str = "pcm"
    output: str = "logits"
    front_end: dict[str, Any]
    default: bool = False
    verified: bool = False
    failures: list[str] = []  # why it is not verified
    parity: dict[str, Any] = {}  # against the torch model on the same cycles
    accuracy: dict[str, Any] = {}  # split → figures


class StepEntry(_Part, frozen=True, kw_only=True):
    """Settings of a learned segmenter's step graph."""

    front_end: dict[str, Any]  # log-mel without normalisation
    frames_per_step: int
    look_ahead_frames: int  # the output at output frame t describes output frame t - this
    look_ahead_s: float  # the same in seconds, half an output frame included
    stride: int = 1  # feature frames for each output frame
    golden: list[float] = []  # its outputs for a fixed synthetic signal; empty: not checked
    golden_tolerance: float = 1e-2
    accuracy: dict[str, Any] = {}  # split → figures of 'stetho segment-eval'


class SegmenterEntry(_Part, frozen=True, kw_only=True):
    """The segmenter and its settings.

    ``envelope`` has no weights, only ``params``. ``learned`` has a file too; its ``params`` are the decoder's.
    """

    kind: Literal["envelope", "learned"] = "envelope"
    rate_hz: int = 4000
    params: dict[str, Any] = msgspec.field(default_factory=_segmenter_params)
    file: str | None = None  # the step graph
    sha256: str | None = None
    step: StepEntry | msgspec.UnsetType = msgspec.UNSET  # of a learned one


class VerdictEntry(_Part, frozen=True, kw_only=True):
    """The network of crackles and wheezes in continuous audio, and the calibration of the verdict."""

    file: str  # the step graph; its front end and step are stored in it
    sha256: str
    bytes: int
    params: dict[str, Any]  # ``runtime.verdict.params.VerdictParams``
    familiarity: dict[str, Any] = {}  # ``runtime.verdict.familiarity.FamiliarityParams``
    detector: dict[str, Any] = {}  # ``runtime.verdict.adventitious.SoundParams``
    # ``runtime.verdict.breath_sounds.BreathParams``. Absent: the classifier alone labels breaths, as in older bundles.
    breaths: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    golden: list[float] = []  # its outputs for a fixed synthetic signal; empty: not checked
    golden_tolerance: float = 1e-2
    accuracy: dict[str, Any] = {}  # what the calibration was fitted on → figures of its cross-validation


class Golden(_Part, frozen=True, kw_only=True):
    """The golden vector: a file of inputs and expected outputs, and the tolerance for each format."""

    file: str
    sha256: str
    tolerance: dict[str, float]


class Adaptation(_Part, frozen=True, kw_only=True):
    """What ``stetho adapt`` changed for one stethoscope; the files are those of the base bundle."""

    device: str
    created: str  # ISO date
    base_version: str
    base_sha256: str  # of the base's ``bundle.json``
    recordings: int
    normals: bool  # whether they were all known to be normal
    label_shift: float = 0.0  # subtracted from the log odds of abnormal of every cycle
    offset: float = 0.0  # added to the score of verdicts on this device
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}  # left one out: each recording by an adaptation to the others


class Manifest(_Part, frozen=True, kw_only=True):
    """The whole of ``bundle.json``."""

    schema: int = SCHEMA
    name: str
    version: str
    created: str  # ISO date
    sdk_version: str
    description: str
    research_use: str
    untrained: bool = False
    labels: list[str]
    decoder: Decoder
    metadata: dict[str, Any] = {}  # MetadataSchema of the classifier's inputs; empty: none
    artefacts: list[ArtefactEntry]
    segmenter: SegmenterEntry
    verdict: VerdictEntry | msgspec.UnsetType = msgspec.UNSET  # absent: no verdicts, no adventitious sounds
    quality: dict[str, Any] = msgspec.field(default_factory=_quality_settings)  # of the quality gate
    golden: Golden
    model_card: str = "MODEL_CARD.md"
    files: dict[str, str] = {}  # name → sha256 of all other files: model card, SBOM
    adaptation: Adaptation | msgspec.UnsetType = msgspec.UNSET  # absent: as exported
    training: dict[str, Any] = {}  # provenance: corpus, split, counts, seed, recipe


def decode_manifest(text: bytes) -> Manifest:
    """Parse and check; raises ``msgspec.ValidationError`` or ``msgspec.DecodeError``, which name the place."""
    return msgspec.json.decode(text, type=Manifest)


def encode_manifest(manifest: Manifest) -> bytes:
    """Encode as indented JSON; equal manifests give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
