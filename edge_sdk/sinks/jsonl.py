"""Events as JSON lines: one object a line, one summary per source and last of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_sdk.events import (
    Adventitious,
    AudioBlock,
    CycleResult,
    DeviceChange,
    Event,
    Gap,
    Health,
    QualityEvent,
    StreamStats,
    Verdict,
)
from edge_sdk.sinks.summary import Labels, SummaryBuilder
from edge_sdk.sinks.truth import Truth


def cycle_record(source: str, result: CycleResult, latency_ms: float | None) -> dict[str, Any]:
    """JSON object of a cycle; times in seconds, rounded to 0.1 ms."""
    return {
        "type": "cycle",
        "source": source,
        "start_s": round(result.cycle.start_s, 4),
        "end_s": round(result.cycle.end_s, 4),
        "label": result.label,
        "probabilities": {name: round(p, 6) for name, p in result.probabilities.items()},
        "quality": result.quality,
        "latency_ms": None if latency_ms is None else round(latency_ms, 1),
    }


def gap_record(source: str, gap: Gap) -> dict[str, Any]:
    """JSON object of a gap."""
    return {
        "type": "gap",
        "source": source,
        "start_s": round(gap.at_s, 4),
        "end_s": round(gap.at_s + gap.duration_s, 4),
        "lost_samples": gap.count,
    }


def quality_record(source: str, event: QualityEvent) -> dict[str, Any]:
    """JSON object of a change of quality; the level in dB below full scale."""
    return {
        "type": "quality",
        "source": source,
        "start_s": round(event.at_s, 4),
        "quality": event.state,
        "level_dbfs": round(event.level_dbfs, 2),
    }


def adventitious_record(source: str, event: Adventitious) -> dict[str, Any]:
    """JSON object of an adventitious sound."""
    return {
        "type": "adventitious",
        "source": source,
        "start_s": round(event.start_s, 4),
        "end_s": round(event.end_s, 4),
        "kind": event.kind,
        "confidence": round(event.confidence, 4),
    }


def verdict_record(source: str, event: Verdict) -> dict[str, Any]:
    """JSON object of a running verdict; ``start_s`` is the audio consumed."""
    return {
        "type": "verdict",
        "source": source,
        "start_s": round(event.at_s, 4),
        "verdict": event.verdict,
        "p_abnormal": None if event.p_abnormal is None else round(event.p_abnormal, 4),
        "verdict_reason": event.reason,
        "usable_s": event.usable_s,
        "cycles": event.cycles,
        "respiratory_rate_bpm": event.respiratory_rate_bpm,
        "respiratory_rate_confident": event.respiratory_rate_confident,
    }


def device_record(source: str, event: DeviceChange) -> dict[str, Any]:
    """JSON object of another device in the place of the one before."""
    return {
        "type": "device",
        "source": source,
        "start_s": round(event.at_s, 4),
        "reason": event.reason,
        "previous": dict(event.previous),
        "device": dict(event.device),
        "same_session": event.same_session,
    }


class JsonlSink:
    """Passes the object of each line to ``emit``: a writer to stdout, a file, or a list's ``append``.

    Parameters
    ----------
    emit
        Called with one JSON-ready mapping per line, in order.
    labels
        Labels of the bundle whose events are passed in.
    truth
        Adds ``"truth"`` to every cycle line, and the score against it to the summary.
    running
        Whether running verdicts have lines of their own; the last one is in the summary either way.
    """

    def __init__(
        self,
        emit: Callable[[dict[str, Any]], None],
        labels: Labels,
        *,
        truth: Truth | None = None,
        running: bool = False,
    ) -> None:
        self._emit = emit
        self._running = running
        self._truth = truth
        self._source = ""
        self._summary = SummaryBuilder(labels, truth=truth)

    def open(self, source: str, sample_rate: int) -> None:
        """Keep the name of the source."""
        self._source = source
        self._summary.open(source, sample_rate)

    def audio(self, block: AudioBlock) -> None:
        """Count the samples."""
        self._summary.audio(block)

    def event(self, event: Event, latency_ms: float | None) -> None:
        """Emit the object of a result, gap or change of quality."""
        self._summary.event(event)
        if isinstance(event, CycleResult):
            record = cycle_record(self._source, event, latency_ms)
            if self._truth is not None:
                record["truth"] = self._truth.label_of(event.cycle)
            self._emit(record)
        elif isinstance(event, Gap):
            self._emit(gap_record(self._source, event))
        elif isinstance(event, QualityEvent):
            self._emit(quality_record(self._source, event))
        elif isinstance(event, Adventitious):
            self._emit(adventitious_record(self._source, event))
        elif isinstance(event, DeviceChange):
            self._emit(device_record(self._source, event))
        elif isinstance(event, Verdict) and self._running and not event.final:
            self._emit(verdict_record(self._source, event))

    def health(self, change: Health) -> None:
        """Emit the object of an engine that took over; other changes are of the source and no events."""
        if change.engine is not None:
            self._emit({"type": "engine", "source": self._source, "engine": change.engine, "detail": change.detail})

    def close(self, stats: StreamStats) -> None:
        """Emit the summary."""
        self._emit(self._summary.record(stats))
