"""Accumulates the events of one source into its summary, for every sink that shows one."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from edge_sdk.events import (
    Adventitious,
    AudioBlock,
    CycleResult,
    Event,
    Gap,
    QualityEvent,
    StreamStats,
    Verdict,
)
from edge_sdk.signal.breathing_rate import RateMeter
from edge_sdk.sinks.truth import Truth


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of a bundle, as sinks need them."""

    names: tuple[str, ...]  # in the classifier's order
    normal: str  # the one that is not abnormal


def received_fraction(samples: int, lost: int) -> float | None:
    """Share of a time line of ``samples`` that was received; 1 only if nothing was lost, None of nothing."""
    return math.floor(max(0, samples - lost) / samples * 10_000) / 10_000 if samples else None


class SummaryBuilder:
    """Counts events; :meth:`record` may be called at any time."""

    def __init__(self, labels: Labels, *, truth: Truth | None = None) -> None:
        self._labels = labels
        self._truth = truth
        self._source = ""
        self._rate_hz = 0
        self._samples = 0
        self._gaps = 0
        self._lost = 0
        self._counts: Counter[str] = Counter()
        self._unclassified: Counter[str] = Counter()
        self._abnormal: list[float] = []
        self._quality: dict[str, float] = {}  # seconds received in each state
        self._state: tuple[str, float] | None = None  # state and since when, in seconds received
        self._last_gap: Gap | None = None
        self._sounds: Counter[str] = Counter()
        self.verdict: Verdict | None = None  # the newest one
        self.rate = RateMeter()

    def open(self, source: str, sample_rate: int) -> None:
        """Set the name of the source and its rate in Hz."""
        self._source, self._rate_hz = source, sample_rate

    def audio(self, block: AudioBlock) -> None:
        """Count the samples of the block and those dropped before it."""
        self._samples += len(block.samples) + block.lost_before

    def event(self, event: Event) -> None:
        """Count the event."""
        if isinstance(event, CycleResult):
            self._result(event)
        elif isinstance(event, QualityEvent):
            received_s = self._received_s(event.at)
            self._close_state(received_s)
            self._state = (event.state, received_s)
        elif isinstance(event, Gap):
            self._gaps += 1
            self._lost += event.count
            self._last_gap = event
            self.rate.restart()
        elif isinstance(event, Adventitious):
            self._sounds[event.kind] += 1
        elif isinstance(event, Verdict):
            self.verdict = event

    def _result(self, result: CycleResult) -> None:
        self.rate.result(result)
        if self._truth is not None:
            self._truth.score(result)
        if result.label is None:
            self._unclassified[result.quality] += 1
            return
        self._counts[result.label] += 1
        if result.probabilities:
            self._abnormal.append(1.0 - result.probabilities.get(self._labels.normal, 0.0))

    def _received_s(self, index: int) -> float:
        """Seconds of audio received before a source sample.

        The newest gap comes before the events of the audio that it ends; none is about older audio.
        """
        gap = self._last_gap
        lost = self._lost - (0 if gap is None else max(0, gap.first_sample + gap.count - max(index, gap.first_sample)))
        return (index - lost) / self._rate_hz if self._rate_hz else 0.0

    def _close_state(self, now_s: float) -> None:
        if self._state is not None:
            state, since_s = self._state
            self._quality[state] = self._quality.get(state, 0.0) + now_s - since_s

    @property
    def duration_s(self) -> float:
        """Length of the source's time line so far in seconds, dropped samples included."""
        return self._samples / self._rate_hz if self._rate_hz else 0.0

    @property
    def lost_samples(self) -> int:
        """Dropped samples so far."""
        return self._lost

    @property
    def cycles(self) -> int:
        """Cycles so far, with and without a label."""
        return self._counts.total() + self._unclassified.total()

    def _quality_s(self) -> dict[str, float]:
        """Seconds in each quality: of received audio only; the dropped samples are ``gap``."""
        quality = dict(self._quality)
        if self._state is not None:
            state, since_s = self._state
            quality[state] = quality.get(state, 0.0) + self.duration_s - self._lost_s - since_s
        if self._lost:
            quality["gap"] = quality.get("gap", 0.0) + self._lost_s
        return {state: round(seconds, 3) for state, seconds in sorted(quality.items())}

    @property
    def _lost_s(self) -> float:
        return self._lost / self._rate_hz if self._rate_hz else 0.0

    def record(self, stats: StreamStats | None = None) -> dict[str, Any]:
        """Give the summary object: the last line of ``listen`` and ``screen`` for a source."""
        classified = self._counts.total()
        abnormal = classified - self._counts[self._labels.normal]
        lost = self._lost if stats is None else stats.samples_lost
        rate = self.rate.breaths_per_minute
        verdict = self.verdict
        record = {
            "type": "summary",
            "source": self._source,
            "duration_s": round(self.duration_s, 4),
            "sample_rate": self._rate_hz,
            "cycles": self.cycles,
            "classified": classified,
            "counts": {name: self._counts[name] for name in self._labels.names},
            "unclassified": dict(sorted(self._unclassified.items())),
            "respiratory_rate_bpm": None if rate is None else round(rate, 2),
            "respiratory_rate_confident": self.rate.confident,
            "abnormal_fraction": round(abnormal / classified, 4) if classified else None,
            "mean_p_abnormal": round(sum(self._abnormal) / len(self._abnormal), 4) if self._abnormal else None,
            "verdict": None if verdict is None else verdict.verdict,
            "p_abnormal": None if verdict is None or verdict.p_abnormal is None else round(verdict.p_abnormal, 4),
            "verdict_reason": None if verdict is None else verdict.reason,
            "usable_s": None if verdict is None else verdict.usable_s,
            "adventitious": None if verdict is None else dict(sorted(self._sounds.items())),
            "quality_s": self._quality_s(),
            "received_fraction": received_fraction(self._samples, lost),
            "lost_samples": lost,
            "gaps": self._gaps if stats is None else stats.gaps,
            "notes": [] if stats is None else list(stats.notes),
        }
        if self._truth is not None:
            record["truth"] = self._truth.record(self.duration_s)
        return record
