"""The verdict on a recording while it is received: normal, abnormal or uncertain, with a calibrated probability.

The evidence is the network's logit over continuous audio (attention-weighted over its frames) and the mean probability
that the classifier gives the respiratory cycles; a logistic join makes one probability of them, or of the one that
there is. The thresholds between the three verdicts come from conformal calibration on patients that no network was
trained on: among the recordings that get an answer, a stated share is wrong. A recording that has too little usable
audio, or does not resemble the calibration audio, gets no answer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from edge_sdk.events import Adventitious, CycleResult, Event, Verdict, VerdictName, VerdictReason
from edge_sdk.runtime.adventitious import FrameEvent, SoundDetector, SoundFrames, SoundModel, SoundParams, SoundRun
from edge_sdk.runtime.familiarity import Centres, FamiliarityParams, SpectrumSums
from edge_sdk.settings import NonNegative, Positive, Settings
from edge_sdk.signal.breathing_rate import RateMeter
from edge_sdk.signal.clock import convert_index

_QUALITY_DELAY_S = 1.2  # the quality gate needs about a second to notice a change
_LEAST_SHARE = 1e-4  # probabilities are clipped here before their logit
_REFERENCE_S = 9.0  # seconds of audio at which the term of the length is zero
_RATE_CYCLES = 500  # whose rate a verdict gives: bounded, however long a stream is
_WEIGHTS = 4  # of a join, without its offsets
_LONGEST_S = 60.0  # longer audio counts as so long

Floats = npt.NDArray[np.float64]


class VerdictParams(Settings, frozen=True):
    """Calibration of the verdict; fitted by ``stetho train adventitious --cv``.

    A logistic join is ``(bias, network, cycles, length, *offsets)``: weights of the network's logit, of the logit of
    the cycles' mean probability, and of the logarithm of the usable audio over 9 s; an offset for each centre of the
    familiarity, since the largest error of a network on another device is the same for all of its recordings.
    """

    title: ClassVar[str] = "verdict"

    error: Annotated[float, Meta(gt=0, lt=0.5)] = 0.1  # nominal share of wrong answers
    least_s: Positive = 6.0  # usable audio before the first answer
    report_s: Positive = 1.0  # usable audio between two running verdicts
    both: tuple[float, ...] = (0.0, 0.5, 0.5, 0.0)
    network: tuple[float, ...] = (0.0, 1.0, 0.0, 0.0)  # without a labelled cycle
    cycles: tuple[float, ...] = (0.0, 0.0, 1.0, 0.0)  # without the network
    # From so much usable audio on: normal below the first probability, abnormal from the second on.
    thresholds: tuple[tuple[NonNegative, float, float], ...] = ((0.0, 0.35, 0.65),)
    # Scores (logits of the probability) of normal recordings, for ``stetho adapt``:
    normal_score: float = 0.0  # mean, offsets included
    normal_spread: Positive = 1.0  # standard deviation within a device
    device_spread: Positive = 1.0  # standard deviation of the devices' means, without offsets

    def _problem(self) -> str | None:
        if min(len(self.both), len(self.network), len(self.cycles)) < _WEIGHTS:
            return f"a join needs at least {_WEIGHTS} weights"
        if not self.thresholds or self.thresholds[0][0] > self.least_s:
            return "thresholds must begin with one for the least audio"
        if any(not 0.0 <= low <= high <= 1.0 for _, low, high in self.thresholds):
            return "need 0 <= normal below <= abnormal from <= 1 in each threshold"
        if [row[0] for row in self.thresholds] != sorted(row[0] for row in self.thresholds):
            return "thresholds must be in the order of their seconds"
        return None

    def probability(self, network: float | None, cycles: float | None, seconds: float, group: int = 0) -> float | None:
        """Probability of an abnormal recording; None without any evidence.

        Parameters
        ----------
        network
            Logit of the network.
        cycles
            Mean probability of abnormal over the labelled cycles.
        seconds
            Usable audio.
        group
            Centre that the audio resembles most.
        """
        score = self.score(network, cycles, seconds, group)
        return None if score is None else 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, score))))

    def score(self, network: float | None, cycles: float | None, seconds: float, group: int | None) -> float | None:
        """Logit of :meth:`probability`; with ``group`` None without any offset."""
        if network is None and cycles is None:
            return None
        weights = self.both if network is not None and cycles is not None else self.network
        if network is None:
            weights = self.cycles
        bias, of_network, of_cycles, of_length, *offsets = weights
        score = bias + of_length * length_term(seconds)
        score += offsets[group] if group is not None and group < len(offsets) else 0.0
        score += of_network * network if network is not None else 0.0
        return score + (of_cycles * share_logit(cycles) if cycles is not None else 0.0)

    def answer(self, probability: float, seconds: float) -> VerdictName:
        """The verdict that the thresholds for so much usable audio give."""
        _, low, high = next(row for row in reversed(self.thresholds) if row[0] <= max(seconds, self.least_s))
        return "abnormal" if probability >= high else "normal" if probability < low else "uncertain"


Unanswered = Literal["too-little-audio", "unfamiliar"]


def answer_of(
    params: VerdictParams,
    familiarity: FamiliarityParams,
    probability: float,
    seconds: float,
    features: Floats,
    *,
    slack_s: float = 0.0,
) -> VerdictName | Unanswered:
    """The verdict on a recording of usable audio, or the reason why there is none.

    Parameters
    ----------
    params, familiarity
        Calibration.
    probability, seconds, features
        Of an abnormal recording; usable audio; of its mean spectrum.
    slack_s
        Seconds that may be missing in the least audio.
    """
    if seconds < params.least_s - slack_s:
        return "too-little-audio"
    if familiarity.distance(features) > familiarity.farthest:
        return "unfamiliar"
    return params.answer(probability, seconds)


def length_term(seconds: float) -> float:
    """What the join multiplies its weight of the length with."""
    return math.log(max(1.0, min(seconds, _LONGEST_S)) / _REFERENCE_S)


def share_logit(share: float) -> float:
    """Logit of a probability, clipped: a mean of 0 is no proof."""
    clipped = min(1.0 - _LEAST_SHARE, max(_LEAST_SHARE, share))
    return math.log(clipped / (1.0 - clipped))


def either_logit(one: float, other: float) -> float:
    """Logit of at least one of two independent sounds, from their logits: ``p = 1 - (1 - p1) (1 - p2)``."""
    none = -float(np.logaddexp(0.0, one) + np.logaddexp(0.0, other))  # log probability of neither
    return float(np.log(-np.expm1(none)) - none)


@dataclass(frozen=True)
class VerdictModel:
    """What all streams of a bundle share: network, calibration, thresholds."""

    sounds: SoundModel
    params: VerdictParams = field(default_factory=VerdictParams)
    familiarity: FamiliarityParams = field(default_factory=FamiliarityParams)
    detector: SoundParams = field(default_factory=SoundParams)

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


StepSums: TypeAlias = tuple[Floats, Floats]  # what a step adds: to the network's sums, and to the spectrum's


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
        self._sums: Floats = np.zeros(4)  # weights of crackle and wheeze, and the logits times them
        self._abnormal = 0.0
        self.cycles = 0  # labelled
        self.spectrum = SpectrumSums()

    @staticmethod
    def sums_of(steps: Sequence[SoundFrames]) -> list[StepSums]:
        """What :meth:`add` needs of steps of one length, computed for all at once."""
        if not steps:
            return []
        attention, clip = np.array([step.attention for step in steps]), np.array([step.clip for step in steps])
        weight = np.exp(attention, dtype=np.float64)  # [k, 2, t]
        sums = np.concatenate((np.add.reduce(weight, axis=2), np.einsum("kij,kij->ki", weight, clip)), axis=1)
        return list(zip(sums, SpectrumSums.of(np.array([step.mel for step in steps])), strict=True))

    def add(self, step: SoundFrames, sums: StepSums) -> None:
        """Add a step of usable audio."""
        self._sums += sums[0]
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
        of_crackle, of_wheeze, crackle, wheeze = self._sums.tolist()
        return either_logit(crackle / of_crackle, wheeze / of_wheeze)

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
        See :class:`~edge_sdk.runtime.adventitious.SoundRun`.
    """

    def __init__(self, model: VerdictModel, sample_rate: int, *, offline: bool = False) -> None:
        self._model, self._rate = model, sample_rate
        self._frame_s = model.sounds.settings.frame_s
        self._run = SoundRun(model.sounds, offline=offline)
        self._detector = SoundDetector(model.detector, self._frame_s)
        self._evidence, self._rate_meter = Evidence(self._frame_s), RateMeter(keep=_RATE_CYCLES)
        self._ahead: deque[tuple[SoundFrames, StepSums]] = deque()  # computed, but their samples are not counted yet
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
        self._held = self._counted = 0
        self._base = base

    def cycle(self, result: CycleResult, p_abnormal: float | None) -> None:
        """Take a final cycle; with ``p_abnormal`` where it has a label."""
        self._rate_meter.result(result)
        if p_abnormal is not None:
            self._evidence.cycle(p_abnormal)
            self._breathing = True

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
            while (self._held - self._pending[0][0].frames.shape[1]) * self._frame_s >= _QUALITY_DELAY_S:
                self._take(*self._pending.popleft(), usable, now, events)
        if self._evidence.usable_s >= self._next_report_s:
            self._next_report_s += self._model.params.report_s
            events.append(self.verdict(now, final=False))
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

    def verdict(self, now: int, *, final: bool) -> Verdict:
        """The verdict by the evidence so far."""
        evidence, params, familiarity = self._evidence, self._model.params, self._model.familiarity
        group, distance = self._model.centres.nearest(evidence.spectrum.features()) if evidence.usable_s else (0, 0.0)
        probability = params.probability(evidence.network, evidence.cycles_abnormal, evidence.usable_s, group)
        reason = self._reason(familiar=distance <= familiarity.farthest)
        name: VerdictName = "uncertain"
        rate = self._rate_meter.breaths_per_minute
        if reason is None and probability is not None:
            name = params.answer(probability, evidence.usable_s)
        return Verdict(
            now, self._rate, name, None if probability is None else round(probability, 6), reason,
            round(evidence.usable_s, 3), evidence.cycles, final,
            None if rate is None else round(rate, 2), self._rate_meter.confident,
        )  # fmt: skip

    def _reason(self, *, familiar: bool) -> VerdictReason | None:
        """Why no answer is given, if there is a reason beside the probability."""
        usable_s, least_s = self._evidence.usable_s, self._model.params.least_s
        total_s = self._total * self._frame_s + self._lost / self._rate
        if usable_s < least_s:
            return "poor-quality" if total_s >= least_s else "too-little-audio"
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
