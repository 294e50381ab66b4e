"""The verdict on a recording while it is received: normal, abnormal or uncertain, with a calibrated probability.

The evidence is the network's logit over continuous audio (attention-weighted over its frames) and the mean probability
that the classifier gives the respiratory cycles; a logistic join makes one probability of them, or of the one that
there is. The thresholds between the three verdicts come from conformal calibration on patients that no network was
trained on: among the recordings that get an answer, a stated share is wrong. A recording that has too little usable
audio, or does not resemble the calibration audio, gets no answer.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.events import Adventitious, CycleResult, Event, Verdict, VerdictName, VerdictReason
from edge_sdk.runtime.classifier import Classification
from edge_sdk.runtime.verdict.adventitious import (
    FrameEvent,
    SoundDetector,
    SoundFrames,
    SoundModel,
    SoundParams,
    SoundRun,
)
from edge_sdk.runtime.verdict.breath_sounds import (
    BreathParams,
    RecentFrames,
    either_logits,
    frame_sums,
    joined,
    pooled_logits,
)
from edge_sdk.runtime.verdict.familiarity import Centres, FamiliarityParams, SpectrumSums
from edge_sdk.runtime.verdict.params import VerdictParams
from edge_sdk.signal.breathing_rate import RateMeter
from edge_sdk.signal.clock import convert_index

_QUALITY_DELAY_S = 1.2  # the quality gate needs about a second to notice a change
_RATE_CYCLES = 500  # whose rate a verdict gives: bounded, however long a stream is
_BREATH_S = 20.0  # longer than the longest cycle and its delays

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class VerdictModel:
    """What all streams of a bundle share: network, calibration, thresholds."""

    sounds: SoundModel
    params: VerdictParams = field(default_factory=VerdictParams)
    familiarity: FamiliarityParams = field(default_factory=FamiliarityParams)
    detector: SoundParams = field(default_factory=SoundParams)
    breaths: BreathParams | None = None  # None: each breath by the classifier alone

    @cached_property
    def centres(self) -> Centres:
        """Those of the familiarity."""
        return Centres(self.familiarity)

    @property
    def rate_hz(self) -> int:
        """Rate of the samples that a monitor takes."""
        return self.sounds.settings.front_end.rate_hz

    def monitor(self, sample_rate: int, *, offline: bool = False) -> VerdictMonitor:
        """Monitor of one stream whose source has ``sample_rate`` Hz; ``offline``: a file, computed ahead."""
        return VerdictMonitor(self, sample_rate, offline=offline)


StepSums: TypeAlias = tuple[Floats, Floats]  # of a step: sums of each frame [4, t], and what the spectrum's sums gain


class Evidence:
    """What is known of one recording so far: running sums, bounded however long it is.

    Parameters
    ----------
    frame_s
        Seconds of an output frame of the network.
    """

    def __init__(self, frame_s: float) -> None:
        self._frame_s = frame_s
        self._frames = 0
        self.sums: Floats = np.zeros(4)  # of the network's frames, see ``breath_sounds.frame_sums``
        self._abnormal = 0.0
        self.cycles = 0  # labelled
        self.spectrum = SpectrumSums()

    @staticmethod
    def sums_of(steps: Sequence[SoundFrames]) -> list[StepSums]:
        """What :meth:`add` needs of steps of one length, computed for all at once."""
        if not steps:
            return []
        attention, clip = np.array([step.attention for step in steps]), np.array([step.clip for step in steps])
        return list(
            zip(frame_sums(attention, clip), SpectrumSums.of(np.array([step.mel for step in steps])), strict=True)
        )

    def add(self, step: SoundFrames, sums: StepSums) -> None:
        """Add a step of usable audio."""
        self.sums += np.add.reduce(sums[0], axis=1)
        self._frames += step.frames.shape[1]
        self.spectrum.add_sums(len(step.mel), sums[1])

    def cycle(self, p_abnormal: float) -> None:
        """Add a labelled cycle."""
        self.cycles += 1
        self._abnormal += p_abnormal

    @property
    def usable_s(self) -> float:
        """Usable audio in seconds."""
        return self._frames * self._frame_s

    @property
    def network(self) -> float | None:
        """Logit of the network for an abnormal recording."""
        if not self._frames:
            return None
        return float(either_logits(pooled_logits(self.sums)))

    @property
    def cycles_abnormal(self) -> float | None:
        """Mean probability of abnormal over the labelled cycles."""
        return self._abnormal / self.cycles if self.cycles else None


class VerdictMonitor:
    """Follows one stream: samples and labelled cycles in; adventitious sounds and running verdicts out.

    A pure function of what it is given. All events are on the source's clock. The evidence outlives a gap, the state of
    the network does not.

    Parameters
    ----------
    model
        Shared with other streams.
    sample_rate
        Hz, of the source.
    offline
        See :class:`~edge_sdk.runtime.verdict.adventitious.SoundRun`.
    """

    def __init__(self, model: VerdictModel, sample_rate: int, *, offline: bool = False) -> None:
        self._model, self._rate = model, sample_rate
        self._frame_s = model.sounds.settings.frame_s
        self._run = SoundRun(model.sounds, offline=offline)
        self._detector = SoundDetector(model.detector, self._frame_s)
        self._evidence, self._rate_meter = Evidence(self._frame_s), RateMeter(keep=_RATE_CYCLES)
        self._ahead: deque[tuple[SoundFrames, StepSums]] = deque()  # computed, but their samples are not counted yet
        self._recent = RecentFrames(self._frame_s, steps=math.ceil(_BREATH_S / model.sounds.settings.step_s))
        self._counted = 0  # samples since the last reset
        self._pending: deque[tuple[SoundFrames, StepSums]] = deque()
        self._held = 0  # output frames in ``_pending``
        self._base = 0  # source sample of the network's first sample
        self._total = 0  # output frames so far, usable or not
        self._lost = self._newly_lost = 0  # samples of gaps; those that no audio has followed yet
        self._next_report_s = model.params.least_s
        self._breathing = True

    @property
    def evidence(self) -> Evidence:
        """What is known so far."""
        return self._evidence

    @property
    def steps(self) -> SoundRun:
        """The steps of the network, which can run with those of other streams."""
        return self._run

    def reset(self, base: int) -> None:
        """Start the network over at source sample ``base``, after a gap or at the start."""
        self._run.reset()
        self._detector.reset()
        self._ahead.clear()
        self._pending.clear()
        self._recent.clear()
        self._held = self._counted = 0
        self._base = base

    def cycle(self, result: CycleResult) -> None:
        """Take a final cycle, labelled or not."""
        self._rate_meter.result(result)

    def labelled(self, found: Classification, normal: str, span_s: tuple[float, float]) -> Classification:
        """Take what the classifier says of a cycle as evidence, and join it with the frames of the cycle.

        Parameters
        ----------
        found
            Of the classifier.
        normal
            The label without adventitious sounds.
        span_s
            Begin and end of the cycle since the last reset.
        """
        self._evidence.cycle(1.0 - found.probabilities[normal])
        self._breathing = True
        params = self._model.breaths
        if params is None or (own := self._recent.logits(*span_s)) is None:
            return found
        # What the quality gate has not decided on yet counts: it calls the cycle's own samples good.
        sums = self._evidence.sums + sum(np.add.reduce(each, axis=1) for _, (each, _) in self._pending)
        running = pooled_logits(sums) if sums.any() else own
        probabilities = np.array(list(found.probabilities.values()))
        return found.with_probabilities(joined(probabilities[None], own[None], running[None], params)[0])

    def not_breathing(self) -> None:
        """Take that no respiratory cycle has been found for long; without any, no answer is given."""
        self._breathing = self._evidence.cycles > 0

    def lost(self, samples: int) -> None:
        """Take a gap of so many source samples; it counts once audio follows it."""
        self._newly_lost += samples
        self._rate_meter.restart()

    def compute(self, samples: npt.NDArray[np.float32]) -> None:
        """Take the next ``[n]`` samples at the network's rate, which :meth:`accept` then counts."""
        self.hold(samples)
        self.advance()

    def hold(self, samples: npt.NDArray[np.float32]) -> None:
        """Take the next ``[n]`` samples at the network's rate, which :meth:`advance` computes."""
        self._run.hold(samples)

    def advance(self) -> None:
        """Compute the samples that were held."""
        if steps := self._run.found():
            self._ahead.extend(zip(steps, Evidence.sums_of(steps), strict=True))

    def accept(self, count: int, *, usable: bool, now: int) -> list[Event]:
        """Go on by ``count`` of the samples that were computed.

        Parameters
        ----------
        count
            What the resampler released.
        usable
            Whether the quality gate accepts the audio around source sample ``now``.
        now
            Source samples consumed.
        """
        events: list[Event] = []
        if count:
            self._lost, self._newly_lost = self._lost + self._newly_lost, 0
        self._counted += count
        while self._ahead and self._ahead[0][0].samples <= self._counted:
            self._pending.append(self._ahead.popleft())
            self._held += self._pending[-1][0].frames.shape[1]
            self._recent.add(self._pending[-1][0].first, self._pending[-1][1][0])
            while (self._held - self._pending[0][0].frames.shape[1]) * self._frame_s >= _QUALITY_DELAY_S:
                self._take(*self._pending.popleft(), usable, now, events)
        waiting_s = self._held * self._frame_s if usable else 0.0
        if self._evidence.usable_s + waiting_s >= self._next_report_s:
            self._next_report_s += self._model.params.report_s
            events.append(self._verdict(*self._with_waiting(usable=usable), now, final=False))
        return events

    def close(self, *, usable: bool, now: int) -> list[Event]:
        """End of the samples, by a gap or by the end of the source: return the sounds that are still open."""
        events: list[Event] = []
        rest = self._run.finish()
        for step, sums in (*self._pending, *zip(rest, Evidence.sums_of(rest), strict=True)):
            self._take(step, sums, usable, now, events)
        self._pending.clear()
        events += [self._event(found, now) for found in self._detector.finish()]
        return events

    def verdict(self, now: int) -> Verdict:
        """The final verdict, by all the evidence."""
        return self._verdict(self._evidence, self._total, now, final=True)

    def _with_waiting(self, *, usable: bool) -> tuple[Evidence, int]:
        """The evidence and the output frames so far, with what waits for the quality gate while it finds no fault.

        A running verdict is not final: a fault that the gate notices later is out of the next one.
        """
        if not usable or not self._pending:
            return self._evidence, self._total
        evidence = copy.deepcopy(self._evidence)
        for step, sums in self._pending:
            evidence.add(step, sums)
        return evidence, self._total + self._held

    def _verdict(self, evidence: Evidence, total: int, now: int, *, final: bool) -> Verdict:
        params, familiarity = self._model.params, self._model.familiarity
        group, distance = self._model.centres.nearest(evidence.spectrum.features()) if evidence.usable_s else (0, 0.0)
        probability = params.probability(evidence.network, evidence.cycles_abnormal, evidence.usable_s, group)
        reason = self._reason(evidence.usable_s, total, familiar=distance <= familiarity.farthest)
        name: VerdictName = "uncertain"
        rate = self._rate_meter.breaths_per_minute
        if reason is None and probability is not None:
            name = params.answer(probability, evidence.usable_s)
        return Verdict(
            now, self._rate, name, None if probability is None else round(probability, 6), reason,
            round(evidence.usable_s, 3), evidence.cycles, final,
            None if rate is None else round(rate, 2), self._rate_meter.confident,
        )  # fmt: skip

    def _reason(self, usable_s: float, total: int, *, familiar: bool) -> VerdictReason | None:
        """Why no answer is given, if there is a reason beside the probability."""
        params, total_s = self._model.params, total * self._frame_s + self._lost / self._rate
        if not params.enough(usable_s):
            return "poor-quality" if params.enough(total_s) else "too-little-audio"
        if 2.0 * usable_s < total_s or not self._breathing:
            return "poor-quality"
        return None if familiar else "unfamiliar"

    def _take(self, step: SoundFrames, sums: StepSums, usable: bool, now: int, events: list[Event]) -> None:
        self._held -= min(self._held, step.frames.shape[1])
        self._total += step.frames.shape[1]
        if usable:
            self._evidence.add(step, sums)
            found = self._detector.accept(step.first, step.frames[:2])
        else:
            found = self._detector.finish()
        events += [self._event(sound, now) for sound in found]

    def _event(self, sound: FrameEvent, now: int) -> Adventitious:
        def at(frame: int) -> int:
            spec, stride = self._run.settings.front_end, self._run.settings.stride
            return min(self._base + convert_index(frame * stride * spec.hop_samples, spec.rate_hz, self._rate), now)

        onset = at(sound.begin)
        return Adventitious(sound.kind, onset, max(at(sound.end), onset + 1), self._rate, sound.confidence, now)
