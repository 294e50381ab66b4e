"""True cycles of a simulated patient, to compare the labels with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Protocol

from edge_sdk.events import BreathCycle, CycleResult


class LabelledCycle(Protocol):
    """A true cycle: the simulated patient's :class:`~edge_sdk.sources.phantom.TrueCycle`, or any hashable like it."""

    @property
    def start_s(self) -> float:
        """Onset in seconds."""

    @property
    def end_s(self) -> float:
        """End in seconds."""

    @property
    def label(self) -> str:
        """True label."""


class Truth:
    """Finds the true cycle that an event overlaps most, and counts correct labels.

    Parameters
    ----------
    cycles
        In order of time. May be longer than what is played.
    normal
        The label that is not abnormal.
    """

    def __init__(self, cycles: Iterable[LabelledCycle], *, normal: str) -> None:
        self._cycles = tuple(cycles)
        self._normal = normal
        self._found: set[LabelledCycle] = set()
        self._labelled = 0
        self._agree = 0
        self._agree_abnormal = 0

    def label_of(self, cycle: BreathCycle) -> str | None:
        """Label of the true cycle with the largest overlap; None where there was no cycle at all."""
        true = self._match(cycle)
        return true.label if true is not None else None

    def score(self, result: CycleResult) -> None:
        """Compare one result with the truth."""
        true = self._match(result.cycle)
        if true is None:
            return
        self._found.add(true)
        if result.label is not None:
            self._labelled += 1
            self._agree += result.label == true.label
            self._agree_abnormal += (result.label == self._normal) == (true.label == self._normal)

    def record(self, duration_s: float) -> dict[str, Any]:
        """Count the true cycles that ended within ``duration_s``, and how many were found and labelled correctly."""
        played = [cycle for cycle in self._cycles if cycle.end_s <= duration_s + 1e-6]
        return {
            "cycles": len(played),
            "counts": dict(sorted(Counter(cycle.label for cycle in played).items())),
            "found": len(self._found),
            "answered": self._labelled,
            "same_label": self._agree,
            "same_normal_or_abnormal": self._agree_abnormal,
        }

    def _match(self, cycle: BreathCycle) -> LabelledCycle | None:
        best, best_overlap_s = None, 0.0
        for true in self._cycles:
            overlap_s = min(cycle.end_s, true.end_s) - max(cycle.start_s, true.start_s)
            if overlap_s > best_overlap_s:
                best, best_overlap_s = true, overlap_s
        return best
