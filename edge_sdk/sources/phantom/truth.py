"""Ground truth of a simulated patient, in samples of the source: cycles, adventitious sounds, disturbances."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

CycleLabel: TypeAlias = Literal["normal", "crackle", "wheeze", "both"]
EventKind: TypeAlias = Literal["fine-crackle", "coarse-crackle", "wheeze", "rhonchus", "apnoea", "talking", "handling"]


@dataclass(frozen=True, slots=True)
class TrueEvent:
    """Something audible, or an apnoea, in the samples ``[begin, end)``."""

    kind: EventKind
    begin: int  # first sample, source rate
    end: int  # one past the last sample
    sample_rate: int

    @property
    def begin_s(self) -> float:
        """Begin in seconds."""
        return self.begin / self.sample_rate

    @property
    def end_s(self) -> float:
        """End in seconds."""
        return self.end / self.sample_rate


@dataclass(frozen=True, slots=True)
class TrueCycle:
    """One synthesised cycle. The silent pause after the expiration belongs to no cycle."""

    index: int  # counts from 0
    onset: int  # first sample of the inspiration, source rate
    phase_change: int  # first sample of the expiration
    end: int  # one past the last sample of the expiration
    sample_rate: int
    label: CycleLabel
    adventitious: tuple[TrueEvent, ...] = field(default=())  # by begin

    @property
    def start_s(self) -> float:
        """Onset in seconds."""
        return self.onset / self.sample_rate

    @property
    def phase_change_s(self) -> float:
        """Begin of the expiration in seconds."""
        return self.phase_change / self.sample_rate

    @property
    def end_s(self) -> float:
        """End in seconds."""
        return self.end / self.sample_rate
