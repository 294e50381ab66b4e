"""Whether a recording resembles the audio that a verdict was calibrated on: distance of its mean spectrum.

A recording is described by the mean and the spread of its log-mel frames in a few groups of bands, free of its level.
Its distance is that to the nearest of the groups of calibration recordings (devices), in units of their common,
shrunk covariance. Another device, or noise of any kind, lies far from all of them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edge_sdk.settings import Positive, Settings

GROUPS = 12
"""Groups of bands."""

FEATURES = 2 * GROUPS

Floats = npt.NDArray[np.float64]


class FamiliarityParams(Settings, frozen=True):
    """The calibration audio: centres of its groups, whitening of the differences, and the largest distance in it."""

    title: ClassVar[str] = "familiarity"

    centres: tuple[tuple[float, ...], ...] = ()  # [G, FEATURES]; none: every recording is familiar
    whitening: tuple[tuple[float, ...], ...] = ()  # [FEATURES, FEATURES]: |(x - centre) @ whitening| is the distance
    farthest: Positive = 1.0  # distance beyond which a recording is unfamiliar

    def _problem(self) -> str | None:
        if not self.centres:
            return None
        if any(len(row) != FEATURES for row in (*self.centres, *self.whitening)) or len(self.whitening) != FEATURES:
            return f"centres and whitening need rows of {FEATURES} numbers"
        return None

    def nearest(self, features: Floats) -> tuple[int, float]:
        """See :meth:`Centres.nearest`."""
        return Centres(self).nearest(features)

    def distance(self, features: Floats) -> float:
        """Distance of ``[FEATURES]`` to the nearest centre; 0 without any centre."""
        return self.nearest(features)[1]


class Centres:
    """The centres of :class:`FamiliarityParams` as arrays, made once for many recordings."""

    def __init__(self, params: FamiliarityParams) -> None:
        self._centres, self._whitening = np.array(params.centres), np.array(params.whitening)

    def nearest(self, features: Floats) -> tuple[int, float]:
        """Number of the centre nearest to ``[FEATURES]``, and the distance to it; 0 and 0 without any centre."""
        if not self._centres.size:
            return 0, 0.0
        differences = (features - self._centres) @ self._whitening  # [G, FEATURES]
        squares = np.square(differences).sum(axis=1)
        return int(squares.argmin()), float(np.sqrt(squares.min()))


class SpectrumSums:
    """Running mean and spread of log-mel frames, by groups of bands."""

    def __init__(self) -> None:
        self.frames = 0
        self._sums: Floats = np.zeros((2, GROUPS))  # of the values, and of their squares

    @staticmethod
    def of(mels: npt.NDArray[np.floating[Any]]) -> Floats:
        """What ``k`` stretches of frames add: ``[k, n, M]``, M a multiple of :data:`GROUPS` → ``[k, 2, GROUPS]``."""
        count, frames, bands = mels.shape
        grouped = (mels.reshape(-1, bands).astype(np.float64) @ _means(bands)).reshape(count, frames, GROUPS)
        return np.stack((np.add.reduce(grouped, axis=1), np.einsum("kij,kij->kj", grouped, grouped)), axis=1)

    def add_sums(self, frames: int, sums: Floats) -> None:
        """Take a stretch of so many frames, by what :meth:`of` gives for it."""
        self.frames += frames
        self._sums += sums

    def add(self, mel: npt.NDArray[np.floating[Any]]) -> None:
        """Take ``[n, M]`` frames, M a multiple of :data:`GROUPS`."""
        self.add_sums(len(mel), self.of(mel[None])[0])

    def features(self) -> Floats:
        """``[FEATURES]``: mean of each group minus that of all, and logarithm of its standard deviation.

        Raises
        ------
        ValueError
            No frame was added.
        """
        if not self.frames:
            raise ValueError("no frames: the mean spectrum of nothing")
        mean, squares = self._sums / self.frames
        spread = np.sqrt(np.maximum(squares - np.square(mean), 1e-4))
        return np.concatenate((mean - np.add.reduce(mean) / GROUPS, np.log(spread)))


@lru_cache(maxsize=4)
def _means(bands: int) -> Floats:
    """``[bands, GROUPS]``: the mean of each group."""
    return np.repeat(np.eye(GROUPS), bands // GROUPS, axis=0) * (GROUPS / bands)
