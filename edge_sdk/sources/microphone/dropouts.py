"""Sound that an audio system lost without a word: frames received against the host's clock.

Overflow flags are no help: behind PortAudio sits a sound server that buffers seconds and raises none.
"""

from __future__ import annotations

_CONFIRM_NS = 1_000_000_000  # a delay of delivery is made up well before that; what is not made up is lost
_DRIFT = 5e-4  # of the device's clock against the host's, at most; crystals keep within 1e-4
_SILENT_LOSS_S = 0.06  # missing sound that is noticed without any flag; a sound server may shift its latency by less
_FLAGGED_LOSS_S = 0.005
_FLAG_COUNTS_NS = 3_000_000_000


class LossMeter:
    """Tells delayed sound from lost sound, from the time and size of every delivery.

    A deficit of frames that is still there after a second is a loss. Smaller losses add up until they are noticed:
    the reference follows only as fast as a clock may drift.

    Parameters
    ----------
    sample_rate
        Hz, nominal.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._begin_ns: int | None = None
        self._frames = 0  # received or already counted as lost, since the first delivery
        self._reference = 0.0  # deficit that means nothing: latency and drift
        self._reference_ns = 0
        self._short_since_ns: int | None = None
        self._least = 0.0  # smallest deficit since then
        self._flag_ns: int | None = None

    def accept(self, frames: int, now_ns: int, *, flagged: bool = False) -> int:
        """Count a delivery.

        Parameters
        ----------
        frames
            Delivered just now.
        now_ns
            Monotonic host clock.
        flagged
            The audio system says that it lost something; it need not be true.

        Returns
        -------
        int
            Samples now known to be lost, an estimate within the jitter of the deliveries; 0 almost always.
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
        lost = max(0, round(self._least - self._reference))
        self._frames += lost
        self._short_since_ns = None
        return lost

    def _tolerance(self, now_ns: int) -> float:
        flagged = self._flag_ns is not None and now_ns - self._flag_ns < _FLAG_COUNTS_NS
        return (_FLAGGED_LOSS_S if flagged else _SILENT_LOSS_S) * self._rate
