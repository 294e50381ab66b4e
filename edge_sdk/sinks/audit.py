"""Begin and end of a stream in the audit log, with the hashes of what was recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_sdk.audit import AuditLog, file_facts
from edge_sdk.events import AudioBlock, Event, Health, StreamStats
from edge_sdk.sinks.summary import Labels, SummaryBuilder

_KEPT = (
    "duration_s", "sample_rate", "cycles", "counts", "respiratory_rate_bpm", "respiratory_rate_confident", "verdict",
    "p_abnormal", "verdict_reason", "lost_samples", "gaps",
)  # fmt: skip


class AuditSink:
    """Writes ``session-start`` and ``session-end``.

    Parameters
    ----------
    log
        Where.
    labels
        Labels of the bundle.
    about
        Details of the first entry: bundle, metadata, device.
    recorded
        Called at the end; files of the recording, for their hashes. The recorder is to be closed before this sink.
    """

    def __init__(
        self,
        log: AuditLog,
        labels: Labels,
        *,
        about: Mapping[str, Any],
        recorded: Callable[[], Sequence[Path]] = tuple,
    ) -> None:
        self._log = log
        self._about = dict(about)
        self._recorded = recorded
        self._summary = SummaryBuilder(labels)
        self._failure: str | None = None
        self._ended: str | None = None
        self._started = 0  # number of the entry

    def open(self, source: str, sample_rate: int) -> None:
        """Write the first entry; without it the session does not start."""
        self._summary.open(source, sample_rate)
        self._started = self._log.append("session-start", {"source": source, "sample_rate": sample_rate, **self._about})

    def audio(self, block: AudioBlock) -> None:
        """Count the samples."""
        self._summary.audio(block)

    def event(self, event: Event, latency_ms: float | None) -> None:
        """Count the event."""
        self._summary.event(event)

    def health(self, change: Health) -> None:
        """Keep the reason of a failure, and the change of the device that ends a session."""
        if change.state == "failed":
            self._failure = change.detail
        elif change.state == "replaced":
            self._ended = change.detail

    def close(self, stats: StreamStats) -> None:
        """Write the last entry."""
        if not self._started:
            return
        summary = self._summary.record(stats)
        details = {
            "source": summary["source"],
            "started": self._started,
            **{name: summary[name] for name in _KEPT},
            "failure": self._failure,
            "ended": self._ended,
            "files": file_facts(self._recorded()),
        }
        self._log.append("session-end", details)
