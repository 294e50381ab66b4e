"""Targets of the segmenter's output frames, painted from the annotation of an excerpt."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from edge_sdk.models.segmenter import PHASES, STRIDE, TEMPI, TEMPO_S
from edge_sdk.training.segmentation.excerpts import Annotation, Excerpt, SegmentTruth, Spans

INSPIRATION, EXPIRATION, NONE = range(len(PHASES))
UNANNOTATED = -1
"""Target of frames without an annotated phase or tempo; they do not count in the loss."""

_LOG_TEMPI = np.linspace(math.log(TEMPO_S[0]), math.log(TEMPO_S[1]), TEMPI)
_LONG_PAUSE = 0.5  # of the cycle before: a longer pause is no part of it
_BEFORE_S, _EDGE_S = 0.3, 0.05  # before the first annotated onset, and before the annotation's end
_AUDIBLE = 0.6  # of a true cycle is certainly breathing; its end may be silent
_GAP = 0.8  # of the median event: a longer gap may hold an unlabelled one
_GAP_WEIGHT = 0.25
_REGULAR = (0.6, 1.5)  # of the median interval: onsets of these events are taken as those of breaths
_APART = 1.2  # of the median event: most time between two events of a regular stretch

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FrameTargets:
    """Targets of ``T`` output frames at the moments of their centres, and their weights in the loss."""

    onset: Floats  # [T] 0..1, a triangle around each onset
    onset_weight: Floats  # [T]
    cycle: Floats  # [T, 2] cosine and sine of the cycle's angle; zeros in a pause
    cycle_weight: Floats  # [T]
    activity: Floats  # [T] 0 or 1
    activity_weight: Floats  # [T]
    tempo: npt.NDArray[np.int64]  # [T] index of the cycle's length, or UNANNOTATED
    phase: npt.NDArray[np.int64]  # [T] index into PHASES, or UNANNOTATED

    @classmethod
    def empty(cls, frames: int) -> FrameTargets:
        """Targets of weight 0."""

        def zeros(*shape: int) -> Floats:
            return np.zeros(shape, dtype=np.float32)

        t, unannotated = frames, np.full(frames, UNANNOTATED, dtype=np.int64)
        return cls(zeros(t), zeros(t), zeros(t, 2), zeros(t), zeros(t), zeros(t), unannotated, unannotated.copy())

    def beyond(self, frames: int) -> None:
        """Give the frames from ``frames`` on no weight."""
        for name in ("onset_weight", "cycle_weight", "activity_weight"):
            getattr(self, name)[frames:] = 0.0
        self.tempo[frames:] = UNANNOTATED
        self.phase[frames:] = UNANNOTATED

    @staticmethod
    def names() -> tuple[str, ...]:
        """Names of the arrays."""
        return tuple(field.name for field in fields(FrameTargets))


def paint(excerpt: Excerpt, frames: int, onset_width_s: float) -> FrameTargets:
    """Targets of the first ``frames`` output frames; those beyond the excerpt have no weight.

    Parameters
    ----------
    excerpt
        Frames and annotation.
    frames
        T.
    onset_width_s
        Half the base of the triangle around an onset.
    """
    targets, truth = FrameTargets.empty(frames), excerpt.truth
    centre = (np.arange(frames, dtype=np.float64) * STRIDE + (STRIDE - 1) / 2) * excerpt.hop_s + excerpt.hop_s
    if truth.kind is Annotation.NONE:
        _all(targets)
    elif len(truth.cycles):
        distance = np.abs(centre[:, None] - truth.cycles[None, :, 0]).min(axis=1)
        targets.onset[:] = np.maximum(0.0, 1.0 - distance / onset_width_s)
        {Annotation.CYCLES: _paint_cycles, Annotation.EVENTS: _paint_events, Annotation.EXACT: _paint_exact}[
            truth.kind
        ](targets, truth, centre)
    targets.phase[:] = np.where(_inside(truth.phase_annotated, centre), NONE, UNANNOTATED)
    targets.phase[_inside(truth.inspirations, centre)] = INSPIRATION
    targets.phase[_inside(truth.expirations, centre)] = EXPIRATION
    targets.beyond(len(excerpt.frames) // STRIDE)
    for weight in (targets.onset_weight, targets.cycle_weight, targets.activity_weight):
        weight *= truth.weight
    return targets


def _all(targets: FrameTargets) -> None:
    for weight in (targets.onset_weight, targets.cycle_weight, targets.activity_weight):
        weight[:] = 1.0


def _paint_cycles(targets: FrameTargets, truth: SegmentTruth, centre: npt.NDArray[np.float64]) -> None:
    cycles = truth.cycles
    targets.onset_weight[(centre > cycles[0, 0] - _BEFORE_S) & (centre < cycles[-1, 1] - _EDGE_S)] = 1.0
    _angles(targets, cycles, centre)
    audible = cycles.copy()
    audible[:, 1] = cycles[:, 0] + _AUDIBLE * (cycles[:, 1] - cycles[:, 0])
    inside = _inside(audible, centre)
    targets.activity[inside] = 1.0
    targets.activity_weight[inside] = 0.5


def _paint_exact(targets: FrameTargets, truth: SegmentTruth, centre: npt.NDArray[np.float64]) -> None:
    _all(targets)
    cycles = truth.cycles.copy()
    targets.activity[_inside(cycles, centre)] = 1.0
    pause = cycles[1:, 0] - cycles[:-1, 1]
    short = pause < _LONG_PAUSE * (cycles[:-1, 1] - cycles[:-1, 0])
    cycles[:-1, 1] = np.where(short, cycles[1:, 0], cycles[:-1, 1])  # a short pause belongs to the cycle
    _angles(targets, cycles, centre)


def _paint_events(targets: FrameTargets, truth: SegmentTruth, centre: npt.NDArray[np.float64]) -> None:
    events = truth.cycles
    onset, length = events[:, 0], float(np.median(events[:, 1] - events[:, 0]))
    inside = _inside(events, centre)
    targets.activity[inside] = 1.0
    targets.activity_weight[:] = _GAP_WEIGHT
    targets.activity_weight[inside] = 1.0
    for end, following in zip(events[:-1, 1], onset[1:], strict=True):
        if following - end <= _GAP * length:
            targets.activity_weight[(centre >= end) & (centre < following)] = 1.0
    interval = np.diff(onset)
    if len(interval) < 2:
        return
    ratio = interval / np.median(interval)
    regular = (ratio > _REGULAR[0]) & (ratio < _REGULAR[1]) & (onset[1:] - events[:-1, 1] < _APART * length)
    stretches = np.stack((onset[:-1], onset[1:]), axis=1)[regular]
    for begin, end in stretches:
        targets.onset_weight[(centre > begin - _BEFORE_S) & (centre < end + 0.15)] = 1.0
    _angles(targets, stretches, centre)


def _angles(targets: FrameTargets, cycles: Spans, centre: npt.NDArray[np.float64]) -> None:
    """Cosine, sine and tempo inside the cycles; weight there."""
    for begin, end in cycles:
        first, last = np.searchsorted(centre, (begin, end))
        angle = 2.0 * np.pi * (centre[first:last] - begin) / (end - begin)
        targets.cycle[first:last, 0], targets.cycle[first:last, 1] = np.cos(angle), np.sin(angle)
        targets.cycle_weight[first:last] = 1.0
        targets.tempo[first:last] = int(np.abs(_LOG_TEMPI - np.log(max(end - begin, 1e-3))).argmin())


def _inside(part: Spans, centre: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    inside = np.zeros(len(centre), dtype=np.bool_)
    for begin, end in part:
        first, last = np.searchsorted(centre, (begin, end))
        inside[first:last] = True
    return inside
