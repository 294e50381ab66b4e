"""Says when there is sound, but no breath in it for long: speech, handling, a held breath."""

from __future__ import annotations

from edge_sdk.events import QualityEvent, QualityState


class BreathWatch:
    """Follows when the last breath was heard; times are source samples.

    Parameters
    ----------
    sample_rate
        Hz, of the source.
    after_s
        Sound without any breath for so long is ``not-breathing``.
    least_s
        A source that ends after no less than this without a single breath is told as well.
    """

    def __init__(self, sample_rate: int, after_s: float, least_s: float = 4.0) -> None:
        self._rate = sample_rate
        self._after, self._least = round(after_s * sample_rate), round(least_s * sample_rate)
        self.reset(0)

    def reset(self, begin: int) -> None:
        """Start over at source sample ``begin``."""
        self._base = self._last = begin
        self._told = self._any = False

    def breath(self, onset: int, end: int, level_dbfs: float) -> list[QualityEvent]:
        """A breath is final."""
        told, self._told, self._any = self._told, False, True
        self._last = max(self._last, end)
        return [QualityEvent(onset, self._rate, "ok", level_dbfs)] if told else []

    def heard(self, now: int, state: QualityState | None, level_dbfs: float) -> list[QualityEvent]:
        """The sound up to ``now`` has been looked at; ``state`` is what the quality gate says of it."""
        if state != "ok":  # the gate has a better reason
            self._last, self._told = now, False
            return []
        if self._told or now - self._last < self._after:
            return []
        self._told = True
        return [QualityEvent(self._last, self._rate, "not-breathing", level_dbfs)]

    def finish(self, now: int, state: QualityState | None, level_dbfs: float) -> list[QualityEvent]:
        """The source has ended at ``now``."""
        if self._any or self._told or state != "ok" or now - self._base < self._least:
            return []
        return [QualityEvent(self._base, self._rate, "not-breathing", level_dbfs)]
