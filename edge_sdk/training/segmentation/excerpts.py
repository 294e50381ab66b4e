"""Excerpts of annotated recordings as log-mel frames, from which training windows are cut.

The segmenter is trained on log-mel frames instead of audio: another pace without another pitch, other responses, gains
and noise floors are a few additions there, and training takes minutes on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
import numpy.typing as npt
import torch

from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.signal.spec import FrontEndSpec

Spans = npt.NDArray[np.float64]
"""``[k, 2]`` begin and end in seconds, by begin."""

Frames = npt.NDArray[np.float32]
"""``[T, M]`` log mel energies."""


class Annotation(Enum):
    """What the annotated cycles of an excerpt are."""

    CYCLES = "true respiratory cycles, one after another without gaps"
    EVENTS = "audible sounds: one phase, a breath or several; unlabelled time is not silence"
    EXACT = "cycles and pauses, exact to the sample"
    NONE = "no respiratory cycle at all"


def spans(values: Sequence[Sequence[float]] | npt.NDArray[np.floating]) -> Spans:
    """``[k, 2]`` float64, also of an empty sequence."""
    return np.asarray(values, dtype=np.float64).reshape(-1, 2)


@dataclass(frozen=True)
class SegmentTruth:
    """Annotation of an excerpt, in seconds from its begin."""

    kind: Annotation
    cycles: Spans = field(default_factory=lambda: spans([]))
    inspirations: Spans = field(default_factory=lambda: spans([]))
    expirations: Spans = field(default_factory=lambda: spans([]))
    phase_annotated: Spans = field(default_factory=lambda: spans([]))  # outside both halves: no phase
    weight: float = 1.0  # of its frames in the loss

    def moved(self, shift_s: float, factor: float = 1.0) -> SegmentTruth:
        """With every time ``t`` at ``(t + shift_s) * factor``."""
        parts = (self.cycles, self.inspirations, self.expirations, self.phase_annotated)
        cycles, inspirations, expirations, annotated = ((part + shift_s) * factor for part in parts)
        return SegmentTruth(self.kind, cycles, inspirations, expirations, annotated, self.weight)


@dataclass(frozen=True)
class Excerpt:
    """Log-mel frames with their annotation; frame ``k`` is centred at ``k * hop_s + hop_s``."""

    frames: Frames
    truth: SegmentTruth
    hop_s: float

    @property
    def duration_s(self) -> float:
        """Seconds."""
        return len(self.frames) * self.hop_s

    def cut(self, begin: int, end: int) -> Excerpt:
        """Frames ``[begin, end)``."""
        begin, end = max(0, begin), min(end, len(self.frames))
        return replace(self, frames=self.frames[begin:end], truth=self.truth.moved(-begin * self.hop_s))

    def at_pace(self, pace: float, most: int) -> Excerpt:
        """Played ``pace`` times as fast at the same pitch, at most ``most`` frames; linear between frames."""
        place = np.arange(most) * pace
        place = place[place <= len(self.frames) - 1]
        first = place.astype(np.int64)
        share = (place - first)[:, None].astype(np.float32)
        following = np.minimum(first + 1, len(self.frames) - 1)
        frames = self.frames[first] * (1.0 - share) + self.frames[following] * share
        centre = self.hop_s  # of frame 0, which keeps its place
        return replace(self, frames=frames, truth=self.truth.moved(-centre, 1.0 / pace).moved(centre))

    def repeated(self, times: int) -> Excerpt:
        """Its whole cycles in a seamless loop; of contiguous cycles only."""
        cycles = self.truth.cycles
        begin, end = round(cycles[0, 0] / self.hop_s), min(len(self.frames), round(cycles[-1, 1] / self.hop_s))
        length_s = (end - begin) * self.hop_s
        inside = self.truth.moved(-begin * self.hop_s).cycles
        looped = np.concatenate([inside + k * length_s for k in range(times)])
        truth = SegmentTruth(self.truth.kind, looped, weight=self.truth.weight)
        return replace(self, frames=np.tile(self.frames[begin:end], (times, 1)), truth=truth)


@torch.no_grad()
def log_mel_frames(waves: Sequence[npt.NDArray[np.float32]], spec: FrontEndSpec) -> list[Frames]:
    """Log-mel frames ``[T, M]`` of each wave ``[n]`` at the spec's rate; none of a wave shorter than a frame."""
    front_end = FoldedFrontEnd(spec)
    found = []
    for wave in waves:
        if wave.size < spec.frame_samples:
            found.append(np.zeros((0, spec.mel_bins), dtype=np.float32))
            continue
        mel = front_end.log_mel(torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))[None])[0]
        found.append(np.ascontiguousarray(mel.numpy().T))
    return found
