"""A stretch of sound with its truth: cut, played faster or slower, joined."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_sdk.training.segmentation.truth import Truth


@dataclass(frozen=True)
class Piece:
    """Sound at the model's rate and what is known of it."""

    wave: npt.NDArray[np.float32]  # [n] in ±1
    truth: Truth

    def cut(self, begin: int, end: int) -> Piece:
        """Samples ``[begin, end)``."""
        begin, end = max(0, begin), min(end, self.wave.size)
        return Piece(self.wave[begin:end], self.truth.cut(begin, end))

    def played(self, speed: float) -> Piece:
        """At ``speed`` times the pace, pitch included; linear between samples."""
        count = int(self.wave.size / speed)
        if count < 2 or speed == 1.0:
            return self
        place = np.arange(count) * speed
        wave = np.interp(place, np.arange(self.wave.size), self.wave).astype(np.float32)
        return Piece(wave, self.truth.scaled(1.0 / speed))

    def weighted(self, weight: float) -> Piece:
        """With another weight in the loss."""
        return replace(self, truth=replace(self.truth, weight=weight))
