"""Calibration of the verdict: the logistic join of its evidence, and the thresholds between its answers."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from edge_sdk.events import VerdictName
from edge_sdk.runtime.verdict.familiarity import FamiliarityParams
from edge_sdk.settings import NonNegative, Positive, Settings

_LEAST_SHARE = 1e-4  # probabilities are clipped here before their logit
_REFERENCE_S = 9.0  # seconds of audio at which the term of the length is zero
_WEIGHTS = 4  # of a join, without its offsets
_SLACK_S = 0.05  # a frame of the network and the overlap of its windows
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

    def enough(self, seconds: float) -> bool:
        """Whether an answer is given on so much audio; one cut to the least has a little less in whole frames."""
        return seconds >= self.least_s - _SLACK_S

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
) -> VerdictName | Unanswered:
    """The verdict on a recording of usable audio, or the reason why there is none.

    Parameters
    ----------
    params, familiarity
        Calibration.
    probability, seconds, features
        Of an abnormal recording; usable audio; of its mean spectrum.
    """
    if not params.enough(seconds):
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
