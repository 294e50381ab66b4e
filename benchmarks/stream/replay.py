"""Annotated recordings replayed in real time through whole sessions: capture-to-event latency, delay, event F1."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.core.audio import PreloadedRecording, ScheduledLoopSource
from benchmarks.core.harness import Row, deadline_misses, percentiles
from benchmarks.core.rows import benchmarked_model
from edge_sdk.events import AudioBlock, BreathCycle, CycleResult, Event, StreamStats
from edge_sdk.metrics.detections import DetectedCycles
from edge_sdk.metrics.events import ScoredRecording, event_report
from edge_sdk.runtime.bundle.load import Bundle
from edge_sdk.runtime.session import Session

KINDS = ("onset", "breath", "label")
"""Kinds of events: a provisional cycle, a final cycle, and its label."""

OnStep = Callable[[str], None]

_BLOCK_S = 0.05
_LEAST_S = 1.0  # a shorter rest of the time is not worth a new recording


class EventTimes:
    """A sink that keeps the detected cycles and the latency of each event after the last sample that it needs."""

    def __init__(self) -> None:
        self.detected = DetectedCycles()
        self.seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}

    def open(self, source: str, sample_rate: int) -> None:
        """Nothing to prepare."""

    def audio(self, block: AudioBlock) -> None:
        """Audio itself is not measured here."""

    def event(self, event: Event, latency_ms: float | None) -> None:
        """Keep the event and its latency."""
        self.detected.event(event)
        if latency_ms is None:
            return
        if isinstance(event, CycleResult):
            self.seconds["label"].append(latency_ms / 1e3)
        elif isinstance(event, BreathCycle):
            self.seconds["breath" if event.final else "onset"].append(latency_ms / 1e3)

    def close(self, stats: StreamStats) -> None:
        """The source has ended."""
        self.detected.finish()


@dataclass(frozen=True, slots=True)
class _Measured:
    """Results of all sessions so far."""

    scored: list[ScoredRecording]
    spent: dict[str, list[float]]  # seconds of latency for each kind of event
    lost: list[int]
    failed: list[Exception]


class _Replay:
    """Several patients at once, each in a session of its own that starts at its own time."""

    def __init__(
        self, bundle: Bundle, recordings: Iterator[PreloadedRecording], seconds: float, together: int, on_step: OnStep
    ) -> None:
        self._bundle, self._recordings, self._seconds, self._on_step = bundle, recordings, seconds, on_step
        self._together = together
        self._lock = threading.Lock()
        self._sources: set[ScheduledLoopSource] = set()
        self._stopped = False
        self.received_s = 0.0  # of audio, all sessions together
        self.measured = _Measured([], {kind: [] for kind in KINDS}, [], [])

    def run(self) -> bool:
        """Play until the time or the recordings end; return whether Ctrl-C ended it before."""
        threads = [
            threading.Thread(target=self._play, args=(k,), name=f"replay {k}", daemon=True)
            for k in range(self._together)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            self._stop()
            for thread in threads:
                thread.join(5.0)
            return True
        if self.measured.failed:
            raise self.measured.failed[0]
        return False

    def _play(self, k: int) -> None:
        time.sleep(_BLOCK_S * k / self._together)  # else the blocks of all patients would arrive at the same time
        left = self._seconds
        try:
            while left >= _LEAST_S:
                with self._lock:
                    recording = None if self._stopped else next(self._recordings, None)
                if recording is None:
                    return
                left -= self._run_session(recording, min(recording.seconds, left))
        except Exception as error:
            self.measured.failed.append(error)
            self._stop()

    def _run_session(self, recording: PreloadedRecording, length: float) -> float:
        times = EventTimes()
        source = ScheduledLoopSource(
            recording.samples, recording.rate_hz, length, block_s=_BLOCK_S, live=True, name=recording.name
        )
        with self._lock:
            self._sources.add(source)
            self._on_step(f"replay of {recording.name}, {len(self.measured.scored)} recordings done")
        stats = Session(source, self._bundle, [times]).run()
        received_s = stats.samples_in / recording.rate_hz
        with self._lock:
            self._sources.remove(source)
            self.received_s += received_s
            self.measured.lost.append(stats.samples_lost)
            self.measured.scored.append(
                _scored(recording, received_s, times.detected, whole=received_s >= recording.seconds)
            )
            for kind, values in times.seconds.items():
                self.measured.spent[kind] += values
        return length

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for source in self._sources:
                source.close()


def replay(
    bundle: Bundle,
    recordings: Iterator[PreloadedRecording],
    seconds: float,
    *,
    together: int,
    deadline_s: float,
    on_step: OnStep,
) -> Iterator[Row]:
    """Play recordings in real time for ``seconds``, ``together`` of them at once; a row per kind of event.

    The percentiles are of the capture-to-event latency: from the capture of the last sample that an event needs until
    the event reaches the sink, including queue, threads and the wait for its block. The look-ahead and the decision
    time of the segmenter come before that and are part of ``detection_delay_*`` (after the true onset).
    """
    loaded = iter(list(recordings))  # read before timing starts
    played = _Replay(bundle, loaded, seconds, together, on_step)
    cpu_before = time.process_time_ns()
    interrupted = played.run()
    cpu_s = (time.process_time_ns() - cpu_before) / 1e9
    measured, received_s = played.measured, played.received_s
    common: Row = {
        "audio_s": received_s,
        "recordings": len(measured.scored),
        "sessions": together,  # at once, in one process
        "lost_samples": sum(measured.lost),
        "segmenter": bundle.segmenter.kind,
        "look_ahead_s": bundle.segmenter.look_ahead_s,
        **_figures(measured.scored),
    }
    for kind in KINDS:
        yield {
            "benchmark": "stream",
            "subject": benchmarked_model(bundle, f"replay {kind}"),
            "input": "annotated recordings in real time, through source thread, queue, stream and sink",
            "deadline_ms": deadline_s * 1e3,
            "misses": deadline_misses(measured.spent[kind], deadline_s),
            **percentiles(measured.spent[kind]),
            "cpu_s": cpu_s,
            "cpu_s_per_hour": cpu_s * 3600 / received_s if received_s else None,
            **common,
        }
    if interrupted:
        raise KeyboardInterrupt


def _scored(recording: PreloadedRecording, length: float, detected: DetectedCycles, *, whole: bool) -> ScoredRecording:
    """Cycles cut off by the end of the replay are left out of the truth."""
    assert recording.truth is not None
    kept = recording.truth if whole else recording.truth[recording.truth[:, 1] <= length]
    return ScoredRecording(
        recording.name, recording.patient, length, kept, detected.spans, announcements=detected.announcements
    )


def _figures(scored: Sequence[ScoredRecording]) -> dict[str, Any]:
    if not scored:
        return {}
    report = event_report(scored, resamples=0)
    names = ("n_true", "n_predicted", "event_f1", "event_f1_iou70", "detection_delay_p50_s", "detection_delay_p95_s")
    return {name: report[name] for name in (*names, "onset_error_p50_s", "revision_rate")}
