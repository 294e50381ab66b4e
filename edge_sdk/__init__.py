"""Edge SDK for digital stethoscopes: audio in, labelled respiratory cycles out.

Research use only; not a medical device.

>>> import edge_sdk
>>> screening = edge_sdk.screen("recording.wav")          # doctest: +SKIP
>>> bundle = edge_sdk.load_bundle()                       # the parts: the default bundle,
>>> stream = bundle.stream(sample_rate=4000)              # a stream of it,
>>> events = stream.accept(block) + stream.finish()       # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edge_sdk._version import __version__
from edge_sdk.errors import (
    AudioError,
    AuditError,
    BundleError,
    CheckpointError,
    CorpusError,
    EngineError,
    ExchangeError,
    ExportError,
    MissingDependencyError,
    RecipeError,
    ResultsError,
    SourceError,
    SourceLostError,
    StethoError,
    StreamError,
    TrainingError,
)
from edge_sdk.events import (
    Adventitious,
    AudioBlock,
    BreathCycle,
    CycleResult,
    Gap,
    QualityEvent,
    StreamStats,
    Verdict,
)

if TYPE_CHECKING:
    from edge_sdk.evaluation.report import evaluate
    from edge_sdk.runtime.bundle.load import Bundle, load_bundle
    from edge_sdk.runtime.session import Session
    from edge_sdk.runtime.stream import Stream
    from edge_sdk.screening.recordings import Screening
    from edge_sdk.screening.screen import screen
    from edge_sdk.sources import open_source

# Loaded when first asked for, so that ``import edge_sdk`` stays free of ONNX Runtime and the audio libraries.
_LAZY = {
    "Bundle": "edge_sdk.runtime.bundle.load",
    "load_bundle": "edge_sdk.runtime.bundle.load",
    "Session": "edge_sdk.runtime.session",
    "Stream": "edge_sdk.runtime.stream",
    "Screening": "edge_sdk.screening.recordings",
    "evaluate": "edge_sdk.evaluation.report",
    "open_source": "edge_sdk.sources",
    "screen": "edge_sdk.screening.screen",
}

__all__ = [
    "Adventitious",
    "AudioBlock",
    "AudioError",
    "AuditError",
    "BreathCycle",
    "Bundle",
    "BundleError",
    "CheckpointError",
    "CorpusError",
    "CycleResult",
    "EngineError",
    "ExchangeError",
    "ExportError",
    "Gap",
    "MissingDependencyError",
    "QualityEvent",
    "RecipeError",
    "ResultsError",
    "Screening",
    "Session",
    "SourceError",
    "SourceLostError",
    "StethoError",
    "Stream",
    "StreamError",
    "StreamStats",
    "TrainingError",
    "Verdict",
    "__version__",
    "evaluate",
    "load_bundle",
    "open_source",
    "screen",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
