"""What the annotation covers, and the F1s that forgive a constant shift or leave the rest of the recording out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_sdk.metrics.events import ScoredRecording, event_report, phase_free_matches
from edge_sdk.metrics.matching import as_spans, match_shifted, match_spans
from edge_sdk.metrics.regions import annotated_regions, mostly_outside

Spans = list[tuple[float, float]]


def scored(truth: Spans, found: Spans, patient: str = "p") -> ScoredRecording:
    return ScoredRecording("r", patient, 30.0, as_spans(truth), as_spans(found))


def test_events_are_joined_over_gaps_shorter_than_the_median_event() -> None:
    truth = as_spans([(1.0, 3.0), (4.9, 6.9), (8.9, 10.9), (20.0, 22.0)])  # gaps 1.9, 2.0, 9.1; median 2
    assert annotated_regions(truth).tolist() == [[1.0, 6.9], [8.9, 10.9], [20.0, 22.0]]
    assert annotated_regions(as_spans([])).shape == (0, 2)
    assert annotated_regions(as_spans([(1.0, 2.0)])).tolist() == [[1.0, 2.0]]
    nested = as_spans([(0.0, 5.0), (1.0, 2.0), (5.5, 7.0)])
    assert annotated_regions(nested).tolist() == [[0.0, 7.0]]  # the gap counts from the latest end


def test_half_inside_is_inside() -> None:
    regions = as_spans([(2.0, 6.0), (8.0, 9.0)])
    found = as_spans([(0.0, 1.0), (1.0, 3.0), (0.9, 2.9), (5.0, 9.0), (6.0, 8.0)])
    assert mostly_outside(found, regions).tolist() == [True, False, True, False, True]
    assert mostly_outside(found, as_spans([])).tolist() == [True] * 5


@pytest.mark.parametrize("seed", range(20))
def test_a_matched_cycle_is_never_outside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, found = (np.sort(rng.uniform(0, 30, (12, 2)), axis=1) for _ in range(2))
    truth = truth[np.argsort(truth[:, 0])]
    outside = mostly_outside(found, annotated_regions(truth))
    assert not any(outside[j] for _, j in match_spans(truth, found))


def test_the_regional_f1_ignores_what_lies_outside() -> None:
    truth: Spans = [(10.0, 12.0), (13.0, 15.0)]
    found: Spans = [(1.0, 3.0), (4.0, 6.0), (10.0, 12.0), (12.0, 13.0), (20.0, 22.0)]
    report = event_report([scored(truth, found)], resamples=0)
    assert report["event_f1"] == pytest.approx(2 / 7) and report["count_ratio"] == 2.5
    assert report["n_predicted_regional"] == 2  # the matched one, and the one in the gap of 1 s
    assert report["event_f1_regional"] == 0.5 and report["count_ratio_regional"] == 1.0


def test_audible_spans_are_scored_in_place_of_their_cycles() -> None:
    truth: Spans = [(10.0, 11.0), (12.0, 13.0)]
    cycles: Spans = [(1.0, 3.0), (10.0, 12.0), (12.0, 14.5), (20.0, 22.0)]
    audible = as_spans([(1.0, 2.0), (10.0, 11.5), (12.0, 13.2), (20.0, 21.0)])
    plain = scored(truth, cycles)
    assert "event_f1_audible" not in event_report([plain], resamples=0)
    report = event_report([replace(plain, found_audible=audible)], resamples=0)
    assert report["event_f1"] == pytest.approx(1 / 3) and report["event_f1_regional"] == pytest.approx(2 / 3)
    assert report["event_f1_audible"] == pytest.approx(2 / 3) and report["event_f1_audible_regional"] == 1.0


def test_a_constant_shift_is_forgiven_up_to_half_a_cycle() -> None:
    truth: Spans = [(float(t), t + 3.0) for t in range(0, 24, 3)]
    shifted: Spans = [(b + 1.4, e + 1.4) for b, e in truth]
    report = event_report([scored(truth, shifted)], resamples=0)
    assert report["event_f1"] == 0.0 and report["event_f1_phase_free"] == 1.0
    apart: Spans = [(0.0, 2.0), (10.0, 12.0)]
    far: Spans = [(b + 2.2, e + 2.2) for b, e in apart]  # more than half a cycle and the IoU allows
    assert phase_free_matches(scored(apart, far)) == 0
    near: Spans = [(b + 1.6, e + 1.6) for b, e in apart]  # 0.6 s remain: IoU 1.4 / 2.6
    assert phase_free_matches(scored(apart, near)) == 2


def test_the_shift_is_one_for_the_whole_recording() -> None:
    truth: Spans = [(0.0, 2.0), (4.0, 6.0), (8.0, 10.0)]
    drifting: Spans = [(0.0, 2.0), (5.0, 7.0), (10.0, 12.0)]
    assert phase_free_matches(scored(truth, drifting)) == 2  # a shift of 1 s loses none of the first two
    assert match_shifted(as_spans(truth), as_spans(drifting), [0.0]) == 1
    each: Spans = [(0.9, 2.9), (3.1, 5.1), (8.9, 10.9)]
    assert phase_free_matches(scored(truth, each)) == 2


def test_no_truth_or_nothing_found_matches_nothing() -> None:
    assert phase_free_matches(scored([], [(0.0, 1.0)])) == phase_free_matches(scored([(0.0, 1.0)], [])) == 0
    report = event_report([scored([], [(0.0, 1.0)]), scored([(0.0, 1.0)], [])], resamples=0)
    assert report["event_f1_phase_free"] == 0.0 and report["n_predicted_regional"] == 0


@pytest.mark.parametrize("seed", range(10))
def test_the_best_shift_is_the_maximum_over_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, found = (np.sort(rng.uniform(0, 20, (8, 2)), axis=1) for _ in range(2))
    shifts = np.linspace(-1.5, 1.5, 13)
    one_by_one = max(len(match_spans(truth, found + shift)) for shift in shifts)
    assert match_shifted(truth, found, shifts) == one_by_one > 0


def test_the_new_f1s_have_intervals_over_patients() -> None:
    truth: Spans = [(0.0, 2.0), (3.0, 5.0)]
    late: Spans = [(1.0, 3.0), (4.0, 6.0)]
    rows = [scored(truth, truth if k % 2 else late, f"p{k}") for k in range(10)]
    report = event_report(rows, resamples=200)
    assert report["event_f1_phase_free_ci"] == (1.0, 1.0)
    low, high = report["onset_f1_200ms_ci"]
    assert 0.1 <= low < report["onset_f1_200ms"] == 0.5 < high <= 0.9
    low, high = report["event_f1_regional_ci"]
    assert low < report["event_f1_regional"] < high
