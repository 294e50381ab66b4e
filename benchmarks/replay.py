"""Annotated recordings replayed in real time through the whole session: capture-to-event latency, delay, event F1."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.harness import Row, deadline_misses, percentiles
from benchmarks.paced import LoopSource
from benchmarks.sounds import Sound
from edge_sdk.events import AudioBlock, BreathCycle, CycleResult, Event, StreamStats
from edge_sdk.metrics.events import ScoredRecording, event_report
from edge_sdk.metrics.heard import Heard
from edge_sdk.runtime.bundle import Bundle
from edge_sdk.runtime.session import Session

KINDS = ("onset", "breath", "label")
"""A provisional breath, a final one, and what the classifier said of it."""


class Witness:
    """A sink that keeps what was heard and how long after the capture of the last sample needed it came."""

    def __init__(self) -> None:
        self.heard = Heard()
        self.seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}

    def open(self, source: str, sample_rate: int) -> None:
        """Nothing to prepare."""

    def audio(self, block: AudioBlock) -> None:
        """Sound itself is not measured here."""

    def event(self, event: Event, latency_ms: float | None) -> None:
        """Keep it."""
        self.heard.event(event)
        if latency_ms is None:
            return
        if isinstance(event, CycleResult):
            self.seconds["label"].append(latency_ms / 1e3)
        elif isinstance(event, BreathCycle):
            self.seconds["breath" if event.final else "onset"].append(latency_ms / 1e3)

    def close(self, stats: StreamStats) -> None:
        """The source has ended."""
        self.heard.finish()


def replay(
    bundle: Bundle, sounds: Iterator[Sound], seconds: float, *, deadline_s: float, tell: Callable[[str], None]
) -> Iterator[Row]:
    """Play recordings one after another in real time until so many seconds have passed; a row a kind of event.

    The percentiles are of capture-to-event latency: from the capture of the last sample that an event needed until it
    reached the sink, queue, threads and the wait for its block included. The look-ahead and the time that the segmenter
    needs to be sure come before that; they are in ``detection_delay_*`` (after the true onset).
    """
    scored: list[ScoredRecording] = []
    spent: dict[str, list[float]] = {kind: [] for kind in KINDS}
    lost, played, cpu_s = 0, 0.0, 0.0
    interrupted = False
    try:
        for sound in sounds:
            length = min(sound.seconds, seconds - played)
            if length < 1.0 and scored:
                break
            tell(f"replay of {sound.name}, {played:.0f} of {seconds:.0f} s")
            witness = Witness()
            source = LoopSource(sound.samples, sound.rate_hz, length, live=True, name=sound.name)
            cpu_before = time.process_time_ns()  # of the sessions alone: reading a corpus is not theirs
            stats = Session(source, bundle, [witness]).run()
            cpu_s += (time.process_time_ns() - cpu_before) / 1e9
            played += length
            lost += stats.samples_lost
            scored.append(_scored(sound, length, witness.heard, whole=length >= sound.seconds))
            for kind, values in witness.seconds.items():
                spent[kind] += values
            if played >= seconds:
                break
    except KeyboardInterrupt:
        interrupted = True
    common: Row = {
        "audio_s": played,
        "recordings": len(scored),
        "lost_samples": lost,
        "segmenter": bundle.segmenter.kind,
        "look_ahead_s": bundle.segmenter.look_ahead_s,
        **_figures(scored),
    }
    for kind in KINDS:
        yield {
            "benchmark": "stream",
            "subject": subject(bundle, f"replay {kind}"),
            "input": "annotated recordings in real time, through source thread, queue, stream and sink",
            "deadline_ms": deadline_s * 1e3,
            "misses": deadline_misses(spent[kind], deadline_s),
            **percentiles(spent[kind]),
            "cpu_s": cpu_s,
            "cpu_s_per_hour": cpu_s * 3600 / played if played else None,
            **common,
        }
    if interrupted:
        raise KeyboardInterrupt


def _scored(sound: Sound, length: float, heard: Heard, *, whole: bool) -> ScoredRecording:
    """Breaths that were cut off by the end of the replay are left out of the truth."""
    assert sound.truth is not None
    kept = sound.truth if whole else sound.truth[sound.truth[:, 1] <= length]
    return ScoredRecording(sound.name, sound.patient, length, kept, heard.spans, announcements=heard.announcements)


def _figures(scored: Sequence[ScoredRecording]) -> dict[str, Any]:
    if not scored:
        return {}
    report = event_report(scored, resamples=0)
    names = ("n_true", "n_predicted", "event_f1", "event_f1_iou70", "detection_delay_p50_s", "detection_delay_p95_s")
    return {name: report[name] for name in (*names, "onset_error_p50_s", "revision_rate")}


def subject(bundle: Bundle, part: str) -> Row:
    """The subject of a row about a stream of this bundle."""
    return {
        "model": f"{bundle.manifest.name} {bundle.manifest.version}",
        "artefact": bundle.artefact.format,
        "engine": bundle.engine.name,
        "threads": 1,
        "batch": 1,
        "part": part,
    }
