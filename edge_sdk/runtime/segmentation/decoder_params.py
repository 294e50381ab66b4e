"""Settings of the decoder, which a bundle stores with its segmenter."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from edge_sdk.settings import NonNegative, Positive, Settings


class DecoderParams(Settings, frozen=True):
    """Settings of the decoder; scores are natural logarithms."""

    title: ClassVar[str] = "segmenter decoder"

    onset_weight: float = 1.0  # of the log odds of the onset where a cycle begins,
    onset_bonus: float = 0.8  # added to them,
    onset_cap: Positive = 5.0  # which are cut here: one frame must not decide alone
    cycle_weight: float = 0.25  # of the agreement of the angles, per frame of a cycle
    activity_weight: float = 0.1  # of the log odds of activity, per frame of a cycle
    activity_bias: float = 0.0  # log odds at which a frame favours neither a cycle nor a pause
    pause_cost: NonNegative = 2.0  # of a pause
    tempo_spread: Positive = 0.2  # of the log ratio of the lengths of two cycles in succession
    shortest_s: Positive = 0.45
    longest_s: Annotated[float, Meta(le=30)] = 8.5
    typical_s: Positive = 2.2  # of the first cycle: median of its length,
    first_spread: Positive = 0.9  # and spread of the logarithm
    final_lag_s: NonNegative = 0.48  # a cycle is final when its end lies this far behind
    announce_margin: NonNegative = 1.0  # lead over every other path at which the open cycle is announced,
    announce_s: Positive = 0.3  # falls to nothing at this age of the cycle
    withdraw_margin: NonNegative = 3.0  # lead of another path at which the announced cycle is withdrawn
    least_confidence: float = 0.0  # cycles with a lower confidence are left out
    least_share: Annotated[float, Meta(ge=0, le=1)] = 0.5  # of its length that the last cycle of a recording must have
    same_s: float = 0.08  # an onset that moved by less belongs to the same cycle
    audible: Annotated[float, Meta(gt=0, lt=1)] = 0.5  # activity from which a frame of a cycle is audible
    phase_shortest_s: float = 0.15  # of an inspiration and of an expiration
    phase_margin: float = 3.0  # lead over "no phase change" at which one is reported
    blend_s: NonNegative = 0.0  # the onset is the mean of the paths within this distance; 0: that of the best path
    settle_s: Positive = 0.6  # age up to which the mean of an announced onset moves

    def _problem(self) -> str | None:
        return None if self.shortest_s < self.longest_s else "need shortest_s < longest_s"
