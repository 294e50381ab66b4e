"""What is known of a stretch of sound, and the targets of its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_sdk.models.segmenter import PHASES
from edge_sdk.signal.spec import FrontEndSpec

Spans = npt.NDArray[np.float64]
"""``[k, 2]`` begin and end in samples, by begin."""

INSPIRATION, EXPIRATION, NONE = range(len(PHASES))
UNTOLD = -1
"""Phase of frames whose phase nobody annotated."""


def spans(values: Sequence[Sequence[float]] | npt.NDArray[np.floating]) -> Spans:
    """``[k, 2]`` float64, also of an empty sequence."""
    return np.asarray(values, dtype=np.float64).reshape(-1, 2)


@dataclass(frozen=True)
class Truth:
    """Annotation of a piece of sound; all in samples from its begin."""

    cycles: Spans = field(default_factory=lambda: spans([]))
    inspirations: Spans = field(default_factory=lambda: spans([]))
    expirations: Spans = field(default_factory=lambda: spans([]))
    told: Spans = field(default_factory=lambda: spans([]))  # where the phase is known; outside both: none
    doubtful: Spans = field(default_factory=lambda: spans([]))  # may hold an unlabelled breath
    doubt_weight: float = 0.0  # of doubtful frames in the loss
    weight: float = 1.0  # of the others

    def scaled(self, factor: float) -> Truth:
        """The same sound played ``1 / factor`` times as fast."""
        return Truth(
            self.cycles * factor,
            self.inspirations * factor,
            self.expirations * factor,
            self.told * factor,
            self.doubtful * factor,
            self.doubt_weight,
            self.weight,
        )

    def cut(self, begin: float, end: float) -> Truth:
        """What lies in ``[begin, end)``, counted from ``begin``.

        Onsets before ``begin`` stay before it, so that no cut makes one; a breath that is cut there is doubtful up to
        its end, since nobody could tell it from its rest.
        """
        kept = [_within(part, begin, end) for part in self._parts()]
        cycles, doubtful = kept[0], kept[4]
        begun = cycles[cycles[:, 0] < 0]
        doubtful = np.concatenate((doubtful, np.stack((np.zeros(len(begun)), begun[:, 1]), axis=1)))
        return Truth(cycles, kept[1], kept[2], kept[3], doubtful, self.doubt_weight, self.weight)

    def _parts(self) -> tuple[Spans, ...]:
        return self.cycles, self.inspirations, self.expirations, self.told, self.doubtful


def _within(part: Spans, begin: float, end: float) -> Spans:
    return part[(part[:, 1] > begin) & (part[:, 0] < end)] - begin


def doubtful_gaps(cycles: Spans, samples: int, gap_cycles: float) -> Spans:
    """Stretches without annotation, those at the ends too, that are longer than ``gap_cycles`` median cycles."""
    if len(cycles) == 0:
        return spans([])
    reached = np.maximum.accumulate(cycles[:, 1])
    edges = np.stack((np.concatenate(([0.0], reached)), np.concatenate((cycles[:, 0], [float(samples)]))), axis=1)
    longest = gap_cycles * float(np.median(cycles[:, 1] - cycles[:, 0]))
    return edges[edges[:, 1] - edges[:, 0] > longest]


@dataclass(frozen=True)
class FrameTargets:
    """Targets of ``T`` frames, at the moment of each frame's centre."""

    activity: npt.NDArray[np.float32]  # [T] 0 or 1
    onset: npt.NDArray[np.float32]  # [T] 0..1, a triangle around each onset
    offset: npt.NDArray[np.float32]  # [T] the same around each end
    phase: npt.NDArray[np.int64]  # [T] index into PHASES, or UNTOLD
    weight: npt.NDArray[np.float32]  # [T] of activity, onset and offset in the loss

    @classmethod
    def empty(cls, frames: int) -> FrameTargets:
        """Nothing known."""
        zeros = np.zeros(frames, dtype=np.float32)
        return cls(zeros, zeros.copy(), zeros.copy(), np.full(frames, UNTOLD, dtype=np.int64), zeros.copy())


class Painter:
    """Writes truths into the targets of a window.

    Parameters
    ----------
    spec
        Where frames lie.
    onset_width_s, offset_width_s
        Half the base of the triangle around an onset, and around an end: that one is less certain.
    """

    def __init__(self, spec: FrontEndSpec, onset_width_s: float, offset_width_s: float) -> None:
        self._hop, self._half = spec.hop_samples, spec.frame_samples / 2
        self._widths = onset_width_s * spec.rate_hz, offset_width_s * spec.rate_hz

    def paint(self, targets: FrameTargets, truth: Truth, offset: int, samples: int) -> None:
        """Targets of the frames whose centres lie in the ``samples`` from ``offset`` on."""
        first, last = self._range(offset, offset + samples, len(targets.weight))
        if first >= last:
            return
        centre = np.arange(first, last) * self._hop + self._half - offset  # [k] samples of the piece
        targets.activity[first:last] = _inside(truth.cycles, centre)
        edges = zip((targets.onset, targets.offset), truth.cycles.T, self._widths, strict=True)
        for pulses, moments, width in edges:
            pulses[first:last] = _triangles(centre, moments, width)
        phase = np.where(_inside(truth.told, centre), NONE, UNTOLD)
        phase[_inside(truth.inspirations, centre)] = INSPIRATION
        phase[_inside(truth.expirations, centre)] = EXPIRATION
        targets.phase[first:last] = phase
        targets.weight[first:last] = np.where(_inside(truth.doubtful, centre), truth.doubt_weight, truth.weight)

    def _range(self, begin: int, end: int, frames: int) -> tuple[int, int]:
        first, last = (int(np.ceil((edge - self._half) / self._hop)) for edge in (begin, end))
        return max(0, first), min(frames, last)


def _triangles(
    centre: npt.NDArray[np.floating], moments: npt.NDArray[np.floating], width: float
) -> npt.NDArray[np.floating]:
    """1 at a moment, falling to 0 at ``width`` from it."""
    if len(moments) == 0:
        return np.zeros(len(centre))
    distance = np.abs(centre[:, None] - moments[None]).min(axis=1)
    return np.maximum(0.0, 1.0 - distance / width)


def _inside(part: Spans, centre: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    if len(part) == 0:
        return np.zeros(len(centre), dtype=np.bool_)
    return np.asarray(((centre[:, None] >= part[:, 0]) & (centre[:, None] < part[:, 1])).any(axis=1))
