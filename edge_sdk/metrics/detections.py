"""Cycles that a stream found in one recording, collected from its events for scoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_sdk.events import BreathCycle, CycleResult, Event
from edge_sdk.metrics.events import Announcement
from edge_sdk.signal.breathing_rate import RateMeter

_FAR_S = 0.5  # a final cycle whose onset is farther from the announced one is another cycle


@dataclass
class DetectedCycles:
    """Final cycles, labels and announced onsets of one stream.

    A provisional onset that no final cycle follows counts as withdrawn.
    """

    cycles: list[BreathCycle] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    announcements: list[Announcement] = field(default_factory=list)
    probabilities: list[Mapping[str, float]] = field(default_factory=list)
    _open: BreathCycle | None = None

    def event(self, event: Event) -> None:
        """Add the next event of the stream."""
        if isinstance(event, CycleResult):
            self.labels.append(event.label)
            self.probabilities.append(event.probabilities)
        elif isinstance(event, BreathCycle):
            self._final(event) if event.final else self._provisional(event)

    def finish(self) -> DetectedCycles:
        """End of the stream: an onset that is still open counts as withdrawn."""
        self._withdraw()
        return self

    def _provisional(self, cycle: BreathCycle) -> None:
        self._withdraw()
        self._open = cycle

    def _withdraw(self) -> None:
        if self._open is not None:
            self.announcements.append(_announcement(self._open, None))
            self._open = None

    def _final(self, cycle: BreathCycle) -> None:
        announced = self._open
        if announced is None or abs(announced.start_s - cycle.start_s) > _FAR_S:
            self._withdraw()
            announced = cycle
        self._open = None
        self.cycles.append(cycle)
        self.announcements.append(_announcement(announced, cycle.start_s))

    @property
    def spans(self) -> npt.NDArray[np.float64]:
        """Begin and end of the final cycles, ``[n, 2]`` in seconds."""
        return np.array([(c.start_s, c.end_s) for c in self.cycles], dtype=np.float64).reshape(-1, 2)

    @property
    def audible(self) -> npt.NDArray[np.float64]:
        """Audible span of each final cycle, ``[n, 2]`` in seconds; of one without, the cycle itself."""
        rows = [
            (c.start_s, c.end_s) if c.audible is None else (c.audible[0] / c.sample_rate, c.audible[1] / c.sample_rate)
            for c in self.cycles
        ]
        return np.array(rows, dtype=np.float64).reshape(-1, 2)

    @property
    def phases(self) -> dict[str, npt.NDArray[np.float64]]:
        """Inspirations and expirations, ``[k, 2]`` in seconds, of the cycles with a known change of phase."""
        rows = [(c.start_s, c.phase_change / c.sample_rate, c.end_s) for c in self.cycles if c.phase_change is not None]
        table = np.array(rows, dtype=np.float64).reshape(-1, 3)
        return {"inspiration": table[:, :2], "expiration": table[:, 1:]}

    @property
    def rate(self) -> RateMeter:
        """The respiratory rate of the cycles, as the summary of a stream without gaps states it."""
        meter = RateMeter()
        for cycle in self.cycles:
            meter.cycle(cycle)
        return meter


def _announcement(cycle: BreathCycle, final_onset_s: float | None) -> Announcement:
    return Announcement(cycle.start_s, cycle.emitted_at / cycle.sample_rate, final_onset_s)
