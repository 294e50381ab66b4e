"""Targets of the segmenter's frames, painted from the annotation of excerpts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_sdk.models.segmenter import PHASES
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.segmentation.excerpts import SegmentTruth, Spans

INSPIRATION, EXPIRATION, NONE = range(len(PHASES))
UNANNOTATED = -1
"""Target of frames without an annotated phase; they do not count in the loss."""


@dataclass(frozen=True)
class FrameTargets:
    """Targets of ``T`` frames, at the moment of each frame's centre."""

    activity: npt.NDArray[np.float32]  # [T] 0 or 1
    onset: npt.NDArray[np.float32]  # [T] 0..1, a triangle around each onset
    offset: npt.NDArray[np.float32]  # [T] the same around each end
    phase: npt.NDArray[np.int64]  # [T] index into PHASES, or UNANNOTATED
    weight: npt.NDArray[np.float32]  # [T] of activity, onset and offset in the loss

    @classmethod
    def empty(cls, frames: int) -> FrameTargets:
        """Targets without any annotation, of weight 0."""
        zeros = np.zeros(frames, dtype=np.float32)
        return cls(zeros, zeros.copy(), zeros.copy(), np.full(frames, UNANNOTATED, dtype=np.int64), zeros.copy())


class TargetPainter:
    """Writes annotations into the targets of a window.

    Parameters
    ----------
    spec
        Where frames lie.
    onset_width_s, offset_width_s
        Half the base of the triangle around an onset, and around an end, which is less certain.
    """

    def __init__(self, spec: FrontEndSpec, onset_width_s: float, offset_width_s: float) -> None:
        self._hop, self._half = spec.hop_samples, spec.frame_samples / 2
        self._widths = onset_width_s * spec.rate_hz, offset_width_s * spec.rate_hz

    def paint(self, targets: FrameTargets, truth: SegmentTruth, offset: int, samples: int) -> None:
        """Write the targets of the frames whose centres lie in the ``samples`` from ``offset`` on."""
        first, last = self._range(offset, offset + samples, len(targets.weight))
        if first >= last:
            return
        centre = np.arange(first, last) * self._hop + self._half - offset  # [k] samples of the excerpt
        targets.activity[first:last] = _inside(truth.cycles, centre)
        edges = zip((targets.onset, targets.offset), truth.cycles.T, self._widths, strict=True)
        for pulses, moments, width in edges:
            pulses[first:last] = _triangles(centre, moments, width)
        phase = np.where(_inside(truth.phase_annotated, centre), NONE, UNANNOTATED)
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
