"""What feeds a segmenter: the samples of a source, at the segmenter's rate, in ticks."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_sdk.events import BreathCycle
from edge_sdk.runtime.segmentation.factory import LearnedFactory
from edge_sdk.runtime.segmentation.network import LearnedSegmenter
from edge_sdk.signal.blocks import Reblocker
from edge_sdk.signal.low_latency_resample import LowLatencyResampler
from edge_sdk.signal.resample import StreamResampler

if TYPE_CHECKING:
    from edge_sdk.protocols import Segmenter
    from edge_sdk.runtime.segmentation.factory import SegmenterFactory

_HOP_S = 0.02  # where the segmenter has no network, which would set the step

Samples = npt.NDArray[np.float32]


class SegmenterFeed:
    """A segmenter and the resampler before it.

    Parameters
    ----------
    factory
        Makes the segmenter.
    sample_rate
        Hz, of the source.
    offline
        See :meth:`~edge_sdk.runtime.bundle.load.Bundle.stream`.
    """

    def __init__(self, factory: SegmenterFactory, sample_rate: int, *, offline: bool) -> None:
        self.segmenter: Segmenter = factory.new(offline=offline)
        self.steps = self.segmenter if isinstance(self.segmenter, LearnedSegmenter) else None
        """The segmenter, where its steps can run with those of other streams."""

        self._rate = sample_rate
        self._first = factory.model.settings.first_samples if isinstance(factory, LearnedFactory) else None
        own_rate = self.segmenter.sample_rate
        self.resampler: LowLatencyResampler | StreamResampler | None = None  # None: both rates are equal
        if sample_rate != own_rate:  # soxr would delay the onsets of a learned segmenter by 0.2 s and more
            kind = StreamResampler if self._first is None else LowLatencyResampler
            self.resampler = kind(sample_rate, own_rate)
        self.reset()

    def reset(self) -> None:
        """Start over."""
        self.segmenter.reset()
        self._found: list[BreathCycle] = []
        self._ends: list[int] = []  # of the ticks that were held last, in the segmenter's samples
        self._received = 0  # samples that came by another way than the low-latency resampler

    def ticks(self) -> Reblocker:
        """All computation of a stream runs in ticks, so that block sizes change nothing.

        A tick is a step of the learned segmenter, and ends where the resampler completes the input of a step, so that
        no onset waits for it.
        """
        if self._first is None:
            return Reblocker(max(1, round(_HOP_S * self._rate)))
        delay = self.resampler.delay_samples if isinstance(self.resampler, LowLatencyResampler) else 0
        rate = Fraction(self._rate, self.segmenter.sample_rate)
        tick = self.segmenter.hop_samples * rate
        return Reblocker(tick, math.ceil(self._first * rate + delay) % math.ceil(tick))

    def hold(self, ticks: Sequence[Samples]) -> None:
        """Take ticks of the source, which :meth:`found` computes."""
        own = self.resampler
        if len(ticks) == 1:  # live
            samples = ticks[0] if own is None else own.accept(ticks[0])
            self._received += samples.size
            self._ends = [self._received]
        elif isinstance(own, LowLatencyResampler):
            consumed = [*accumulate((tick.size for tick in ticks), initial=own.consumed)][1:]
            samples = own.accept(np.concatenate(ticks))
            self._ends = [own.ready(count) for count in consumed]
        else:
            parts = ticks if own is None else [own.accept(tick) for tick in ticks]
            samples = np.concatenate(parts)
            self._ends = [*accumulate((part.size for part in parts), initial=self._received)][1:]
            self._received = self._ends[-1]
        if self.steps is None:
            self._found = [*self.segmenter.accept(samples)]
        else:
            self.steps.hold(samples)

    def found(self) -> list[list[BreathCycle]]:
        """Cycles emitted in each tick that was held last."""
        if self.steps is not None:
            self._found = self.steps.found()
        found, self._found = self._found, []
        if len(self._ends) == 1:
            return [found]
        following = deque(found)
        each: list[list[BreathCycle]] = []
        for end in self._ends:
            each.append([])
            while following and following[0].emitted_at <= end:
                each[-1].append(following.popleft())
        each[-1] += following  # nothing is lost, whatever a segmenter says of its time
        return each

    def finish(self, rest: Samples, *, cut: bool) -> list[BreathCycle]:
        """Take the last samples, which fill no tick; return the cycles that are not emitted yet."""
        own = self.resampler
        samples = rest if own is None else np.concatenate((own.accept(rest), own.flush()))
        return [*self.segmenter.accept(samples), *self.segmenter.finish(cut=cut)]
