"""Labels the respiratory cycles of a stream, from the samples that it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_sdk.events import BreathCycle, CycleResult
from edge_sdk.runtime.classifier import Classifier
from edge_sdk.runtime.quality import QualityGate
from edge_sdk.signal.ring import Ring

if TYPE_CHECKING:
    from edge_sdk.runtime.verdict.monitor import VerdictMonitor

_NO_BREATH = ("silence", "no-contact", "noisy")


class CycleLabeller:
    """Classifies the cycles of one stream whose quality allows it.

    Cycles are given with their begin and end in samples at the classifier's rate since the start or the last gap.

    Parameters
    ----------
    classifier
        Shared with other streams.
    metadata
        Of patient and device.
    ring
        The last samples at the classifier's rate; it may be ahead of ``received``.
    gate
        Which has measured them.
    verdict
        Takes each label as evidence, and joins it with what it finds itself; None: the classifier alone.

    Attributes
    ----------
    received
        Samples of the ring that count.
    classified, skipped
        Cycles with a label, and those that the machine was too slow for.
    inference_ns
        Time in the classifier.
    """

    def __init__(
        self,
        classifier: Classifier,
        metadata: dict[str, Any],
        ring: Ring,
        gate: QualityGate,
        verdict: VerdictMonitor | None,
    ) -> None:
        self._classifier, self._metadata, self._ring, self._gate = classifier, metadata, ring, gate
        self._verdict = verdict
        self._context = classifier.new_context()
        self._rate = classifier.front_end.rate_hz
        self.received = self.classified = self.skipped = self.inference_ns = 0

    def reset(self) -> None:
        """Start over after a gap; the counters go on."""
        self._context.reset()
        self.received = 0

    def is_no_breath(self, cycle: BreathCycle, begin: int, end: int) -> bool:
        """Whether the quality gate rules the cycle out: silence, hum or steady noise."""
        if not cycle.final:  # too short to measure: look back a second
            if self._gate.state in _NO_BREATH:
                return True
            begin = end - self._rate
        begin, end = max(begin, self._ring.start), min(end, self.received)
        if end <= begin:
            return False
        state, _ = self._gate.assess(self._ring.read(begin, end), begin, cycle.onset, cycle.end)
        if state == "clipping":
            return self._gate.is_steady(begin, end)
        return state == "silence" or (cycle.final and state in _NO_BREATH)

    def label(self, cycle: BreathCycle, begin: int, end: int, *, cut: bool, skip: bool) -> CycleResult:
        """Classify a final cycle; without a label where its quality or the machine does not allow it.

        Parameters
        ----------
        cycle, begin, end
            The cycle.
        cut
            A gap makes its end uncertain.
        skip
            The machine is too slow to classify it.
        """
        if cut:
            return CycleResult(cycle, None, quality="gap")
        begin, end = max(begin, self._ring.start), min(end, self.received)
        if end <= begin:
            return CycleResult(cycle, None, quality="too-short")
        pcm = self._ring.read(begin, end)
        quality, _ = self._gate.assess(pcm, begin, cycle.onset, cycle.end)
        if quality != "ok":
            return CycleResult(cycle, None, quality=quality)
        if skip:
            self.skipped += 1
            return CycleResult(cycle, None, quality="overload")
        result = self._classifier.classify_cycle(pcm, self._metadata, self._context)
        self.classified += 1
        self.inference_ns += result.elapsed_ns
        if self._verdict is not None:
            span_s = (begin / self._rate, end / self._rate)
            result = self._verdict.labelled(result, self._classifier.normal_label, span_s)
        return CycleResult(cycle, result.label, result.probabilities)
