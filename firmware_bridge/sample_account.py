"""Which samples never came: exact, from the sample index that the device counts at its converter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a link was when it broke; hand it to the next one and the gap between them is known to the sample."""

    clock_id: int
    next_index: int
    host_ns: int  # monotonic host clock when the last sample came


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a block belongs."""

    lost_before: int  # samples that never came, just before it
    skip: int  # leading samples that have come already: pass over them
    exact: bool  # False: the device's clock restarted, the loss is the host's estimate


class SampleAccount:
    """Compares each block's index with the one expected next.

    Parameters
    ----------
    resume
        Where the link before this one ended, if there was one.
    """

    def __init__(self, resume: ResumePoint | None = None) -> None:
        self._last = resume
        self.received = 0
        self.lost = 0
        self.gaps = 0

    @property
    def resume_point(self) -> ResumePoint | None:
        """None before a clock is known."""
        return self._last

    def begin(self, clock_id: int, host_ns: int) -> None:
        """A clock has started at our word: sample 0 is due. Without effect once there has been audio."""
        if self._last is None:
            self._last = ResumePoint(clock_id, 0, host_ns)

    def place(self, index: int, count: int, clock_id: int, host_ns: int, rate_hz: float) -> Placement:
        """Account for ``count`` samples from ``index`` on, arrived at ``host_ns``."""
        last = self._last
        lost, skip, exact = 0, 0, True
        if last is not None and last.clock_id == clock_id:
            lost = max(0, index - last.next_index)
            skip = min(count, max(0, last.next_index - index))
        elif last is not None:
            exact = False
            lost = max(0, round((host_ns - last.host_ns) * 1e-9 * rate_hz) - count)
        end = index + count
        if last is not None and last.clock_id == clock_id:
            end = max(end, last.next_index)
        self._last = ResumePoint(clock_id, end, host_ns)
        self.received += count - skip
        self._note(lost)
        return Placement(lost, skip, exact)

    def end(self, total: int, clock_id: int) -> int:
        """The device says how many samples there were; how many of the last ones never came."""
        last = self._last
        if last is None or last.clock_id != clock_id:
            return 0
        lost = max(0, total - last.next_index)
        self._last = ResumePoint(clock_id, max(total, last.next_index), last.host_ns)
        self._note(lost)
        return lost

    def _note(self, lost: int) -> None:
        self.lost += lost
        self.gaps += lost > 0


class SequenceAccount:
    """Counts frames that never came, from the 16-bit sequence number; wraps."""

    def __init__(self) -> None:
        self._next: int | None = None
        self.missing = 0

    def see(self, seq: int) -> int:
        """Frames missing just before this one."""
        gap = 0 if self._next is None else (seq - self._next) & 0xFFFF
        if gap >= 0x8000:  # an old frame again, or the device restarted
            gap = 0
        self._next = (seq + 1) & 0xFFFF
        self.missing += gap
        return gap
