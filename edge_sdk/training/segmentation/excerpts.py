"""Excerpts of annotated audio, from which training windows are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

Spans = npt.NDArray[np.float64]
"""``[k, 2]`` begin and end in samples, by begin."""


def spans(values: Sequence[Sequence[float]] | npt.NDArray[np.floating]) -> Spans:
    """``[k, 2]`` float64, also of an empty sequence."""
    return np.asarray(values, dtype=np.float64).reshape(-1, 2)


@dataclass(frozen=True)
class SegmentTruth:
    """Annotation of an excerpt; everything in samples from its begin."""

    cycles: Spans = field(default_factory=lambda: spans([]))
    inspirations: Spans = field(default_factory=lambda: spans([]))
    expirations: Spans = field(default_factory=lambda: spans([]))
    phase_annotated: Spans = field(default_factory=lambda: spans([]))  # outside both halves: no phase
    doubtful: Spans = field(default_factory=lambda: spans([]))  # may hold an unlabelled cycle
    doubt_weight: float = 0.0  # of doubtful frames in the loss
    weight: float = 1.0  # of the others

    def scaled(self, factor: float) -> SegmentTruth:
        """The annotation of the same audio played ``1 / factor`` times as fast."""
        return SegmentTruth(
            self.cycles * factor,
            self.inspirations * factor,
            self.expirations * factor,
            self.phase_annotated * factor,
            self.doubtful * factor,
            self.doubt_weight,
            self.weight,
        )

    def cut(self, begin: float, end: float) -> SegmentTruth:
        """What lies in ``[begin, end)``, counted from ``begin``.

        Onsets before ``begin`` stay before it, so that no cut makes one. A cycle that is cut there is doubtful up to
        its end, since its onset is not in the excerpt.
        """
        kept = [_within(part, begin, end) for part in self._parts()]
        cycles, doubtful = kept[0], kept[4]
        begun = cycles[cycles[:, 0] < 0]
        doubtful = np.concatenate((doubtful, np.stack((np.zeros(len(begun)), begun[:, 1]), axis=1)))
        return SegmentTruth(cycles, kept[1], kept[2], kept[3], doubtful, self.doubt_weight, self.weight)

    def _parts(self) -> tuple[Spans, ...]:
        return self.cycles, self.inspirations, self.expirations, self.phase_annotated, self.doubtful


@dataclass(frozen=True)
class AudioExcerpt:
    """Audio at the model's rate with its annotation."""

    wave: npt.NDArray[np.float32]  # [n] in ±1
    truth: SegmentTruth

    def cut(self, begin: int, end: int) -> AudioExcerpt:
        """Samples ``[begin, end)``."""
        begin, end = max(0, begin), min(end, self.wave.size)
        return AudioExcerpt(self.wave[begin:end], self.truth.cut(begin, end))

    def at_speed(self, speed: float) -> AudioExcerpt:
        """Played ``speed`` times as fast, pitch included; linear between samples."""
        count = int(self.wave.size / speed)
        if count < 2 or speed == 1.0:
            return self
        place = np.arange(count) * speed
        wave = np.interp(place, np.arange(self.wave.size), self.wave).astype(np.float32)
        return AudioExcerpt(wave, self.truth.scaled(1.0 / speed))

    def weighted(self, weight: float) -> AudioExcerpt:
        """With another weight in the loss."""
        return replace(self, truth=replace(self.truth, weight=weight))


def doubtful_gaps(cycles: Spans, samples: int, gap_cycles: float) -> Spans:
    """Stretches without annotation, those at the ends too, that are longer than ``gap_cycles`` median cycles."""
    if len(cycles) == 0:
        return spans([])
    reached = np.maximum.accumulate(cycles[:, 1])
    edges = np.stack((np.concatenate(([0.0], reached)), np.concatenate((cycles[:, 0], [float(samples)]))), axis=1)
    longest = gap_cycles * float(np.median(cycles[:, 1] - cycles[:, 0]))
    return edges[edges[:, 1] - edges[:, 0] > longest]


def _within(part: Spans, begin: float, end: float) -> Spans:
    return part[(part[:, 1] > begin) & (part[:, 0] < end)] - begin
