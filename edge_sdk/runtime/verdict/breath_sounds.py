"""What the network of continuous audio says of one breath, joined with the classifier's probabilities of it.

The classifier sees a breath by itself, the network of crackles and wheezes a breath in its surroundings: they err on
different breaths. Its clip logits, pooled over the frames of the breath and over the recording so far, are added to
the log odds of abnormal that the classifier gives, and crackle and wheeze share what is abnormal by the logits of each.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edge_sdk.runtime.bundle.schema import Decoder
from edge_sdk.runtime.decoding import MULTILABEL, decode
from edge_sdk.settings import NonNegative, Positive, Settings

Floats = npt.NDArray[np.float64]

_LEAST = 1e-9  # probabilities are clipped here before their logarithm
_ROUNDING = 1e-6  # of a frame: a bound that falls on one is not moved by its last digit


class BreathParams(Settings, frozen=True):
    """Weights of the join and the decision after it; fitted by ``stetho train adventitious --cv``."""

    title: ClassVar[str] = "breaths"

    own: NonNegative = 0.5  # weight of the network's logits over the breath
    running: NonNegative = 0.5  # weight of those over the recording up to the breath's end
    temperature: Positive = 1.0
    bias: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)  # normal, crackle, wheeze, both

    def _problem(self) -> str | None:
        return None if len(self.bias) == len(MULTILABEL) else f"need {len(MULTILABEL)} biases"

    @property
    def decoder(self) -> Decoder:
        """The decision on joined scores."""
        return Decoder(temperature=self.temperature, bias=list(self.bias))


def either_logits(logits: Floats) -> Floats:
    """Logits of at least one of two independent sounds: ``[..., 2]`` → ``[...]``; ``p = 1 - (1 - p1) (1 - p2)``."""
    none = -np.logaddexp(0.0, logits).sum(axis=-1)  # log probability of neither
    return np.asarray(np.log(-np.expm1(none)) - none)


def joined_scores(probabilities: Floats, own: Floats, running: Floats, params: BreathParams) -> Floats:
    """Scores ``[n, 4]`` of normal, crackle, wheeze and both; before the decision's temperature and bias.

    Parameters
    ----------
    probabilities
        ``[n, 4]`` of the classifier.
    own, running
        ``[n, 2]`` logits of crackle and wheeze over the breath, and over the recording up to its end.
    params
        The weights.
    """
    scores = np.log(np.maximum(probabilities, _LEAST))
    abnormal = np.logaddexp.reduce(scores[:, 1:], axis=1)
    abnormal = abnormal + params.own * either_logits(own) + params.running * either_logits(running)
    crackle, wheeze = (params.own * own + params.running * running).T
    kinds = scores[:, 1:] + np.stack((crackle, wheeze, crackle + wheeze), axis=1)
    kinds += (abnormal - np.logaddexp.reduce(kinds, axis=1))[:, None]
    return np.concatenate((scores[:, :1], kinds), axis=1)


def joined(probabilities: Floats, own: Floats, running: Floats, params: BreathParams) -> Floats:
    """Probabilities ``[n, 4]`` after the decision, the most probable is the label; else as :func:`joined_scores`."""
    return decode(joined_scores(probabilities, own, running, params), params.decoder)


def frame_sums(attention: npt.NDArray[np.floating[Any]], clip: npt.NDArray[np.floating[Any]]) -> Floats:
    """Outputs ``[..., 2, T]`` → ``[..., 4, T]``: weights of crackle and wheeze, and the clip logits times them."""
    weight = np.exp(attention, dtype=np.float64)
    return np.concatenate((weight, weight * clip), axis=-2)


def pooled_logits(sums: Floats) -> Floats:
    """Logits ``[2]`` of crackle and wheeze from the sums ``[4]`` of some frames."""
    return sums[2:] / sums[:2]


class RecentFrames:
    """The sums of the last frames of a stream: its logits over a span of time, bounded however long it is.

    Parameters
    ----------
    frame_s
        Seconds of an output frame.
    steps
        How many steps are kept; None: all of a recording.
    """

    def __init__(self, frame_s: float, steps: int | None = None) -> None:
        self._frame_s = frame_s
        self._steps: deque[tuple[int, Floats]] = deque(maxlen=steps)

    def add(self, first: int, sums: Floats) -> None:
        """Take the sums ``[4, t]`` of the frames from number ``first`` on."""
        self._steps.append((first, sums))

    def clear(self) -> None:
        """Forget all frames: the next is number 0."""
        self._steps.clear()

    def logits(self, begin_s: float, end_s: float) -> Floats | None:
        """Logits ``[2]`` over the frames that touch a span of time from frame 0 on; None without any."""
        begin = max(0, math.floor(begin_s / self._frame_s + _ROUNDING))
        end = max(begin + 1, math.ceil(end_s / self._frame_s - _ROUNDING))
        parts = [s[:, max(0, begin - k) : end - k] for k, s in self._steps if k < end and k + s.shape[1] > begin]
        return pooled_logits(np.concatenate(parts, axis=1).sum(axis=1)) if parts else None
