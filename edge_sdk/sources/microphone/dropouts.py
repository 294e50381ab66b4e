"""Detects samples that the audio system dropped silently: received frames against the host's clock.

Overflow flags do not help: behind PortAudio is a sound server that buffers seconds and raises none.
"""

from __future__ import annotations

_CONFIRM_NS = 1_000_000_000  # late audio arrives well within this time; what is still missing then was dropped
_DRIFT = 5e-4  # limit of the device's clock error against the host's; crystals keep within 1e-4
_UNFLAGGED_DROPOUT_S = 0.06  # smallest dropout detected without a flag; a sound server may change its latency by less
_FLAGGED_DROPOUT_S = 0.005
_FLAG_VALID_NS = 3_000_000_000


class DropoutMeter:
    """Distinguishes late samples from dropped ones, by the time and size of every delivery.

    A deficit of frames that lasts longer than a second is a dropout. Smaller dropouts add up until they are detected:
    the reference follows only as fast as a clock may drift.

    Parameters
    ----------
    sample_rate
        Nominal rate in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._begin_ns: int | None = None
        self._frames = 0  # received or already counted as dropped, since the first delivery
        self._reference = 0.0  # deficit explained by latency and drift
        self._reference_ns = 0
        self._short_since_ns: int | None = None
        self._least = 0.0  # smallest deficit since then
        self._flag_ns: int | None = None

    def accept(self, frames: int, now_ns: int, *, flagged: bool = False) -> int:
        """Count a delivery.

        Parameters
        ----------
        frames
            Frames in this delivery.
        now_ns
            Monotonic host clock.
        flagged
            The audio system reports an overflow, which may be false.

        Returns
        -------
        int
            Samples detected as dropped now, an estimate within the jitter of the deliveries; 0 almost always.
        """
        if self._begin_ns is None:
            self._begin_ns = self._reference_ns = now_ns
            return 0
        self._frames += frames
        if flagged:
            self._flag_ns = now_ns
        deficit = (now_ns - self._begin_ns) * self._rate / 1e9 - self._frames
        limit = self._reference + (now_ns - self._reference_ns) * self._rate * _DRIFT / 1e9
        self._reference, self._reference_ns = min(limit, deficit), now_ns
        if deficit - self._reference <= self._tolerance(now_ns):
            self._short_since_ns = None
            return 0
        if self._short_since_ns is None:
            self._short_since_ns, self._least = now_ns, deficit
        self._least = min(self._least, deficit)
        if now_ns - self._short_since_ns < _CONFIRM_NS:
            return 0
        dropped = max(0, round(self._least - self._reference))
        self._frames += dropped
        self._short_since_ns = None
        return dropped

    def _tolerance(self, now_ns: int) -> float:
        flagged = self._flag_ns is not None and now_ns - self._flag_ns < _FLAG_VALID_NS
        return (_FLAGGED_DROPOUT_S if flagged else _UNFLAGGED_DROPOUT_S) * self._rate
