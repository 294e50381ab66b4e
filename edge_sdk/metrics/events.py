"""Scores of found respiratory cycles: events, onsets, delays, rates; the same code offline and for a stream.

Event F1 counts one-to-one matches at an intersection over union (IoU) of at least 0.5 or 0.7; the collars are those of
sed_eval (https://github.com/TUT-ARG/sed_eval), which is the oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edge_sdk.metrics.bootstrap import RESAMPLES, f1_intervals
from edge_sdk.metrics.matching import (
    Floats,
    as_spans,
    covering,
    f1,
    frame_f1,
    iou,
    match_collar,
    match_onsets,
    match_shifted,
    match_spans,
)
from edge_sdk.metrics.ranking import auroc
from edge_sdk.metrics.regions import annotated_regions, mostly_outside, unlabelled_gaps
from edge_sdk.metrics.respiratory_rate import RATE_CYCLES, RatedRecording, rate_figures, respiratory_rate

COLLARS_S = (0.1, 0.2, 0.5)
ONSET_COLLAR_S = 0.5
"""An announcement belongs to the true onset nearest to it, when that is no farther than this."""

MOVED_S = 0.1
"""A final onset that is farther than this from the announced one is a revision."""

_SHIFTS = np.linspace(-0.5, 0.5, 41)  # of the phase-free F1, in median cycles


@dataclass(frozen=True, slots=True)
class Announcement:
    """A provisional onset as it was emitted, or a final cycle without one."""

    onset_s: float
    emitted_s: float  # seconds of audio consumed at the time of emission
    final_onset_s: float | None  # of the final cycle it became; None: withdrawn

    @property
    def revised(self) -> bool:
        """Withdrawn, or its onset moved by more than :data:`MOVED_S`."""
        return self.final_onset_s is None or abs(self.final_onset_s - self.onset_s) > MOVED_S


@dataclass(frozen=True, slots=True)
class ScoredRecording:
    """Annotated and found cycles of one recording; all times in seconds of the recording."""

    name: str
    patient: str
    duration_s: float
    truth: Floats  # [n, 2] begin and end of the annotated cycles, by onset
    found: Floats  # [m, 2] final cycles, by onset
    truth_labels: Sequence[str] = ()  # [n] or empty
    found_labels: Sequence[str | None] = ()  # [m] or empty; None: not classified
    found_probabilities: Sequence[Mapping[str, float]] = ()  # [m] by label, or empty
    announcements: Sequence[Announcement] | None = None  # None: times of emission are unknown
    truth_phases: Mapping[str, Floats] = field(default_factory=dict)  # phase → [k, 2]
    found_phases: Mapping[str, Floats] = field(default_factory=dict)
    found_rate_bpm: float | None = None  # that the stream states; None: by the found onsets
    rate_confident: bool | None = None  # what the stream states of its rate; None: nothing
    found_audible: Floats | None = None  # [m, 2] audible span of each found cycle; None: unknown

    def __post_init__(self) -> None:
        object.__setattr__(self, "truth", _by_onset(self.truth, self.truth_labels))
        object.__setattr__(self, "found", _by_onset(self.found, self.found_labels))
        if self.found_probabilities and len(self.found_probabilities) != len(self.found):
            raise ValueError(f"{self.name}: {len(self.found_probabilities)} probabilities for {len(self.found)} cycles")


def _by_onset(spans: Floats, labels: Sequence[Any]) -> Floats:
    array = as_spans(spans)
    if labels and len(labels) != len(array):
        raise ValueError(f"{len(labels)} labels for {len(array)} events")
    if (np.diff(array[:, 0]) < 0).any():
        raise ValueError("events must be given in the order of their onsets")
    return array


def event_report(
    recordings: Sequence[ScoredRecording],
    *,
    labels: Sequence[str] = (),
    normal_label: str = "normal",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """All figures of a set of recordings as one mapping for JSON.

    Parameters
    ----------
    recordings
        Counts are summed over all of them, also those without an annotated cycle.
    labels
        Classes of the end-to-end scores; empty: no end-to-end scores.
    normal_label
        The class of normal cycles among ``labels``.
    resamples, seed
        Of the patient bootstrap; with 0 resamples there are no intervals.

    Raises
    ------
    ValueError
        There is no recording.
    """
    if not recordings:
        raise ValueError("no recording to score")
    pairs = [match_spans(r.truth, r.found) for r in recordings]
    strict = [match_spans(r.truth, r.found, 0.7) for r in recordings]
    n_true, n_found = sum(len(r.truth) for r in recordings), sum(len(r.found) for r in recordings)
    matched = sum(map(len, pairs))
    report = _counts(recordings, pairs, n_true, n_found)
    report["event_f1_iou70"] = f1(sum(map(len, strict)), n_true, n_found)
    for name, ends in (("event_f1_ignoring_gaps", False), ("event_f1_ignoring_gaps_and_ends", True)):
        ignored = sum(_ignored(r, p, ends=ends) for r, p in zip(recordings, pairs, strict=True))
        report[name] = f1(matched, n_true, n_found - ignored)
    onsets = {
        collar: [len(match_onsets(r.truth[:, 0], r.found[:, 0], collar)) for r in recordings] for collar in COLLARS_S
    }
    report |= _collars(recordings, onsets, n_true, n_found)
    inside = [len(r.found) - _outside(r) for r in recordings]
    report["n_predicted_regional"] = sum(inside)
    report["event_f1_regional"] = f1(matched, n_true, sum(inside))
    report["count_ratio_regional"] = sum(inside) / n_true if n_true else float("nan")
    phase_free = [phase_free_matches(r) for r in recordings]
    report["event_f1_phase_free"] = f1(sum(phase_free), n_true, n_found)
    report |= audible_scores(recordings) if all(r.found_audible is not None for r in recordings) else {}
    report |= onset_errors(recordings, pairs) | delays(recordings) | rates_of(recordings)
    if any(r.truth_phases for r in recordings):
        report["phases"] = phase_scores(recordings)
    if labels:
        report["end_to_end"] = end_to_end(recordings, labels, normal_label)
    if resamples:
        hits = {
            "event_f1": [*map(len, pairs)],
            "event_f1_iou70": [*map(len, strict)],
            "event_f1_phase_free": phase_free,
            "onset_f1_200ms": onsets[0.2],
        }
        of, n = [r.patient for r in recordings], [len(r.truth) for r in recordings]
        report |= f1_intervals(of, n, [len(r.found) for r in recordings], hits, resamples, seed)
        report |= f1_intervals(of, n, inside, {"event_f1_regional": hits["event_f1"]}, resamples, seed)
    return report


def _counts(
    recordings: Sequence[ScoredRecording], pairs: Sequence[Sequence[tuple[int, int]]], n_true: int, n_found: int
) -> dict[str, Any]:
    """Numbers of cycles and what they give by themselves; ``pairs``: the matched cycles of each recording."""
    matched, minutes = sum(map(len, pairs)), sum(r.duration_s for r in recordings) / 60.0
    return {
        "recordings": len(recordings),
        "patients": len({r.patient for r in recordings}),
        "minutes": minutes,
        "n_true": n_true,
        "n_predicted": n_found,
        "n_matched": matched,
        "event_f1": f1(matched, n_true, n_found),
        "event_precision": matched / n_found if n_found else float("nan"),
        "event_recall": matched / n_true if n_true else float("nan"),
        "count_ratio": n_found / n_true if n_true else float("nan"),
        "mean_iou": _mean_iou(recordings, pairs),
        "missed_per_minute": (n_true - matched) / minutes if minutes else float("nan"),
        "extra_per_minute": (n_found - matched) / minutes if minutes else float("nan"),
        "frame_f1": frame_f1([(r.truth, r.found, r.duration_s) for r in recordings]),
    }


def _mean_iou(recordings: Sequence[ScoredRecording], pairs: Sequence[Sequence[tuple[int, int]]]) -> float:
    values = [iou(r.truth, r.found)[i, j] for r, matched in zip(recordings, pairs, strict=True) for i, j in matched]
    return float(np.mean(values)) if values else float("nan")


def _collars(
    recordings: Sequence[ScoredRecording], onsets: Mapping[float, Sequence[int]], n_true: int, n_found: int
) -> dict[str, float]:
    """F1 of onsets, and of onsets with ends; ``onsets``: matched onsets of each recording by collar."""
    report = {}
    for collar, matched in onsets.items():
        both = sum(len(match_collar(r.truth, r.found, collar)) for r in recordings)
        report[f"onset_f1_{round(collar * 1000)}ms"] = f1(sum(matched), n_true, n_found)
        report[f"onset_offset_f1_{round(collar * 1000)}ms"] = f1(both, n_true, n_found)
    return report


def phase_free_matches(recording: ScoredRecording) -> int:
    """Most matched cycles (IoU >= 0.5) after one constant shift of all found cycles, at most half a median cycle.

    A segmenter that takes expirations for onsets throughout has the right cycles at the wrong phase.
    """
    if not len(recording.truth) or not len(recording.found):
        return 0
    median_s = float(np.median(recording.truth[:, 1] - recording.truth[:, 0]))
    return match_shifted(recording.truth, recording.found, _SHIFTS * median_s)


# -- what the annotation leaves out ------------------------------------------------------------------------------------


def _ignored(recording: ScoredRecording, pairs: Sequence[tuple[int, int]], *, ends: bool) -> int:
    """Unmatched cycles of which more than half lies in an unlabelled gap."""
    gaps = unlabelled_gaps(recording.truth, recording.duration_s, ends=ends)
    matched = {j for _, j in pairs}
    count = 0
    for j, (begin, end) in enumerate(recording.found):
        shared = np.minimum(gaps[:, 1], end) - np.maximum(gaps[:, 0], begin)
        count += j not in matched and bool((2 * shared > end - begin).any())
    return count


def audible_scores(recordings: Sequence[ScoredRecording]) -> dict[str, float]:
    """F1 of the *audible spans* of the found cycles at IoU >= 0.5, everywhere and in the annotated regions.

    Where a publisher marks sounds, not cycles, the pause at the end of a cycle belongs to no annotated event.
    """
    rows = [replace(r, found=as_spans(r.found if r.found_audible is None else r.found_audible)) for r in recordings]
    matched, n_true = sum(len(match_spans(r.truth, r.found)) for r in rows), sum(len(r.truth) for r in rows)
    n_found, outside = sum(len(r.found) for r in rows), sum(map(_outside, rows))
    return {
        "event_f1_audible": f1(matched, n_true, n_found),
        "event_f1_audible_regional": f1(matched, n_true, n_found - outside),
    }


def _outside(recording: ScoredRecording) -> int:
    """Found cycles that lie mostly outside the annotated regions."""
    return int(mostly_outside(recording.found, annotated_regions(recording.truth)).sum())


# -- times -------------------------------------------------------------------------------------------------------------


def _percentiles(name: str, values: Sequence[float]) -> dict[str, float | None]:
    low, high = np.percentile(values, [50, 95]).tolist() if len(values) else (None, None)
    return {f"{name}_p50_s": low, f"{name}_p95_s": high}


def onset_errors(
    recordings: Sequence[ScoredRecording], pairs: Sequence[Sequence[tuple[int, int]]]
) -> dict[str, float | None]:
    """Distance of true and found onset of the cycles matched at IoU >= 0.5: median, 95th percentile, mean sign."""
    signed = [r.found[j, 0] - r.truth[i, 0] for r, matched in zip(recordings, pairs, strict=True) for i, j in matched]
    bias = float(np.mean(signed)) if signed else None
    return _percentiles("onset_error", np.abs(signed).tolist()) | {"onset_bias_s": bias}


def delays(recordings: Sequence[ScoredRecording]) -> dict[str, float | int | None]:
    """Detection delay and revisions of the announced onsets; ``None`` where times of emission are unknown.

    Every announcement, withdrawn ones too, is compared with the nearest true onset within :data:`ONSET_COLLAR_S`; its
    delay is emission minus *true* onset. ``standing``: only the announcements that became final.
    """
    given = [(r, a) for r in recordings for a in r.announcements or ()]
    known = any(r.announcements is not None for r in recordings)
    all_delays, standing = [], []
    for recording, announcement in given:
        onsets = recording.truth[:, 0]
        if len(onsets) == 0:
            continue
        nearest = float(onsets[np.argmin(np.abs(onsets - announcement.onset_s))])
        if abs(nearest - announcement.onset_s) > ONSET_COLLAR_S:
            continue
        all_delays.append(announcement.emitted_s - nearest)
        if announcement.final_onset_s is not None:
            standing.append(announcement.emitted_s - nearest)
    report: dict[str, float | int | None] = {}
    report |= _percentiles("detection_delay", all_delays) | _percentiles("standing_delay", standing)
    report["announced"] = len(given) if known else None
    report["withdrawn"] = sum(a.final_onset_s is None for _, a in given) if known else None
    report["revision_rate"] = sum(a.revised for _, a in given) / len(given) if given else (0.0 if known else None)
    return report


def rates_of(recordings: Sequence[ScoredRecording]) -> dict[str, Any]:
    """Error of the respiratory rate where the annotation gives one: >= 4 cycles and no long unlabelled gap.

    ``rate_any`` holds the same figures over every recording with two annotated onsets, pauses and gaps included.
    """
    regular, every = [], []
    for recording in recordings:
        true = respiratory_rate(recording.truth[:, 0])
        if true is None:
            continue
        found = recording.found_rate_bpm or respiratory_rate(recording.found[:, 0])
        rated = RatedRecording(true, found, recording.rate_confident)
        every.append(rated)
        if len(recording.truth) >= RATE_CYCLES and not len(unlabelled_gaps(recording.truth, recording.duration_s)):
            regular.append(rated)
    return rate_figures(regular) | {"rate_any": rate_figures(every)}


# -- frames and phases -------------------------------------------------------------------------------------------------


def phase_scores(recordings: Sequence[ScoredRecording]) -> dict[str, dict[str, float | int]]:
    """Event F1 (IoU >= 0.5) and frame F1 of each phase, over the recordings with annotated phases."""
    annotated = [r for r in recordings if r.truth_phases]
    report: dict[str, dict[str, float | int]] = {}
    for phase in sorted({name for r in annotated for name in r.truth_phases}):
        rows = [
            (as_spans(r.truth_phases.get(phase, [])), as_spans(r.found_phases.get(phase, [])), r.duration_s)
            for r in annotated
        ]
        matched = sum(len(match_spans(true, found)) for true, found, _ in rows)
        n_true, n_found = sum(len(true) for true, _, _ in rows), sum(len(found) for _, found, _ in rows)
        report[phase] = {
            "n_true": n_true,
            "n_predicted": n_found,
            "event_f1": f1(matched, n_true, n_found),
            "frame_f1": frame_f1(rows),
        }
    return report


# -- segment and classify ----------------------------------------------------------------------------------------------


def end_to_end(recordings: Sequence[ScoredRecording], labels: Sequence[str], normal_label: str) -> dict[str, Any]:
    """Scores of cycles found *and* labelled right: a cycle that was missed or has no label counts as wrong.

    ``event_f1``: matched at IoU >= 0.5 with the same label; ``f1_of``: the same for each label; ``specificity``,
    ``sensitivity`` and ``score`` are the ICBHI ones over all annotated cycles, ``accuracy_matched`` over the matched.
    ``…_labelled``: see :func:`labelled_scores`.

    Raises
    ------
    ValueError
        A recording without a label for every cycle.
    """
    right = dict.fromkeys(labels, 0)
    true_of, found_of = dict.fromkeys(labels, 0), dict.fromkeys(labels, 0)
    matched = 0
    for r in recordings:
        if len(r.truth_labels) != len(r.truth) or len(r.found_labels) != len(r.found):
            raise ValueError(f"{r.name}: end-to-end scores need a label for every cycle")
        for label in r.truth_labels:
            true_of[label] = true_of.get(label, 0) + 1
        for found_label in r.found_labels:
            if found_label is not None:
                found_of[found_label] = found_of.get(found_label, 0) + 1
        for i, j in match_spans(r.truth, r.found):
            matched += 1
            if r.truth_labels[i] == r.found_labels[j]:
                right[r.truth_labels[i]] = right.get(r.truth_labels[i], 0) + 1
    n_true, n_found, hits = sum(true_of.values()), sum(len(r.found) for r in recordings), sum(right.values())
    abnormal = n_true - true_of[normal_label]
    specificity = right[normal_label] / true_of[normal_label] if true_of[normal_label] else float("nan")
    sensitivity = (hits - right[normal_label]) / abnormal if abnormal else float("nan")
    return {
        "event_f1": f1(hits, n_true, n_found),
        "accuracy_matched": hits / matched if matched else float("nan"),
        "f1_of": {label: f1(right[label], true_of[label], found_of[label]) for label in labels},
        "specificity": specificity,
        "sensitivity": sensitivity,
        "score": (specificity + sensitivity) / 2,
        "unanswered": n_found - sum(found_of.values()),
        **labelled_scores(recordings, normal_label),
    }


def labelled_scores(recordings: Sequence[ScoredRecording], normal_label: str) -> dict[str, float | None]:
    """Labels of annotated breaths: each has that of the found cycle which covers most of it, at least half.

    ``labelled``: share of the annotated breaths that have such a cycle with a label; the others are scores over these:
    the ICBHI ones, and ``auroc_labelled`` of the probability of abnormal, where the recordings have probabilities.
    """
    rows: list[tuple[str, str, float]] = []
    for r in recordings:
        for i, j in enumerate(covering(r.truth, r.found)):
            if j is not None and (label := r.found_labels[j]) is not None:
                given = r.found_probabilities[j] if r.found_probabilities else {}
                rows.append((r.truth_labels[i], label, 1.0 - given.get(normal_label, float("nan"))))
    abnormal = np.array([true != normal_label for true, _, _ in rows], dtype=np.bool_)
    right = np.array([true == found for true, found, _ in rows])
    scores = np.array([p for _, _, p in rows])
    specificity, sensitivity = (
        float(right[part].mean()) if part.any() else float("nan") for part in (~abnormal, abnormal)
    )
    n_true = sum(len(r.truth) for r in recordings)
    return {
        "labelled": len(rows) / n_true if n_true else float("nan"),
        "specificity_labelled": specificity,
        "sensitivity_labelled": sensitivity,
        "score_labelled": (specificity + sensitivity) / 2,
        "auroc_labelled": auroc(abnormal, scores) if len(rows) and np.isfinite(scores).all() else None,
    }
