"""Targets of output frames: where the audio is, at any pace; what is not annotated has no weight."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from edge_sdk.models.segmenter import TEMPI, TEMPO_S
from edge_sdk.training.segmentation.excerpts import Annotation, Excerpt, SegmentTruth, log_mel_frames, spans
from edge_sdk.training.segmentation.phantoms import phantom_waves
from edge_sdk.training.segmentation.targets import (
    EXPIRATION,
    INSPIRATION,
    NONE,
    UNANNOTATED,
    FrameTargets,
    paint,
)
from tests.support.tiny_segmentation import FRAME_S, HOP_S, RATE, SPEC, begins_of, bursts, loud, phase_clips

WIDTH_S = 0.14
WEIGHTS = ("onset_weight", "cycle_weight", "activity_weight")
CENTRE_S = (np.arange(4000) * 2 + 0.5) * HOP_S + HOP_S
"""Of each output frame."""


def _painted(excerpt: Excerpt, frames: int | None = None) -> FrameTargets:
    return paint(excerpt, len(excerpt.frames) // 2 if frames is None else frames, WIDTH_S)


def _of(kind: Annotation, cycles: list[tuple[float, float]], seconds: float, **parts: object) -> FrameTargets:
    """Targets of an excerpt of which only the annotation matters."""
    frames = np.zeros((round(seconds / HOP_S), 1), dtype=np.float32)
    return _painted(Excerpt(frames, SegmentTruth(kind, spans(cycles), **parts), HOP_S))  # type: ignore[arg-type]


def _inside(targets: FrameTargets, begin: float, end: float) -> slice:
    """Output frames whose centres lie in ``[begin, end)``."""
    first, last = np.searchsorted(CENTRE_S[: len(targets.onset)], (begin, end))
    return slice(int(first), int(last))


def _turns(targets: FrameTargets) -> np.ndarray:
    """Angle of each output frame, 0 to 1."""
    return np.arctan2(targets.cycle[:, 1], targets.cycle[:, 0]) / (2 * np.pi) % 1.0


# -- where the audio is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pace", [0.55, 0.8, 1.0, 1.7, 2.6])
@pytest.mark.parametrize("begin", [0, 63])
def test_activity_lies_where_the_breath_is_audible(begin: int, pace: float) -> None:
    excerpt = bursts().cut(begin, 950).at_pace(pace, 800)
    targets, audible = _painted(excerpt), loud(excerpt)
    active = targets.activity > 0.5
    assert np.mean(audible == active) > 0.94
    apart = [np.abs(begins_of(audible) - frame).min() for frame in begins_of(active)]
    assert len(apart) >= 4 and max(apart) <= 1
    assert (targets.activity_weight == 1.0).all()


@pytest.mark.parametrize("kind", [Annotation.CYCLES, Annotation.EVENTS, Annotation.EXACT])
@pytest.mark.parametrize("pace", [0.6, 1.0, 2.0])
def test_onsets_peak_where_it_becomes_loud(kind: Annotation, pace: float) -> None:
    excerpt = bursts(kind).at_pace(pace, 10**6)
    targets = _painted(excerpt)
    peaks = np.flatnonzero(targets.onset > 1.0 - FRAME_S / 2 / WIDTH_S - 1e-6)
    becomes = begins_of(loud(excerpt))[: len(excerpt.truth.cycles)]
    assert len(becomes) == len(excerpt.truth.cycles)
    assert all(np.abs(peaks - frame).min() <= 1 for frame in becomes)
    assert all(np.abs(becomes - frame).min() <= 2 for frame in peaks)
    assert np.count_nonzero(targets.onset) <= 7 * len(excerpt.truth.cycles)  # the triangle is as wide at any pace
    assert targets.onset.max() <= 1.0


def test_cuts_make_no_onsets_and_angles_go_on() -> None:
    for kind in (Annotation.CYCLES, Annotation.EVENTS, Annotation.EXACT):
        cut = bursts(kind).cut(50, 900)  # one second in, half a second after an onset
        targets = _painted(cut)
        assert targets.onset[_inside(targets, 0.0, 1.2)].max() == 0.0, kind
        whole = _painted(bursts(kind))
        for name in ("onset", "activity", "cycle"):
            np.testing.assert_allclose(getattr(targets, name)[:300], getattr(whole, name)[25:325], atol=1e-5)
    cycles = _painted(bursts(Annotation.CYCLES).cut(50, 900))
    assert _turns(cycles)[0] == pytest.approx((1.0 + 1.5 * HOP_S - 0.5) / 2.0, abs=1e-4)
    assert cycles.onset_weight[0] == cycles.cycle_weight[0] == 1.0


@pytest.mark.parametrize("pace", [0.6, 1.0, 2.4])
def test_the_angle_turns_once_in_a_cycle_and_tempo_names_its_length(pace: float) -> None:
    targets = _painted(bursts(Annotation.CYCLES).at_pace(pace, 10**6))
    weighted = targets.cycle_weight > 0
    np.testing.assert_allclose(np.square(targets.cycle[weighted]).sum(axis=1), 1.0, rtol=1e-5)
    turn = np.diff(np.unwrap(2 * np.pi * _turns(targets)[weighted]))
    np.testing.assert_allclose(turn, 2 * np.pi * FRAME_S * pace / 2.0, rtol=1e-3)
    lengths = np.geomspace(TEMPO_S[0], TEMPO_S[1], TEMPI)
    assert (targets.tempo[weighted] == np.abs(np.log(lengths * pace / 2.0)).argmin()).all()
    assert (targets.tempo[~weighted] == UNANNOTATED).all()


@pytest.mark.parametrize("length_s", [0.05, 0.45, 7.0, 30.0])
def test_lengths_beyond_the_trained_ones_have_the_nearest_tempo(length_s: float) -> None:
    cycles = list(pairwise(np.arange(0.0, 3 * length_s + 1.0, length_s).tolist()))
    tempo = _of(Annotation.CYCLES, cycles, 3 * length_s).tempo
    assert set(tempo[tempo != UNANNOTATED]) == {0 if length_s < 1.0 else TEMPI - 1}


# -- true cycles -------------------------------------------------------------------------------------------------------


def test_only_the_first_part_of_a_true_cycle_is_certainly_audible() -> None:
    targets = _of(Annotation.CYCLES, [(1.0, 3.0), (3.0, 5.0)], 7.0)
    for begin in (1.0, 3.0):
        sure, doubtful = _inside(targets, begin, begin + 1.2), _inside(targets, begin + 1.2, begin + 2.0)
        assert (targets.activity[sure] == 1.0).all() and (targets.activity_weight[sure] == 0.5).all()
        assert (targets.activity_weight[doubtful] == 0.0).all()
    for outside in ((0.0, 1.0), (5.0, 7.0)):
        part = _inside(targets, *outside)
        assert not targets.activity_weight[part].any() and not targets.cycle_weight[part].any()
    assert not targets.onset_weight[_inside(targets, 0.0, 0.7)].any()  # before the annotation: unknown
    assert not targets.onset_weight[_inside(targets, 5.0, 7.0)].any()
    assert (targets.onset_weight[_inside(targets, 0.72, 4.9)] == 1.0).all()


def test_a_cut_outside_the_annotation_has_no_weight() -> None:
    excerpt = bursts(Annotation.CYCLES)
    before = excerpt.cut(0, 10)
    beyond = Excerpt(np.tile(excerpt.frames, (2, 1)), excerpt.truth, HOP_S).cut(1010, 1900)
    for part in (before, beyond):
        targets = _painted(part)
        assert len(targets.onset) and all(not getattr(targets, name).any() for name in WEIGHTS)
        assert not targets.onset.any() and (targets.tempo == UNANNOTATED).all()


# -- exact truth: simulated patients, sequences of clips ---------------------------------------------------------------


@pytest.mark.parametrize(("pause_s", "belongs"), [(0.0, True), (0.4, True), (0.49, True), (0.51, False), (3.0, False)])
def test_short_pauses_belong_to_the_cycle_and_long_ones_have_a_zero_vector(pause_s: float, belongs: bool) -> None:
    cycles = [(1.0 + k * (1.0 + pause_s), 2.0 + k * (1.0 + pause_s)) for k in range(4)]
    seconds = cycles[-1][1] + 1.0
    targets = _of(Annotation.EXACT, cycles, seconds)
    assert (targets.cycle_weight == 1.0).all() and (targets.onset_weight == 1.0).all()
    length = np.square(targets.cycle).sum(axis=1)
    for (begin, end), (following, _) in pairwise(cycles):
        pause = _inside(targets, end, following)
        assert (targets.activity[pause] == 0.0).all() and (targets.activity_weight[pause] == 1.0).all()
        np.testing.assert_allclose(length[pause], 1.0 if belongs else 0.0, atol=1e-5)
        part = _inside(targets, begin, following if belongs else end)
        turn = (CENTRE_S[part] - begin) / ((following if belongs else end) - begin)
        np.testing.assert_allclose(_turns(targets)[part], turn, atol=1e-4)
        assert belongs or (targets.tempo[pause] == UNANNOTATED).all()
    for outside in ((0.0, 1.0), (cycles[-1][1], seconds)):
        assert not targets.cycle[_inside(targets, *outside)].any()


def test_pauses_of_simulated_patients() -> None:
    """Both kinds of pauses are there, apnoeas among them, and phases follow each other without a gap."""
    found = {True: 0, False: 0}
    made = phantom_waves(16, 24.0, (8.0, 70.0), RATE, seed=1)
    for wave, truth in made:
        np.testing.assert_array_equal(truth.inspirations[:, 1], truth.expirations[:, 0])
        frames = np.zeros((wave.size // 80 - 1, 1), dtype=np.float32)
        targets = _painted(Excerpt(frames, truth, HOP_S))
        for (begin, end), (following, _) in pairwise(truth.cycles.tolist()):
            short = following - end < 0.5 * (end - begin)
            pause = _inside(targets, end, following)
            found[short] += pause.stop > pause.start
            np.testing.assert_allclose(np.square(targets.cycle[pause]).sum(axis=1), float(short), atol=1e-5)
            assert (targets.phase[pause] == NONE).all() and (targets.cycle_weight[pause] == 1.0).all()
        assert set(np.unique(targets.phase)) == {INSPIRATION, EXPIRATION, NONE}
    assert found[True] >= 10 and found[False] >= 10
    again = phantom_waves(4, 24.0, (8.0, 70.0), RATE, seed=1)
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(made[:4], again, strict=True))
    assert not np.array_equal(made[0][0], phantom_waves(1, 24.0, (8.0, 70.0), RATE, seed=2)[0][0])
    rates = [60.0 / np.median(np.diff(t.cycles[:, 0])) for _, t in made if len(t.cycles) > 2]
    assert max(rates) / min(rates) > 2.5


def test_clips_become_breaths_of_inspiration_then_expiration() -> None:
    wave, truth = phase_clips().sequence(8 * RATE, np.random.default_rng(0))
    assert wave.size > 7 * RATE and truth.kind is Annotation.EXACT
    assert len(truth.cycles) == len(truth.inspirations) == len(truth.expirations) >= 2
    assert (truth.inspirations[:, 1] <= truth.expirations[:, 0]).all()
    assert (truth.cycles[1:, 0] >= truth.cycles[:-1, 1] - 0.05).all()
    excerpt = Excerpt(log_mel_frames([wave], SPEC)[0], truth, HOP_S)
    targets = _painted(excerpt)
    count = len(targets.phase)
    level = excerpt.frames[: 2 * count].reshape(count, -1).mean(axis=1)
    inspired, expired = (np.median(level[targets.phase == phase]) for phase in (INSPIRATION, EXPIRATION))
    assert inspired > expired + np.log(25)  # ten times as loud, in natural-log units of energy: 4.6
    assert UNANNOTATED in targets.phase  # late in a clip the phase may be over
    becomes = np.array([onset for onset in truth.cycles[:, 0] if onset > 0.1])
    rises = np.flatnonzero(level[1:] - level[:-1] > 1.5) * FRAME_S
    assert all(np.abs(rises - onset).min() <= 2 * FRAME_S for onset in becomes)


# -- audible events ----------------------------------------------------------------------------------------------------

REGULAR = [(1.0, 1.8), (2.2, 3.0), (3.4, 4.2), (4.6, 5.4)]


def test_events_outside_regular_stretches_have_no_onset_weight() -> None:
    """An event after a long gap may be the middle of a breath, or the first after unlabelled ones."""
    targets = _of(Annotation.EVENTS, [*REGULAR, (9.0, 9.8), (14.0, 14.8)], 18.0)
    assert targets.onset[_inside(targets, 8.9, 9.1)].max() > 0.8  # painted, but
    outside = [_inside(targets, 0.0, 0.68), _inside(targets, 4.8, 18.0)]
    for part in outside:
        assert not targets.onset_weight[part].any() and not targets.cycle_weight[part].any()
        assert (targets.tempo[part] == UNANNOTATED).all()
    regular = _inside(targets, 0.75, 4.7)
    assert (targets.onset_weight[regular] == 1.0).all()
    assert (targets.cycle_weight[_inside(targets, 1.0, 4.6)] == 1.0).all()
    turns = _turns(targets)
    for (begin, _), (following, _) in pairwise(REGULAR):
        part = _inside(targets, begin, following)
        np.testing.assert_allclose(turns[part], (CENTRE_S[part] - begin) / 1.2, atol=1e-4)


@pytest.mark.parametrize(
    "events",
    [
        [(1.0, 1.8)],
        [(1.0, 1.8), (2.2, 3.0)],  # one interval is no rhythm
        [(1.0, 1.4), (4.0, 4.4), (7.0, 7.4)],  # as regular, but there may be others between them
        [(1.0, 1.8), (2.0, 2.8), (9.0, 9.8)],  # no interval is near the median
    ],
)
def test_a_few_events_are_no_rhythm(events: list[tuple[float, float]]) -> None:
    targets = _of(Annotation.EVENTS, events, 12.0)
    assert not targets.onset_weight.any() and not targets.cycle_weight.any()
    assert (targets.tempo == UNANNOTATED).all()
    for begin, end in events:
        part = _inside(targets, begin, end)
        assert (targets.activity[part] == 1.0).all() and (targets.activity_weight[part] == 1.0).all()


def test_unlabelled_time_is_not_silence_but_short_gaps_are() -> None:
    targets = _of(Annotation.EVENTS, [(1.0, 2.0), (2.8, 3.8), (4.7, 5.7)], 8.0)
    short, long, end = (_inside(targets, *part) for part in ((2.0, 2.8), (3.8, 4.7), (5.7, 8.0)))
    assert (targets.activity_weight[short] == 1.0).all() and not targets.activity[short].any()
    for part in (long, end, _inside(targets, 0.0, 1.0)):
        assert (targets.activity_weight[part] == 0.25).all() and not targets.activity[part].any()


def test_phases_of_events_count_where_a_corpus_gives_them() -> None:
    halves = {"inspirations": spans([(1.0, 1.4)]), "expirations": spans([(1.4, 2.0)])}
    targets = _of(Annotation.EVENTS, [(1.0, 2.0)], 3.0, **halves)
    assert (targets.phase[_inside(targets, 1.0, 1.4)] == INSPIRATION).all()
    assert (targets.phase[_inside(targets, 1.4, 2.0)] == EXPIRATION).all()
    assert (targets.phase[_inside(targets, 2.0, 3.0)] == UNANNOTATED).all()


# -- without cycles, and beyond the end --------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_audio_without_cycles_has_neither_onset_nor_angle(weight: float) -> None:
    targets = _of(Annotation.NONE, [], 4.0, weight=weight, phase_annotated=spans([(0.0, 2.0)]))
    for name in WEIGHTS:
        np.testing.assert_allclose(getattr(targets, name), weight)
    assert not any(getattr(targets, name).any() for name in ("onset", "cycle", "activity"))
    assert (targets.tempo == UNANNOTATED).all()
    assert (targets.phase[_inside(targets, 0.0, 2.0)] == NONE).all()
    assert (targets.phase[_inside(targets, 2.0, 4.0)] == UNANNOTATED).all()


@pytest.mark.parametrize("kind", Annotation)
@pytest.mark.parametrize("count", [0, 1, 2, 151, 152])
def test_frames_beyond_the_excerpt_have_no_weight(kind: Annotation, count: int) -> None:
    excerpt = bursts(kind) if kind is not Annotation.NONE else Excerpt(
        np.zeros((400, 1), np.float32), SegmentTruth(kind, phase_annotated=spans([(0.0, 99.0)])), HOP_S
    )  # fmt: skip
    targets = _painted(excerpt.cut(0, count), 200)
    assert all(len(getattr(targets, name)) == 200 for name in FrameTargets.names())
    for name in WEIGHTS:
        assert not getattr(targets, name)[count // 2 :].any()
        assert count < 100 or getattr(targets, name)[: count // 2].any()
    assert (targets.tempo[count // 2 :] == UNANNOTATED).all() and (targets.phase[count // 2 :] == UNANNOTATED).all()
