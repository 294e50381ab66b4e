"""A stream: samples of one source in, events out; the only place that holds state between two blocks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import StreamError
from edge_sdk.events import AudioBlock, BreathCycle, Event, Gap, QualityEvent, StreamStats
from edge_sdk.metadata import checked_metadata
from edge_sdk.runtime.classifier import Classifier
from edge_sdk.runtime.labeller import CycleLabeller
from edge_sdk.runtime.quality import NotBreathingMonitor, QualityGate, QualityParams
from edge_sdk.runtime.segmenter_feed import SegmenterFeed
from edge_sdk.signal.checks import band_notes, checked_block, checked_samples
from edge_sdk.signal.clock import convert_index
from edge_sdk.signal.resample import StreamResampler
from edge_sdk.signal.ring import Ring

if TYPE_CHECKING:
    from edge_sdk.runtime.engines.stepping import Stepping
    from edge_sdk.runtime.segmentation.factory import SegmenterFactory
    from edge_sdk.runtime.verdict.monitor import Evidence, VerdictModel

_OFFLINE_TICKS = 64  # of a file are computed at once,
_OFFLINE_S = 6.0  # and last no longer than this
_TICKS_BEHIND = 5  # after so many the stages that find no breath follow: a step of the verdict's network in all bundles
_RING_S = 20.0  # longer than the longest cycle and its delays


Samples = npt.NDArray[np.float32]


class _Held(NamedTuple):
    """Ticks for the stages behind the segmenter, and the samples of each at the rates of classifier and verdict."""

    ticks: list[Samples]
    models: list[Samples]
    sounds: list[int]  # how many


class Stream:
    """Segments and classifies the respiratory cycles of one source. Made by :meth:`Bundle.stream`; not thread-safe.

    Parameters
    ----------
    classifier, segmenter_factory
        Shared with other streams and never changed.
    quality
        Settings of the quality gate.
    sample_rate
        Hz, of the source.
    metadata
        Of patient and device: ``site``, ``device``, ``age_years``, ``sex``, ``bmi``.
    verdict
        Finds adventitious sounds and gives verdicts; None: such events are not emitted.
    offline
        The samples are a file's: some seconds are computed at once, in about half the time. The events are the same,
        up to rounding, and come later.

    Raises
    ------
    StreamError
        The rate is not positive, or ``metadata`` has an unknown key or value.
    AudioError
        The rate is too low for the front end.

    Attributes
    ----------
    notes
        Lines for people: ``band-limited`` where the rate fills a part of the front end's band only.
    """

    def __init__(
        self,
        classifier: Classifier,
        segmenter_factory: SegmenterFactory,
        quality: QualityParams,
        sample_rate: int,
        metadata: Mapping[str, Any] | None = None,
        verdict: VerdictModel | None = None,
        *,
        offline: bool = False,
    ) -> None:
        if sample_rate < 1:
            raise StreamError(f"a stream needs a positive sample rate, got {sample_rate}")
        self.notes = band_notes(classifier.front_end, sample_rate)
        try:
            self.metadata = checked_metadata(metadata or {}, classifier.metadata_schema)
        except ValueError as error:
            raise StreamError(str(error)) from error
        self.classifier = classifier
        self.sample_rate = sample_rate
        self._model_rate = classifier.front_end.rate_hz
        self._to_model = StreamResampler(sample_rate, self._model_rate)
        self._ring = Ring(round((_RING_S + _OFFLINE_S * offline) * self._model_rate))
        self._feed = SegmenterFeed(segmenter_factory, sample_rate, offline=offline)
        self._blur = segmenter_factory.blur_s * sample_rate
        self._shortest_s = segmenter_factory.params.shortest_s
        self._learned = segmenter_factory.kind == "learned"
        self._blocks = self._feed.ticks()
        self._at_once = _OFFLINE_TICKS if offline and self._learned else 1
        self._waiting: list[Samples] = []  # ticks, until so many are there
        self._behind: list[Samples] = []  # ticks that the segmenter has had, and the stages behind it have not
        self._held: _Held | None = None
        self._new: list[list[BreathCycle]] = []  # that the segmenter found in each of the last ticks
        self._verdict = None if verdict is None else verdict.monitor(sample_rate, offline=offline)
        self._to_verdict: StreamResampler | None = None
        if verdict is not None and verdict.rate_hz != self._model_rate:
            self._to_verdict = StreamResampler(sample_rate, verdict.rate_hz)
        self._monitor = NotBreathingMonitor(sample_rate, quality.breathless_s)
        self._gate = QualityGate(sample_rate, self._model_rate, quality)
        self._labeller = CycleLabeller(classifier, self.metadata, self._ring, self._gate, self._verdict)
        self._first: int | None = None  # source index of the first sample ever
        self._next = 0  # source index of the next sample expected
        self._base = 0  # source index of the first sample since the start or the last gap
        self._done = 0  # source index up to which ticks have been computed
        self._found: list[BreathCycle] = []  # emitted by the segmenter, not released yet
        self._unclassified: deque[tuple[BreathCycle, int, int]] = deque()  # final; samples still in the resampler
        self._finished = False
        self._samples_in = self._lost = self._gaps = self._cycles = 0
        self._in_fragments = False  # the last quality emitted is ``gap``
        self.skip_classification = False  # set by the session when the machine is too slow

    @property
    def stats(self) -> StreamStats:
        """Counters and notes so far."""
        labels = self._labeller
        counters = (self._samples_in, self._lost, self._gaps, self._cycles, labels.classified, labels.inference_ns)
        return StreamStats(*counters, labels.skipped, self.notes)

    @property
    def evidence(self) -> Evidence | None:
        """Evidence of the verdict so far; None where the bundle gives none."""
        return None if self._verdict is None else self._verdict.evidence

    def accept(self, block: AudioBlock | npt.NDArray[np.floating[Any]]) -> list[Event]:
        """Take the next samples and return the events they determine.

        Cycles and their labels come at once; quality, sounds and verdicts up to 0.4 s later than the time they bear.

        Parameters
        ----------
        block
            A block of any length; a plain ``[n]`` float array continues the samples before it.

        Raises
        ------
        StreamError
            After :meth:`finish`; another sample rate; time ran backwards. The stream is unchanged.
        AudioError
            Samples that are NaN or infinite, no floats, or of several channels. The stream is unchanged.
        EngineError
            The engine failed.
        """
        events: list[Event] = []
        for tick in self._receive(block, events):
            self._waiting.append(tick)
            if len(self._waiting) == self._at_once:
                events += self._advance()
        return events

    def finish(self) -> list[Event]:
        """End of the source: return the remaining events, the open cycle included. A second call returns nothing."""
        if self._finished:
            return []
        self._finished = True
        events: list[Event] = []
        self._close_segment(events, gap=False)
        if self._verdict is not None and self._first is not None:
            events.append(self._verdict.verdict(self._done))
        duration = self._samples_in + self._lost
        if duration < self._shortest_s * self.sample_rate:
            level = next((e.level_dbfs for e in events if isinstance(e, QualityEvent)), -140.0)
            events = [e for e in events if not isinstance(e, QualityEvent)]
            events.insert(0, QualityEvent(self._base, self.sample_rate, "too-short", level))
        return events

    # -- together with other streams, see StreamGroup ------------------------------------------------------------------

    @property
    def segmenter_steps(self) -> Stepping | None:
        """The segmenter, whose steps can run with those of other streams between :meth:`hold` and :meth:`segment`."""
        return self._feed.steps

    @property
    def sound_steps(self) -> Stepping | None:
        """The verdict's network, whose steps can run with others between :meth:`segment` and :meth:`found`."""
        return None if self._verdict is None else self._verdict.steps

    def receive(self, block: AudioBlock | npt.NDArray[np.floating[Any]]) -> tuple[list[Event], Iterable[Samples]]:
        """As :meth:`accept`, but return the ticks: each goes through :meth:`hold`, :meth:`segment`, :meth:`found`."""
        events: list[Event] = []
        return events, self._receive(block, events)

    def hold(self, ticks: list[Samples]) -> None:
        """Take ticks: what the segmenter needs is then ready."""
        self._feed.hold(ticks)
        self._behind += ticks

    def segment(self) -> None:
        """Find the cycles of the ticks; what the stages behind the segmenter need is ready where they follow now."""
        self._new = self._feed.found()
        if len(self._behind) >= _TICKS_BEHIND or self._unclassified or any(self._new):
            self._prepare()

    def found(self) -> list[Event]:
        """Events of the ticks that the stages behind the segmenter now go through."""
        events: list[Event] = []
        held, self._held = self._held, None
        if held is None:
            return events
        if self._verdict is not None:
            self._verdict.advance()
        found, self._new = self._new, []  # in the last ticks
        cycles: list[list[BreathCycle]] = [[]] * (len(held.ticks) - len(found)) + found
        for tick, model, sounds, new in zip(*held, cycles, strict=True):
            begin = self._done
            self._done += tick.size
            self._labeller.received += model.size
            if changes := self._gate.go_on(tick, begin, model):
                self._add_quality(changes, events)
            if new or self._unclassified:
                self._found.extend(new)
                self._release(events)
            if self._learned:
                self._without_breath(self._monitor.update(self._done, self._gate.state, self._gate.level_dbfs), events)
            self._sounds(sounds, events)
        return events

    # -- time ----------------------------------------------------------------------------------------------------------

    def _receive(self, block: AudioBlock | npt.NDArray[np.floating[Any]], events: list[Event]) -> Iterable[Samples]:
        if self._finished:
            raise StreamError("this stream is finished; make a new one with bundle.stream()")
        if isinstance(block, AudioBlock):
            samples = checked_block(block, self.sample_rate, None if self._first is None else self._next)
            self._place(block.first_sample, block.lost_before, events)
        else:
            samples = checked_samples(block, self._next)
            self._place(self._next, 0, events)
        self._samples_in += samples.size
        self._next += samples.size
        return self._blocks.accept(samples)

    def _place(self, first: int, lost_before: int, events: list[Event]) -> None:
        if self._first is None:
            self._first = self._next = first - lost_before
            self._restart(self._first)
        lost = first - self._next
        if lost == 0:
            return
        events += self._catch_up()  # what lies before the gap comes before it
        events.append(Gap(self._next, lost, self.sample_rate))
        self._gaps += 1
        self._lost += lost
        self._close_segment(events, gap=True)
        if self._verdict is not None:
            self._verdict.lost(lost)
        self._next += lost
        self._restart(self._next)

    def _restart(self, base: int) -> None:
        self._base = self._done = base
        self._ring.reset()
        self._feed.reset()
        self._labeller.reset()
        self._gate.reset(base)
        if self._verdict is not None:
            self._verdict.reset(base)
        self._monitor.reset(base)

    def _close_segment(self, events: list[Event], *, gap: bool) -> None:
        """Flush everything up to the last sample received; the cycle that is still open ends there."""
        events += self._catch_up()
        rest = self._blocks.flush()
        self._done += rest.size
        model = np.concatenate((self._to_model.accept(rest), self._to_model.flush()))
        self._ring.append(model)
        self._labeller.received += model.size
        quality = self._gate.accept(rest, self._done - rest.size, model)
        found = self._feed.finish(rest, cut=gap)
        self._add_quality([*quality, *self._gate.finish(fragment=self._gaps > 0)], events)
        self._found.extend(found)
        self._release(events, cut_by_gap=gap, everything=True)
        if self._learned and not gap:
            self._without_breath(self._monitor.finish(self._done, self._gate.state, self._gate.level_dbfs), events)
        if self._verdict is not None:
            sounds = model
            if self._to_verdict is not None:
                sounds = np.concatenate((self._to_verdict.accept(rest), self._to_verdict.flush()))
            self._verdict.compute(sounds)
            self._sounds(sounds.size, events)
            events.extend(self._verdict.close(usable=self._gate.state in (None, "ok"), now=self._done))

    # -- samples -------------------------------------------------------------------------------------------------------

    def _advance(self) -> list[Event]:
        """Compute the ticks that wait."""
        ticks, self._waiting = self._waiting, []
        self.hold(ticks)
        self.segment()
        return self.found()

    def _catch_up(self) -> list[Event]:
        """Compute all ticks received, in all stages."""
        events = self._advance() if self._waiting else []
        if self._behind:
            self._prepare()
            events += self.found()
        return events

    def _prepare(self) -> None:
        """Resample the ticks for the stages behind the segmenter, and hold their input."""
        ticks, self._behind = self._behind, []
        models = [self._to_model.accept(tick) for tick in ticks]
        sounds = models if self._to_verdict is None else [self._to_verdict.accept(tick) for tick in ticks]
        if self._verdict is not None:
            self._verdict.hold(np.concatenate(sounds))
        self._ring.append(model := np.concatenate(models))
        self._gate.hold(ticks, model)
        self._held = _Held(ticks, models, [part.size for part in sounds])

    def _add_quality(self, found: list[QualityEvent], events: list[Event]) -> None:
        """Emit changes of quality; of many fragments in a row only the first."""
        for event in found:
            if not (self._in_fragments and event.state == "gap"):
                events.append(event)
            self._in_fragments = event.state == "gap"

    def _without_breath(self, found: list[QualityEvent], events: list[Event]) -> None:
        if found:
            events.extend(found)
            if self._verdict is not None:
                self._verdict.not_breathing()

    def _sounds(self, count: int, events: list[Event]) -> None:
        """Go on with the verdict's monitor; after the cycles, which are evidence for it."""
        if self._verdict is not None:
            events.extend(self._verdict.accept(count, usable=self._gate.state in (None, "ok"), now=self._done))

    def _release(self, events: list[Event], *, cut_by_gap: bool = False, everything: bool = False) -> None:
        """Emit the cycles found, and classify the final ones whose samples are complete."""
        rate = self._feed.segmenter.sample_rate
        for found in self._found:
            begin, end = (convert_index(i, rate, self._model_rate) for i in (found.onset, found.end))
            cycle = self._on_source_clock(found)
            if self._learned and self._labeller.is_no_breath(cycle, begin, end):
                continue
            if self._learned and cycle.final:
                events.extend(self._monitor.cycle(cycle.onset, cycle.end, self._gate.level_dbfs))
            events.append(cycle)
            if cycle.final:
                self._cycles += 1
                self._unclassified.append((cycle, begin, end))
        self._found.clear()
        while self._unclassified and (everything or self._unclassified[0][2] <= self._labeller.received):
            cycle, begin, end = self._unclassified.popleft()
            # Cut by a gap, its end is uncertain: the level is smoothed over samples that the gap dropped.
            uncertain = cut_by_gap and cycle.end > self._done - self._blur
            result = self._labeller.label(cycle, begin, end, cut=uncertain, skip=self.skip_classification)
            events.append(result)
            if self._verdict is not None:
                self._verdict.cycle(result)

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
            audible=None if found.audible is None else (at(found.audible[0]), at(found.audible[1])),
            sample_rate=self.sample_rate,
            emitted_at=self._done,
        )
