"""Event metrics: maximum matching, sed_eval as oracle, delays that count what was withdrawn, rates, gaps, labels."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest

from edge_sdk.metrics.events import (
    Announcement,
    ScoredRecording,
    delays,
    end_to_end,
    event_report,
    labelled_scores,
    onset_errors,
)
from edge_sdk.metrics.matching import (
    Floats,
    as_spans,
    covering,
    frame_f1,
    iou,
    match,
    match_collar,
    match_onsets,
    match_spans,
)
from edge_sdk.metrics.regions import unlabelled_gaps
from edge_sdk.metrics.respiratory_rate import respiratory_rate


def recording(
    truth: list[tuple[float, float]], found: list[tuple[float, float]], duration_s: float = 20.0, **more: object
) -> ScoredRecording:
    fields = {"name": "r", "patient": "p"} | more
    return ScoredRecording(duration_s=duration_s, truth=as_spans(truth), found=as_spans(found), **fields)  # type: ignore[arg-type]


def spans(rng: np.random.Generator, count: int) -> Floats:
    begins = np.cumsum(rng.uniform(0.3, 2.5, count))
    return np.stack((begins, begins + rng.uniform(0.3, 2.5, count)), axis=1)


def most_pairs(allowed: np.ndarray) -> int:
    """Brute force over small sets."""
    n, m = allowed.shape
    for size in range(min(n, m), 0, -1):
        for rows in combinations(range(n), size):
            for columns in permutations(range(m), size):
                if all(allowed[i, j] for i, j in zip(rows, columns, strict=True)):
                    return size
    return 0


def test_the_matching_is_maximum_where_a_greedy_one_is_not() -> None:
    allowed = np.array([[True, True], [True, False]])
    assert match(allowed, np.array([[0.9, 0.5], [0.6, 0.0]])) == [(0, 1), (1, 0)]


@pytest.mark.parametrize("seed", range(40))
def test_no_larger_matching_exists(seed: int) -> None:
    rng = np.random.default_rng(seed)
    allowed = rng.random((rng.integers(1, 6), rng.integers(1, 6))) < 0.4
    pairs = match(allowed, rng.random(allowed.shape))
    assert len(pairs) == most_pairs(allowed)
    assert all(allowed[i, j] for i, j in pairs)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)


def test_iou_of_known_spans() -> None:
    assert iou([(0, 2)], [(1, 3), (0, 2), (5, 6), (2, 3)]).tolist() == [[1 / 3, 1.0, 0.0, 0.0]]
    assert iou([], [(0, 1)]).shape == (0, 1)
    assert match_spans([(1, 1)], [(1, 1)]) == []


@pytest.mark.parametrize("wrong", [[(2.0, 1.0)], [(np.nan, 1.0)], [1.0, 2.0, 3.0]])
def test_events_that_are_none_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="events must"):
        as_spans(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("collar", [0.1, 0.2, 0.5])
def test_collars_agree_with_sed_eval(collar: float) -> None:
    import sed_eval
    from dcase_util.containers import MetaDataContainer

    rng = np.random.default_rng(round(collar * 10))
    onsets_only = sed_eval.sound_event.EventBasedMetrics(["breath"], t_collar=collar, evaluate_offset=False)
    both = sed_eval.sound_event.EventBasedMetrics(["breath"], t_collar=collar, percentage_of_length=0.5)
    rows = []
    for number in range(12):
        truth = spans(rng, int(rng.integers(1, 12)))
        found = truth[rng.random(len(truth)) < 0.8] + rng.normal(0, 0.25, 2)
        found = np.concatenate((found, spans(rng, 3)))
        found = found[np.argsort(found[:, 0], kind="stable")]
        found[:, 1] = np.maximum(found[:, 1], found[:, 0] + 0.05)
        rows.append((truth, found))
        lists = [
            MetaDataContainer(
                [{"filename": f"{number}.wav", "event_label": "breath", "onset": b, "offset": e} for b, e in events]
            )
            for events in (truth.tolist(), found.tolist())
        ]
        for metric in (onsets_only, both):
            metric.evaluate(reference_event_list=lists[0], estimated_event_list=lists[1])
    total = sum(len(t) + len(f) for t, f in rows)
    for ours, theirs in (
        (sum(len(match_onsets(t[:, 0], f[:, 0], collar)) for t, f in rows), onsets_only),
        (sum(len(match_collar(t, f, collar)) for t, f in rows), both),
    ):
        assert ours > 10
        expected = theirs.results_overall_metrics()["f_measure"]["f_measure"]
        assert 2 * ours / total == pytest.approx(expected, abs=1e-9)


def test_the_report_counts_what_matches_at_both_thresholds() -> None:
    truth = [(0.0, 2.0), (3.0, 5.0), (6.0, 8.0), (9.0, 11.0)]
    found = [(0.0, 2.0), (3.0, 4.2), (6.5, 9.0), (12.0, 13.0)]
    report = event_report([recording(truth, found, 30.0)], resamples=0)
    assert report["n_true"] == report["n_predicted"] == 4
    assert report["n_matched"] == 3 and report["event_f1"] == 0.75
    assert report["event_f1_iou70"] == 0.25
    assert report["missed_per_minute"] == report["extra_per_minute"] == 2.0
    assert report["mean_iou"] == pytest.approx((1.0 + 0.6 + 1.5 / 3.0) / 3)
    assert report["onset_error_p50_s"] == 0.0 and report["onset_bias_s"] == pytest.approx(0.5 / 3)
    assert report["detection_delay_p50_s"] is None and report["revision_rate"] is None


def test_a_perfect_segmenter_scores_one_everywhere() -> None:
    rng = np.random.default_rng(3)
    rows = []
    for k in range(6):
        begins = np.cumsum(rng.uniform(2.0, 3.0, 6))
        truth = np.stack((begins, begins + 1.8), axis=1)
        announcements = [Announcement(float(b), float(b) + 0.4, float(b)) for b in begins]
        rows.append(ScoredRecording(str(k), str(k % 3), 25.0, truth, truth, announcements=announcements))
    report = event_report(rows, resamples=200)
    ones = ("event_f1", "event_f1_iou70", "mean_iou", "frame_f1", "onset_f1_100ms", "onset_offset_f1_500ms")
    assert all(report[name] == pytest.approx(1.0) for name in ones)
    assert report["event_f1_ci"] == (1.0, 1.0)
    assert report["rate_mae_bpm"] == 0.0 and report["rate_recordings"] == 6
    assert report["detection_delay_p95_s"] == pytest.approx(0.4) and report["revision_rate"] == 0.0


def test_delays_count_onsets_that_were_withdrawn() -> None:
    announcements = [
        Announcement(1.1, 1.4, 1.1),  # 0.4 after the true onset
        Announcement(4.8, 6.0, None),  # withdrawn, 1.0 after the true onset
        Announcement(9.2, 9.5, 9.0),  # its onset moved by more than 0.1 s
        Announcement(15.0, 15.2, 15.0),  # belongs to no true cycle: no delay, but an announcement
    ]
    report = delays([recording([(1.0, 2.0), (5.0, 6.0), (9.0, 10.0)], [], announcements=announcements)])
    assert report["detection_delay_p50_s"] == pytest.approx(0.5)
    assert report["standing_delay_p50_s"] == pytest.approx(0.45)
    assert (report["announced"], report["withdrawn"], report["revision_rate"]) == (4, 1, 0.5)


def test_onset_errors_are_of_matched_cycles_only() -> None:
    row = recording([(0.0, 2.0), (5.0, 7.0)], [(0.1, 2.0), (6.9, 9.0)])
    assert onset_errors([row], [match_spans(row.truth, row.found)])["onset_error_p95_s"] == pytest.approx(0.1)


def test_rates_come_from_recordings_whose_annotation_gives_one() -> None:
    regular = [(float(t), t + 2.5) for t in range(0, 18, 3)]
    half = regular[::2]
    holed = [*regular[:2], *regular[5:]]
    report = event_report([recording(regular, half), recording(holed, regular), recording(regular, [])], resamples=0)
    assert report["rate_recordings"] == 2 and report["rate_undefined"] == 1
    assert report["rate_mae_bpm"] == pytest.approx((10.0 + 20.0) / 2)
    assert respiratory_rate(np.array([1.0])) is None


def test_predictions_in_unlabelled_gaps_can_be_ignored() -> None:
    truth = [(2.0, 4.0), (4.0, 6.0), (9.0, 11.0)]
    found = [(0.0, 1.5), (2.0, 4.0), (4.0, 6.0), (6.5, 8.5), (9.0, 11.0)]
    assert unlabelled_gaps(as_spans(truth), 12.0).tolist() == [[6.0, 9.0]]
    assert unlabelled_gaps(as_spans(truth), 13.0, ends=True).tolist() == [[0.0, 2.0], [6.0, 9.0], [11.0, 13.0]]
    report = event_report([recording(truth, found, 12.0)], resamples=0)
    assert report["event_f1"] == pytest.approx(6 / 8)
    assert report["event_f1_ignoring_gaps"] == pytest.approx(6 / 7)
    assert report["event_f1_ignoring_gaps_and_ends"] == 1.0


def test_frame_f1_is_of_time() -> None:
    assert frame_f1([(as_spans([(0, 2)]), as_spans([(1, 3)]), 10.0)]) == pytest.approx(0.5)


def test_phases_are_scored_apart() -> None:
    row = recording(
        [(0.0, 4.0)],
        [(0.0, 4.0)],
        truth_phases={"inspiration": as_spans([(0, 2)]), "expiration": as_spans([(2, 4)])},
        found_phases={"inspiration": as_spans([(0, 1.5)]), "expiration": as_spans([(3.2, 4)])},
    )
    phases = event_report([row], resamples=0)["phases"]
    assert phases["inspiration"]["event_f1"] == 1.0 and phases["expiration"]["event_f1"] == 0.0
    assert phases["inspiration"]["frame_f1"] == pytest.approx(2 * 1.5 / 3.5)


def test_a_missed_cycle_counts_as_wrong_end_to_end() -> None:
    labels = ("normal", "wheeze")
    row = recording(
        [(0.0, 2.0), (3.0, 5.0), (6.0, 8.0)],
        [(0.0, 2.0), (3.0, 5.0), (9.0, 11.0)],
        truth_labels=["normal", "wheeze", "wheeze"],
        found_labels=["normal", "wheeze", None],
    )
    scores = end_to_end([row], labels, "normal")
    assert scores["specificity"] == 1.0 and scores["sensitivity"] == 0.5 and scores["score"] == 0.75
    assert scores["event_f1"] == pytest.approx(4 / 6) and scores["accuracy_matched"] == 1.0
    assert scores["f1_of"]["wheeze"] == pytest.approx(2 / 3) and scores["unanswered"] == 1
    with pytest.raises(ValueError, match="label for every cycle"):
        end_to_end([recording([(0.0, 1.0)], [])], labels, "normal")


def test_an_annotated_breath_has_the_label_of_the_found_one_that_covers_it() -> None:
    row = recording(
        [(0.0, 1.0), (2.0, 2.8), (4.0, 6.0), (8.0, 9.0)],
        [(0.0, 1.8), (1.8, 4.8), (4.8, 5.7), (8.4, 9.0)],  # the third covers the longer part, but not half
        truth_labels=["normal", "wheeze", "wheeze", "normal"],
        found_labels=["normal", "wheeze", "wheeze", "wheeze"],
        found_probabilities=[{"normal": p, "wheeze": 1.0 - p} for p in (0.9, 0.2, 0.3, 0.1)],
    )
    scores = labelled_scores([row], "normal")
    assert scores["labelled"] == 0.75 and scores["auroc_labelled"] == 0.5
    assert (scores["specificity_labelled"], scores["sensitivity_labelled"]) == (0.5, 1.0)
    assert scores["score_labelled"] == 0.75
    quiet = replace(row, found_labels=["normal", None, "wheeze", "wheeze"], found_probabilities=())
    assert labelled_scores([quiet], "normal")["labelled"] == 0.5
    assert labelled_scores([quiet], "normal")["auroc_labelled"] is None
    assert covering(as_spans([(0.0, 1.0)]), as_spans([])) == [None]
    with pytest.raises(ValueError, match="3 probabilities for 4 cycles"):
        replace(row, found_probabilities=row.found_probabilities[:3])


def test_the_interval_is_over_patients() -> None:
    good, bad = [(0.0, 1.0), (2.0, 3.0)], [(8.0, 9.0), (10.0, 11.0)]
    rows = [recording(good, good if k % 2 else bad, patient=f"p{k}") for k in range(12)]
    low, high = event_report(rows, resamples=500)["event_f1_ci"]
    assert 0.1 < low < 0.5 < high < 0.9
    one = [recording(good, good if k % 2 else bad, patient="p") for k in range(12)]
    assert event_report(one, resamples=500)["event_f1_ci"] == (0.5, 0.5)


def test_unordered_events_and_empty_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="order of their onsets"):
        recording([(3.0, 4.0), (1.0, 2.0)], [])
    with pytest.raises(ValueError, match="no recording"):
        event_report([])
