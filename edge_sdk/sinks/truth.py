"""What is known beforehand of a simulated patient's breaths, to stand beside the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edge_sdk.events import BreathCycle, CycleResult


@dataclass(frozen=True, slots=True)
class TrueBreath:
    """One breath as it really was."""

    start_s: float
    end_s: float
    label: str


class Truth:
    """Finds the true breath that an event overlaps most, and keeps the score.

    Parameters
    ----------
    breaths
        In order of time. May be a longer list than is played.
    normal
        The label that is not abnormal.
    """

    def __init__(self, breaths: Iterable[TrueBreath], *, normal: str) -> None:
        self._breaths = tuple(breaths)
        self._normal = normal
        self._found: set[TrueBreath] = set()
        self._answered = 0
        self._agree = 0
        self._agree_abnormal = 0

    def label_of(self, cycle: BreathCycle) -> str | None:
        """Label of the true breath with the largest overlap; None where there was no breath at all."""
        breath = self._match(cycle)
        return breath.label if breath is not None else None

    def score(self, result: CycleResult) -> None:
        """Count one answer against the truth."""
        breath = self._match(result.cycle)
        if breath is None:
            return
        self._found.add(breath)
        if result.label is not None:
            self._answered += 1
            self._agree += result.label == breath.label
            self._agree_abnormal += (result.label == self._normal) == (breath.label == self._normal)

    def record(self, duration_s: float) -> dict[str, Any]:
        """True breaths that ended within ``duration_s``, and how many were found and named rightly."""
        played = [breath for breath in self._breaths if breath.end_s <= duration_s + 1e-6]
        return {
            "cycles": len(played),
            "counts": dict(sorted(Counter(breath.label for breath in played).items())),
            "found": len(self._found),
            "answered": self._answered,
            "same_label": self._agree,
            "same_normal_or_abnormal": self._agree_abnormal,
        }

    def _match(self, cycle: BreathCycle) -> TrueBreath | None:
        best, best_overlap_s = None, 0.0
        for breath in self._breaths:
            overlap_s = min(cycle.end_s, breath.end_s) - max(cycle.start_s, breath.start_s)
            if overlap_s > best_overlap_s:
                best, best_overlap_s = breath, overlap_s
        return best
