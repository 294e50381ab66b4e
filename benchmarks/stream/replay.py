"""Annotated recordings replayed in real time through the whole session: capture-to-event latency, delay, event F1."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.core.audio import Sound
from benchmarks.core.harness import Row, deadline_misses, percentiles
from benchmarks.core.paced import LoopSource
from edge_sdk.events import AudioBlock, BreathCycle, CycleResult, Event, StreamStats
from edge_sdk.metrics.detections import Heard
from edge_sdk.metrics.events import ScoredRecording, event_report
from edge_sdk.runtime.bundle.load import Bundle
from edge_sdk.runtime.session import Session

KINDS = ("onset", "breath", "label")
"""A provisional breath, a final one, and what the classifier said of it."""

Tell = Callable[[str], None]

_BLOCK_S = 0.05
_LEAST_S = 1.0  # of a recording that is worth its beginning


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


@dataclass(frozen=True, slots=True)
class _Lane:
    """What one recording after another, each a session, has given."""

    scored: list[ScoredRecording]
    spent: dict[str, list[float]]  # seconds of each kind of event
    lost: list[int]
    failed: list[Exception]


class _Replay:
    """Several patients at once, each heard by a session of its own that begins at its own moment."""

    def __init__(self, bundle: Bundle, sounds: Iterator[Sound], seconds: float, together: int, tell: Tell) -> None:
        self._bundle, self._sounds, self._seconds, self._tell = bundle, sounds, seconds, tell
        self._together = together
        self._lock = threading.Lock()
        self._sources: set[LoopSource] = set()
        self._stopped = False
        self.heard_s = 0.0  # of sound, by all
        self.lane = _Lane([], {kind: [] for kind in KINDS}, [], [])

    def run(self) -> bool:
        """Play until the time is over, or the recordings are; whether Ctrl-C ended it before."""
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
        if self.lane.failed:
            raise self.lane.failed[0]
        return False

    def _play(self, k: int) -> None:
        time.sleep(_BLOCK_S * k / self._together)  # else all blocks of all patients would come at once
        left = self._seconds
        try:
            while left >= _LEAST_S:
                with self._lock:
                    sound = None if self._stopped else next(self._sounds, None)
                if sound is None:
                    return
                left -= self._hear(sound, min(sound.seconds, left))
        except Exception as error:
            self.lane.failed.append(error)
            self._stop()

    def _hear(self, sound: Sound, length: float) -> float:
        witness = Witness()
        source = LoopSource(sound.samples, sound.rate_hz, length, block_s=_BLOCK_S, live=True, name=sound.name)
        with self._lock:
            self._sources.add(source)
            self._tell(f"replay of {sound.name}, {len(self.lane.scored)} recordings heard")
        stats = Session(source, self._bundle, [witness]).run()
        heard_s = stats.samples_in / sound.rate_hz
        with self._lock:
            self._sources.remove(source)
            self.heard_s += heard_s
            self.lane.lost.append(stats.samples_lost)
            self.lane.scored.append(_scored(sound, heard_s, witness.heard, whole=heard_s >= sound.seconds))
            for kind, values in witness.seconds.items():
                self.lane.spent[kind] += values
        return length

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for source in self._sources:
                source.close()


def replay(
    bundle: Bundle, sounds: Iterator[Sound], seconds: float, *, together: int, deadline_s: float, tell: Tell
) -> Iterator[Row]:
    """Play recordings in real time for so many seconds, ``together`` of them at once; a row a kind of event.

    The percentiles are of capture-to-event latency: from the capture of the last sample that an event needed until it
    reached the sink, queue, threads and the wait for its block included. The look-ahead and the time that the segmenter
    needs to be sure come before that; they are in ``detection_delay_*`` (after the true onset).
    """
    known = iter(list(sounds))  # read before anything is timed
    played = _Replay(bundle, known, seconds, together, tell)
    cpu_before = time.process_time_ns()
    interrupted = played.run()
    cpu_s = (time.process_time_ns() - cpu_before) / 1e9
    lane, heard_s = played.lane, played.heard_s
    common: Row = {
        "audio_s": heard_s,
        "recordings": len(lane.scored),
        "sessions": together,  # at once, in one process
        "lost_samples": sum(lane.lost),
        "segmenter": bundle.segmenter.kind,
        "look_ahead_s": bundle.segmenter.look_ahead_s,
        **_figures(lane.scored),
    }
    for kind in KINDS:
        yield {
            "benchmark": "stream",
            "subject": subject(bundle, f"replay {kind}"),
            "input": "annotated recordings in real time, through source thread, queue, stream and sink",
            "deadline_ms": deadline_s * 1e3,
            "misses": deadline_misses(lane.spent[kind], deadline_s),
            **percentiles(lane.spent[kind]),
            "cpu_s": cpu_s,
            "cpu_s_per_hour": cpu_s * 3600 / heard_s if heard_s else None,
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
