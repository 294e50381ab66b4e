"""The sample clock: seconds and other rates are derived from sample counts, without drift."""

from __future__ import annotations

from dataclasses import dataclass


def convert_index(index: int, from_rate: int, to_rate: int) -> int:
    """Map a sample index (or a count) from one rate to another, exact integer arithmetic, halves rounded up."""
    return (2 * index * to_rate + from_rate) // (2 * from_rate)


@dataclass(frozen=True, slots=True)
class SampleClock:
    """Sample indices at one rate against seconds and, for paced playback, against a host clock.

    A deadline is always computed from the start of the playback, never from the previous block: errors of single
    sleeps do not add up.
    """

    rate_hz: int  # samples per second of the source
    speed: float = 1.0  # of paced playback; 2 plays twice as fast
    start_ns: int = 0  # host clock when sample 0 was due

    def __post_init__(self) -> None:
        if self.rate_hz < 1:
            raise ValueError(f"rate_hz must be positive, got {self.rate_hz}")
        if not self.speed > 0:
            raise ValueError(f"speed must be positive, got {self.speed}")

    def seconds(self, index: int) -> float:
        """Seconds from sample 0 to sample ``index``."""
        return index / self.rate_hz

    def index(self, seconds: float) -> int:
        """Nearest sample index, halves rounded up."""
        return int((seconds * self.rate_hz + 0.5) // 1)

    def convert(self, index: int, to_rate: int) -> int:
        """Index of the same moment at ``to_rate``."""
        return convert_index(index, self.rate_hz, to_rate)

    def deadline_ns(self, index: int) -> int:
        """Host time at which a live source would have delivered everything before sample ``index``."""
        nanoseconds = index * 1_000_000_000 // self.rate_hz
        return self.start_ns + (nanoseconds if self.speed == 1.0 else round(nanoseconds / self.speed))
