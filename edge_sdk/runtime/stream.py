"""A stream: samples of one source in, events out; the only place that holds state between two blocks."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import AudioError, StreamError
from edge_sdk.events import AudioBlock, BreathCycle, CycleResult, Event, Gap, QualityEvent, StreamStats
from edge_sdk.metadata import FIELDS as METADATA_FIELDS
from edge_sdk.runtime.breath_watch import BreathWatch
from edge_sdk.runtime.classifier import classify_cycle
from edge_sdk.runtime.quality import QualityGate
from edge_sdk.signal.blocks import Reblocker
from edge_sdk.signal.clock import convert_index
from edge_sdk.signal.low_latency_resample import LowDelayResampler
from edge_sdk.signal.resample import StreamResampler
from edge_sdk.signal.ring import Ring

if TYPE_CHECKING:
    from edge_sdk.protocols import Segmenter
    from edge_sdk.runtime.bundle.load import Bundle

HOP_S = 0.02
"""Everything is computed in hops of this length at the source's rate, so that block sizes change nothing."""

_RING_S = 20.0  # longer than the longest breath and its delays
_NO_BREATH = ("silence", "no-contact", "noisy")


Samples = npt.NDArray[np.float32]


class Stream:
    """Finds and labels the breaths of one source. Made by :meth:`Bundle.stream`; not thread-safe.

    Parameters
    ----------
    bundle
        Shared and never changed.
    sample_rate
        Hz, of the source.
    metadata
        What is known of patient and device.

    Raises
    ------
    StreamError
        The rate is not positive, or ``metadata`` has an unknown key.
    """

    def __init__(self, bundle: Bundle, sample_rate: int, metadata: Mapping[str, Any] | None = None) -> None:
        if sample_rate < 1:
            raise StreamError(f"a stream needs a positive sample rate, got {sample_rate}")
        unknown = sorted(set(metadata or {}) - set(METADATA_FIELDS))
        if unknown:
            raise StreamError(f"unknown metadata {', '.join(unknown)}; known: {', '.join(METADATA_FIELDS)}")
        self.bundle = bundle
        self.sample_rate = sample_rate
        self.metadata = dict(metadata or {})
        self._hop = max(1, round(HOP_S * sample_rate))
        self._model_rate = bundle.front_end.rate_hz
        self._to_model = StreamResampler(sample_rate, self._model_rate)
        self._ring = Ring(round(_RING_S * self._model_rate))
        self._segmenter: Segmenter = bundle.segmenter.new()
        self._blur = bundle.segmenter.blur_s * sample_rate
        self._learned = bundle.segmenter.kind == "learned"
        own_rate = self._segmenter.sample_rate
        self._to_segmenter: LowDelayResampler | StreamResampler | None = None
        if self._learned and sample_rate != own_rate:  # an onset must be told before soxr lets go of its sound
            self._to_segmenter = LowDelayResampler(sample_rate, own_rate)
        elif own_rate != self._model_rate:
            self._to_segmenter = StreamResampler(sample_rate, own_rate)
        # Hops that end when the resampler gives out what a step of the segmenter needs: an onset waits for nothing.
        ahead = self._to_segmenter.delay_samples if isinstance(self._to_segmenter, LowDelayResampler) else 0
        self._blocks = Reblocker(self._hop, ahead % self._hop)
        self._watch = BreathWatch(sample_rate, bundle.quality_params.breathless_s)
        self._gate = QualityGate(sample_rate, self._model_rate, bundle.quality_params)
        self._first: int | None = None  # source index of the first sample ever
        self._next = 0  # source index of the next sample expected
        self._base = 0  # source index of the first sample since the start or the last gap
        self._done = 0  # source index up to which hops have been computed
        self._found: list[BreathCycle] = []  # what the segmenter said, not passed on yet
        self._unjudged: deque[tuple[BreathCycle, int, int]] = deque()  # final; samples still in the resampler
        self._finished = False
        self._samples_in = self._lost = self._gaps = self._cycles = self._classified = self._inference_ns = 0
        self._skipped = 0
        self.skip_classification = False  # the session's way out when the machine is too slow

    @property
    def stats(self) -> StreamStats:
        """Counters so far."""
        return StreamStats(
            self._samples_in, self._lost, self._gaps, self._cycles, self._classified, self._inference_ns, self._skipped
        )

    @property
    def hop_samples(self) -> int:
        """Samples of one step of computation."""
        return self._hop

    def accept(self, block: AudioBlock | npt.NDArray[np.floating[Any]]) -> list[Event]:
        """Take the next samples and return the events they determine.

        Parameters
        ----------
        block
            A block of any length; a plain ``[n]`` float array follows on what came before.

        Raises
        ------
        StreamError
            After :meth:`finish`; another sample rate; time ran backwards. The stream is unchanged.
        AudioError
            Samples that are NaN or infinite, no floats, or of several channels. The stream is unchanged.
        EngineError
            The engine failed.
        """
        if self._finished:
            raise StreamError("this stream is finished; make a new one with bundle.stream()")
        if not isinstance(block, AudioBlock):
            block = AudioBlock(block, self.sample_rate, self._next)
        samples = self._checked(block)
        events: list[Event] = []
        self._place(block, events)
        self._samples_in += samples.size
        self._next += samples.size
        for hop in self._blocks.accept(samples):
            self._step(hop, events)
        return events

    def finish(self) -> list[Event]:
        """The source has ended: return what is left, the open breath included. A second call returns nothing."""
        if self._finished:
            return []
        self._finished = True
        events: list[Event] = []
        self._close_segment(events, gap=False)
        heard = self._samples_in + self._lost
        if heard < self.bundle.shortest_s * self.sample_rate:
            level = next((e.level_dbfs for e in events if isinstance(e, QualityEvent)), -140.0)
            events = [e for e in events if not isinstance(e, QualityEvent)]
            events.insert(0, QualityEvent(self._base, self.sample_rate, "too-short", level))
        return events

    # -- time ----------------------------------------------------------------------------------------------------------

    def _checked(self, block: AudioBlock) -> Samples:
        samples = np.asarray(block.samples)
        if block.sample_rate != self.sample_rate:
            raise StreamError(
                f"a block at {block.sample_rate} Hz on a stream at {self.sample_rate} Hz; make a stream for each rate"
            )
        if samples.ndim != 1 or samples.dtype.kind != "f":
            raise AudioError(
                f"a block must be [n] floats of one channel in ±1, got {samples.dtype} {list(samples.shape)}; "
                "choose a channel and divide integers by their full scale"
            )
        samples = samples.astype(np.float32, copy=False)
        if not np.isfinite(samples.sum(dtype=np.float64)):
            finite = np.isfinite(samples)
            if not finite.all():
                at = block.first_sample + int(np.argmin(finite))
                raise AudioError(f"sample {at} is NaN or infinite; repair the source, or leave the block out as lost")
        if self._first is not None and block.first_sample < self._next:
            raise StreamError(
                f"time ran backwards: a block begins at sample {block.first_sample}, expected {self._next}"
            )
        if self._first is not None and 0 < block.lost_before != block.first_sample - self._next:
            raise StreamError(
                f"a block says that {block.lost_before} samples were lost before it, "
                f"its first sample says {block.first_sample - self._next}; count both on the source's clock"
            )
        return samples

    def _place(self, block: AudioBlock, events: list[Event]) -> None:
        if self._first is None:
            begin = block.first_sample - block.lost_before
            self._first = self._next = begin
            self._restart(begin)
        lost = block.first_sample - self._next
        if lost == 0:
            return
        gap = Gap(self._next, lost, self.sample_rate)
        events.append(gap)
        self._gaps += 1
        self._lost += lost
        self._close_segment(events, gap=True)
        self._next += lost
        self._restart(self._next)

    def _restart(self, base: int) -> None:
        self._base = self._done = base
        self._ring.reset()
        self._segmenter.reset()
        self._gate.reset(base)
        self._watch.reset(base)

    def _close_segment(self, events: list[Event], *, gap: bool) -> None:
        """Flush everything up to the last sample heard; the breath that is still open ends with it."""
        rest = self._blocks.flush()
        self._done += rest.size
        model = np.concatenate((self._to_model.accept(rest), self._to_model.flush()))
        own = self._to_segmenter
        heard = model if own is None else np.concatenate((own.accept(rest), own.flush()))
        self._ring.append(model)
        quality = self._gate.accept(rest, self._done - rest.size, model)
        found = [*self._segmenter.accept(heard), *self._segmenter.finish(cut=gap)]
        events.extend([*quality, *self._gate.finish()])
        self._found.extend(found)
        self._release(events, cut_by_gap=gap, everything=True)
        if self._learned and not gap:
            events.extend(self._watch.finish(self._done, self._gate.state, self._gate.level_dbfs))

    # -- sound ---------------------------------------------------------------------------------------------------------

    def _step(self, hop: Samples, events: list[Event]) -> None:
        begin = self._done
        self._done += hop.size
        model = self._to_model.accept(hop)
        self._ring.append(model)
        heard = model if self._to_segmenter is None else self._to_segmenter.accept(hop)
        events.extend(self._gate.accept(hop, begin, model))
        self._found.extend(self._segmenter.accept(heard))
        if self._found or self._unjudged:
            self._release(events)
        if self._learned:
            events.extend(self._watch.heard(self._done, self._gate.state, self._gate.level_dbfs))

    def _release(self, events: list[Event], *, cut_by_gap: bool = False, everything: bool = False) -> None:
        """Pass on what was found, and judge the final cycles whose samples are all there."""
        rate = self._segmenter.sample_rate
        for found in self._found:
            begin, end = (convert_index(i, rate, self._model_rate) for i in (found.onset, found.end))
            cycle = self._on_source_clock(found)
            if self._learned and self._is_no_breath(cycle, begin, end):
                continue
            if self._learned and cycle.final:
                events.extend(self._watch.breath(cycle.onset, cycle.end, self._gate.level_dbfs))
            events.append(cycle)
            if cycle.final:
                self._cycles += 1
                self._unjudged.append((cycle, begin, end))
        self._found.clear()
        while self._unjudged and (everything or self._unjudged[0][2] <= self._ring.end):
            cycle, begin, end = self._unjudged.popleft()
            events.append(self._judge(cycle, begin, end, cut_by_gap=cut_by_gap))

    def _is_no_breath(self, cycle: BreathCycle, begin: int, end: int) -> bool:
        """Where the gate hears silence, hum or steady noise, a network that hears a breath is wrong."""
        if not cycle.final:  # too short to judge: look back a second
            if self._gate.state in _NO_BREATH:
                return True
            begin = end - self._model_rate
        begin, end = max(begin, self._ring.start), min(end, self._ring.end)
        if end <= begin:
            return False
        pcm = self._ring.read(begin, end)
        state, _ = self._gate.verdict(pcm, cycle.onset, cycle.end)
        if state == "clipping":
            return self._gate.is_steady(pcm)
        return state == "silence" or (cycle.final and state in _NO_BREATH)

    def _on_source_clock(self, found: BreathCycle) -> BreathCycle:
        def at(index: int) -> int:
            return min(self._base + convert_index(index, found.sample_rate, self.sample_rate), self._done)

        onset = at(found.onset)
        return replace(
            found,
            index=self._cycles,
            onset=onset,
            end=max(at(found.end), onset + 1),
            phase_change=None if found.phase_change is None else at(found.phase_change),
            sample_rate=self.sample_rate,
            emitted_at=self._done,
        )

    def _judge(self, cycle: BreathCycle, begin: int, end: int, *, cut_by_gap: bool) -> CycleResult:
        if cut_by_gap and cycle.end > self._done - self._blur:
            # Its end is not told from its sound: the level is smoothed over what the gap swallowed.
            return CycleResult(cycle, None, quality="gap")
        begin = max(begin, self._ring.start)
        end = min(end, self._ring.end)
        if end <= begin:
            return CycleResult(cycle, None, quality="too-short")
        pcm = self._ring.read(begin, end)
        quality, _ = self._gate.verdict(pcm, cycle.onset, cycle.end)
        if quality != "ok":
            return CycleResult(cycle, None, quality=quality)
        if self.skip_classification:
            self._skipped += 1
            return CycleResult(cycle, None, quality="overload")
        answer = classify_cycle(self.bundle, pcm, self.metadata)
        self._classified += 1
        self._inference_ns += answer.elapsed_ns
        return CycleResult(cycle, answer.label, answer.probabilities)
