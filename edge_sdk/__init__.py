"""Edge SDK for digital stethoscopes: audio in, labelled respiratory cycles out.

Research use only; not a medical device.

>>> import edge_sdk
>>> screening = edge_sdk.screen("recording.wav")          # doctest: +SKIP
>>> bundle = edge_sdk.load_bundle()                       # the parts: the default bundle,
>>> stream = bundle.stream(sample_rate=4000)              # a stream of it,
>>> events = stream.accept(block) + stream.finish()       # doctest: +SKIP
"""

from __future__ import annotations

from edge_sdk._version import __version__
from edge_sdk.errors import (
    AudioError,
    AuditError,
    BundleError,
    CheckpointError,
    CorpusError,
    DeviceChangedError,
    EngineError,
    ExchangeError,
    ExportError,
    MissingDependencyError,
    RecipeError,
    ResultsError,
    SourceError,
    SourceLostError,
    StethoError,
    StorageError,
    StreamError,
    TrainingError,
)
from edge_sdk.privacy import switch_off_telemetry

TYPE_CHECKING = False  # typing takes longer to load than all of this
if TYPE_CHECKING:
    from typing import Any

    from edge_sdk.evaluation.report import evaluate
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
    from edge_sdk.runtime.bundle.load import Bundle, load_bundle
    from edge_sdk.runtime.session import Session
    from edge_sdk.runtime.stream import Stream
    from edge_sdk.screening.recordings import Screening
    from edge_sdk.screening.screen import screen
    from edge_sdk.sources import open_source

switch_off_telemetry()  # before anything can import ONNX Runtime or Ray

# Loaded when first asked for, so that ``import edge_sdk`` stays free of numpy, ONNX Runtime and the audio libraries.
_LAZY = {
    "Adventitious": "edge_sdk.events",
    "AudioBlock": "edge_sdk.events",
    "BreathCycle": "edge_sdk.events",
    "CycleResult": "edge_sdk.events",
    "Gap": "edge_sdk.events",
    "QualityEvent": "edge_sdk.events",
    "StreamStats": "edge_sdk.events",
    "Verdict": "edge_sdk.events",
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
    "DeviceChangedError",
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
    "StorageError",
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
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
