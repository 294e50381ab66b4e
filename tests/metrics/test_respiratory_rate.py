"""Rates: halves and doubles are named, undefined rates stay visible, fast breathing and confidence by themselves."""

from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.metrics.events import ScoredRecording, rates_of
from edge_sdk.metrics.matching import as_spans
from edge_sdk.metrics.respiratory_rate import RatedRecording, rate_figures, respiratory_rate


def test_the_rate_is_of_the_median_interval() -> None:
    assert respiratory_rate(np.array([0.0, 2.0, 4.0, 30.0])) == 30.0
    assert respiratory_rate(np.array([1.0])) is None and respiratory_rate(np.array([])) is None
    assert respiratory_rate(np.array([1.0, 1.0])) is None  # no division by zero


def test_errors_of_known_rates() -> None:
    pairs = [(20.0, 20.0), (20.0, 22.0), (30.0, 15.0), (15.0, 30.0), (50.0, 40.0)]
    figures = rate_figures([RatedRecording(true, found) for true, found in pairs])
    assert figures["rate_mae_bpm"] == figures["rate_mae_defined_bpm"] == pytest.approx((0 + 2 + 15 + 15 + 10) / 5)
    assert figures["rate_error_p50_bpm"] == 10.0 and figures["rate_bias_bpm"] == pytest.approx(-8 / 5)
    assert figures["rate_within_15pct"] == 0.4
    assert figures["rate_halved"] == figures["rate_doubled"] == 0.2
    assert figures["rate_recordings"] == 5 and figures["rate_undefined"] == 0
    assert figures["rate_bias_above_40_bpm"] == -10.0 and figures["rate_recordings_above_40"] == 1


@pytest.mark.parametrize(
    ("found", "within", "halved", "doubled"),
    [
        (23.0, 1.0, 0.0, 0.0),  # 15 % above
        (17.0, 1.0, 0.0, 0.0),  # 15 % below
        (23.1, 0.0, 0.0, 0.0),
        (16.9, 0.0, 0.0, 0.0),
        (11.5, 0.0, 1.0, 0.0),  # 15 % above the half
        (8.5, 0.0, 1.0, 0.0),
        (11.6, 0.0, 0.0, 0.0),
        (8.4, 0.0, 0.0, 0.0),
        (46.0, 0.0, 0.0, 1.0),  # 15 % above the double
        (34.0, 0.0, 0.0, 1.0),
        (46.1, 0.0, 0.0, 0.0),
        (33.9, 0.0, 0.0, 0.0),
    ],
)
def test_the_tolerances_are_closed(found: float, within: float, halved: float, doubled: float) -> None:
    figures = rate_figures([RatedRecording(20.0, found)])
    shares = figures["rate_within_15pct"], figures["rate_halved"], figures["rate_doubled"]
    assert shares == (within, halved, doubled)


def test_an_undefined_rate_stays_visible_and_flatters_nothing() -> None:
    figures = rate_figures([RatedRecording(20.0, 20.0), RatedRecording(60.0, None), RatedRecording(50.0, 44.0)])
    assert figures["rate_undefined"] == 1 and figures["rate_recordings"] == 3
    assert figures["rate_mae_bpm"] == pytest.approx((0 + 60 + 6) / 3)
    assert figures["rate_mae_defined_bpm"] == 3.0
    assert figures["rate_within_15pct"] == pytest.approx(2 / 3)  # of all three
    assert figures["rate_halved"] == figures["rate_doubled"] == 0.0
    assert figures["rate_bias_above_40_bpm"] == -6.0  # not −33: no rate is no bias
    assert (figures["rate_recordings_above_40"], figures["rate_undefined_above_40"]) == (2, 1)


def test_forty_itself_is_not_above_forty() -> None:
    figures = rate_figures([RatedRecording(40.0, 30.0)])
    assert figures["rate_bias_above_40_bpm"] is None and figures["rate_recordings_above_40"] == 0


def test_rates_beyond_the_range_are_counted_and_kept_apart() -> None:
    pairs = [(8.0, 9.0), (80.0, 76.0), (80.1, 40.0), (7.9, 16.0), (50.0, None)]
    figures = rate_figures([RatedRecording(true, found) for true, found in pairs])
    assert figures["rate_mae_8_to_80_bpm"] == pytest.approx((1 + 4 + 50) / 3)
    assert figures["rate_bias_40_to_80_bpm"] == -4.0 and figures["rate_recordings_beyond_8_to_80"] == 2
    assert figures["rate_mae_bpm"] == pytest.approx((1 + 4 + 40.1 + 8.1 + 50) / 5)  # of all, as ever


def test_without_recordings_there_is_no_rate() -> None:
    figures = rate_figures([])
    assert figures["rate_recordings"] == figures["rate_undefined"] == 0
    assert figures["rate_mae_bpm"] is None and figures["rate_within_15pct"] is None and figures["rate_halved"] is None


def test_confident_rates_are_scored_apart() -> None:
    rated = [
        RatedRecording(20.0, 21.0, True),
        RatedRecording(20.0, 40.0, False),
        RatedRecording(20.0, None, True),  # confident of nothing
        RatedRecording(20.0, 10.0),  # states nothing
    ]
    figures = rate_figures(rated)
    assert figures["rate_mae_confident_bpm"] == 1.0
    assert figures["rate_confident_fraction"] == pytest.approx(1 / 3)
    silent = rate_figures([RatedRecording(20.0, 21.0)])
    assert silent["rate_mae_confident_bpm"] is None and silent["rate_confident_fraction"] is None
    never = rate_figures([RatedRecording(20.0, 21.0, False)])
    assert never["rate_mae_confident_bpm"] is None and never["rate_confident_fraction"] == 0.0


def test_every_recording_with_two_onsets_counts_in_the_second_set() -> None:
    def scored(onsets: list[float], found: list[float], confident: bool | None = None) -> ScoredRecording:
        true, other = (as_spans([(t, t + 2.0) for t in times]) for times in (onsets, found))
        return ScoredRecording("r", "p", 40.0, true, other, rate_confident=confident)

    regular = scored([0.0, 3.0, 6.0, 9.0], [0.0, 3.0, 6.0], True)
    apnoea = scored([0.0, 3.0, 6.0, 9.0, 25.0, 28.0], [0.0, 6.0, 25.0])
    short = scored([0.0, 3.0], [])
    single = scored([0.0], [0.0, 5.0])
    report = rates_of([regular, apnoea, short, single])
    assert (report["rate_recordings"], report["rate_undefined"], report["rate_mae_bpm"]) == (1, 0, 0.0)
    assert report["rate_confident_fraction"] == 1.0
    every = report["rate_any"]
    assert (every["rate_recordings"], every["rate_undefined"]) == (3, 1)
    assert every["rate_within_15pct"] == pytest.approx(1 / 3)
