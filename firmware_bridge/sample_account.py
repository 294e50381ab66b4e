"""Counts dropped samples exactly, from the sample index that the device counts at its converter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a link ended. The next link takes it and counts the gap between the two exactly."""

    clock_id: int
    next_index: int
    host_ns: int  # monotonic host clock when the last sample arrived


@dataclass(frozen=True, slots=True)
class Placement:
    """Position of a block in the stream."""

    lost_before: int  # samples dropped just before it
    skip: int  # leading samples that were received before: ignore them
    exact: bool  # False: the device's clock was restarted, lost_before is estimated by the host's clock


_FASTEST = 100.0  # times real time that a clock may run; emulated devices play faster than real ones
_SLACK_S = 60.0


class SampleAccount:
    """Compares the index of each block with the one expected next.

    An index that is further away than any clock can have run belongs to another count: faulty firmware, or another
    device on the line. The gap is then estimated by the host's clock, as after a restart.

    Parameters
    ----------
    resume
        Where the previous link ended, if there was one.
    """

    def __init__(self, resume: ResumePoint | None = None) -> None:
        self._last = resume
        self._rate_hz = 0.0
        self.received = 0
        self.missing = 0
        self.gaps = 0

    @property
    def resume_point(self) -> ResumePoint | None:
        """The current position; None before a clock is known."""
        return self._last

    def begin(self, clock_id: int, host_ns: int) -> None:
        """Note that our START started the clock: sample 0 comes next. No effect after the first audio."""
        if self._last is None:
            self._last = ResumePoint(clock_id, 0, host_ns)

    def place(self, index: int, count: int, clock_id: int, host_ns: int, rate_hz: float) -> Placement:
        """Account for ``count`` samples from ``index`` on that arrived at ``host_ns``."""
        last = self._last
        self._rate_hz = rate_hz
        missing, skip, exact = 0, 0, True
        continued = last is not None and last.clock_id == clock_id and self._plausible(index, host_ns)
        if last is not None and continued:
            missing = max(0, index - last.next_index)
            skip = min(count, max(0, last.next_index - index))
        elif last is not None:
            exact = False
            missing = max(0, round((host_ns - last.host_ns) * 1e-9 * rate_hz) - count)
        end = index + count
        if last is not None and continued:
            end = max(end, last.next_index)
        self._last = ResumePoint(clock_id, end, host_ns)
        self.received += count - skip
        self._count_gap(missing)
        return Placement(missing, skip, exact)

    def end(self, total: int, clock_id: int, host_ns: int | None = None) -> int:
        """Account for END, which gives the total number of samples; return how many at the end were dropped."""
        last = self._last
        if last is None or last.clock_id != clock_id:
            return 0
        if host_ns is not None and not self._plausible(total, host_ns):
            return 0
        missing = max(0, total - last.next_index)
        self._last = ResumePoint(clock_id, max(total, last.next_index), last.host_ns)
        self._count_gap(missing)
        return missing

    def _plausible(self, index: int, host_ns: int) -> bool:
        last = self._last
        if last is None or not self._rate_hz:
            return True
        longest_s = _FASTEST * (max(0, host_ns - last.host_ns) * 1e-9 + _SLACK_S)
        return abs(index - last.next_index) <= longest_s * self._rate_hz

    def _count_gap(self, missing: int) -> None:
        self.missing += missing
        self.gaps += missing > 0


class SequenceAccount:
    """Counts missing frames from the 16-bit sequence number, which wraps."""

    def __init__(self) -> None:
        self._next: int | None = None
        self.missing = 0

    def count(self, seq: int) -> int:
        """Account for a received frame; return how many frames just before it are missing."""
        gap = 0 if self._next is None else (seq - self._next) & 0xFFFF
        if gap >= 0x8000:  # an old frame again, or the device was restarted
            gap = 0
        self._next = (seq + 1) & 0xFFFF
        self.missing += gap
        return gap
